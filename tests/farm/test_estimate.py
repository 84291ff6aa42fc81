"""The law of durations by cost, and the range of the time that is left."""

from __future__ import annotations

import numpy as np
import pytest

from cryotile.farm.estimate import Durations, rate_left, time_left


def test_durations_that_follow_a_law_give_it_back():
    costs = np.array([1e6, 2e6, 5e6, 9e6])
    law = Durations.of(costs, 3.0 + 2e-6 * costs).law()
    assert (law.each, law.slope) == pytest.approx((3.0, 2e-6))
    assert law.scatter < 1e-6
    assert law.seconds(costs) == pytest.approx(3.0 + 2e-6 * costs)
    assert law.total(4, costs.sum()) == pytest.approx(12.0 + 2e-6 * costs.sum())


@pytest.mark.parametrize(
    ("costs", "seconds", "expected"),
    [
        # Neither value of the law is negative.
        ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], (2.0, 0.0)),
        ([1.0, 2.0, 3.0], [0.0, 1.0, 2.0], (0.0, 0.5)),
        # Equal costs tell nothing of the slope.
        ([7e8, 7e8, 7e8], [1.0, 2.0, 3.0], (2.0, 0.0)),
        ([0.0], [4.0], (4.0, 0.0)),
    ],
)
def test_durations_without_a_law_give_their_mean(costs, seconds, expected):
    law = Durations.of(np.array(costs), np.array(seconds)).law()
    assert (law.each, law.slope) == pytest.approx(expected, abs=1e-9)


def test_without_a_task_there_is_no_law():
    assert Durations.of(np.array([]), np.array([])).law() is None


@pytest.mark.parametrize(("done", "width"), [(40, 4.5), (200, 2.0)])
def test_nine_runs_in_ten_end_within_the_range(done, width):
    random = np.random.default_rng(7)
    within, ratios = 0, []
    for _ in range(100):
        costs = np.sort(random.gamma(2.0, 100.0, 3 * done))[::-1]
        seconds = (1 + 0.05 * costs) * random.lognormal(0.0, 0.3, len(costs))
        law = Durations.of(costs[:done], seconds[:done]).law()
        left, cost = law.seconds(costs[done:]), costs[done:].sum()
        least, most = time_left(
            law, tasks=2 * done, cost=cost, work=left.sum(), longest=left.max(), workers=6
        )
        ends = np.zeros(6)
        for each in seconds[done:]:
            ends[ends.argmin()] += each
        within += least <= ends.max() <= most
        ratios.append(most / least)
    assert within >= 90
    assert np.median(ratios) < width


def test_the_last_task_alone_takes_its_time():
    law = Durations.of(np.array([1.0, 2.0]), np.array([10.0, 20.0])).law()
    assert time_left(law, tasks=1, cost=5.0, work=50.0, longest=50.0, workers=8) == pytest.approx(
        (50.0, 50.0)
    )


def test_a_rate_of_few_tasks_gives_a_wide_range():
    wide, narrow = rate_left(100, 2.0, 4), rate_left(100, 2.0, 10_000)
    assert wide == pytest.approx((25.0, 100.0))
    assert narrow == pytest.approx((50 / 1.02, 50 * 1.02))
