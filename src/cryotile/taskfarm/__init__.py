"""The task farm over HTTP, for any kind of work: clients of a server that hands out the tasks of runs.

The clients need the extra ``http``; the server is :mod:`cryotile.taskfarm.server`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryotile.taskfarm.client import TaskFarm, TaskFarmWorker, tfRuns

__all__ = ["TaskFarm", "TaskFarmWorker", "tfRuns"]


def __getattr__(name: str) -> Any:
    """Import the clients on first use: the server is in this package too, and does not need requests."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cryotile.taskfarm import client

    return getattr(client, name)
