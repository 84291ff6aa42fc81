"""nginx with the configuration in ``deploy/``, on loopback and with a certificate of its own."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path
from typing import Self

from tests.support import PROJECT
from tests.support.services.ports import await_port, free_port
from tests.support.services.provide import provide


class Nginx:
    """An nginx in front of a task-farm server; a context manager.

    Parameters
    ----------
    directory : Path
        Directory for its files.
    server : int or Path
        Port or socket of the server.

    Attributes
    ----------
    address : str
        Its address.
    certificate : Path
        Its certificate, signed by itself.
    """

    def __init__(self, directory: Path, server: int | Path) -> None:
        programs = provide(["nginx", "openssl"], ["nginx-light", "openssl"])
        self._directory = directory
        self._port = free_port()
        self.address = f"https://localhost:{self._port}"
        self.certificate = directory / "farm.crt"
        self._make_certificate(programs["openssl"])
        changes = {
            "user www-data;": f"user {getpass.getuser()};",
            "unix:/run/cryotile/farm.sock": (
                f"unix:{server}" if isinstance(server, Path) else f"127.0.0.1:{server}"
            ),
            "listen 443 ssl;": f"listen 127.0.0.1:{self._port} ssl;",
            "farm.crt": str(directory / "farm.crt"),
            "farm.key": str(directory / "farm.key"),
            "http {": f"http {{\n    client_body_temp_path {directory}/body;\n    proxy_temp_path {directory}/proxy;",
        }
        text = (PROJECT / "deploy" / "nginx.conf").read_text()
        for old, new in changes.items():
            assert old in text, f"deploy/nginx.conf has no {old!r}"
            text = text.replace(old, new)
        configuration = directory / "nginx.conf"
        configuration.write_text(f"daemon off;\npid {directory}/nginx.pid;\n{text}")
        log = str(directory / "nginx.log")
        words = ("-p", str(directory), "-c", str(configuration), "-e", log)
        self._command = [programs["nginx"], *words]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command)
        await_port(self._port, self._process, self._directory / "nginx.log")
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait()

    def _make_certificate(self, openssl: str) -> None:
        command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost"]
        command += ["-keyout", str(self._directory / "farm.key")]
        command += ["-out", str(self._directory / "farm.crt")]
        subprocess.run(command, check=True, capture_output=True)
