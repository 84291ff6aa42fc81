"""The plane fit at each post: correct numbers and statuses, and bytes that depend only on its circle."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyproj
import pytest
import statsmodels.api as sm
from scipy import stats

from cryotile import FitConfig, fit_posts
from cryotile.errors import InvalidValue
from cryotile.fit.terms import TermFlag
from cryotile.fit.variables import VARIABLES, Status
from tests.support.reference import design, fit_plane, in_circle, jackknife

EPOCH = "2016-01-01"
CONFIG = FitConfig(
    radius=2000.0, recipe="plane", period=("2011-01-01", "2021-01-01"), reference_epoch=EPOCH
)
POST = (np.array([300.0]), np.array([-200.0]))


def make_points(
    size=300, *, seed=0, passes=12, noise=0.1, extent=2500.0, centre=(300.0, -200.0)
) -> pd.DataFrame:
    """Return points of ten years around a post, on a plane that rises 1.000 m a year."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(-extent, extent, size) + centre[0]
    y = generator.uniform(-extent, extent, size) + centre[1]
    number = generator.integers(0, passes, size)
    milliseconds = np.linspace(0, 3650 * 86_400_000, passes).astype("timedelta64[ms]")
    time = (
        np.datetime64("2011-01-02", "ms")
        + milliseconds[number]
        + np.arange(size).astype("timedelta64[ms]")
    )
    years = (time - np.datetime64(EPOCH, "ms")) / np.timedelta64(31_557_600_000, "ms")
    plane = 1500.0 + 0.02 * (x - centre[0]) - 0.01 * (y - centre[1]) + 1.0 * years
    pass_errors = generator.normal(0, noise, passes)[number]
    return pd.DataFrame(
        {
            "x": x,
            "y": y,
            "time": time,
            "elevation": plane + pass_errors + generator.normal(0, 1, size) * noise,
            "pass_id": number.astype(np.int64) + 2**32,
        }
    )


def fit_one(points: pd.DataFrame, config: FitConfig = CONFIG, **options):
    return fit_posts(points, *POST, config, **options).isel(x=0, y=0)


def status_of(points: pd.DataFrame, config: FitConfig = CONFIG) -> Status:
    return Status(int(fit_one(points, config)["status"]))


# --- correct numbers


def test_a_plane_rising_one_metre_a_year_has_dhdt_one():
    fit = fit_one(make_points(noise=0.0))
    assert fit["status"] == Status.OK
    assert float(fit["dhdt"]) == pytest.approx(1.0, abs=1e-9)
    assert float(fit["slope_x"]) == pytest.approx(0.02, abs=1e-12)
    assert float(fit["slope_y"]) == pytest.approx(-0.01, abs=1e-12)
    assert float(fit["elevation"]) == pytest.approx(1500.0, abs=1e-9)
    assert float(fit["misfit_rms"]) < 1e-9
    assert float(fit["dhdt_sigma"]) < 1e-10


@pytest.mark.parametrize("seed", range(20))
def test_coefficients_equal_those_of_lstsq(seed):
    points = make_points(60 + 40 * seed, seed=seed)
    fit, expected = fit_one(points), fit_plane(points, 300.0, -200.0, 2000.0, EPOCH)
    assert float(fit["dhdt"]) == pytest.approx(expected.dhdt, rel=1e-9)
    assert float(fit["elevation"]) == pytest.approx(expected.elevation, rel=1e-9)
    assert float(fit["slope_x"]) == pytest.approx(expected.c0 / 2000, rel=1e-9)
    assert float(fit["slope_y"]) == pytest.approx(expected.c1 / 2000, rel=1e-9)
    assert float(fit["misfit_rms"]) == pytest.approx(expected.misfit_rms, rel=1e-8)


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.1, 100.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_jackknife_equals_refitting_without_each_pass(seed, noise):
    points = make_points(150, seed=seed, noise=noise)
    fit = fit_one(points)
    rate, elevation = jackknife(points, 300.0, -200.0, 2000.0, EPOCH)
    assert float(fit["dhdt_sigma"]) == pytest.approx(rate, rel=1e-8)
    assert float(fit["elevation_sigma"]) == pytest.approx(elevation, rel=1e-7)
    assert int(fit["dhdt_dof"]) == 11


