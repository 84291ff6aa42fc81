"""The robust fit: terms, weights, rejection and statuses, compared with a reference that uses lstsq."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import cryotile.fit.posts
from cryotile import FitConfig, fit_posts
from cryotile.errors import InvalidValue
from cryotile.fit.terms import TermFlag
from cryotile.fit.variables import Status
from tests.support.reference import in_circle
from tests.support.reference_robust import fit_robust, term_columns, weights_of

EPOCH = "2016-01-01"
CONFIG = FitConfig(radius=2000.0, period=("2011-01-01", "2021-01-01"), reference_epoch=EPOCH)
ALL_TERMS = ("quadratic", "acceleration", "annual", "direction", "mode_offset", "power")
X, Y = 300.0, -200.0


def make_points(
    size=400, *, seed=0, passes=24, shared=0.2, noise=0.3, outliers=0.01, sigma=0.5, season=0.3
):
    """Return points of ten years on a curved surface with a seasonal cycle; the points of a pass share an error."""
    generator = np.random.default_rng(seed)
    lengths = generator.lognormal(0, sigma, passes)
    number = generator.choice(passes, size, p=lengths / lengths.sum())
    x, y = generator.uniform(-1390, 1390, (2, size))
    days = np.linspace(30, 3620, passes) + generator.uniform(-29, 29, passes)
    time = np.datetime64("2011-01-01", "ms") + (
        days[number] * 86_400_000 + np.arange(size) * 20
    ).astype("timedelta64[ms]")
    years = days[number] / 365.25 - 5
    ascending = generator.random(passes)[number] < 0.5
    swath = generator.random(passes)[number] < 0.4
    power = generator.normal(-150, 5, size)
    elevation = (
        1500 + 0.02 * x - 0.01 * y + 1e-6 * x * x - 5e-7 * x * y + 0.6 * years
        + season * (np.cos(2 * np.pi * years) + ascending + swath) + 0.01 * power
        + generator.normal(0, shared, passes)[number] + generator.normal(0, noise, size)
    )  # fmt: skip
    wrong = generator.random(size) < outliers
    elevation[wrong] += generator.choice([-1, 1], wrong.sum()) * generator.uniform(
        5, 50, wrong.sum()
    )
    return pd.DataFrame(
        {
            "x": x + X,
            "y": y + Y,
            "time": time,
            "elevation": elevation,
            "uncertainty": generator.uniform(0.05, 1.0, size),
            "pass_id": number + 2**32,
            "ascending": pd.array(ascending, dtype="boolean"),
            "mode": pd.Categorical(np.where(swath, "sarin_swath", "sarin_poca"), ["sarin_poca", "sarin_swath"]),
            "platform": "cryosat2",
            "power": power,
        }
    )  # fmt: skip


def fit_one(points: pd.DataFrame, config: FitConfig = CONFIG):
    return fit_posts(points, [X], [Y], config).isel(x=0, y=0)


def with_terms(*terms: str, **settings) -> FitConfig:
    return FitConfig(
        radius=2000.0, terms=terms, period=CONFIG.period, reference_epoch=EPOCH, **settings
    )


def assert_agrees(fit, expected) -> None:
    assert fit["status"] == Status.OK
    assert int(fit["data_count"]) == len(expected.kept)
    assert int(fit["rejected_pass_count"]) == len(expected.rejected_passes)
    for name in ("dhdt", "elevation", "dhdt_sigma_formal", "misfit_rms"):
        assert float(fit[name]) == pytest.approx(getattr(expected, name), rel=1e-8), name
    for name in ("dhdt_sigma", "elevation_sigma"):
        assert float(fit[name]) == pytest.approx(getattr(expected, name), rel=1e-8), name


# --- correct numbers


@pytest.mark.parametrize("seed", range(25))
def test_the_robust_fit_equals_the_reference(seed):
    points = make_points(120 + 40 * seed, seed=seed, passes=10 + 2 * seed)
    points = points[points["mode"] == "sarin_poca"] if seed % 2 else points.drop(columns="mode")
    expected = fit_robust(points, X, Y, 2000.0, EPOCH, terms=CONFIG.terms)
    fit = fit_one(points)
    assert_agrees(fit, expected)
    flags = sum(TermFlag[name.upper()] for name in expected.coefficients)
    assert int(fit["terms"]) == flags


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("terms", [(), ("acceleration",), ("power", "annual"), ALL_TERMS])
def test_any_set_of_terms_is_fitted_as_by_the_reference(terms, seed):
    points = make_points(700, seed=seed, passes=40)
    if "mode_offset" not in terms:
        points = points.drop(columns="mode")
    expected = fit_robust(points, X, Y, 2000.0, EPOCH, terms=terms)
    fit = fit_one(points, with_terms(*terms))
    assert_agrees(fit, expected)
    beta = expected.coefficients
    if "annual" in beta:
        amplitude = np.hypot(*beta["annual"])
        assert float(fit["annual_amplitude"]) == pytest.approx(amplitude, rel=1e-8)
        phase = np.arctan2(beta["annual"][1], beta["annual"][0]) % (2 * np.pi)
        assert float(fit["annual_phase"]) == pytest.approx(phase, rel=1e-8)
    if "direction" in beta:
        assert float(fit["direction_offset"]) == pytest.approx(beta["direction"][0], rel=1e-7)
    if "acceleration" in beta:
        assert float(fit["acceleration"]) == pytest.approx(beta["acceleration"][0], rel=1e-7)
    if "power" in beta:
        assert float(fit["power_coefficient"]) == pytest.approx(beta["power"][0], rel=1e-7)
    if "mode_offset" in beta:
        offset = float(fit["mode_offset_sarin_poca"]) - float(fit["mode_offset_sarin_swath"])
        assert offset == pytest.approx(beta["mode_offset"][0], rel=1e-7)
        assert np.isnan(fit["mode_offset_lrm"])
    if "quadratic" in beta:
        curvature = 2 * beta["quadratic"] / 2000.0**2 / [1, 1, 2]
        for name, value in zip(("xx", "yy", "xy"), curvature, strict=True):
            assert float(fit[f"curvature_{name}"]) == pytest.approx(value, rel=1e-6, abs=1e-14)


@pytest.mark.parametrize(
    ("weights", "options"),
    [
        (("uncertainty",), {"floor": 0.1}),
        (("distance",), {"scale": 700.0}),
        (("uncertainty", "distance"), {"floor": 0.1, "scale": 700.0}),
    ],
)
@pytest.mark.parametrize("rejects", [True, False])
def test_weights_equal_those_of_the_reference_and_change_the_result(weights, options, rejects):
    points = make_points(500).drop(columns="mode")
    recipe = {"recipe": "robust" if rejects else "plane"}
    config = with_terms("quadratic", weights=weights, distance_scale=700.0, **recipe)
    fit = fit_one(points, config)
    expected = fit_robust(
        points, X, Y, 2000.0, EPOCH, terms=("quadratic",), rejects=rejects, **options
    )
    assert_agrees(fit, expected)
    plain = fit_one(points, with_terms("quadratic", **recipe))
    assert abs(float(fit["dhdt"]) - float(plain["dhdt"])) > 1e-4


@pytest.mark.parametrize("floor", [None, 0.1])
def test_the_fit_without_rejection_equals_that_of_statsmodels(floor):
    points = make_points(500)
    points = points[points["mode"] == "sarin_poca"]
    terms = ("quadratic", "direction", "annual")
    near = in_circle(points, X, Y, 2000.0)
    columns = term_columns(near, X, Y, 2000.0, EPOCH, terms)
    years = (near["time"].to_numpy() - np.datetime64(EPOCH, "ms")) / np.timedelta64(31_557_600, "s")
    plane = np.column_stack([(near["x"] - X) / 2000, (near["y"] - Y) / 2000, years])
    matrix = sm.add_constant(np.column_stack([plane, *columns.values()]))
    weights = weights_of(near, X, Y, floor=floor)
    model = sm.WLS(near["elevation"].to_numpy(), matrix, weights=weights).fit()
    chosen = ("uncertainty",) if floor else ()
    fit = fit_one(points, with_terms(*terms, recipe="plane", weights=chosen))
    assert int(fit["terms"]) == TermFlag.QUADRATIC | TermFlag.DIRECTION | TermFlag.ANNUAL
    assert float(fit["elevation"]) == pytest.approx(model.params[0], rel=1e-8)
    assert float(fit["dhdt"]) == pytest.approx(model.params[3], rel=1e-8)
    assert float(fit["dhdt_sigma_formal"]) == pytest.approx(model.bse[3], rel=1e-8)
    jackknife = jackknife_of_scores(model, near["pass_id"].to_numpy())
    assert float(fit["dhdt_sigma"]) == pytest.approx(jackknife, rel=1e-8)


def jackknife_of_scores(model, passes) -> float:
    """Return the jackknife sigma from sums of scores per pass, as in the sandwich estimator of statsmodels."""
    x, w, residuals = model.model.exog, model.model.weights, model.resid
    ids = np.unique(passes)
    scores = np.array([(w * residuals)[passes == g] @ x[passes == g] for g in ids])
    bread = np.linalg.inv(x.T @ (w[:, None] * x))
    clustered = model.get_robustcov_results("cluster", groups=passes, use_correction=False)
    assert np.allclose(bread @ (scores.T @ scores) @ bread, clustered.cov_params(), rtol=1e-8)
    rates = [
        np.linalg.solve(x[passes != g].T @ (w[passes != g, None] * x[passes != g]), score)[3]
        for g, score in zip(ids, scores, strict=True)
    ]
    return float(np.sqrt((1 - 1 / len(ids)) * np.sum(np.square(rates))))


# --- rejection


@pytest.mark.parametrize("offset", [5.0, 50.0, -50.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_pass_with_an_offset_is_rejected_and_does_not_change_the_rate(offset, seed):
    points = make_points(300, seed=seed, passes=11, shared=0.05, outliers=0, sigma=0.2, season=0)
    points = points.drop(columns="mode")
    bad = points["pass_id"] == points["pass_id"].iloc[seed]
    clean = fit_one(points[~bad])
    points.loc[bad, "elevation"] += offset
    fit = fit_one(points)
    assert int(fit["rejected_pass_count"]) == 1
    assert int(fit["rejected_count"]) >= bad.sum()
    assert float(fit["dhdt"]) == pytest.approx(float(clean["dhdt"]), rel=1e-9)
    assert int(fit["pass_count"]) == points["pass_id"].nunique() - 1


def test_outliers_do_not_change_the_rate():
    points = make_points(outliers=0).drop(columns="mode")
    wild = points.copy()
    wild.loc[::50, "elevation"] += 300.0
    fit = fit_one(wild)
    assert int(fit["rejected_count"]) >= 8
    assert float(fit["dhdt"]) == pytest.approx(float(fit_one(points)["dhdt"]), abs=0.01)


def test_exact_data_lose_no_point_to_rounding():
    points = make_points(outliers=0, noise=0, shared=0).drop(columns="mode")
    years = (points["time"].to_numpy() - np.datetime64(EPOCH, "ms")) / np.timedelta64(
        31_557_600, "s"
    )
    points["elevation"] = 1500 + 0.02 * points["x"] + 1.0 * years
    fit = fit_one(points)
    assert int(fit["rejected_count"]) == 0
    assert float(fit["dhdt"]) == pytest.approx(1.0, abs=1e-9)


# --- terms that a post does not determine


def test_the_annual_term_is_dropped_if_all_passes_are_in_one_season():
    points = make_points(600, passes=10).drop(columns="mode")
    number = points["pass_id"] - 2**32
    points["time"] = (
        np.datetime64("2011-02-01", "ms")
        + number * np.timedelta64(369, "D")
        + points["time"].dt.minute * np.timedelta64(1, "ms")
    ).astype("datetime64[ms]")
    fit = fit_one(points)
    assert fit["status"] == Status.OK
    assert not int(fit["terms"]) & TermFlag.ANNUAL
    assert np.isnan(fit["annual_amplitude"])
    assert float(fit["dhdt_sigma"]) < 0.5


def test_passes_in_one_direction_drop_the_direction_term_and_keep_the_annual_term():
    points = make_points(600, passes=40).drop(columns="mode")
    fit = fit_one(points.assign(ascending=True))
    assert int(fit["terms"]) == TermFlag.QUADRATIC | TermFlag.ANNUAL
    assert np.isnan(fit["direction_offset"])


def test_unknown_directions_are_not_fitted():
    points = make_points(600, passes=40).drop(columns="mode")
    one_unknown = points.copy()
    one_unknown.loc[7, "ascending"] = pd.NA
    for other in (points.drop(columns="ascending"), one_unknown):
        assert not int(fit_one(other)["terms"]) & TermFlag.DIRECTION


def passes_with_direction(passes):
    """Return passes of similar length, in several seasons and both directions."""
    points = make_points(400, passes=passes, sigma=0, shared=0, outliers=0).drop(columns="mode")
    number = (points["pass_id"] - 2**32).to_numpy()
    days = np.linspace(10, 3400, passes) + np.resize([0, 100, 230], passes)
    points["time"] = np.datetime64("2011-01-01", "ms") + (days[number] * 86_400_000).astype(
        "timedelta64[ms]"
    )
    return points.assign(ascending=pd.array(number % 4 < 2, dtype="boolean"))


@pytest.mark.parametrize(
    ("passes", "terms"), [(9, TermFlag.DIRECTION | TermFlag.ANNUAL), (8, TermFlag.DIRECTION)]
)
def test_time_like_terms_need_five_passes_to_spare(passes, terms):
    assert int(fit_one(passes_with_direction(passes))["terms"]) == TermFlag.QUADRATIC | terms


def test_a_pass_without_kept_points_does_not_count_for_the_terms():
    points = passes_with_direction(7)
    assert int(fit_one(points)["terms"]) & TermFlag.DIRECTION
    # Its median is unchanged, so that it is not rejected as a pass.
    last = points.index[points["pass_id"] == points["pass_id"].max()]
    up, down = last[::2], last[1::2]
    points.loc[up, "elevation"] += 40.0
    points.loc[down, "elevation"] -= 40.0
    fit, without = fit_one(points), fit_one(points.drop(index=last))
    assert fit["status"] == Status.OK
    assert int(fit["pass_count"]) == 6
    assert int(fit["rejected_pass_count"]) == 1
    assert int(fit["terms"]) == int(without["terms"]) == TermFlag.QUADRATIC
    assert float(fit["dhdt"]) == pytest.approx(float(without["dhdt"]), abs=0.01)


def test_an_undetermined_quadratic_is_dropped_and_the_post_keeps_its_fit():
    points = make_points(600, passes=40).drop(columns="mode")
    # On the circle u² + v² is nearly constant, and the plane is well determined.
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, len(points))
    points["x"], points["y"] = X + 1500 * np.cos(angle), Y + 1500 * np.sin(angle)
    fit = fit_one(points)
    assert fit["status"] == Status.OK
    assert not int(fit["terms"]) & TermFlag.QUADRATIC


def test_a_column_that_copies_x_is_dropped_and_the_post_keeps_its_fit():
    points = make_points().drop(columns="mode")
    fit = fit_one(points.assign(power=points["x"] * 3), with_terms("power"))
    assert fit["status"] == Status.OK
    assert not int(fit["terms"]) & 256


# --- modes and platforms


def test_modes_with_an_undetermined_offset_are_reduced_to_the_majority():
    points = make_points(600, passes=30)
    points = points[~points["time"].between("2013-01-01", "2018-01-01")]
    late = points["time"] > np.datetime64("2018-01-01")
    points["mode"] = pd.Categorical(np.where(late, "sarin_poca", "sarin_swath"))
    fit = fit_one(points, with_terms("mode_offset", min_span_share=0.1))
    first = (~late).sum() > late.sum()
    one_mode = fit_one(points[late != first], with_terms("mode_offset", min_span_share=0.1))
    assert int(fit["terms"]) == TermFlag.MAJORITY_MODE
    assert float(fit["dhdt"]) == float(one_mode["dhdt"])


@pytest.mark.parametrize(
    ("laser", "radar", "others"),
    [
        ("icesat2", "cryosat2", ()),
        ("airborne", "cryosat2", ("saral", "airborne")),
        ("airborne", "jason-like", (*(f"x{k}" for k in range(13)), "airborne", "jason-like")),
    ],
)
def test_platforms_are_fitted_together_with_an_offset(laser, radar, others):
    points = make_points(900, passes=40, outliers=0).drop(columns="mode")
    low = (points["pass_id"] % 3 == 0).to_numpy()
    points["platform"] = np.where(low, laser, radar)
    points["elevation"] -= 1.5 * low
    config = with_terms("quadratic", "platform_offset", other_platforms=others)
    fit = fit_one(points, config)
    assert int(fit["terms"]) & TermFlag.PLATFORM_OFFSET
    names = [f"platform_offset_{word.replace('-', '_')}" for word in (radar, laser)]
    step = float(fit[names[0]]) - float(fit[names[1]])
    assert step == pytest.approx(1.5, abs=0.3)
    assert float(fit["dhdt"]) == pytest.approx(0.6, abs=0.1)


def test_an_invalid_platform_is_refused():
    points = make_points()
    points["platform"] = np.where(points["pass_id"] % 2, "icesat3", "icesat2")
    with pytest.raises(InvalidValue, match="platform 'icesat3' is unknown"):
        fit_one(points, with_terms("platform_offset"))


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (("SARAL",), "lower-case word"),
        (("saral", "saral"), "one twice"),
        (("jason-like", "jason_like"), "one twice"),
        (("ers1",), "a known one"),
        (tuple(f"x{k}" for k in range(16)), "16 other platforms are more than 15"),
    ],
)
def test_other_platforms_are_words_and_not_too_many(others, said):
    with pytest.raises(InvalidValue, match=said):
        with_terms("platform_offset", other_platforms=others)


# --- gates and fallback


def test_each_gate_of_the_robust_recipe_has_its_status():
    points = make_points(600, passes=40).drop(columns="mode")
    assert fit_one(points.iloc[:19])["status"] == Status.TOO_FEW_POINTS
    early = points[points["time"] < np.datetime64("2017-12-01")]
    assert fit_one(early)["status"] == Status.TOO_SHORT_SPAN
    ids = points["pass_id"].drop_duplicates().sort_values().iloc[[0, 9, 18, 27, 39]]
    assert fit_one(points[points["pass_id"].isin(ids)])["status"] == Status.TOO_FEW_PASSES
    years = (points["time"].to_numpy() - np.datetime64(EPOCH, "ms")) / np.timedelta64(
        31_557_600, "s"
    )
    fast = fit_one(points.assign(elevation=points["elevation"] + 40 * years))
    assert fast["status"] == Status.RATE_OUT_OF_BOUNDS
    assert np.isnan(fast["dhdt"])
    assert int(fast["data_count"]) > 0


def test_a_post_with_too_few_points_uses_the_next_radius_and_records_it():
    points = make_points(800, passes=30).drop(columns="mode")
    points = points[np.hypot(points["x"] - X, points["y"] - Y) > 900]
    config = FitConfig(radius=900.0, fallback_radii=(910.0, 2000.0), period=CONFIG.period)
    fits = fit_posts(points, [X, X + 1500], [Y], config)
    at_once = FitConfig(radius=2000.0, period=CONFIG.period)
    assert fits["radius"].to_numpy()[0, 0] == 2000.0
    assert fits["dhdt"].to_numpy()[0, 0] == fit_posts(points, [X], [Y], at_once)["dhdt"].item()


# --- columns


def test_weighting_by_a_missing_uncertainty_names_the_column():
    config = with_terms(weights=("uncertainty",))
    points = make_points()
    for other in (points.drop(columns="uncertainty"), points.assign(uncertainty=np.nan)):
        with pytest.raises(InvalidValue, match="uncertainty"):
            fit_one(other, config)


def test_a_term_without_its_column_is_named():
    with pytest.raises(InvalidValue, match="no column 'coherence'"):
        fit_one(make_points(), with_terms("coherence"))
    with pytest.raises(InvalidValue, match="column 'power' has no finite value"):
        fit_one(make_points().assign(power=np.nan), with_terms("power"))


def test_a_point_without_a_value_of_a_term_is_not_used():
    points = make_points().drop(columns="mode")
    points.loc[::9, "power"] = np.nan
    config = with_terms("power")
    assert fit_one(points, config).identical(fit_one(points.dropna(), config))


def test_heights_that_are_fill_values_are_refused():
    points = make_points()
    points.loc[3, "elevation"] = 9.97e36
    with pytest.raises(InvalidValue, match=r"column 'elevation' holds 9\.97e"):
        fit_one(points)


# --- the same bytes


def test_the_bytes_do_not_depend_on_threads_or_on_the_tile():
    points = pd.concat([make_points(3000, seed=k, passes=60) for k in range(4)], ignore_index=True)
    points[["x", "y"]] = np.random.default_rng(0).uniform(-9000, 9000, (len(points), 2))
    axis = np.arange(-6000.0, 6001.0, 1000.0)
    config = with_terms(*ALL_TERMS, weights=("uncertainty", "distance"))
    whole = fit_posts(points, axis, axis, config)
    assert whole.identical(fit_posts(points, axis, axis, config, threads=3))
    near = points[points["x"].between(-5000, 3000) & points["y"].between(-4000, 6000)]
    part = fit_posts(near, axis[3:8], axis[4:11], config)
    assert part.identical(whole.isel(x=slice(3, 8), y=slice(4, 11)))
    assert (whole["status"] == Status.OK).mean() > 0.9


@pytest.mark.parametrize("recipe", ["plane", "robust"])
def test_circles_too_large_for_one_thread_get_the_same_bytes(recipe, monkeypatch):
    points = make_points(3000, passes=60).drop(columns="mode")
    points[["x", "y"]] = np.random.default_rng(0).normal(0, 3000, (len(points), 2))
    axis = np.arange(-3000.0, 3001.0, 1000.0)
    config = FitConfig(recipe=recipe, period=CONFIG.period)
    whole = fit_posts(points, axis, axis, config)
    monkeypatch.setattr(cryotile.fit.posts, "ROOM", int(whole["data_count"].median()))
    assert whole.identical(fit_posts(points, axis, axis, config, threads=3))
