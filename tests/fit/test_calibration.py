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
        sparse = kind.lengths != "as flown"
        assert passes.min() >= 6
        assert 13 <= passes.max() <= (20 if sparse else 40)
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
            "dhdt_ci95": 0.2,
            "dhdt_sigma_formal": 0.01,
        }
    )
    row = calibration.summarize(table).iloc[0]
    assert (row["posts"], row["coverage"], row["coverage, formal"]) == (100, 0.9, 0.0)
    assert row["bias / rms"] == pytest.approx(0.06 / np.sqrt(0.9 * 0.01 + 0.1 * 0.09))
    assert calibration.verdict(calibration.summarize(table)) == []
    many = pd.concat([table] * 10)
    assert len(calibration.verdict(calibration.summarize(many))) == 1
    freed = many.assign(error=0.1, free_pass_count=1)
    assert "frees 14.3% of the good passes" in calibration.verdict(calibration.summarize(freed))[0]


def test_the_study_writes_its_tables_and_plots(calibration, monkeypatch, tmp_path: Path) -> None:
    words = ["--seeds", "1", "--extent", str(EXTENT), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["calibration.py", *words])
    monkeypatch.setattr(calibration, "rms_errors", lambda seeds: small_rms(calibration))
    calibration.main()
    coverage = pd.read_csv(tmp_path / "calibration-coverage.csv")
    assert set(coverage["world"]) == {kind.name for kind in calibration.KINDS}
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".svg"}
    assert len(list(tmp_path.iterdir())) == 4


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
