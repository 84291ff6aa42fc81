"""PgBouncer in transaction mode: each transaction may get another connection, so that sessions keep no state."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.support.services.ports import await_port, free_port
from tests.support.services.postgres import Postgres, rights
from tests.support.services.provide import provide


class PgBouncer:
    """A connection pooler in front of a PostgreSQL; a context manager.

    Parameters
    ----------
    postgres : Postgres
        A running server.
    connections : int
        Largest number of connections to PostgreSQL, for any number of clients.

    Attributes
    ----------
    url : str
        Address of the same database through the pooler.
    """

    def __init__(self, postgres: Postgres, *, connections: int) -> None:
        self._program = provide(["pgbouncer"], ["pgbouncer"])["pgbouncer"]
        self._place = Path(tempfile.mkdtemp(prefix="cryotile-pgbouncer-", dir="/tmp"))
        self.port = free_port()
        self.url = f"postgresql://cryotile@127.0.0.1:{self.port}/postgres"
        (self._place / "users").write_text('"cryotile" ""\n')
        (self._place / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"postgres = host=127.0.0.1 port={postgres.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {self._place}/users\nlogfile = {self._place}/log\n"
            f"pool_mode = transaction\ndefault_pool_size = {connections}\nmax_client_conn = 1000\n"
        )

    def __enter__(self) -> Self:
        who = rights()
        if who:
            os.chown(self._place, who["user"], who["group"])
        command = [self._program, "-q", str(self._place / "pgbouncer.ini")]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **who)
        await_port(self.port, self._process, self._place / "log")
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._place)