@pytest.mark.parametrize("noise", [1e-3, 0.1, 100.0])
def test_the_formal_sigma_equals_that_of_ordinary_least_squares(noise):
    points = make_points(noise=noise)
    near = in_circle(points, 300.0, -200.0, 2000.0)
    model = sm.OLS(near["elevation"].to_numpy(), design(near, 300.0, -200.0, 2000.0, EPOCH)).fit()
    fit = fit_one(points)
    assert float(fit["dhdt_sigma_formal"]) == pytest.approx(model.bse[2], rel=1e-9)
    assert float(fit["misfit_rms"]) == pytest.approx(np.sqrt(model.ssr / model.nobs), rel=1e-9)


def test_errors_shared_within_passes_make_the_jackknife_exceed_the_formal_sigma():
    points = make_points(2000, noise=0.0)
    shared = np.random.default_rng(1).normal(0, 1, 12)
    points["elevation"] += shared[(points["pass_id"] - 2**32).to_numpy()]
    fit = fit_one(points)
    assert float(fit["dhdt_sigma"]) > 3 * float(fit["dhdt_sigma_formal"])


def test_large_heights_and_coordinates_lose_no_digits():
    points = make_points(noise=0.0, centre=(2.4e6, -1.9e6))
    points["elevation"] += 1e6
    fit = fit_posts(points, [2.4e6], [-1.9e6], CONFIG).isel(x=0, y=0)
    assert float(fit["dhdt"]) == pytest.approx(1.0, abs=1e-9)


def test_counts_times_and_centroid_are_those_of_the_points_in_the_circle():
    points = make_points()
    near, fit = in_circle(points, 300.0, -200.0, 2000.0), fit_one(points)
    assert int(fit["data_count"]) == len(near)
    assert int(fit["pass_count"]) == near["pass_id"].nunique()
    assert fit["time_start"].to_numpy() == near["time"].min().to_datetime64()
    assert fit["time_end"].to_numpy() == near["time"].max().to_datetime64()
    assert float(fit["radius"]) == 2000.0
    centroid = np.hypot(near["x"].mean() - 300, near["y"].mean() + 200)
    assert float(fit["centroid_distance"]) == pytest.approx(centroid, rel=1e-9)
    assert int(fit["rejected_count"]) == int(fit["free_pass_count"]) == 0


def test_a_point_at_exactly_the_radius_is_outside():
    points = make_points(extent=500.0)
    on, just_inside = points.iloc[[0]].copy(), points.iloc[[0]].copy()
    on[["x", "y"]] = [300.0 + 1200.0, -200.0 + 1600.0]
    just_inside[["x", "y"]] = [300.0 + 1200.0, np.nextafter(-200.0 + 1600.0, 0)]
    assert int(fit_one(pd.concat([points, on]))["data_count"]) == len(points)
    assert int(fit_one(pd.concat([points, just_inside]))["data_count"]) == len(points) + 1


def test_the_period_includes_its_first_instant_and_excludes_its_last():
    points = make_points()
    points.loc[0, "time"] = np.datetime64("2015-01-01", "ms")
    points.loc[1, "time"] = np.datetime64("2017-01-01", "ms")
    place = np.random.default_rng(0).uniform(-900, 900, (len(points), 2))
    points[["x", "y"]] = place + np.array([300, -200])
    fit = fit_one(points, FitConfig(recipe="plane", period=("2015-01-01", "2017-01-01")))
    inside = (points["time"] >= "2015-01-01") & (points["time"] < "2017-01-01")
    assert int(fit["data_count"]) == inside.sum()
    assert fit["time_start"].to_numpy() == np.datetime64("2015-01-01")


