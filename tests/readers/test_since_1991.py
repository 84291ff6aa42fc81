"""Radars since 1991, ICESat and the lasers of aircraft: what is written as their descriptions say is read as it was.

All but the rows of LVIS are made here, so these tests show that cryotile follows the descriptions.
"""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from cryotile.errors import GranuleError
from cryotile.points import SURFACE_TYPES, pass_id
from cryotile.readers import REASONS, all_readers, find_reader, read_granule
from cryotile.readers.base import UNTRIED
from cryotile.readers.glas import topex_above_wgs84
from cryotile.readers.pass_inference import NOTE
from cryotile.runs.run import Run
from cryotile.testing.readers import ReaderContract
from tests.support import foreign
from tests.support.command_line import output_of
from tests.support.foreign import BAD, CASES, COUNT

MS = np.timedelta64(1, "ms")


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]


class TestProducts(ReaderContract):
    @pytest.fixture
    def granule_path(self, case, tmp_path):
        return case.write(tmp_path, case.truth)

    @pytest.fixture
    def sensing_window(self, case):
        return case.truth.window

    @pytest.fixture
    def other_name(self, granule_path):
        # The content of ATM does not tell the day, nor that of REAPER the satellite.
        return f"copy of {granule_path.name}.dat"

    def test_what_was_written_is_read(self, case, granule):
        truth, points = case.truth.without_bad(), granule.points
        assert granule.product == case.product
        assert granule.dropped == {case.dropped: 1}
        assert set(granule.dropped) <= set(REASONS)
        assert np.abs(points["time"].to_numpy() - truth.time).max() <= MS
        longitude = (points["longitude"] + 180.0) % 360.0 - 180.0
        np.testing.assert_allclose(longitude, truth.longitude, rtol=0, atol=case.place)
        np.testing.assert_allclose(points["latitude"], truth.latitude, rtol=0, atol=case.place)
        np.testing.assert_allclose(points["elevation"], truth.elevation, rtol=0, atol=case.height)
        assert set(points["platform"]) == {case.platform}
        assert set(points["mode"]) == {case.mode}
        assert set(points["surface_type"]) == {"grounded_ice"}
        assert points["ascending"].all()
        assert points["pass_id"].nunique() == 1

    def test_it_says_that_its_reader_is_untried(self, case, granule):
        assert (UNTRIED in granule.notes) == (case.platform != "lvis")


def made(name, folder):
    return CASES[name].write(folder, CASES[name].truth)


@pytest.fixture
def change(tmp_path):
    """Write a product, change it, and return its path."""

    def change(name, **variables):
        path = made(name, tmp_path)
        with h5py.File(path, "r+") as file:
            for key, value in variables.items():
                (variable,) = [each for each in found(file) if each.endswith(key)]
                file[variable][BAD] = value
        return path

    def found(file):
        names = []
        file.visititems(lambda name, node: names.append(name) if hasattr(node, "dtype") else None)
        return names

    return change


@pytest.mark.parametrize(
    ("name", "variable", "value", "reason"),
    [
        ("fdr4alt", "ice_sheet_qual_relocation", 1, "relocation_failed"),
        ("fdr4alt", "ice_sheet_elevation_ice1_roemer", 2**31 - 1, "no_elevation"),
        ("sentinel3", "elevation_ice_sheet_20_ku", 2**31 - 1, "no_elevation"),
        ("sentinel3", "surf_class_20_ku", 5, "surface_floating_ice"),
        ("sentinel3", "surf_class_20_ku", 0, "surface_ocean"),
        ("glah12", "sigma_att_flg", 1, "bad_attitude"),
        ("glah12", "sat_corr_flg", 3, "saturated"),
        ("glah12", "sat_corr_flg", 4, "saturated"),
        ("glah12", "i_numPk", 2, "several_peaks"),
        ("glah12", "d_elev", np.finfo("f8").max, "no_elevation"),
    ],
)
def test_each_flag_has_its_reason(change, name, variable, value, reason):
    flags = {"fdr4alt": "retracking_ice1_qual", "sentinel3": "waveform_qual_ice_20_ku"}
    good = {flags.get(name, "elev_use_flg"): 0}
    assert read_granule(change(name, **good, **{variable: value})).dropped == {reason: 1}


