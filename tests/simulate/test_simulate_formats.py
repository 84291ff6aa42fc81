"""Simulated granules have the structure of real ones, with the exceptions listed here, and read back as simulated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pandas as pd
import pytest

from cryotile.points import SURFACE_TYPES, pass_id
from cryotile.readers import read_granule
from cryotile.simulate import PRODUCTS, World, simulate
from cryotile.simulate.mission import Mission, crossings, fly

WORLD = World(bounds=(-20e3, -1370e3, 20e3, -1330e3), lrm_radius=9e3)
START, SEED = "2019-03-01", 3
DAYS = {"cryotempo": 150, "l2i": 70, "l2": 20, "l2i-d": 20, "atl06": 25, "atl11": 25}

REAL = {
    "cryotempo C": "CS_OFFL_SIR_TDP_LI_GREENL_*_C001.nc",
    "cryotempo B": "CS_OFFL_SIR_TDP_LI_ANTARC_*_B001.nc",
    "l2i lrm": "CS_LTA__SIR_LRMI2__*_E001.nc",
    "l2i sarin": "CS_OFFL_SIR_SINI2__*_D001.nc",
    "l2i-d sarin": "CS_OFFL_SIR_SINI2__*_D001.nc",
    "l2 sar": "CS_LTA__SIR_SAR_2__*_E001.nc",
}
SIMULATED = {
    "cryotempo": "*.nc",
    "l2i lrm": "CS_OFFL_SIR_LRMI2_*.nc",
    "l2i sarin": "CS_OFFL_SIR_SINI2_*.nc",
    "l2i-d sarin": "CS_OFFL_SIR_SINI2_*.nc",
    "l2 sar": "CS_OFFL_SIR_SIN_2_*.nc",
}

# Attributes whose text may differ from the real granule's; their names and types may not.
OWN_WORDS = {
    "comment": "the agency's sentences are not copied",
    "description": "the agency's sentences are not copied",
    "Description": "the agency's sentences are not copied",
    "data_rate": "the agency's sentences are not copied",
    "source": "long references are not copied; of Cryo-TEMPO's surface mask it differs by zone",
}

MARK = "simulated"
"""The attribute that every simulated file has and no real one."""

ASCENDING = {
    "ascending_start_record": "an index, or the text 'None' when all records descend",
    "descending_start_record": "an index, or the text 'None' when all records ascend",
}
BASELINE_D = {
    "freeboard_20_ku": "Baseline D; E, which is simulated, has radar_freeboard_20_ku",
    "radar_freeboard_20_ku": "new in Baseline E",
    "snow_depth_cor_20_ku": "new in Baseline E",
    "flag_sea_ice_type_20_ku": "new in Baseline E",
}
FLAGS_OF_D = {
    "flag_cor_err_20_ku": "Baseline E has more corrections to flag",
    "flag_cor_status_20_ku": "Baseline E has more corrections to flag",
}
STORAGE_OF_D = {
    "contiguous": "Baseline D is stored plainly",
    "filters": "Baseline E, which is simulated, is deflated",
}
NOT_IN_ATL06 = {
    "METADATA": "ISO metadata and lineage of the real processor",
    "quality_assessment": "counts by the real processor",
    "ancillary_data/control": "control file of the real processor",
    "@Processing Parameters": "left by the subsetting service, not part of the product",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with some granules of every product, each product in its own directory."""
    root = tmp_path_factory.mktemp("simulated")
    for product, days in DAYS.items():
        simulate(
            root / product,
            product=product,
            start=START,
            years=days / 365.25,
            seed=SEED,
            world=WORLD,
        )
    return root


def described(value: Any) -> tuple[str, Any]:
    """Return type and value of an attribute."""
    kind = (
        value.dtype.kind if isinstance(value, np.bytes_) else getattr(value, "dtype", type(value))
    )
    return str(kind), np.asarray(value).tolist()


