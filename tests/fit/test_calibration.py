"""A small calibration study: its simulated worlds have the stated truth, and it writes its figures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support import PROJECT

BENCHMARKS = PROJECT / "benchmarks"
EXTENT = 20e3


@pytest.fixture(scope="module", autouse=True)
def calibration():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import calibration

        yield calibration


@pytest.fixture(scope="module")
def flown(calibration) -> pd.DataFrame:
    return calibration.fly_over(0, EXTENT)


def test_exact_points_give_the_true_rate(calibration, flown: pd.DataFrame) -> None:
    errors = calibration.misses(flown, EXTENT, calibration.RECIPES["passes"])["error"]
    assert len(errors) == 25
    # Hills that are not quadratic look like noise: 2 cm/yr at most, where few passes sample them.
    assert errors.abs().max() < 0.02
    assert errors.abs().median() < 0.005


def test_each_kind_of_world_has_posts_of_few_and_of_many_passes(calibration, flown) -> None:
    for number, kind in enumerate(calibration.KINDS):
        points = calibration.thin(flown, kind, np.random.default_rng(number))
        passes = points.groupby("post")["pass_id"].nunique()
        assert len(passes) == 25
        assert passes.min() >= 6
        assert 21 <= passes.max() <= 40
        if kind.lengths == "equal":
            assert points["pass_id"].value_counts().max() <= calibration.POINTS_OF_SPARSE_PASS


def test_one_pass_of_each_post_has_an_offset(calibration, flown) -> None:
    kind = next(k for k in calibration.KINDS if k.off == 50)
    points = calibration.thin(flown, kind, np.random.default_rng(0))
    wrong = calibration.disturb(points, kind, np.random.default_rng(1))
    off = (wrong["elevation"] - points["elevation"]).groupby(points["pass_id"]).median() > 25
    assert off.groupby(points.groupby("pass_id")["post"].first()).sum().tolist() == [1] * 25


def test_coverage_counts_the_posts_whose_interval_contains_the_truth(calibration) -> None:
    table = pd.DataFrame(
        {
            "world": "white noise",
            "recipe": "passes",
            "passes": 7,
            "free_pass_count": 0,
            "error": np.r_[np.full(90, 0.1), np.full(10, -0.3)],
            "ci95": 0.2,
            "dhdt_sigma_formal": 0.01,
        }
    )
    row = calibration.summarize(table).iloc[0]
    assert (row["posts"], row["coverage"], row["coverage, formal"]) == (100, 0.9, 0.0)
    assert row["bias / rms"] == pytest.approx(0.06 / np.sqrt(0.9 * 0.01 + 0.1 * 0.09))
    assert calibration.verdict(calibration.summarize(table)) == []
    many = pd.concat([table] * 10)
    heights = many.assign(recipe="heights", error=0.1)
    assert "covers 100.0% of the heights" in str(
        calibration.verdict(calibration.summarize(pd.concat([many, heights])))
    )
    assert len(calibration.verdict(calibration.summarize(many))) == 1
    freed = many.assign(error=0.1, free_pass_count=1)
    assert "frees 14.3% of the good passes" in calibration.verdict(calibration.summarize(freed))[0]


def test_a_height_of_a_quarter_has_the_truth_that_the_surface_stood_still_at(
    calibration, flown
) -> None:
    found = calibration.misses_of_heights(flown, EXTENT)
    quarters = flown.assign(quarter=flown["time"].dt.to_period("Q"))
    # But for those of which the only pass is free.
    known = quarters.groupby("post")["quarter"].nunique().sum()
    assert 0.97 * known < len(found) <= known
    # Exact points: what is left is hills that are not quadratic.
    assert found["error"].abs().median() < 0.05
    moved = flown["moved"].groupby([quarters["post"], quarters["quarter"]]).agg(["min", "max"])
    assert (moved["max"] - moved["min"]).max() < 0.5
    assert flown["moved"].abs().max() > 0.05


def test_the_recipes_of_others_find_the_rate_of_exact_points(calibration, flown) -> None:
    found = calibration.misses_of_peers(flown, EXTENT)
    assert set(found["recipe"]) == set(calibration.PEERS)
    assert found["error"].abs().max() < 0.03


def test_a_comparison_counts_the_posts_that_all_recipes_fitted(calibration) -> None:
    recipes = [*calibration.RECIPES, *calibration.PEERS]
    table = pd.DataFrame(
        [
            {
                "world": "white noise",
                "seed": 0,
                "post": post,
                "recipe": recipe,
                "passes": 7,
                "error": 0.1 if recipe == "passes" else 0.3,
                "ci95": np.nan if recipe == "passes" and post == 3 else 0.2,
            }
            for post in range(4)
            for recipe in recipes
        ]
    )
    row = calibration.compare(table).iloc[0]
    assert (row["posts"], row["coverage, passes"], row["coverage, surface fit"]) == (3, 1.0, 0.0)
    assert row["rms, passes"] == pytest.approx(0.1)


def test_the_study_writes_its_tables_and_plots(calibration, monkeypatch, tmp_path: Path) -> None:
    words = ["--seeds", "1", "--extent", str(EXTENT), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["calibration.py", *words])
    monkeypatch.setattr(calibration, "rms_errors", lambda seeds: small_rms(calibration))
    calibration.main()
    coverage = pd.read_csv(tmp_path / "calibration-coverage.csv")
    assert set(coverage["world"]) == {kind.name for kind in calibration.KINDS}
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".svg"}
    assert len(list(tmp_path.iterdir())) == 6


def small_rms(calibration) -> pd.DataFrame:
    import calibration_rms

    densities = calibration_rms.DENSITIES
    return pd.DataFrame(
        calibration_rms.MEASURED, index=[f"{n} points" for n, _ in densities]
    ).T.rename_axis("m/yr")


def test_the_fit_is_as_good_as_the_best_peer_on_the_points_of_the_peers(calibration) -> None:
    import calibration_rms as rms

    points = rms.make_points(139, 2000.0, 0)
    expected = rms.truth(*np.meshgrid(rms.POSTS, rms.POSTS))
    errors = {
        name: np.sqrt(np.nanmean((rms.fitted(points, 2000.0, config) - expected) ** 2))
        for name, config in rms.CONFIGS.items()
    }
    assert errors["plane (cryotile)"] == pytest.approx(0.112, rel=0.15)
    assert errors["passes (cryotile)"] < 0.048