def test_a_missing_correction_of_saturation_matters_only_where_it_is_applicable(change):
    missing = np.finfo("f8").max
    path = change("glah12", elev_use_flg=0, d_satElevCorr=missing)
    assert read_granule(path).dropped == {}
    path = change("glah12", elev_use_flg=0, d_satElevCorr=missing, sat_corr_flg=2)
    assert read_granule(path).dropped == {"saturated": 1}


def test_the_topex_ellipsoid_lies_seven_decimetres_below_wgs84():
    latitude = np.linspace(-90.0, 90.0, 181)
    _, _, theirs = foreign.TO_TOPEX.transform(0.0 * latitude, latitude, 0.0 * latitude)
    np.testing.assert_allclose(topex_above_wgs84(latitude), theirs, rtol=0, atol=1e-4)
    # NSIDC: "approximately 70 cm"; the semi-axes differ by 0.700 m and 0.714 m.
    assert topex_above_wgs84(np.array([0.0, 90.0])) == pytest.approx([0.700, 0.7137], abs=1e-4)


def test_passes_are_those_that_the_file_states(tmp_path):
    for name, platform, orbit in (
        ("fdr4alt", "envisat", 860),
        ("sentinel3", "sentinel3b", 5310),
        ("glah12", "icesat", 71),
    ):
        points = read_granule(made(name, tmp_path)).points
        assert set(points["pass_id"]) == {pass_id(platform, orbit, ascending=True)}


def test_passes_are_inferred_where_the_track_of_icesat_is_not_told(tmp_path):
    path = made("glah12", tmp_path)
    for track in ([71, 2**31 - 1], [71, -1]):
        with h5py.File(path, "r+") as file:
            file["Data_1HZ/Geolocation/i_track"][:] = track
        granule = read_granule(path)
        assert NOTE in granule.notes
        assert granule.points["pass_id"].nunique() == 1


def test_a_satellite_that_flies_south_descends(tmp_path):
    north = foreign.flight("2008-05-03T19:08:10")
    south = north._replace(latitude=north.latitude[::-1].copy())
    for write in (foreign.fdr4alt, foreign.reaper, foreign.sentinel3, foreign.glas):
        points = read_granule(write(tmp_path, south)).points
        assert not points["ascending"].any()


@pytest.mark.parametrize(
    ("mission", "platform"), [("ERS-1", "ers1"), ("ERS-2", "ers2"), ("Envisat", "envisat")]
)
def test_fdr4alt_is_of_the_mission_that_it_names(tmp_path, mission, platform):
    path = made("fdr4alt", tmp_path)
    with h5py.File(path, "r+") as file:
        file.attrs["mission_name"] = mission
    assert set(read_granule(path).points["platform"]) == {platform}


def test_reaper_is_of_the_satellite_in_its_name_because_its_attribute_is_wrong(tmp_path):
    path = made("reaper", tmp_path)
    assert set(read_granule(path).points["platform"]) == {"ers2"}
    other = shutil.copy(path, tmp_path / path.name.replace("E2", "E1"))
    assert set(read_granule(other).points["platform"]) == {"ers1"}
    nameless = shutil.copy(path, tmp_path / "a.nc")
    with pytest.raises(GranuleError, match=r"lacks the platform, .*; download it again"):
        read_granule(nameless)


def test_the_time_of_fdr4alt_must_have_a_unit(tmp_path):
    path = made("fdr4alt", tmp_path)
    with h5py.File(path, "r+") as file:
        del file["expert/time"].attrs["units"]
    with pytest.raises(GranuleError, match="lacks the unit of its variable expert/time"):
        read_granule(path)


@pytest.mark.parametrize(
    ("name", "variable"),
    [("glah12", "Data_40HZ/DS_UTCTime_40"), ("sentinel3", "time_20_ku")],
)
def test_a_time_without_a_unit_counts_from_the_epoch_of_its_product(tmp_path, name, variable):
    path = made(name, tmp_path)
    with h5py.File(path, "r+") as file:
        del file[variable].attrs["units"]
    expected = CASES[name].truth.without_bad().time
    assert np.abs(read_granule(path).points["time"].to_numpy() - expected).max() <= MS


