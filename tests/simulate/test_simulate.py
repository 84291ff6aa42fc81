"""The simulated mission: its orbit, its world, its noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pandas as pd
import pytest

from cryotile.errors import InvalidValue, UnwritablePath
from cryotile.points import SURFACE_TYPES
from cryotile.readers import read_granule
from cryotile.simulate import PRODUCTS, World, simulate
from cryotile.simulate.mission import Mission, Noise, crossings, fly, pass_error
from cryotile.simulate.orbit import CRYOSAT2, ICESAT2

SMALL = World(bounds=(-20e3, -1370e3, 20e3, -1330e3), lrm_radius=9e3)
START = "2019-03-01"


def moment(text: str) -> np.datetime64:
    return np.datetime64(text, "us")


def mission_of(product: str, *, world: World = SMALL, seed: int = 3, **noise: float) -> Mission:
    chosen = PRODUCTS[product]
    return Mission(
        world, chosen.orbit, Noise(**noise) if noise else chosen.noise, seed, chosen.lateral
    )


def flown(mission: Mission, start: str, stop: str) -> list[Any]:
    flights = (fly(mission, c) for c in crossings(mission, moment(start), moment(stop)))
    return [f for f in flights if f is not None]


def echoes_of(mission: Mission, start: str, stop: str) -> pd.DataFrame:
    flights = flown(mission, start, stop)
    return pd.concat(
        [b.assign(number=f.number) for f in flights for b in f.beams], ignore_index=True
    )


# The orbit


def test_a_satellite_inclined_by_92_degrees_reaches_88_degrees_of_latitude() -> None:
    _, latitude = CRYOSAT2.ground_track(1, np.linspace(0, 1, 100_001))
    # Geodetic latitude is up to 0.2 degrees more than geocentric latitude, but hardly more near a pole.
    assert latitude.max() == pytest.approx(88.0, abs=0.02)
    assert latitude.min() == pytest.approx(-88.0, abs=0.02)


def test_the_ground_track_repeats_exactly_after_5344_orbits() -> None:
    phase = np.linspace(0, 1, 1001)
    first, again = (CRYOSAT2.ground_track(number, phase) for number in (1000, 1000 + 5344))
    np.testing.assert_array_equal(first, again)


def test_5344_orbits_take_369_turns_of_the_earth_under_the_orbit_plane() -> None:
    node = np.zeros(1)
    elapsed = CRYOSAT2.time(5344, node) - CRYOSAT2.time(0, node)
    # The plane of an orbit at 92 degrees turns eastward by a quarter of a degree a day: 369 turns are 368.24 days.
    assert elapsed[0] / np.timedelta64(1, "D") == pytest.approx(368.24, abs=0.01)


def test_each_repeat_crosses_the_equator_northward_at_5344_evenly_spaced_longitudes() -> None:
    longitude, latitude = CRYOSAT2.ground_track(np.arange(5344)[:, None], np.zeros(1))
    assert np.all(latitude == 0)
    gaps = np.diff(np.sort(longitude.ravel()))
    np.testing.assert_allclose(gaps, 360 / 5344, rtol=1e-6)


def test_icesat2_repeats_in_91_days_over_1387_tracks() -> None:
    days = (ICESAT2.time(1387, np.zeros(1)) - ICESAT2.time(0, np.zeros(1))) / np.timedelta64(1, "D")
    assert days[0] == pytest.approx(90.82, abs=0.05)
    assert ICESAT2.cycle(2 * 1387 + 1161) == (3, 1161)


def test_the_orbit_meets_the_node_of_another_real_icesat2_granule(granules: Path) -> None:
    with h5py.File(granules / "processed_ATL06_20190416093911_02770303_002_01.h5") as file:
        orbit = {name: dataset[0] for name, dataset in file["orbit_info"].items()}
    number = 1387 * (int(orbit["cycle_number"]) - 1) + int(orbit["rgt"])
    longitude, _ = ICESAT2.ground_track(number, np.zeros(1))
    assert longitude[0] == pytest.approx(orbit["lan"], abs=0.001)
    seconds = (ICESAT2.time(number, np.zeros(1))[0] - moment("2018-01-01")) / np.timedelta64(1, "s")
    assert seconds == pytest.approx(orbit["crossing_time"], abs=30)


def test_the_ground_track_follows_that_of_a_real_cryosat2_pass(granules: Path) -> None:
    (path,) = granules.glob("CS_OFFL_SIR_SINI2__20190504*.nc")
    with netCDF4.Dataset(path) as file:
        real_longitude, real_latitude = file["lon_20_ku"][:], file["lat_20_ku"][:]
        number = int(file.abs_orbit_number)
    longitude, latitude = CRYOSAT2.ground_track(number, np.linspace(0.6, 0.75, 20_001))
    order = np.argsort(latitude)
    across = np.interp(real_latitude, latitude[order], np.unwrap(longitude[order], period=360))
    apart = (
        ((across - real_longitude + 180) % 360 - 180) * 111.2 * np.cos(np.radians(real_latitude))
    )
    assert np.abs(apart).max() < 5  # km; the real orbit is not quite circular


def test_all_orbits_at_once_find_the_crossings_found_step_by_step_along_the_track() -> None:
    world = World(bounds=(-40e3, -1390e3, 40e3, -1310e3))
    mission = mission_of("cryotempo", world=world)
    start, stop = moment("2019-05-04T12:00"), moment("2019-05-20")
    found = {
        (f.number, bool(f.beams[0]["ascending"].iloc[0]))
        for f in flown(mission, str(start), str(stop))
    }
    walked = set()
    x_min, y_min, x_max, y_max = world.bounds
    phase = np.arange(0, 1, 1 / 20_000)
    for number in range(CRYOSAT2.number(start), CRYOSAT2.number(stop) + 1):
        x, y = world.to_xy(*CRYOSAT2.ground_track(number, phase))
        inside = (x > x_min) & (x < x_max) & (y > y_min) & (y < y_max)
        for ascending in (True, False):
            if (inside & ((np.cos(2 * np.pi * phase) > 0) == ascending)).sum() > 4:
                walked.add((number, ascending))
    assert walked
    assert walked <= found
    assert len(found - walked) <= 2  # corners cut by less than four coarse steps


def test_a_crossing_that_turns_at_88_degrees_is_one_granule_of_two_passes(tmp_path: Path) -> None:
    world = World(crs="EPSG:3031", bounds=(150e3, -60e3, 270e3, 60e3))
    paths = simulate(tmp_path, world=world, start="2019-01-01", years=0.02)
    turning = []
    for path in paths:
        with netCDF4.Dataset(path) as file:
            starts = file.ascending_start_record, file.descending_start_record
            assert file.zone == "Antarctica"
            if "None" not in starts:
                turning.append(path)
                assert min(starts) == 0 < max(starts)
    assert turning
    directions = read_granule(turning[0]).points["ascending"]
    assert set(directions) == {True, False}


# The world


def places(world: World, count: int = 4000) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    random = np.random.default_rng(1)
    x_min, y_min, x_max, y_max = world.bounds
    return random.uniform(x_min, x_max, count), random.uniform(y_min, y_max, count)


def test_the_true_rate_is_the_derivative_of_the_true_elevation() -> None:
    world = World()
    x, y = places(world)
    before, after = (world.elevation(x, y, moment(t)) for t in ("2012-01-01T00", "2013-12-31T12"))
    years = 730.5 / 365.25
    np.testing.assert_allclose((after - before) / years, world.dhdt(x, y), atol=1e-9)


def test_outlets_thin_by_three_metres_a_year_and_the_interior_thickens_slightly() -> None:
    world = World()
    x, y = np.meshgrid(np.linspace(-90e3, 90e3, 181), np.linspace(-1440e3, -1260e3, 181))
    rate = world.dhdt(x, y)
    assert -3.3 < rate.min() < -2.7
    assert world.dhdt(*world.centre) == pytest.approx(0.15, abs=0.01)
    assert 0.1 < rate.max() < 0.2


def test_only_ice_changes_and_all_four_surfaces_occur() -> None:
    world = World()
    x, y = places(world, 20_000)
    kind = np.array(SURFACE_TYPES)[world.surface_type(x, y)]
    assert set(kind) == {"ocean", "grounded_ice", "floating_ice", "ice_free_land"}
    assert np.all(world.dhdt(x, y)[np.isin(kind, ["ocean", "ice_free_land"])] == 0)
    assert np.any(world.dhdt(x, y)[kind == "floating_ice"] != 0)


def test_a_seasonal_cycle_does_not_change_the_elevation_after_whole_years() -> None:
    plain, seasonal = World(), World(seasonal=0.5)
    x, y = plain.centre
    year = np.timedelta64(31_557_600, "s")
    winter = moment("2012-07-01") + year // 2
    for world in (plain, seasonal):
        rise = world.elevation(x, y, winter + 2 * year) - world.elevation(x, y, winter)
        assert rise == pytest.approx(2 * world.dhdt(x, y), abs=1e-9)
    assert seasonal.elevation(x, y, winter) - plain.elevation(x, y, winter) == pytest.approx(0.5)


def test_the_surface_is_nearly_a_plane_within_a_search_radius() -> None:
    world = World()
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    distance = np.repeat([500.0, 1000.0, 1500.0, 1900.0], len(angle))
    u, v = distance * np.tile(np.cos(angle), 4), distance * np.tile(np.sin(angle), 4)
    design = np.column_stack([u, v, np.ones_like(u)])
    for x, y in zip(*places(world, 300), strict=True):
        if np.all(world.surface_type(x + u, y + v) == SURFACE_TYPES.index("grounded_ice")):
            z = world.elevation(x + u, y + v, moment("2012-07-01"))
            misfit = z - design @ np.linalg.lstsq(design, z, rcond=None)[0]
            assert np.sqrt(np.mean(misfit**2)) < 0.5


# The noise


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_simulation_is_that_of_its_seed_from_the_start_of_its_satellite_and_says_what_it_is(
    tmp_path: Path, product: str
) -> None:
    def contents(name: str, seed: int) -> dict[str, bytes]:
        paths = simulate(tmp_path / name, product=product, years=0.02, world=SMALL, seed=seed)
        return {path.name: path.read_bytes() for path in paths}

    first, again, other = contents("first", 5), contents("again", 5), contents("other", 6)
    assert first
    assert first == again
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())
    for name in first:
        granule = read_granule(tmp_path / "first" / name, surface_types=SURFACE_TYPES)
        assert granule.simulated
        assert granule.points["time"].min() >= pd.Timestamp(PRODUCTS[product].start)


def test_a_longer_mission_gives_the_same_granules_and_more(tmp_path: Path) -> None:
    short = simulate(tmp_path / "short", start=START, years=0.1, world=SMALL)
    long = simulate(tmp_path / "long", start="2019-02-01", years=0.3, world=SMALL)
    longer = {p.name: p for p in long}
    assert len(long) > len(short)
    assert all(longer[p.name].read_bytes() == p.read_bytes() for p in short)


def test_without_noise_an_echo_is_the_true_elevation_at_its_position() -> None:
    silent = {"white": 0, "along_pass": 0, "outlier_share": 0, "bad_share": 0, "lost_share": 0}
    mission = mission_of("cryotempo", ambiguous_share=0, **silent)
    echoes = echoes_of(mission, "2019-01-01", "2019-04-01")
    x, y = SMALL.to_xy(echoes["longitude"].to_numpy(), echoes["latitude"].to_numpy())
    truth = SMALL.elevation(
        echoes["x"].to_numpy(), echoes["y"].to_numpy(), echoes["time"].to_numpy()
    )
    np.testing.assert_allclose(echoes["elevation"], truth, atol=1e-9)
    np.testing.assert_allclose(np.column_stack([x, y]), echoes[["x", "y"]], atol=1e-3)


def test_a_bad_pass_has_the_error_asked_for() -> None:
    bad = mission_of("cryotempo", bad_share=0.2, bad_error=7.0, along_pass=0.05)
    good = mission_of("cryotempo", bad_share=0.0, along_pass=0.05)
    shift = [
        pass_error(bad, n, ascending=up) - pass_error(good, n, ascending=up)
        for n in range(2000)
        for up in (True, False)
    ]
    size, count = np.unique(np.abs(np.round(shift, 9)), return_counts=True)
    assert size.tolist() == [0.0, 7.0]
    assert count[1] / count.sum() == pytest.approx(0.2, abs=0.02)
    span = "2019-01-01", "2019-07-01"
    difference = echoes_of(bad, *span)["elevation"] - echoes_of(good, *span)["elevation"]
    assert set(np.abs(difference).round(6)) == {0.0, 7.0}


def test_the_points_of_a_pass_share_one_error_of_the_size_asked_for() -> None:
    mission = mission_of("cryotempo", along_pass=0.4, bad_share=0.0)
    errors = [pass_error(mission, n, ascending=True) for n in range(3000)]
    assert np.std(errors) == pytest.approx(0.4, rel=0.05)
    assert np.corrcoef(errors[:-1], errors[1:])[0, 1] == pytest.approx(0, abs=0.06)


def test_shares_of_outliers_lost_and_ambiguous_echoes_are_those_asked_for() -> None:
    mission = mission_of("cryotempo", outlier_share=0.03, lost_share=0.1, ambiguous_share=0.02)
    echoes = echoes_of(mission, "2018-01-01", "2019-07-01")
    ice = echoes[echoes["surface_type"].isin([1, 2])]
    assert len(ice) > 4000
    for name, share in (("outlier", 0.03), ("lost", 0.1), ("ambiguous", 0.02)):
        assert ice[name].mean() == pytest.approx(share, rel=0.3)
    assert not echoes.loc[~echoes.index.isin(ice.index), "outlier"].any()


def test_uncertainties_are_those_of_the_noise() -> None:
    mission = mission_of("cryotempo", along_pass=0.0, bad_share=0.0, outlier_share=0.0)
    echoes = echoes_of(mission, "2018-01-01", "2019-07-01")
    echoes = echoes[~(echoes["lost"] | echoes["ambiguous"])]
    x, y, time = (echoes[n].to_numpy() for n in ("x", "y", "time"))
    scaled = (echoes["elevation"] - SMALL.elevation(x, y, time)) / echoes["uncertainty"]
    assert np.std(scaled) == pytest.approx(1, abs=0.05)


def test_positions_of_echoes_jump_so_that_some_steps_go_backwards() -> None:
    for flight in flown(mission_of("cryotempo", world=World()), "2019-01-01", "2019-02-01"):
        (beam,) = flight.beams
        forward = np.sign(beam["nadir_latitude"].iloc[-1] - beam["nadir_latitude"].iloc[0])
        backward = np.diff(beam["latitude"]) * forward < 0
        assert backward.mean() < 0.2
        if len(beam) > 400:
            assert backward.any()


# Invalid arguments


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"product": "atl03"}, "atl03.*cryotempo, l2i, .*atl06"),
        ({"start": "yesterday"}, "yesterday.*2015-07-01"),
        ({"start": "NaT"}, "NaT.*2015-07-01"),
        ({"start": "1950-01-01"}, "1950-01-01.*2010-07-16"),
        ({"product": "atl11", "start": "2018-10-01"}, "2018-10-01.*2018-10-14"),
        ({"years": 0.0}, r"0\.0 years.*more than 0"),
        ({"years": float("nan")}, "nan years.*more than 0"),
        ({"seed": -1}, "-1 is negative"),
    ],
)
def test_an_invalid_simulation_is_refused_before_a_file_is_written(
    tmp_path: Path, wish: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidValue, match=says):
        simulate(tmp_path / "new", **wish)
    assert not (tmp_path / "new").exists()


def test_a_world_with_reversed_bounds_is_refused() -> None:
    with pytest.raises(InvalidValue, match="x_min < x_max"):
        World(bounds=(1e5, -1e6, -1e5, -2e6))


def test_a_file_in_place_of_the_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UnwritablePath, match="taken"):
        simulate(tmp_path / "taken", start=START, years=0.1, world=SMALL)
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("product", ["cryotempo", "csv", "parquet", "atl11"])
def test_a_directory_with_anything_but_simulated_granules_is_refused_whole(
    tmp_path: Path, product: str
) -> None:
    wish: dict[str, Any] = {"product": product, "years": 0.02, "world": SMALL}
    made = simulate(tmp_path, **wish)
    (tmp_path / ".left.tmp").touch()
    assert simulate(tmp_path, **wish) == made
    (tmp_path / "zeta.nc").write_bytes(b"real")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with pytest.raises(
        InvalidValue, match=r"holds zeta\.nc, which is not a simulated granule; .*empty"
    ):
        simulate(tmp_path, **wish)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_progress_ends_at_one(tmp_path: Path) -> None:
    heard: list[float] = []
    simulate(tmp_path, start=START, years=0.1, world=SMALL, progress=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


def test_the_command_line_offers_every_product_that_can_be_simulated() -> None:
    from cryotile.cli.demo import PRODUCTS as OFFERED

    assert list(OFFERED.choices) == list(PRODUCTS)