def test_the_default_period_is_the_whole_years_of_the_points_and_the_epoch_its_middle():
    fits = fit_posts(make_points(), *POST, FitConfig(recipe="plane"))
    assert fits.attrs["time_coverage_start"] == "2011-01-01"
    assert fits.attrs["time_coverage_end"] == "2021-01-01"
    assert fits.attrs["reference_epoch"] == "2016-01-01T12:00:00"
    assert fits.attrs["year_length_seconds"] == 31_557_600.0


# --- time in any unit


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_unit_of_time_changes_nothing(unit):
    points = make_points()
    points["time"] = points["time"].astype("datetime64[s]")
    other = points.assign(time=points["time"].astype(f"datetime64[{unit}]"))
    assert fit_posts(points, *POST, CONFIG).identical(fit_posts(other, *POST, CONFIG))


def test_a_time_with_a_zone_is_the_same_instant():
    points = make_points()
    zoned = points.assign(
        time=points["time"].dt.tz_localize("UTC").dt.tz_convert("America/Anchorage")
    )
    assert fit_posts(points, *POST, CONFIG).identical(fit_posts(zoned, *POST, CONFIG))


def test_plain_numbers_as_times_are_refused():
    points = make_points()
    with pytest.raises(InvalidValue, match=r"column 'time' is float64.*to_datetime"):
        fit_one(points.assign(time=np.arange(len(points)) * 0.1))


# --- a status for every post


def test_a_post_without_points_has_the_status_no_points():
    fit = fit_posts(make_points(), [1e6], [0.0], CONFIG).isel(x=0, y=0)
    assert fit["status"] == Status.NO_POINTS
    assert np.isnan(fit["dhdt"])
    assert np.isnat(fit["time_start"].to_numpy())
    assert int(fit["data_count"]) == 0


def test_four_points_are_too_few():
    assert status_of(make_points(4, extent=500.0)) == Status.TOO_FEW_POINTS