def header_of(path: Path) -> dict[str, Any]:
    """Return the content of a flat netCDF granule without its numbers."""
    with netCDF4.Dataset(path) as file:
        return {
            "data model": file.data_model,
            "dimensions": {name: d.isunlimited() for name, d in file.dimensions.items()},
            "attributes": {
                name: described(file.getncattr(name)) for name in file.ncattrs() if name != MARK
            },
            "variables": {
                name: {
                    "dtype": v.dtype,
                    "dimensions": v.dimensions,
                    "contiguous": v.chunking() == "contiguous",
                    "filters": v.filters(),
                    "attributes": {a: described(v.getncattr(a)) for a in v.ncattrs()},
                }
                for name, v in file.variables.items()
            },
        }


def differences(real: dict[str, tuple[str, Any]], ours: dict[str, tuple[str, Any]]) -> set[str]:
    """Return attributes that only one has, of another type, or with another value that is not allowed."""
    return {
        name
        for name in real.keys() | ours.keys()
        if name not in real
        or name not in ours
        or real[name][0] != ours[name][0]
        or (real[name][1] != ours[name][1] and name not in OWN_WORDS)
    }


def types(attributes: dict[str, tuple[str, Any]]) -> dict[str, str]:
    return {name: kind for name, (kind, _) in attributes.items()}


@pytest.mark.granules
@pytest.mark.parametrize("real_name", REAL)
def test_a_simulated_netcdf_granule_has_the_header_of_a_real_one(
    granules: Path, made: Path, real_name: str
) -> None:
    (real_path,) = granules.glob(REAL[real_name])
    family = real_name.removesuffix(" C").removesuffix(" B")
    ours_path = sorted((made / family.split()[0]).glob(SIMULATED[family]))[0]
    real, ours = header_of(real_path), header_of(ours_path)
    allowed = BASELINE_D if real_name == "l2i sarin" else {}
    assert ours["data model"] == real["data model"]
    assert ours["dimensions"] == real["dimensions"]
    unlike = {
        n for n, t in types(real["attributes"]).items() if types(ours["attributes"]).get(n) != t
    }
    unlike |= ours["attributes"].keys() - real["attributes"].keys()
    assert unlike <= ASCENDING.keys()
    assert ours["variables"].keys() ^ real["variables"].keys() == allowed.keys()
    for name in ours["variables"].keys() & real["variables"].keys():
        here, there = ours["variables"][name], real["variables"][name]
        flags = {"flag_masks", "flag_meanings"} if allowed and name in FLAGS_OF_D else set()
        assert differences(there.pop("attributes"), here.pop("attributes")) == flags, name
        differing = {key for key in here if here[key] != there[key]}
        assert differing <= (STORAGE_OF_D.keys() if allowed else set()), name


@pytest.mark.granules
def test_variables_and_attributes_are_in_the_order_of_the_real_granule(
    granules: Path, made: Path
) -> None:
    for real_name, ours_name in (("cryotempo C", "cryotempo"), ("l2i lrm", "l2i lrm")):
        (real_path,) = granules.glob(REAL[real_name])
        ours_path = sorted((made / ours_name.split()[0]).glob(SIMULATED[ours_name]))[0]
        real, ours = header_of(real_path), header_of(ours_path)
        assert list(ours["attributes"]) == list(real["attributes"])
        assert list(ours["variables"]) == list(real["variables"])


def tree_of(path: Path) -> dict[str, dict[str, Any]]:
    """Return path → content of an HDF5 granule without its numbers."""
    tree: dict[str, dict[str, Any]] = {}

    def note(name: str, item: Any) -> None:
        # Reference lists give the number of datasets of a scale, and follow from their DIMENSION_LISTs.
        attributes = {
            a: described(v)
            for a, v in item.attrs.items()
            if a not in ("DIMENSION_LIST", "REFERENCE_LIST", MARK)
        }
        tree[name] = {"attributes": attributes}
        if isinstance(item, h5py.Dataset):
            tree[name] |= {
                "dtype": item.dtype,
                "fill": item.fillvalue,
                "growing": item.maxshape == (None,),
                "storage": (item.chunks, item.compression, item.compression_opts, item.shuffle),
                "scales": [scale.name for dimension in item.dims for scale in dimension.values()],
            }

    with h5py.File(path) as file:
        note("", file)
        file.visititems(note)
    return tree