def test_the_surface_of_glah06_is_that_of_its_masks(tmp_path):
    path = made("glah06", tmp_path)
    with h5py.File(path, "r+") as file:
        for flag, values in {"is": [1, 0], "ld": [1, 0], "oc": [0, 1]}.items():
            file[f"Data_1HZ/Elevation_Flags/surf_{flag}_flg"][:] = values
    granule = read_granule(path)
    assert granule.dropped == {"surface_ocean": 20, "elevation_unusable": 1}


def test_another_product_of_glas_or_sentinel3_is_not_one_of_these(tmp_path):
    for name, key, value in (
        ("glah12", "ShortName", "GLAH14"),
        ("sentinel3", "product_name", "S3A_SR_2_LAN_SI_20190504T112546.SEN3"),
    ):
        path = made(name, tmp_path)
        with h5py.File(path, "r+") as file:
            file.attrs[key] = value
        with pytest.raises(GranuleError, match="unknown product"):
            read_granule(path)


def test_the_land_product_of_sentinel3_without_ice_sheet_heights_gives_those_of_ocog(tmp_path):
    path = made("sentinel3", tmp_path)
    with h5py.File(path, "r+") as file:
        file.attrs["product_name"] = file.attrs["product_name"].replace("LAN_LI_", "LAN____")
        del file["elevation_ice_sheet_20_ku"]
    points = read_granule(path).points
    truth = CASES["sentinel3"].truth.without_bad()
    np.testing.assert_allclose(points["elevation"], truth.elevation + 0.5, atol=1e-4)


@pytest.mark.parametrize("words", [10, 12, 14])
@pytest.mark.parametrize("order", [">", "<"])
def test_qfit_has_records_of_three_lengths_in_both_orders_of_bytes(tmp_path, words, order):
    truth = foreign.flight("2009-11-04T18:13:04")
    points = read_granule(foreign.atm_qfit(tmp_path, truth, words, order)).points
    expected = truth.without_bad()
    np.testing.assert_allclose(points["elevation"], expected.elevation, atol=1e-3)
    assert np.abs(points["time"].to_numpy() - expected.time).max() <= MS


@pytest.mark.parametrize(
    ("name", "second"),
    [("ilatm2", 59), ("lvis", 59), ("blatm2", 44), ("ilatm1b", 44), ("qfit", 44)],
)
def test_a_flight_may_last_beyond_midnight(tmp_path, name, second):
    # GPS time was 15 s ahead, and its day ended before that of UTC.
    truth = foreign.flight(f"2012-06-29T23:59:{second}")
    granule = read_granule(CASES[name].write(tmp_path, truth))
    expected = truth.without_bad().time
    assert np.abs(granule.points["time"].to_numpy() - expected).max() <= MS


@pytest.mark.parametrize("name", ["ilatm2", "qfit"])
def test_atm_without_a_day_in_its_name_is_an_error_of_one_line(tmp_path, name):
    path = made(name, tmp_path)
    for other, line in (
        ("flight.dat", "does not tell the day; keep the name"),
        ("ILATM2_20111331_180518.csv", "the day 2011-13-31 in its name"),
    ):
        copy = shutil.copy(path, tmp_path / other)
        with pytest.raises(GranuleError, match=line) as caught:
            read_granule(copy)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ilatm2", "blatm2", "lvis"])
def test_a_word_in_place_of_a_number_is_an_error_that_names_its_row(tmp_path, name):
    path = made(name, tmp_path)
    lines = path.read_text().splitlines()
    lines[-3] = lines[-3].replace("72.", "north", 1)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(GranuleError, match=f"in row {COUNT - 2}, which is not a number"):
        read_granule(path)


@pytest.mark.parametrize("name", ["ilatm2", "blatm2", "lvis"])
def test_a_row_that_is_cut_off_has_no_point(tmp_path, name):
    path = made(name, tmp_path)
    text = path.read_text().rstrip()
    path.write_text(text[: text.rindex("\n") + 12])
    granule = read_granule(path)
    assert len(granule.points) == COUNT - 2
    assert granule.record_count == COUNT