def test_twenty_nine_days_are_too_short_and_thirty_are_not():
    points = make_points(200)
    start = np.datetime64("2015-03-01", "ms")
    days = np.arange(len(points)) % 30
    points["time"] = start + (days * 86_400_000).astype("timedelta64[ms]")
    points["pass_id"] = days
    assert status_of(points) == Status.TOO_SHORT_SPAN
    points["time"] = start + (days * 30 * 86_400_000 // 29).astype("timedelta64[ms]")
    assert status_of(points) == Status.OK


def test_one_pass_is_too_few():
    assert status_of(make_points().assign(pass_id=7)) == Status.TOO_FEW_PASSES


def test_points_on_one_straight_line_cannot_separate_slope_from_change():
    points = make_points()
    points["y"] = 0.5 * points["x"] + np.random.default_rng(0).normal(0, 1.0, len(points))
    assert status_of(points) == Status.SINGULAR


@pytest.mark.parametrize("spread", [0.0, 1e-9, 1e-5])
def test_points_in_one_place_are_singular_despite_rounding(spread):
    points = make_points()
    place = np.random.default_rng(0).normal(0, spread, (len(points), 2))
    assert (
        status_of(points.assign(x=300.1 + place[:, 0], y=-200.3 + place[:, 1])) == Status.SINGULAR
    )


def test_points_at_one_time_are_singular_if_no_span_is_required():
    points = make_points()
    points["time"] = points["time"].iloc[0]
    assert (
        status_of(points, FitConfig(recipe="plane", min_span_days=0.0, period=CONFIG.period))
        == Status.SINGULAR
    )


def test_without_a_fit_every_real_number_is_nan():
    fit = fit_one(make_points().assign(pass_id=7))
    reals = [v.name for v in VARIABLES if v.dtype == "float64"]
    assert all(np.isnan(fit[name]) for name in reals)
    assert int(fit["data_count"]) > 0


@pytest.mark.parametrize("dependent", [0, 1, 2])
@pytest.mark.parametrize(("tolerance", "status"), [(0.9e-4, Status.SINGULAR), (1.1e-4, Status.OK)])
def test_the_tolerance_of_each_column_is_compared_with_the_smallest_allowed(
    dependent, tolerance, status
):
    # One of u, v and τ is the sum of the others plus a residual of this share of its variance.  The tolerances of the
    # others are twice as large, so that this column decides.
    a, b, rest = (np.tile(axis.ravel(), 4) for axis in np.meshgrid([-1, 1], [-1, 1], [-1, 1]))
    columns = [a, b]
    columns.insert(dependent, np.sqrt((1 - tolerance) / 2) * (a + b) + np.sqrt(tolerance) * rest)
    u, v, t = columns
    points = pd.DataFrame(
        {
            "x": 300 + 500 * u,
            "y": -200 + 500 * v,
            "time": np.datetime64(EPOCH, "ms") + (t * 365 * 86_400_000).astype("timedelta64[ms]"),
            "elevation": 1.0,
            "pass_id": np.arange(u.size),
        }
    )
    assert status_of(points) == status


def test_a_fit_that_depends_on_one_pass_has_no_jackknife_sigma():
    points = make_points(passes=2)
    fit = fit_one(points)
    assert fit["status"] == Status.OK
    assert np.isnan(fit["dhdt_sigma"])
    assert np.isnan(fit["dhdt_ci95"])
    assert np.isfinite(fit["dhdt_sigma_formal"])
    assert int(fit["dhdt_dof"]) == 1


def test_the_interval_is_the_quantile_of_student_times_the_jackknife_sigma():
    fit = fit_one(make_points())
    expected = stats.t.ppf(0.975, int(fit["pass_count"]) - 1) * float(fit["dhdt_sigma"])
    assert float(fit["dhdt_ci95"]) == pytest.approx(expected, rel=1e-9)


# --- the same bytes


def test_a_post_does_not_depend_on_the_tile_it_is_in():
    points = make_points(20_000, extent=12_000.0, passes=40)
    axis = np.arange(-5000.0, 5001.0, 500.0)
    whole = fit_posts(points, axis, axis, CONFIG)
    for rows, columns in (
        (slice(0, 7), slice(3, 9)),
        (slice(10, 11), slice(20, 21)),
        (slice(5, 21), slice(0, 2)),
    ):
        x, y = axis[columns], axis[rows]
        inside = points["x"].between(x[0] - 2000, x[-1] + 2000) & points["y"].between(
            y[0] - 2000, y[-1] + 2000
        )
        assert fit_posts(points[inside], x, y, CONFIG).identical(whole.isel(x=columns, y=rows))


def test_posts_in_any_order_get_the_same_fit():
    points = make_points(5000, extent=6000.0)
    axis = np.array([900.0, -2000.0, 3000.0, -5500.0, 900.0, 0.0])
    shuffled = fit_posts(points, axis, axis[::-1], CONFIG)
    order = np.argsort(axis, kind="stable")
    ordered = fit_posts(points, axis[order], axis[order], CONFIG)
    assert shuffled.isel(x=order).isel(y=order.size - 1 - order).identical(ordered)


@pytest.mark.parametrize("radius", [0.5, 70.0, 2000.0, 9999.0, 1e6])
def test_the_circle_of_any_radius_has_the_points_found_by_brute_force(radius):
    generator = np.random.default_rng(4)
    points = make_points(3000, extent=5000.0)
    x, y = points["x"].to_numpy()[:20] + generator.normal(0, 0.3, 20), np.array([-200.0, 333.3])
    counts = fit_posts(
        points, x, y, FitConfig(recipe="plane", radius=radius, period=CONFIG.period)
    )["data_count"]
    expected = [[len(in_circle(points, a, b, radius)) for a in x] for b in y]
    assert counts.to_numpy().tolist() == expected


def test_posts_far_apart_are_fitted_to_the_points_around_each_of_them():
    near = make_points(200, extent=3.0)
    places = np.array([-4.1e9, -7e6, 0.0, 1e3, 2e6, 3.9e9])
    points = pd.concat(
        [near.assign(x=near["x"] + a, y=near["y"] + b) for a in places for b in (0.0, 5e8)]
    )
    config = FitConfig(recipe="plane", radius=2.5, period=CONFIG.period)
    counts = fit_posts(points, places + 300, [5e8 - 200, -200.0], config)["data_count"].to_numpy()
    for a, column in zip(places, counts.T, strict=True):
        for b, count in zip((5e8, 0.0), column, strict=True):
            assert count == len(in_circle(points, a + 300, b - 200, 2.5))
    assert counts.min() > 50


# --- columns of any layout


def test_read_only_strided_and_narrow_columns_are_the_same_numbers():
    points = make_points()
    points[["x", "y", "elevation"]] = points[["x", "y", "elevation"]].round(0)
    expected = fit_posts(points, *POST, CONFIG)
    wide = np.repeat(points["x"].to_numpy(), 3)[::3]
    wide.flags.writeable = False
    other = points.assign(
        x=pd.Series(wide, copy=False),
        y=points["y"].astype("float32"),
        elevation=points["elevation"].astype("int16").astype("Int64"),
        pass_id=points["pass_id"].astype("Int64"),
    )
    other.index = np.arange(len(points))[::-1]
    assert fit_posts(other, *POST, CONFIG).identical(expected)


def test_posts_may_be_lists_of_integers():
    assert fit_posts(make_points(), [300], [-200], CONFIG).identical(
        fit_posts(make_points(), *POST, CONFIG)
    )


@pytest.mark.parametrize("column", ["x", "y", "elevation", "time", "pass_id"])
def test_a_point_with_a_value_missing_is_not_used(column):
    points = make_points().astype({"pass_id": "Int64"})
    points.loc[::7, column] = {"time": pd.NaT, "pass_id": pd.NA}.get(column, np.nan)
    rest = points.dropna()
    assert fit_posts(points, *POST, CONFIG).identical(fit_posts(rest, *POST, CONFIG))


@pytest.mark.parametrize("column", ["x", "y", "elevation"])
def test_a_point_with_an_infinite_value_is_not_used(column):
    points = make_points()
    points.loc[3, column] = -np.inf
    assert fit_posts(points, *POST, CONFIG).identical(
        fit_posts(points.drop(index=3), *POST, CONFIG)
    )


@pytest.mark.parametrize("column", ["x", "y", "time", "elevation", "pass_id"])
def test_a_missing_column_is_named(column):
    with pytest.raises(InvalidValue, match=f"no column '{column}'"):
        fit_one(make_points().drop(columns=column))


@pytest.mark.parametrize("column", ["x", "y", "elevation"])
def test_a_column_of_strings_is_named(column):
    with pytest.raises(InvalidValue, match=f"column '{column}' is .*, not numbers"):
        fit_one(make_points().assign(**{column: "high"}))


def test_no_points_give_no_fit():
    fits = fit_posts(make_points().iloc[:0], [0.0, 1000.0], [0.0], FitConfig(recipe="plane"))
    assert fits["status"].to_numpy().tolist() == [[Status.NO_POINTS, Status.NO_POINTS]]


def test_one_point_is_too_few():
    assert (
        status_of(make_points(1, extent=100.0), FitConfig(recipe="plane")) == Status.TOO_FEW_POINTS
    )


def test_no_posts_give_an_empty_dataset():
    assert dict(fit_posts(make_points(), [], [0.0], CONFIG).sizes) == {"y": 1, "x": 0}


@pytest.mark.parametrize("posts", [[np.nan], [np.inf], [1e30], ["a"], [[1.0]], 5.0])
def test_posts_that_are_not_finite_numbers_along_an_axis_are_refused(posts):
    with pytest.raises(InvalidValue, match="post_x"):
        fit_posts(make_points(), posts, [0.0], CONFIG)


# --- modes and platforms


def with_modes(points: pd.DataFrame, modes: list[str | None]) -> pd.DataFrame:
    return points.assign(mode=pd.Categorical([modes[i % len(modes)] for i in range(len(points))]))


def test_mixed_modes_are_reduced_to_the_majority_and_the_terms_record_it():
    points = with_modes(make_points(), ["sarin_swath", "lrm", "sarin_swath"])
    points.loc[points["mode"] == "lrm", "elevation"] += 5.0
    fits = fit_posts(points, *POST, CONFIG)
    assert fits["terms"].item() == TermFlag.MAJORITY_MODE
    swath = fit_posts(points[points["mode"] == "sarin_swath"], *POST, CONFIG)
    assert swath["terms"].item() == 0
    assert fits.drop_vars("terms").identical(swath.drop_vars("terms"))


def test_the_first_of_equally_frequent_modes_is_kept():
    points = make_points(400, extent=1000.0)
    fits = fit_posts(with_modes(points, ["laser", "sar"]), *POST, CONFIG)
    assert fits["data_count"].item() == 200
    assert fits["dhdt"].item() == fit_posts(points.iloc[1::2], *POST, CONFIG)["dhdt"].item()


def test_points_without_a_mode_count_as_a_separate_mode():
    points = make_points(400, extent=1000.0)
    assert fit_one(with_modes(points, [None, None, "lrm"]))["data_count"] == 267
    assert fit_one(with_modes(points, [None]))["data_count"] == 400


def test_an_invalid_mode_is_refused():
    with pytest.raises(InvalidValue, match="mode 'POCA' is unknown"):
        fit_one(with_modes(make_points(), ["POCA"]))


def test_mixed_platforms_are_refused_naming_both_remedies():
    points = make_points().assign(platform="cryosat2")
    assert fit_one(points)["status"] == Status.OK
    points.loc[5:9, "platform"] = "icesat2"
    with pytest.raises(InvalidValue, match=r"where=.*platform_offset"):
        fit_one(points)


def test_a_platform_outside_every_circle_does_not_count_as_mixed():
    points = make_points().assign(platform="cryosat2")
    points.loc[5, ["platform", "x"]] = ["icesat2", 1e6]
    assert fit_one(points)["status"] == Status.OK


# --- slopes on the ground


def test_slopes_are_multiplied_by_the_point_scale_of_the_projection():
    points = make_points(noise=0.0, centre=(-1.6e6, 1.1e6))
    plain = fit_posts(points, [-1.6e6], [1.1e6], CONFIG)
    scaled = fit_posts(points, [-1.6e6], [1.1e6], CONFIG, crs="EPSG:3031")
    crs = pyproj.Proj("EPSG:3031")
    factors = crs.get_factors(*crs(-1.6e6, 1.1e6, inverse=True))
    for name in ("slope_x", "slope_y"):
        assert scaled[name].item() == pytest.approx(
            plain[name].item() * factors.meridional_scale, rel=1e-6
        )
    assert scaled["dhdt"].item() == plain["dhdt"].item()


def test_the_default_crs_is_that_of_the_points():
    points = make_points(centre=(-1.6e6, 1.1e6))
    given = fit_posts(points, [-1.6e6], [1.1e6], CONFIG, crs="EPSG:3031")
    points.attrs["crs"] = "EPSG:3031"
    assert fit_posts(points, [-1.6e6], [1.1e6], CONFIG).identical(given)


# --- metadata of the Dataset


def test_every_variable_has_its_type_dimensions_and_attributes():
    fits = fit_posts(make_points(), *POST, CONFIG)
    assert list(fits.data_vars) == [v.name for v in VARIABLES]
    for variable in VARIABLES:
        array = fits[variable.name]
        assert array.dims == ("y", "x")
        assert array.dtype == np.dtype(variable.dtype)
        assert array.attrs["long_name"]
        assert "units" in array.attrs or "flag_meanings" in array.attrs or array.dtype.kind == "M"
        assert variable.empty((2, 3)).dtype == array.dtype
    assert fits["status"].attrs["flag_meanings"].split() == [s.name.lower() for s in Status]
    assert fits["status"].attrs["flag_values"].tolist() == [s.value for s in Status]
    assert fits["elevation"].attrs["standard_name"] == "height_above_reference_ellipsoid"


def test_fits_do_not_share_their_attributes():
    fits = fit_posts(make_points(), *POST, CONFIG)
    fits["dhdt"].attrs["units"] = "furlongs"
    assert fit_posts(make_points(), *POST, CONFIG)["dhdt"].attrs["units"] == "m yr-1"