@pytest.mark.granules
@pytest.mark.parametrize("name", ["ATL06_20190416093911_02770303", "ATL06_20190613065109_11610303"])
def test_a_simulated_atl06_granule_has_the_tree_of_a_real_one(
    granules: Path, made: Path, name: str
) -> None:
    real = tree_of(granules / f"processed_{name}_002_01.h5")
    ours = tree_of(sorted((made / "atl06").glob("*.h5"))[0])
    left_out = {
        path for path in real if path.startswith(tuple(n for n in NOT_IN_ATL06 if n[0] != "@"))
    }
    assert real.keys() - ours.keys() == left_out
    assert not ours.keys() - real.keys()
    assert real[""]["attributes"].pop("Processing Parameters")
    for path, here in ours.items():
        there = real[path]
        if isinstance(there["attributes"], dict) and (
            path == "" or re.fullmatch(r"gt\d[lr]", path)
        ):
            assert types(here.pop("attributes")) == types(there.pop("attributes")), path
        else:
            assert differences(there.pop("attributes"), here.pop("attributes")) == set(), path
        assert here == there, path


@pytest.mark.granules
def test_a_simulated_atl11_granule_has_the_tree_of_a_real_one(granules: Path, made: Path) -> None:
    real = tree_of(granules / "ATL11_078805_0304_02_v002.h5")
    ours = tree_of(sorted((made / "atl11").glob("*.h5"))[0])
    left_out = ("METADATA", "index", "pt2/crossing_track_data")
    there = {path: entry for path, entry in real.items() if not path.startswith(left_out)}
    for pair in ("pt1", "pt2", "pt3"):
        here = {path: entry for path, entry in ours.items() if path.startswith(pair)}
        assert {path.replace(pair, "pt2", 1) for path in here} == there.keys() - {""}
        for path, entry in here.items():
            expected = there[path.replace(pair, "pt2", 1)]
            assert entry.get("dtype") == expected.get("dtype"), path
            own, theirs = entry["attributes"], expected["attributes"]
            allowed = {"CLASS", "DIMENSION_LABELS", "description"}
            if path == pair:
                allowed |= {"ReferenceGroundTrack", "beam_pair", "first_cycle", "last_cycle"}
            assert differences(theirs, own) <= allowed, path


@pytest.mark.granules
def test_simulated_granules_are_named_like_real_ones(granules: Path, made: Path) -> None:
    moment = r"\d{8}T\d{6}"
    patterns = {
        "cryotempo": rf"CS_OFFL_SIR_TDP_LI_(GREENL|ANTARC)_{moment}_{moment}_\d\d_\d{{5}}_[A-E]001\.nc",
        "l2i": rf"CS_(OFFL|LTA_)_SIR_(LRM|SIN)I2__{moment}_{moment}_[DE]001\.nc",
        "l2": rf"CS_(OFFL|LTA_)_SIR_(LRM|SIN|SAR)_2__{moment}_{moment}_E001\.nc",
        "l2i-d": rf"CS_(OFFL|LTA_)_SIR_(LRM|SIN)I2__{moment}_{moment}_[DE]001\.nc",
        "atl11": r"ATL11_\d{6}_\d{4}_02_v002\.h5",
        "atl06": r"(processed_)?ATL06_\d{14}_\d{4}\d\d(0\d|1[0-4])_002_01\.h5",
    }
    for product, pattern in patterns.items():
        real = [p.name for p in granules.iterdir() if re.fullmatch(pattern, p.name)]
        assert real
        assert all(re.fullmatch(pattern, p.name) for p in (made / product).iterdir())


@pytest.mark.granules
def test_no_real_file_counts_as_simulated(granules: Path) -> None:
    for pattern in (*REAL.values(), "ATL11_078805_*.h5", "processed_ATL06_2019*_002_01.h5"):
        for path in granules.glob(pattern):
            assert not read_granule(path).simulated


