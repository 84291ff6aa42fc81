"""The reader contract on every real granule, and the points of each."""

from __future__ import annotations

from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest

from cryotile.points import pass_id
from cryotile.readers import REASONS, find_reader, read_granule
from cryotile.testing.readers import ReaderContract
from tests.support.real_granules import (
    ANTARCTICA,
    APRIL,
    GREENLAND,
    JUNE,
    LRM,
    NOVEMBER,
    REPEATED,
    SAR,
    SARIN,
    WINDOWS,
)


class TestRealGranules(ReaderContract):
    @pytest.fixture(params=list(WINDOWS))
    def granule_name(self, request):
        return request.param

    @pytest.fixture
    def granule_path(self, granules, granule_name):
        return granules / granule_name

    @pytest.fixture
    def sensing_window(self, granule_name):
        return WINDOWS[granule_name]

    def test_every_reason_has_a_sentence(self, granule_path):
        assert set(read_granule(granule_path).dropped) <= set(REASONS)


def raw_variables(path: Path, *names: str) -> list[np.ndarray]:
    """Return variables read by another library than that of the readers, neither masked nor scaled."""
    with netCDF4.Dataset(path) as dataset:
        dataset.set_auto_maskandscale(False)
        return [dataset[name][:] for name in names]


def test_an_lrm_record_is_dropped_when_its_third_height_is_in_error(granules):
    heights, quality = raw_variables(granules / LRM, "height_3_20_ku", "flag_quality_20_ku")
    in_error = (quality & 1024) != 0
    granule = read_granule(granules / LRM)
    assert granule.dropped == {"height_error": int(in_error.sum())} == {"height_error": 22}
    assert len(granule.points) == 2293
    np.testing.assert_allclose(granule.points["elevation"], heights[~in_error] * 1e-3, rtol=1e-14)
    assert set(granule.points["mode"]) == {"lrm"}


def test_flagged_heights_are_finite_and_dropped(granules):
    heights, quality = raw_variables(granules / LRM, "height_3_20_ku", "flag_quality_20_ku")
    assert (heights[(quality & 1024) != 0] > 2_000_000).all()
    assert (quality != 0).all(), "some bit is set on every record, so the word says nothing"


def test_sarin_over_ice_is_dropped_where_its_angle_is_ambiguous(granules):
    surface, quality, ambiguous, heights, dem = raw_variables(
        granules / SARIN,
        "surf_type_20_ku",
        "flag_quality_20_ku",
        "flag_sarin_ambiguity_warning_20_ku",
        "height_1_20_ku",
        "dem_height_20_ku",
    )
    ice = surface == 2
    height_error = ice & ((quality & 4096) != 0)
    angle_error = ice & ((quality & 16) != 0) & ~height_error
    granule = read_granule(granules / SARIN, columns=("reference_dem",))
    assert granule.record_count == 2176
    assert granule.dropped == {
        "surface_ocean": int((~ice).sum()),
        "height_error": int(height_error.sum()),
        "xtrack_angle_error": int(angle_error.sum()),
    }
    assert len(granule.points) == 1404 == int(ice.sum()) - 36
    points = granule.points
    kept = ice & ~height_error & ~angle_error & (ambiguous != 1)
    np.testing.assert_allclose(points["elevation"], heights[kept] * 1e-3, rtol=1e-14)
    assert np.abs(points["elevation"] - points["reference_dem"]).max() == pytest.approx(
        49.1, abs=0.1
    )
    assert np.abs(heights - dem)[ice & ~kept].min() > 50_000


def test_sar_over_the_ocean_has_no_point_and_is_not_an_error(granules):
    granule = read_granule(granules / SAR)
    assert len(granule.points) == 0
    assert granule.dropped == {"surface_ocean": 4551}
    quality, heights = raw_variables(granules / SAR, "flag_prod_status_20_ku", "height_1_20_ku")
    in_error = (quality & 16777216) != 0
    ocean = read_granule(granules / SAR, surface_types=("ocean",))
    assert ocean.dropped == {"height_error": 34} == {"height_error": int(in_error.sum())}
    np.testing.assert_allclose(ocean.points["elevation"], heights[~in_error] * 1e-3, rtol=1e-14)
    assert set(ocean.points["mode"]) == {"sar"}


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (ANTARCTICA, {"grounded_ice": 1112, "floating_ice": 285, "ocean": 33}),
        (GREENLAND, {"grounded_ice": 968, "ocean": 221, "ice_free_land": 115}),
    ],
)
def test_cryotempo_keeps_records_with_an_elevation(granules, name, kept):
    elevation, surface, uncertainty = raw_variables(
        granules / name, "elevation", "surface_type", "uncertainty"
    )
    missing = int(np.isnan(elevation).sum())
    everything = read_granule(granules / name, surface_types=tuple(kept))
    assert everything.points["surface_type"].value_counts().loc[list(kept)].to_dict() == kept
    assert everything.dropped == {"no_elevation": missing}
    default = read_granule(granules / name)
    others = {f"surface_{key}": n for key, n in kept.items() if key != "grounded_ice"}
    assert default.dropped == {"no_elevation": missing, **others}
    grounded = np.isfinite(elevation) & (surface == 1)
    np.testing.assert_array_equal(default.points["elevation"], elevation[grounded])
    np.testing.assert_array_equal(default.points["uncertainty"], uncertainty[grounded])


