"""The task-farm server: the native API and that of the first task farm, over the tables of the database ledger.

In production ``gunicorn 'cryotile.taskfarm.server:create_app()'`` behind nginx; on one machine ``cryotile serve``.
"""

from __future__ import annotations

from cryotile.errors import MissingDependency

try:
    from cryotile.taskfarm.server.app import create_app, serve
    from cryotile.taskfarm.server.settings import ServerSettings
except ModuleNotFoundError as error:
    raise MissingDependency(
        "the task-farm server needs Flask, gunicorn and msgspec: pip install 'cryotile[server]'"
    ) from error

__all__ = ["ServerSettings", "create_app", "serve"]
