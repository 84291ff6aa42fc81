"""The server on one machine: gunicorn with a few processes of a few threads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from cryotile.taskfarm.server.app import create_app
from cryotile.taskfarm.server.settings import Settings

__all__ = ["serve"]

# Seconds for which a connection is kept open between two requests of a worker.
_KEEP = 75

# Threads of a process: most wait for the disk, some for clients that read slowly.
_THREADS = 8


class _Gunicorn(BaseApplication):  # type: ignore[misc]  # gunicorn is not annotated
    """Our application in gunicorn, set up by arguments and by no file."""

    def __init__(self, settings: Settings, options: dict[str, Any]) -> None:
        self._settings, self._options = settings, options
        super().__init__()

    def load_config(self) -> None:
        """Set what is given."""
        for name, value in self._options.items():
            # Older versions do not know them all.
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        """Make the application, in each process its own."""
        return create_app(self._settings)


def serve(settings: Settings, host: str, port: int, *, processes: int) -> None:
    """Serve until a signal ends it.

    Parameters
    ----------
    settings : Settings
        Of the server.
    host : str
        Address to listen at.
    port : int
        Port to listen at.
    processes : int
        How many serve.
    """
    # The key may have been made just now; all processes are to have the same.
    settings = replace(settings, secret_key=settings.key(), connections=_THREADS)
    options = {
        "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "workers": processes,
        "worker_class": "gthread",
        "threads": _THREADS,
        "keepalive": _KEEP,
        "graceful_timeout": 10,
        "proc_name": "cryotile serve",
        "loglevel": "warning",
        # A server is ended by a signal, and several may be on a host.
        "control_socket_disable": True,
    }
    _Gunicorn(settings, options).run()
