"""The task-farm server: the seed's API and cryotile's own, over the tables of the database ledger.

In production ``gunicorn 'cryotile.taskfarm.server:create_app()'`` behind nginx; on one machine ``cryotile serve``.
"""

from __future__ import annotations

from cryotile.errors import MissingDependency

try:
    from cryotile.taskfarm.server.app import create_app
    from cryotile.taskfarm.server.settings import Settings
except ModuleNotFoundError as error:
    raise MissingDependency(
        "the task-farm server needs Flask: pip install 'cryotile[server]'"
    ) from error

__all__ = ["Settings", "create_app"]