def test_the_fit_of_a_plane_is_a_column_in_metres(tmp_path):
    points = read_granule(made("ilatm2", tmp_path), columns=("rms",)).points
    assert points["rms"].to_numpy() == pytest.approx(0.0592)


ROWS = """\
# Several elevations are derived from the LVIS Level 1B waveform product. Please visit lvis.gsfc.nasa.gov for discussion on the elevation product that may be most appropriate for your use.
# LVIS_LFID SHOTNUMBER TIME LONGITUDE_CENTROID LATITUDE_CENTROID ELEVATION_CENTROID LONGITUDE_LOW LATITUDE_LOW ELEVATION_LOW LONGITUDE_HIGH LATITUDE_HIGH ELEVATION_HIGH
1654935003  1103940  42504.48313  301.214787  78.307673   1956.583 301.214787  78.307672   1956.777 301.214787  78.307672   1956.777
1654935003  1103941  42504.48512  301.215096  78.307592   1956.292 301.215097  78.307592   1956.588 301.215097  78.307592   1956.588
1654935003  1103942  42504.48712  301.215410  78.307512   1956.353 301.215410  78.307512   1956.667 301.215410  78.307512   1956.667
1654935003  1103943  42504.48912  301.215723  78.307432   1956.372 301.215723  78.307431   1956.576 301.215723  78.307431   1956.576
"""  # noqa: E501 - as in the file


def test_the_first_rows_of_a_real_file_of_lvis(tmp_path):
    # ILVIS2_GL2009_0414_R1401_042504.TXT of NASA, from the tests of PDAL (BSD): a flight on 14 April 2009.
    path = tmp_path / "rows.txt"
    path.write_text(ROWS)
    granule = read_granule(path)
    assert granule.dropped == {}
    assert list(granule.points["elevation"]) == [1956.777, 1956.588, 1956.667, 1956.576]
    assert granule.points["time"].iloc[0] == np.datetime64("2009-04-14T11:48:24.483")
    assert granule.points["longitude"].iloc[1] == 301.215097
    assert UNTRIED not in granule.notes


def test_readers_say_whether_they_were_tried():
    untried = {reader.product for reader in all_readers() if not getattr(reader, "tried", True)}
    assert untried == {case.product for case in CASES.values()} - {"icebridge_ilvis2"}


def test_surfaces_may_be_asked_for(tmp_path):
    path = made("sentinel3", tmp_path)
    assert find_reader(path).product == "sentinel3_land_ice"
    assert len(read_granule(path, surface_types=SURFACE_TYPES).points) == COUNT - 1


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A directory with a granule of each product, each in a directory of its own, and what lies beside one."""
    folder = tmp_path_factory.mktemp("mixed")
    for name, case in CASES.items():
        (folder / name).mkdir()
        path = case.write(folder / name, case.truth)
        if name == "sentinel3":
            shutil.copy(path, path.with_name("standard_measurement.nc"))
            foreign.hdf5(path.with_name("reduced_measurement.nc"), {"time_01": np.zeros(3)}, {})
            path.with_name("xfdumanifest.xml").write_text("<xfdu/>")
    return folder


def test_a_directory_of_all_products_is_one_point_db_whose_platforms_have_offsets(mixed, tmp_path):
    db = tmp_path / "all.pdb"
    done = output_of("ingest", db, mixed, "--crs", "EPSG:3413")
    kept = len(CASES) * (COUNT - 1)
    assert f"; {kept:,} of " in done or f"; {kept} of " in done
    lines = output_of("info", db)
    platforms = {case.platform for case in CASES.values()}
    assert platforms == {word for word in platforms if f"\n  {word} " in lines}
    output_of(
        *("plan", tmp_path / "run", "--db", db, "--posting", "1000", "--radius", "3000"),
        *("--recipe", "passes", "--term", "platform_offset"),
    )
    assert platforms <= set(Run.load(tmp_path / "run").settings.fit.platforms)


def test_info_names_each_product_and_says_that_its_reader_is_untried(mixed):
    for name in ("reaper", "qfit"):
        (path,) = (mixed / name).iterdir()
        lines = output_of("info", path)
        assert f", {CASES[name].product}, version 0" in lines
        assert UNTRIED in lines