def echoes_of(product: str) -> pd.DataFrame:
    """Return the measurements of the mission, one row per echo, from which the granules were written."""
    chosen = PRODUCTS[product]
    mission = Mission(WORLD, chosen.orbit, chosen.noise, SEED, chosen.lateral)
    start = np.datetime64(START, "us")
    stop = start + np.timedelta64(DAYS[product] * 86400, "s")
    flights = [
        f for f in (fly(mission, c) for c in crossings(mission, start, stop)) if f is not None
    ]
    assert len(flights) > 3
    return pd.concat(
        [
            beam.assign(number=f.number, record=np.arange(len(beam)), beam=b)
            for f in flights
            for b, beam in enumerate(f.beams)
        ],
        ignore_index=True,
    )


def read_back(made: Path, product: str, **options: Any) -> pd.DataFrame:
    granules = [read_granule(path, **options) for path in sorted((made / product).iterdir())]
    for granule in granules:
        assert len(granule.points) + sum(granule.dropped.values()) == granule.record_count
    return pd.concat([g.points for g in granules], ignore_index=True)


def assert_same(
    points: pd.DataFrame, echoes: pd.DataFrame, *, degrees: float, metres: float
) -> None:
    """Assert that points read back are the echoes, to the precision of the format."""
    points = points.sort_values(["time", "longitude"], ignore_index=True)
    echoes = echoes.sort_values(["time", "longitude"], ignore_index=True)
    assert len(points) == len(echoes) > 400
    assert (points["time"] - echoes["time"]).abs().max() <= pd.Timedelta("1ms")
    for name in ("longitude", "latitude"):
        np.testing.assert_allclose(points[name], echoes[name], rtol=0, atol=degrees)
    np.testing.assert_allclose(points["elevation"], echoes["elevation"], rtol=0, atol=metres)
    assert points["ascending"].tolist() == echoes["ascending"].tolist()


def pass_ids(platform: str, echoes: pd.DataFrame) -> set[int]:
    return {
        pass_id(platform, n, up)
        for n, up in zip(echoes["number"], echoes["ascending"], strict=True)
    }


def test_cryotempo_points_read_back_are_the_echoes_on_ice_with_a_valid_height(made: Path) -> None:
    points = read_back(made, "cryotempo")
    echoes = echoes_of("cryotempo")
    grounded = echoes["surface_type"] == SURFACE_TYPES.index("grounded_ice")
    valid = echoes[grounded & ~echoes["lost"] & ~echoes["ambiguous"]]
    assert_same(points, valid, degrees=0, metres=0)
    assert set(points["pass_id"]) == pass_ids("cryosat2", valid)
    assert set(points["mode"]) == {"sarin_poca"}
    assert 0.01 < points["uncertainty"].isna().mean() < 0.04


def test_l2i_points_read_back_are_the_echoes_over_ice_without_an_error_bit(made: Path) -> None:
    points = read_back(made, "l2i")
    echoes = echoes_of("l2i")
    x, y = WORLD.to_xy(echoes["nadir_longitude"].to_numpy(), echoes["nadir_latitude"].to_numpy())
    low = WORLD.low_resolution(x, y)
    stretch = ((np.diff(low, prepend=low[0]) != 0) | (echoes["record"] == 0)).cumsum()
    long_enough = stretch.groupby(stretch).transform("size") >= 20
    ice = np.isin(WORLD.surface_type(x, y), (1, 2))
    valid = echoes[ice & long_enough & ~echoes["lost"] & ~echoes["ambiguous"]]
    assert_same(points, valid, degrees=0.51e-7, metres=0.51e-3)
    assert set(points["pass_id"]) == pass_ids("cryosat2", valid)
    modes = points.sort_values(["time", "longitude"])["mode"].tolist()
    assert modes == np.where(low[valid.index], "lrm", "sarin_poca").tolist()


def test_atl06_points_read_back_are_the_segments_of_best_quality_that_were_not_pointed_off(
    made: Path,
) -> None:
    points = read_back(made, "atl06")
    echoes = echoes_of("atl06")
    valid = echoes[~echoes["lost"] & (echoes["record"] % 50 > 0)]
    assert_same(points, valid, degrees=0, metres=1e-4)
    assert set(points["pass_id"]) == pass_ids("icesat2", valid)
    assert echoes.groupby("number")["beam"].nunique().eq(6).all()


