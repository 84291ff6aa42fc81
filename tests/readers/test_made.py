"""Products and situations without a real granule, made by changing copies of real ones.

Level 2 in LRM and SARIn, the GDR of Baseline F, Baseline D of Level 2, an ATL11 of a later release, and granules that
turn at 88 degrees: facts about them come from the format descriptions, so these tests show that cryotile follows the
descriptions, not that the descriptions are right.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from cryotile.points import SURFACE_TYPES, pass_id
from cryotile.readers import read_granule
from cryotile.readers.pass_inference import DIRECTION_NOTE, NOTE
from tests.support.real_granules import ANTARCTICA, JUNE, LRM, NOVEMBER, REPEATED, SAR, SARIN


@pytest.fixture
def copy(tmp_path):
    """Return the path of the changed copy."""
    return tmp_path / "copy.nc"


@pytest.fixture
def change(granules, copy):
    """Open a copy of a real granule for changes."""

    @contextmanager
    def change(name):
        shutil.copyfile(granules / name, copy)
        with h5py.File(copy, "r+") as file:
            yield file

    return change


@pytest.fixture
def level2(change):
    """Make a Level 2 granule over ice of the given mode from the real SAR granule over the ocean."""

    @contextmanager
    def level2(kind, mode, baseline="E"):
        with change(SAR) as file:
            name = f"CS_LTA__SIR_{kind}_2__20191005T151255_20191005T151621_{baseline}001"
            file.attrs["product_name"] = np.bytes_(name)
            file["surf_type_20_ku"][:] = 2
            file["flag_instr_mode_op_20_ku"][:] = mode
            file["flag_prod_status_20_ku"][:] = 0
            file["height_1_20_ku"][:] = 100_000 + np.arange(4551)
            yield file

    return level2


def test_level2_lrm_takes_the_third_height(copy, level2):
    with level2("LRM", 1) as file:
        file["height_2_20_ku"][:] = 200_000
        file["height_3_20_ku"][:] = 300_000
        file["sig0_3_20_ku"][:] = 1234
        file["flag_prod_status_20_ku"][:100] = 16777216 | 8388608
        file["flag_prod_status_20_ku"][100:110] = 4194304
        file["flag_prod_status_20_ku"][110:130] = 16
    granule = read_granule(copy, columns=("power",))
    assert granule.id == "cryosat2_l2:lrm:20191005T151255:50315"
    assert granule.dropped == {"height_error": 10, "slope_model_invalid": 20}
    assert set(granule.points["elevation"]) == {300.0}
    assert set(granule.points["power"]) == {12.34}


def test_level2_sarin_takes_the_first_height_and_the_flags_of_the_interferometer(copy, level2):
    with level2("SIN", 3) as file:
        status = file["flag_prod_status_20_ku"]
        status[:10] = 16777216
        status[10:30] = 2048
        status[30:60] = 8
        status[60:100] = 16  # the slope model: of LRM only
        status[100:150] = 4194304 | 8388608 | 524288 | 65536  # of heights and powers not used
    granule = read_granule(copy)
    assert granule.dropped == {"height_error": 10, "height_ambiguous": 20, "bad_baseline": 30}
    assert set(granule.points["mode"]) == {"sarin_poca"}
    np.testing.assert_allclose(granule.points["elevation"], 100.0 + np.arange(60, 4551) * 1e-3)


@pytest.mark.parametrize(
    ("bit", "reason"),
    [
        (134217728, "block_degraded"),
        (67108864, "orbit_error"),
        (33554432, "orbit_discontinuity"),
        (64, "mispointing_error"),
        (-(2**31), "flag_missing"),
    ],
)
def test_level2_drops_records_with_a_single_error_bit(copy, level2, bit, reason):
    with level2("SAR", 2) as file:
        file["flag_prod_status_20_ku"][7] = bit
    assert read_granule(copy).dropped == {reason: 1}


def test_level2_of_baseline_d_reads_like_baseline_e(copy, level2):
    with level2("SIN", 3, baseline="D") as file:
        file.move("radar_freeboard_20_ku", "freeboard_20_ku")
        del file["snow_depth_cor_20_ku"]
    granule = read_granule(copy)
    assert (granule.baseline, len(granule.points)) == ("D", 4551)


def test_a_gdr_of_baseline_f_has_all_modes_and_its_own_nadir(copy, level2):
    with level2("GDR", 2, baseline="F") as file:
        file["flag_instr_mode_op_20_ku"][:1000] = 1
        file["flag_instr_mode_op_20_ku"][1000:2000] = 3
        file["height_3_20_ku"][:] = 300_000
        del file["sea_state_bias_01_ku"]
        file["lat_20_ku"] = np.linspace(-880_000_000, -700_000_000, 4551).astype("i4")
        file["lat_20_ku"].attrs["scale_factor"] = 1e-7
    granule = read_granule(copy)
    assert granule.id.startswith("cryosat2_l2:gdr:")
    modes = granule.points["mode"]
    assert [str(mode) for mode in modes.unique()] == ["lrm", "sarin_poca", "sar"]
    assert set(granule.points["elevation"][modes == "lrm"]) == {300.0}
    assert granule.points["ascending"].all(), "lat_20_ku goes north, though lat_01 goes south"


def test_a_granule_that_turns_at_88_degrees_holds_two_passes(copy, level2):
    with level2("SAR", 2) as file:
        seconds = file["time_cor_01"][:]
        turn = seconds[100] + 0.25
        file["lat_01"][:] = -880_000_000 + 1000 * (seconds - turn) ** 2
        time = file["time_20_ku"][:]
    points = read_granule(copy).points
    assert set(points["pass_id"]) == {
        pass_id("cryosat2", 50315, ascending=False),
        pass_id("cryosat2", 50315, ascending=True),
    }
    ascending = points["ascending"].to_numpy(bool)
    turned = np.flatnonzero(ascending)[0]
    assert ascending[turned:].all()
    assert abs(time[turned] - turn) < 0.1


def test_a_granule_too_short_to_show_its_direction_uses_its_attribute(copy, level2):
    with level2("SAR", 2) as file:
        for name in ("lat_01", "time_cor_01"):
            first = file[name][:1]
            del file[name]
            file[name] = first
        file.attrs["ascending_flag"] = np.bytes_("A")
    assert read_granule(copy).points["ascending"].all()


def test_unused_heights_of_zero_are_dropped(copy, change):
    with change(LRM) as file:
        file["height_3_20_ku"][:300] = 0
        file["height_3_20_ku"][300:400] = -(2**31)
        file["flag_quality_20_ku"][:] = 0
    assert read_granule(copy).dropped == {"no_elevation": 400}


def test_l2i_tests_each_flag_word(copy, change):
    with change(SARIN) as file:
        file["surf_type_20_ku"][:] = 2
        file["flag_quality_20_ku"][:] = 1 | 2 | 64 | 1024 | 2048
        file["flag_sarin_ambiguity_warning_20_ku"][:] = 2
        file["flag_quality_20_ku"][:10] = 16
        file["flag_sarin_ambiguity_warning_20_ku"][5:30] = 1
        file["flag_mcd_20_ku"][30:70] = -(2**31)
        file["flag_mcd_20_ku"][70:75] = -1  # the fill value
        file["flag_quality_20_ku"][100:103] = -(2**31)  # the fill value
    assert read_granule(copy).dropped == {
        "flag_missing": 3,
        "xtrack_angle_error": 10,
        "height_ambiguous": 20,
        "block_degraded": 45,
    }


@pytest.mark.parametrize(
    ("north", "south", "expected"),
    [
        (0, "None", "all"),
        ("None", 0, "none"),
        (605, 0, "from 605"),
        (0, 605, "to 605"),
        (605, None, "from 605"),
        ("None", None, "none"),
        (0, None, "all"),
        (None, 0, "none"),
        (None, "None", "all"),
        (None, 605, "to 605"),
    ],
)
def test_cryotempo_states_the_record_at_which_it_turns(copy, change, north, south, expected):
    with change(ANTARCTICA) as file:
        for name, value in (("ascending", north), ("descending", south)):
            del file.attrs[f"{name}_start_record"]
            if value is not None:
                stored = np.bytes_(value) if isinstance(value, str) else np.int32(value)
                file.attrs[f"{name}_start_record"] = stored
        file["elevation"][:] = 1000.0
    points = read_granule(copy, surface_types=SURFACE_TYPES).points
    record = np.arange(1765)
    wanted = {
        "all": record >= 0,
        "none": record < 0,
        "from 605": record >= 605,
        "to 605": record < 605,
    }[expected]
    np.testing.assert_array_equal(points["ascending"].to_numpy(bool), wanted)


@pytest.mark.parametrize("name", [ANTARCTICA, LRM, SAR])
def test_attributes_other_than_the_orbit_number_are_not_needed(granules, copy, change, name):
    with change(name) as file:
        for attribute in set(file.attrs) - {"abs_orbit_number"}:
            del file.attrs[attribute]
    whole, bare = (
        read_granule(path, surface_types=SURFACE_TYPES) for path in (granules / name, copy)
    )
    assert bare.points.equals(whole.points)
    assert bare.id.split(":")[2:] == whole.id.split(":")[2:], "the first record tells the start"


def test_atl06_reads_the_beams_in_the_file(copy, change):
    with change(JUNE) as file:
        for beam in ("gt1l", "gt2r", "gt3r"):
            del file[beam]
        del file["gt3l/land_ice_segments"]
        expected = (
            file["gt1r/land_ice_segments/h_li"].size + file["gt2l/land_ice_segments/h_li"].size
        )
    granule = read_granule(copy)
    assert granule.record_count == expected
    assert len(granule.points) > 6000


def test_atl06_without_any_segment_is_a_granule_without_points(copy, change):
    with change(JUNE) as file:
        for beam in [key for key in file if key.startswith("gt")]:
            del file[beam]
    granule = read_granule(copy)
    assert (granule.record_count, len(granule.points), granule.dropped) == (0, 0, {})


def test_atl06_over_the_mean_sea_surface_is_at_sea(copy, change):
    with change(JUNE) as file:
        file["gt1l/land_ice_segments/dem/dem_flag"][:] = 3
    granule = read_granule(copy)
    assert granule.dropped["surface_ocean"] == 4152


def test_a_segment_without_azimuth_has_the_direction_of_its_pass(granules, copy, change):
    with change(JUNE) as file:
        azimuth = file["gt1l/land_ice_segments/ground_track/seg_azimuth"]
        azimuth[:] = azimuth.attrs["_FillValue"]
    granule = read_granule(copy)
    assert granule.points.equals(read_granule(granules / JUNE).points)
    assert DIRECTION_NOTE in granule.notes


# Variables and attributes that subsetters drop, and the columns that are then unknown.
DISPENSABLE = [
    (ANTARCTICA, ["uncertainty"], ["uncertainty"]),
    (ANTARCTICA, ["@ascending_start_record", "@descending_start_record"], []),
    (LRM, ["lat_20_ku", "flag_instr_mode_op_20_ku"], []),
    (SARIN, ["lat_20_ku", "@ascending_flag"], []),
    (JUNE, ["orbit_info", "ancillary_data/release", "ancillary_data/start_region"], []),
    (JUNE, ["gt1l/land_ice_segments/ground_track", "gt1l/land_ice_segments/dem"], []),
    (NOVEMBER, ["gt1l/land_ice_segments/h_li_sigma"], ["uncertainty"]),
    (REPEATED, ["pt2/ref_surf"], []),
    (REPEATED, ["pt2/corrected_h/h_corr_sigma"], ["uncertainty"]),
]


@pytest.mark.parametrize(("name", "dropped", "unknown"), DISPENSABLE)
def test_variables_that_can_be_derived_may_be_absent(
    granules, copy, change, name, dropped, unknown
):
    with change(name) as file:
        for each in dropped:
            if each.startswith("@"):
                del file.attrs[each[1:]]
            else:
                del file[each]
    whole, bare = (read_granule(path).points for path in (granules / name, copy))
    assert len(whole) > 0
    assert bare.drop(columns=unknown).equals(whole.drop(columns=unknown))
    assert all(bare[column].isna().any() for column in unknown)


def test_a_track_without_azimuth_that_turns_at_its_highest_latitude_has_two_passes(copy, change):
    with change(JUNE) as file:
        for beam in [key for key in file if key.startswith("gt")]:
            segments = file[f"{beam}/land_ice_segments"]
            time = segments["delta_time"][:]
            turn = file["ancillary_data/start_delta_time"][0] + 181.0
            segments["latitude"][:] = 88.0 - (0.06 * (time - turn)) ** 2
            del segments["ground_track"]
    points = read_granule(copy).points
    orbit = 1387 * 2 + 1161
    assert set(points["pass_id"]) == {
        pass_id("icesat2", orbit, ascending=north) for north in (False, True)
    }
    turned = points["time"] > points["time"][points["latitude"].idxmax()]
    assert (points["ascending"] == ~turned).mean() > 0.99


@pytest.mark.parametrize("name", [ANTARCTICA, LRM, SARIN])
def test_a_granule_without_an_orbit_number_is_one_inferred_pass(granules, copy, change, name):
    with change(name) as file:
        del file.attrs["abs_orbit_number"]
    whole, bare = (read_granule(path) for path in (granules / name, copy))
    assert bare.points["pass_id"].nunique() == 1
    assert NOTE in bare.notes
    assert bare.points.drop(columns="pass_id").equals(whole.points.drop(columns="pass_id"))


def test_the_pass_of_a_subset_without_metadata_is_in_its_name(granules, tmp_path, copy, change):
    with change(NOVEMBER) as file:
        del file["METADATA"]
    named = copy.rename(tmp_path / NOVEMBER)
    points = read_granule(named).points
    assert set(points["pass_id"]) == {pass_id("icesat2", 1387 * 4 + 627, ascending=True)}
    unnamed = named.rename(copy)
    assert read_granule(unnamed).points["pass_id"].nunique() == 1


def test_a_surface_that_is_not_stated_is_unknown(granules, copy, change):
    with change(ANTARCTICA) as file:
        del file["surface_type"]
    assert len(read_granule(copy).points) == 0
    asked = read_granule(copy, surface_types=("unknown",)).points
    assert len(asked) == len(
        read_granule(granules / ANTARCTICA, surface_types=SURFACE_TYPES).points
    )


def test_atl11_of_later_releases_keeps_its_heights_one_group_higher(granules, copy, change):
    with change(REPEATED) as file:
        pair = file["pt2"]
        for name in list(pair["corrected_h"]):
            pair.move(f"corrected_h/{name}", name)
        del pair["corrected_h"]
        fill = np.float32(3.4028235e38)
        pair["h_corr"][3, 1] = fill
        pair["h_corr"].attrs["_FillValue"] = fill
        pair["quality_summary"][:2, 0] = 1
        file["ancillary_data/release"] = np.array([b"006  "])
        file["ancillary_data/version"] = np.array([b"02  "])
        file["ancillary_data/start_region"] = np.array([5])
    granule = read_granule(copy)
    assert granule.dropped == {"no_elevation": 1, "not_best_quality": 2}
    assert granule.id == "icesat2_atl11:region05:20190519T205351:788"
    assert (granule.baseline, granule.version) == ("006", 204)
    assert set(granule.points["pass_id"]) == set(
        read_granule(granules / REPEATED).points["pass_id"]
    )


def test_heights_beyond_the_earth_are_unmarked_fill_values(copy, change):
    with change(ANTARCTICA) as file:
        file["elevation"][:] = 1000.0
        file["elevation"][:4] = 3.4e38
        file["latitude"][4:6] = -999.0
        file["time"][6:9] = 9.96921e36
        file["instrument_mode"][9:14] = -128
    granule = read_granule(copy, surface_types=SURFACE_TYPES)
    assert granule.dropped == {"no_position": 2, "no_time": 3, "no_elevation": 4, "no_mode": 5}
