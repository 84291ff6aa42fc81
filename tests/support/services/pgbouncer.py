"""PgBouncer in transaction mode: each transaction may get another connection, so that sessions keep no state."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.services.postgres import Postgres, rights
from tests.support.services.provide import provide

# Limit for its start, seconds.
_LIMIT = 240.0


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
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
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
        end = time.monotonic() + _LIMIT
        while not self._listens():
            assert self._process.poll() is None, (self._place / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._place)

    def _listens(self) -> bool:
        with socket.socket() as knock:
            return knock.connect_ex(("127.0.0.1", self.port)) == 0