def test_level2_has_the_points_of_l2i(made: Path) -> None:
    plain = sorted((made / "l2").iterdir())
    assert plain
    for path in plain:
        name = path.name.replace("LRM_2_", "LRMI2_").replace("SIN_2_", "SINI2_")
        granule, same = read_granule(made / "l2i" / name), read_granule(path)
        assert same.product == "cryosat2_l2"
        pd.testing.assert_frame_equal(same.points, granule.points)


def test_baseline_d_of_l2i_has_the_points_of_baseline_e(made: Path) -> None:
    old = {path.name.replace("_D001", "_E001"): path for path in (made / "l2i-d").iterdir()}
    assert old
    for name, path in old.items():
        granule, same = read_granule(made / "l2i" / name), read_granule(path)
        assert (same.baseline, same.id) == ("D", granule.id)
        pd.testing.assert_frame_equal(same.points, granule.points)


def test_atl11_points_read_back_are_midway_between_two_beams_that_both_saw_the_ground(
    made: Path,
) -> None:
    points = read_back(made, "atl11")
    echoes = echoes_of("atl11")
    pairs = echoes.assign(pair=echoes["beam"] // 2).groupby(["number", "pair", "time"])
    middle = pairs.agg(
        elevation=("elevation", "mean"),
        lost=("lost", "any"),
        ascending=("ascending", "first"),
        longitude=("longitude", "mean"),
    )
    seen = middle[~middle["lost"]].reset_index()
    seen["time"] = seen["time"].dt.round("ms")
    both = points.merge(seen, on="time", suffixes=("", "_seen"))
    both = both[(both["longitude"] - both["longitude_seen"]).abs() < 1e-9]
    assert len(both) == len(points) > 400
    np.testing.assert_allclose(both["elevation"], both["elevation_seen"], rtol=0, atol=1e-9)
    passes = {
        pass_id("icesat2", n, up) for n, up in zip(seen["number"], seen["ascending"], strict=True)
    }
    assert set(points["pass_id"]) <= passes


def test_heights_that_l2i_does_not_use_are_zero_and_flagged_heights_are_finite(made: Path) -> None:
    sarin = sorted((made / "l2i").glob("*SINI2*"), key=lambda p: p.stat().st_size)[-1]
    lrm = sorted((made / "l2i").glob("*LRMI2*"), key=lambda p: p.stat().st_size)[-1]
    with netCDF4.Dataset(sarin) as file:
        file.set_auto_mask(False)
        assert np.all(file["height_2_20_ku"][:] == 0)
        assert np.all(file["height_3_20_ku"][:] == 0)
        flags = file["flag_quality_20_ku"][:]
        assert np.all(flags & 3 == 3)
        np.testing.assert_array_equal(
            flags & 16 > 0, file["flag_sarin_ambiguity_warning_20_ku"][:] == 1
        )
        assert (flags & 4096).any()
        assert np.all(np.abs(file["height_1_20_ku"][:]) < 9000)
    with netCDF4.Dataset(lrm) as file:
        file.set_auto_mask(False)
        assert np.all(file["coherence_20_ku"][:] == 0)
        bits = [np.mean(file["flag_quality_20_ku"][:] & bit > 0) for bit in (4096, 2048, 1024)]
        assert bits[0] > 0.05
        assert len(file.dimensions["time_cor_01"]) == -(-len(file.dimensions["time_20_ku"]) // 20)


def test_l2i_counts_time_in_tai_and_states_it_in_its_first_record_time(made: Path) -> None:
    path = sorted((made / "l2i").glob("*SINI2*"))[0]
    with netCDF4.Dataset(path) as file:
        first = pd.Timestamp("2000-01-01") + pd.Timedelta(seconds=float(file["time_20_ku"][0]))
        sensing = pd.to_datetime(file.sensing_start, format="%d-%b-%Y %H:%M:%S.%f")
        assert abs(
            first - pd.Timestamp(file.first_record_time.removeprefix("TAI="))
        ) < pd.Timedelta("2us")
    assert abs(first - sensing - pd.Timedelta(seconds=37)) < pd.Timedelta("2us")
