"""Two hosts on this machine: each has its own network and host name, and they share the file system."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.services.provide import provide, unavailable

# Open MPI starts this as it starts ssh: with the address of a host and a shell command.
AGENT = """\
#!/bin/sh
shift
exec {enter} sh -c "$*"
"""


@dataclass(frozen=True)
class TwoHosts:
    """Two hosts on a network of their own.

    Attributes
    ----------
    names : tuple of str
        Host names.
    addresses : tuple of str
        Addresses of the hosts.
    enter : tuple of str
        Command that runs its arguments on the first host.
    agent : Path
        Program that runs a command on the second host and ignores the address that it gets first.
    """

    names: tuple[str, str]
    addresses: tuple[str, str]
    enter: tuple[str, ...]
    agent: Path


@pytest.fixture
def two_hosts(tmp_path: Path) -> Iterator[TwoHosts]:
    """Create two network namespaces, joined by a virtual cable."""
    tools = provide(["ip", "unshare"], ["iproute2", "util-linux"])
    if os.geteuid() != 0:
        unavailable("network namespaces need root")
    mark = secrets.token_hex(3)
    names = f"host-{mark}a", f"host-{mark}b"
    addresses = "10.213.7.1", "10.213.7.2"
    ip = tools["ip"]

    def run(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True)

    try:
        for name in names:
            run(ip, "netns", "add", name)
        cable = ["type", "veth", "peer", "name", "cable", "netns", names[1]]
        run(ip, "-n", names[0], "link", "add", "cable", *cable)
        for name, address in zip(names, addresses, strict=True):
            run(ip, "-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                run(ip, "-n", name, "link", "set", device, "up")
        enter = [
            (ip, "netns", "exec", name, tools["unshare"], "--uts", "sh", "-c", *_renamed(name))
            for name in names
        ]
        agent = tmp_path / "agent"
        agent.write_text(AGENT.format(enter=shlex.join(enter[1])))
        agent.chmod(0o755)
        yield TwoHosts(names, addresses, enter[0], agent)
    finally:
        for name in names:
            subprocess.run([ip, "netns", "delete", name], check=False, capture_output=True)


def _renamed(name: str) -> tuple[str, str]:
    """Return the words of a shell command that sets the host name and then executes its arguments."""
    return f'hostname {name}; exec "$@"', "sh"
