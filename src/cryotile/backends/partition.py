"""Deal tasks to members that cannot talk to each other, so that all take about equally long."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from cryotile.farm.task import Task

__all__ = ["deal"]


def deal(tasks: Sequence[Task], members: int) -> list[list[Task]]:
    """Deal tasks by cost: the costliest first, each to the member that has least so far.

    Longest processing time first [1]_: no member has more than 4/3 of what the best deal would give it, and where
    tasks are many and none is dearer than a fair share, all have the same within the cost of a cheap task.  Whoever
    deals the same list gets the same shares, which are disjoint and together the list.

    Parameters
    ----------
    tasks : sequence of Task
        In any order.
    members : int
        Number of shares, at least 1.

    Returns
    -------
    list of list of Task
        One share for each member, each in the order of ``tasks``; some are empty when there are fewer tasks.

    References
    ----------
    .. [1] Graham, R. L. (1969), Bounds on multiprocessing timing anomalies, SIAM J. Appl. Math. 17(2), 416–429.
    """
    owner: dict[int, int] = {}
    # What a member has, how many tasks these are (so that tasks without a cost are spread, too), and who it is.
    loads = [(0.0, 0, member) for member in range(members)]
    for task in sorted(tasks, key=lambda task: (-task.cost, task.index)):
        cost, count, member = loads[0]
        owner[task.index] = member
        heapq.heapreplace(loads, (cost + task.cost, count + 1, member))
    shares: list[list[Task]] = [[] for _ in range(members)]
    for task in tasks:
        shares[owner[task.index]].append(task)
    return shares
