"""gunicorn with the settings in ``deploy/``, on a socket that outlives it, as systemd holds one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.support import PROJECT
from tests.support.waiting import LIMIT, wait_until

_GUNICORN = str(Path(sysconfig.get_path("scripts")) / "gunicorn")


class Gunicorn:
    """A task-farm server as ``cryotile.service`` starts it; a context manager.

    Parameters
    ----------
    directory : Path
        Directory for its log.
    database_url : str
        Its database.
    package : Path
        Directory that holds the package ``cryotile`` that it serves.

    Attributes
    ----------
    socket : Path
        Its socket, which exists before and after each start.
    """

    def __init__(self, directory: Path, database_url: str, package: Path) -> None:
        # nginx must reach it, and the path of a socket must be short.
        self._place = Path(tempfile.mkdtemp(prefix="cryotile-farm-", dir="/tmp"))
        self.socket = self._place / "farm.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket))
        self._listener.listen(2048)
        self._log = directory / "gunicorn.log"
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(package), str(PROJECT)]),
            "XDG_DATA_HOME": str(directory),
            "CRYOTILE_PROXIES": "1",
            "CRYOTILE_DATABASE_URL": database_url,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._group, signal.SIGKILL)
        self._process.wait(LIMIT)
        self._listener.close()
        shutil.rmtree(self._place)

    def start(self, *, held: bool = True) -> None:
        """Start the server, and wait for its processes; ``held=False``: on a socket of its own at the same place."""
        # The process number is known to the shell alone before gunicorn runs.
        script = f'exec 3<&{self._listener.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
        shell = ["bash", "-c", script, "bash"] if held else []
        # The program, not the module: started anew by a signal, that would import its own modules under wrong names.
        gunicorn = [_GUNICORN, "--config", "deploy/gunicorn.conf.py"]
        own = [] if held else ["--bind", f"unix:{self.socket}"]
        if not held:
            # Requests that wait in it are answered with 502.
            self._listener.close()
        before = self._count("Booting worker")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*shell, *gunicorn, *own],
                cwd=PROJECT,
                env=self._environment,
                pass_fds=[self._listener.fileno()] if held else [],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._group = self._process.pid
        self._await("Booting worker", before + 2)

    def reload(self) -> bool:
        """Replace its processes as ``systemctl reload`` does, and wait for their end; False if it fails."""
        ended = self._count("Worker exiting")
        unit = (PROJECT / "deploy/systemd/cryotile.service").read_text()
        for command in re.findall("^ExecReload=(.*)", unit, re.MULTILINE):
            for named, used in (
                ("/opt/cryotile/bin/gunicorn", _GUNICORN),
                ("/etc/cryotile/gunicorn.conf.py", "deploy/gunicorn.conf.py"),
                ("$MAINPID", str(self._process.pid)),
            ):
                command = command.replace(named, used)
            done = subprocess.run(
                command.split(),
                cwd=PROJECT,
                env=self._environment,
                capture_output=True,
                check=False,
            )
            if done.returncode:
                # systemd, too, goes no further.
                return False
        self._await("Worker exiting", ended + 2)
        return True

    def upgrade(self) -> None:
        """Replace gunicorn itself: start a second one on the same socket, then end the first."""
        booted = self._count("Booting worker")
        self._process.send_signal(signal.SIGUSR2)
        self._await("Booting worker", booted + 2)
        self.stop()

    def stop(self) -> None:
        """End the first gunicorn in good order."""
        self._process.terminate()
        self._process.wait(LIMIT)

    def _count(self, words: str) -> int:
        return self._log.read_text().count(words) if self._log.exists() else 0

    def _await(self, words: str, count: int) -> None:
        """Wait until the log has said words as often."""
        wait_until(lambda: self._count(words) >= count, self._log.read_text)
