"""The time that is left of a run, from the durations of the tasks that are done; only sums over them are needed.

The seconds of a task are a constant plus a multiple of its cost, by least squares.  The time left is a range: the work
left divided among the workers, with two standard deviations of the sum of so many durations.  In addition, workers that
take one task after the other end at most one task apart: R. L. Graham, "Bounds on multiprocessing timing anomalies",
SIAM J. Appl. Math. 17 (1969) 416-429, doi 10.1137/0117039.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

__all__ = ["Durations", "Law", "rate_left", "time_left"]


@dataclass(frozen=True, slots=True)
class Law:
    """The expected duration of a task by its cost.

    Attributes
    ----------
    each : float
        Seconds that every task takes, not below 0.
    slope : float
        Seconds for each unit of cost, not below 0.
    scatter : float
        Standard deviation of the durations around the law, seconds.
    tasks : int
        Number of tasks that it was fitted to.
    seconds_mean, cost_mean : float
        Mean of their seconds and of their costs.
    spread : float
        Sum of the squared differences of their costs from the mean; 0 if the slope is not known.
    """

    each: float
    slope: float
    scatter: float
    tasks: int
    seconds_mean: float
    cost_mean: float
    spread: float

    def seconds(self, costs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the expected seconds of tasks, shape as ``costs``."""
        return self.each + self.slope * costs

    def total(self, tasks: float, cost: float) -> float:
        """Return the expected seconds of a number of tasks whose costs have a sum."""
        return self.each * tasks + self.slope * max(0.0, cost)

    def doubt(self, tasks: int, work: float, cost: float) -> float:
        """Return the standard deviation of the seconds of tasks: their own, and that of the law.

        Parameters
        ----------
        tasks : int
            Number of tasks.
        work : float
            Their expected seconds; the deviation of a task is taken as a part of its duration.
        cost : float
            Sum of their costs: the law is known worse away from those that it was fitted to.
        """
        if tasks <= 0 or self.seconds_mean <= 0:
            return 0.0
        own = tasks * (work / tasks / self.seconds_mean) ** 2
        away = (cost / tasks - self.cost_mean) ** 2 / self.spread if self.spread else 0.0
        return self.scatter * math.sqrt(own + tasks**2 * (1 / self.tasks + away))


@dataclass(frozen=True, slots=True)
class Durations:
    """Sums over the tasks that are done: of one, cost, seconds, their squares and their product."""

    tasks: int
    cost: float
    seconds: float
    cost2: float
    seconds2: float
    product: float

    @classmethod
    def of(cls, costs: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64]) -> Self:
        """Return the sums over tasks, by the cost and the seconds of each."""
        return cls(
            len(costs),
            float(costs.sum()),
            float(seconds.sum()),
            float(costs @ costs),
            float(seconds @ seconds),
            float(costs @ seconds),
        )

    def law(self) -> Law | None:
        """Fit the law (least squares, neither value negative); None without a task."""
        n = self.tasks
        if n <= 0:
            return None
        cost, mean = self.cost / n, self.seconds / n
        variance = self.cost2 / n - cost * cost
        # Less is the rounding error of the squares.
        varies = variance > 1e-9 * cost * cost
        slope = (self.product / n - cost * mean) / variance if varies else 0.0
        each = mean - slope * cost
        if slope < 0:
            slope, each = 0.0, mean
        elif each < 0:
            slope, each = mean / cost, 0.0
        residual = (
            self.seconds2 + n * each * each + slope * slope * self.cost2
            - 2 * each * self.seconds - 2 * slope * self.product + 2 * each * slope * self.cost
        )  # fmt: skip
        scatter = math.sqrt(max(0.0, residual) / n)
        return Law(each, slope, scatter, n, mean, cost, n * variance if varies else 0.0)


def time_left(
    law: Law, *, tasks: int, cost: float, work: float, longest: float, workers: float
) -> tuple[float, float]:
    """Return the range of the time that is left of a run.

    Parameters
    ----------
    law : Law
        The duration of tasks.
    tasks : int
        Number of tasks that are left.
    cost : float
        Sum of their costs.
    work : float
        Expected seconds of these tasks.
    longest : float
        Expected seconds of the longest of them.
    workers : float
        Number of tasks that are done at a time, more than 0.

    Returns
    -------
    (float, float)
        Seconds, least and most.
    """
    doubt = 2 * law.doubt(tasks, work, cost)
    least = max((work - doubt) / workers, longest, 0.0)
    most = (work + doubt) / workers + longest * max(0.0, 1 - 1 / workers)
    return least, max(least, most)


def rate_left(tasks: int, rate: float, done: int) -> tuple[float, float]:
    """Return the range of the time that is left if durations are unknown.

    Parameters
    ----------
    tasks : int
        Number of tasks that are left.
    rate : float
        Tasks a second, more than 0.
    done : int
        Number of tasks that the rate was found from, at least 1; its relative error is one by the square root of it.

    Returns
    -------
    (float, float)
        Seconds, least and most.
    """
    error = 2 / math.sqrt(done)
    return tasks / rate / (1 + error), tasks / rate * (1 + error)
