"""What the requests of a process share, found from within a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app

from cryotile.ledgers.sql.database import Database
from cryotile.taskfarm.server.auth import Access
from cryotile.taskfarm.server.settings import Settings
from cryotile.taskfarm.server.workers import Workers

__all__ = ["Server", "server"]


@dataclass(frozen=True)
class Server:
    """What the requests of a process share.

    Attributes
    ----------
    database : Database
        Of the ledger.
    settings : Settings
        Of the server.
    access : Access
        Who may do what.
    workers : Workers
        Numbers of workers.
    """

    database: Database
    settings: Settings
    access: Access
    workers: Workers


def server() -> Server:
    """Return what the application of this request has."""
    return cast("Server", current_app.extensions["cryotile"])
