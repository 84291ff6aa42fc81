"""The server that a worker of a run hosts: ``python -m cryotile.taskfarm.server.hosted``.

Its owner writes one line of JSON to the standard input, with ``database``, ``secret_key``, ``token`` (or null) and
``silence``, and then signs of life; the server answers one line of JSON with ``port`` and ``token``.  If no sign of
life comes for ``silence`` seconds, or the input ends, the server ends: another worker may host one by then.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import sys
import threading
from contextlib import suppress
from getpass import getuser
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from flask import Flask

from cryotile.taskfarm.server import accounts
from cryotile.taskfarm.server.app import create_app, serve
from cryotile.taskfarm.server.auth import identify
from cryotile.taskfarm.server.settings import ServerSettings

__all__ = ["main"]

# Seconds for which a token is valid: no run takes longer.
_LIFETIME = 366 * 86400.0

_INPUT = 0


def main() -> None:
    """Serve until the owner is gone."""
    owner, server = os.getppid(), os.getpid()
    asked = json.loads(_line())
    settings = ServerSettings(
        database_url=f"sqlite:///{asked['database']}",
        secret_key=asked["secret_key"],
        token_lifetime=_LIFETIME,
    )
    app = create_app(settings)
    token = _token(app, asked["token"])
    app.extensions["cryotile"].database.engine.dispose()
    listening = socket.create_server(("", 0), backlog=1024)
    sys.stdout.write(json.dumps({"port": listening.getsockname()[1], "token": token}) + "\n")
    sys.stdout.flush()
    threading.Thread(target=_watch, args=(asked["silence"],), daemon=True).start()
    try:
        # From here on the socket belongs to gunicorn.
        serve(settings, f"fd://{listening.detach()}", processes=2)
    finally:
        # An owner that was killed does not copy the database, nor remove it.
        if os.getpid() == server and os.getppid() != owner:
            shutil.rmtree(Path(asked["database"]).parent, ignore_errors=True)


def _line() -> bytes:
    """Read a line without reading ahead: what follows are signs of life."""
    read = bytearray()
    while not read.endswith(b"\n"):
        byte = os.read(_INPUT, 1)
        if not byte:
            sys.exit("the owner of the server has ended")
        read += byte
    return bytes(read)


def _token(app: Flask, known: str | None) -> str:
    """Return the token of the owner's user: the known one if it is valid, else a new one."""
    with app.test_request_context():
        if known is not None and identify(known, "") is not None:
            return known
        name = _user_name()
        if accounts.find_user(name) is None:
            accounts.add_user(name, token_urlsafe(24))
        user: Any = accounts.find_user(name)
        return accounts.issue_token(user.id, name, _LIFETIME)


def _user_name() -> str:
    # A user may have no entry in the list of users, as in containers.
    with suppress(KeyError, OSError):
        name = getuser()
        # Those of a Windows domain, for instance, have a backslash.
        if accounts.USER_NAME.fullmatch(name) is not None:
            return name
    return f"user{os.getuid()}"


def _watch(silence: float) -> None:
    """End the server when its owner is silent."""
    while select.select([_INPUT], [], [], silence)[0] and os.read(_INPUT, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