@pytest.mark.parametrize(("name", "kept"), [(APRIL, 488), (JUNE, 16861), (NOVEMBER, 4471)])
def test_atl06_keeps_segments_of_best_quality_located_to_a_metre(granules, name, kept):
    height, quality, location = ([], [], [])
    with h5py.File(granules / name) as file:
        for beam in ("gt1l", "gt1r", "gt2l", "gt2r", "gt3l", "gt3r"):
            segments = file[f"{beam}/land_ice_segments"]
            height.append(segments["h_li"][:])
            quality.append(segments["atl06_quality_summary"][:])
            location.append(segments["sigma_geo_h"][:])
    height, quality, location = map(np.concatenate, (height, quality, location))
    present = height < 1e30
    best = present & (quality == 0)
    granule = read_granule(granules / name)
    assert granule.record_count == height.size
    counts = {
        "no_elevation": int((~present).sum()),
        "not_best_quality": int((present & (quality != 0)).sum()),
        "geolocation_uncertain": int((best & (location > 1)).sum()),
    }
    assert granule.dropped == {reason: count for reason, count in counts.items() if count}
    assert len(granule.points) == kept
    np.testing.assert_array_equal(granule.points["elevation"], height[best & (location <= 1)])


def test_atl11_has_each_reference_point_once_per_cycle(granules):
    with h5py.File(granules / REPEATED) as file:
        heights = file["pt2/corrected_h/h_corr"][:]
        latitude = file["pt2/corrected_h/latitude"][:]
    granule = read_granule(granules / REPEATED, columns=("uncertainty_systematic",))
    assert granule.dropped == {}
    assert granule.record_count == 2808
    points = granule.points
    np.testing.assert_array_equal(points["elevation"].to_numpy().reshape(-1, 2), heights)
    np.testing.assert_array_equal(points["latitude"].to_numpy().reshape(-1, 2)[:, 1], latitude)
    change = points["elevation"].to_numpy()[1::2] - points["elevation"].to_numpy()[::2]
    assert np.median(change) == pytest.approx(-0.855, abs=5e-4)
    days = (points["time"].iloc[1] - points["time"].iloc[0]) / np.timedelta64(1, "D")
    assert days / 365.25 == pytest.approx(0.249, abs=5e-4)
    assert points["uncertainty"].median() == pytest.approx(0.011, abs=5e-4)
    assert points["uncertainty_systematic"].median() == pytest.approx(0.61, abs=0.05)


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        (LRM, {pass_id("cryosat2", 55559, ascending=False)}),
        (SARIN, {pass_id("cryosat2", 48078, ascending=False)}),
        (ANTARCTICA, {pass_id("cryosat2", 1457, ascending=True)}),
        (GREENLAND, {pass_id("cryosat2", 25530, ascending=True)}),
        (APRIL, {pass_id("icesat2", 1387 * 2 + 277, ascending=True)}),
        (JUNE, {pass_id("icesat2", 1387 * 2 + 1161, ascending=True)}),
        (NOVEMBER, {pass_id("icesat2", 1387 * 4 + 627, ascending=True)}),
        (
            REPEATED,
            {
                pass_id("icesat2", 1387 * 2 + 788, ascending=False),
                pass_id("icesat2", 1387 * 3 + 788, ascending=False),
            },
        ),
    ],
)
def test_a_pass_is_one_overflight(granules, name, passes):
    assert set(read_granule(granules / name).points["pass_id"]) == passes


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        (LRM, ("cryosat2_l2i:lrm:20200930T235609:55559", "E", 1)),
        (SARIN, ("cryosat2_l2i:sin:20190504T122546:48078", "D", 1)),
        (SAR, ("cryosat2_l2:sar:20191005T151255:50315", "E", 1)),
        (ANTARCTICA, ("cryotempo_land_ice:antarctica:20100718T001450:1457", "B", 1)),
        (GREENLAND, ("cryotempo_land_ice:greenland:20150131T182746:25530", "C", 1)),
        (APRIL, ("icesat2_atl06:region03:20190416T093911:3051", "002", 1)),
        (JUNE, ("icesat2_atl06:region03:20190613T065109:3935", "002", 1)),
        (NOVEMBER, ("icesat2_atl06:region03:20191106T230008:6175", "006", 1)),
        (REPEATED, ("icesat2_atl11:unknown:20190519T205351:788", "", 4)),
    ],
)
def test_the_id_of_a_granule_has_neither_baseline_nor_version(granules, name, identity):
    granule = read_granule(granules / name)
    assert (granule.id, granule.baseline, granule.version) == identity


def test_power_is_that_of_the_height_used(granules):
    (third,) = raw_variables(granules / LRM, "sig0_3_20_ku")
    (quality,) = raw_variables(granules / LRM, "flag_quality_20_ku")
    columns = ("power", "coherence", "reference_dem")
    points = read_granule(granules / LRM, columns=columns).points
    np.testing.assert_allclose(points["power"], third[(quality & 1024) == 0] * 0.01, rtol=1e-14)
    assert points["coherence"].isna().all(), "LRM has none and stores 0"
    assert points["reference_dem"].isna().all(), "LRM has none and stores 0"
    assert find_reader(granules / LRM).columns["power"] == "dB"
