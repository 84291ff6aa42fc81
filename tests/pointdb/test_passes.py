"""A pass is a platform, an orbit number and a gap of less than 600 s, the same whatever file it came in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cryotile.points import join_passes, pass_id

START = 1_546_300_800_000 // 600_000
"""The substitute for the orbit number of a pass that begins on 1 January 2019."""


def flown(*passes: tuple[int, float, float], seed: int = 1) -> pd.DataFrame:
    """Return points of passes given by id, first and last second, in random order; ``true`` tells the pass."""
    parts = [
        pd.DataFrame({"pass_id": id_, "second": np.linspace(begin, end, 40), "true": number})
        for number, (id_, begin, end) in enumerate(passes)
    ]
    points = pd.concat(parts).sample(frac=1, random_state=seed)
    begin = pd.Timestamp("2019-01-01").as_unit("ms")
    return points.assign(time=begin + pd.to_timedelta(points["second"], unit="s").dt.as_unit("ms"))


def orbit(number: int, *, ascending: bool = False, platform: str = "cryosat2") -> int:
    return pass_id(platform, number, ascending)


def passes_of(points: pd.DataFrame) -> list[set[int]]:
    """Return which of the given passes each joined pass holds."""
    joined = points.assign(joined=join_passes(points))
    return sorted((set(some["true"]) for _, some in joined.groupby("joined")), key=min)


@pytest.mark.parametrize("seed", range(3))
def test_parts_of_one_overflight_from_two_files_are_one_pass(seed: int) -> None:
    # The second file begins in the next 600 s, so that its reader inferred another number.
    points = flown(
        (orbit(START), 500, 590),
        (orbit(START + 1, ascending=True), 601, 700),
        (orbit(START + 10), 6000, 6100),
        seed=seed,
    )
    assert passes_of(points) == [{0, 1}, {2}]
    assert set(join_passes(points)) == {orbit(START), orbit(START + 10)}


@pytest.mark.parametrize("gap", [599.0, 600.0])
def test_a_gap_of_600_s_divides_passes(gap: float) -> None:
    points = flown((orbit(4711), 0, 50), (orbit(4711), 50 + gap, 100 + gap))
    assert passes_of(points) == ([{0, 1}] if gap < 600 else [{0}, {1}])


def test_an_orbit_number_that_repeats_makes_a_pass_of_each_overflight() -> None:
    cycle = 91 * 86400.0
    points = flown(*[(orbit(17), n * cycle, n * cycle + 60) for n in range(16)])
    assert passes_of(points) == [{n} for n in range(16)]
    # The first keeps its number, so that a pass that does not repeat has the id of its points.
    first = join_passes(points)[(points["true"] == 0).to_numpy()]
    assert set(first) == {orbit(17)}


def test_the_direction_does_not_identify_a_pass() -> None:
    # Near the pole, a satellite turns within a pass.
    points = flown((orbit(4711, ascending=True), 0, 50), (orbit(4711), 50, 100))
    assert passes_of(points) == [{0, 1}]


def test_orbits_and_platforms_at_the_same_time_are_passes_of_their_own() -> None:
    points = flown(
        (orbit(4711), 0, 50), (orbit(4712), 0, 50), (orbit(4711, platform="icesat2"), 0, 50)
    )
    assert passes_of(points) == [{0}, {1}, {2}]
    assert (join_passes(points) == points["pass_id"]).all()


def test_ids_of_other_programs_are_left_alone() -> None:
    points = flown((3, 0, 50), (3, 86400, 86450), (4, 0, 50))
    assert (join_passes(points) == points["pass_id"]).all()
    assert len(join_passes(points[:0])) == 0


def test_a_point_without_a_time_changes_no_pass() -> None:
    points = flown((orbit(4711), 0, 50), (orbit(4711), 6000, 6050))
    joined = join_passes(points)
    points.iloc[[3, 40], points.columns.get_loc("time")] = pd.NaT
    assert (np.delete(join_passes(points), [3, 40]) == np.delete(joined, [3, 40])).all()
