"""Settings of a server: from arguments, else from the environment, else defaults that work."""

from __future__ import annotations

import ipaddress
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryotile.errors import CryotileError, InvalidValue
from cryotile.files import make_directory, writing

__all__ = ["ServerSettings", "data_directory"]

_DAY = 86400.0

# This machine and private networks, in which a proxy has its address unless it is said.
_PRIVATE = "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"

# A shorter key can be guessed.
_SHORTEST_KEY = 16


def data_directory() -> Path:
    """Return the directory of the database and the key that a server creates if none are given."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "cryotile"


def _database_url() -> str:
    if url := os.environ.get("CRYOTILE_DATABASE_URL"):
        return url
    make_directory(data_directory())
    return f"sqlite:///{data_directory() / 'farm.db'}"


def _number(name: str, default: float, low: float, *, whole: bool = False) -> float:
    given = os.environ.get(name)
    if not given:
        return default
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not low <= value < 1e10 or (whole and value % 1):
        kind = "an integer" if whole else "a number"
        raise InvalidValue(
            f"{name}={given!r} must be {kind} of {low:g} or more; correct or unset it"
        )
    return value


def _run_directories() -> tuple[Path, ...]:
    given = os.environ.get("CRYOTILE_RUN_DIRECTORIES", "")
    return tuple(Path(each) for each in given.split(os.pathsep) if each)


@dataclass(frozen=True)
class ServerSettings:
    """Settings of a server.

    Attributes
    ----------
    database_url : str
        ``$CRYOTILE_DATABASE_URL``, else SQLite in :func:`data_directory`.
    secret_key : str
        Key that signs the sessions of the page: ``$CRYOTILE_SECRET_KEY``, else the content of ``secret-key`` in
        :func:`data_directory`, which is created at the first start and is readable by its owner alone.
    legacy_lease : float
        Seconds after its last update for which a client of the legacy API keeps a task; ``$CRYOTILE_SEED_LEASE``,
        else one hour.
    token_lifetime : float
        Seconds until a token expires; ``$CRYOTILE_TOKEN_LIFETIME``, else 30 days.
    proxies : int
        Number of trusted proxies in front of the server, which name the client in X-Forwarded-For;
        ``$CRYOTILE_PROXIES``, else 0.
    run_directories : tuple of Path
        Run directories, and directories that hold some, whose posts the page explains; ``$CRYOTILE_RUN_DIRECTORIES``,
        separated by colons, else none.
    proxy_networks : str
        Addresses of these proxies, or their networks, separated by commas: what others send in X-Forwarded-For is
        ignored; ``$CRYOTILE_PROXY_NETWORKS``, else this machine and private networks.
    connections : int
        Connections to the database per process; one for each of its threads.
    """

    database_url: str = field(default_factory=_database_url)
    secret_key: str = field(default_factory=lambda: os.environ.get("CRYOTILE_SECRET_KEY", ""))
    legacy_lease: float = field(default_factory=lambda: _number("CRYOTILE_SEED_LEASE", 3600.0, 1.0))
    token_lifetime: float = field(
        default_factory=lambda: _number("CRYOTILE_TOKEN_LIFETIME", 30 * _DAY, 1.0)
    )
    proxies: int = field(default_factory=lambda: int(_number("CRYOTILE_PROXIES", 0, 0, whole=True)))
    run_directories: tuple[Path, ...] = field(default_factory=_run_directories)
    proxy_networks: str = field(
        default_factory=lambda: os.environ.get("CRYOTILE_PROXY_NETWORKS") or _PRIVATE
    )
    connections: int = 12

    def is_proxy(self, address: str) -> bool:
        """Tell whether a peer is one of the proxies; one at a Unix socket has no address, and is.

        Raises
        ------
        InvalidValue
            A network is invalid.
        """
        try:
            networks = [
                ipaddress.ip_network(each.strip()) for each in self.proxy_networks.split(",")
            ]
        except ValueError as error:
            raise InvalidValue(
                f"CRYOTILE_PROXY_NETWORKS={self.proxy_networks!r}: {error}; write 10.0.0.5 or 10.0.0.0/8, with commas"
            ) from error
        if not address:
            return True
        peer = ipaddress.ip_address(address)
        # How a socket of both families writes an IPv4 address.
        peer = getattr(peer, "ipv4_mapped", None) or peer
        return any(peer in network for network in networks)

    def key(self) -> str:
        """Return the secret key, and create it if there is none.

        Raises
        ------
        InvalidValue
            The given key is too short.
        CryotileError
            Other users can read the file of the key.
        """
        if self.secret_key:
            if len(self.secret_key) < _SHORTEST_KEY:
                raise InvalidValue(
                    f"CRYOTILE_SECRET_KEY has {len(self.secret_key)} characters and must have {_SHORTEST_KEY} or more; "
                    "unset it to have a key created"
                )
            return self.secret_key
        return _kept_key(data_directory() / "secret-key")


def _kept_key(path: Path) -> str:
    make_directory(path.parent)
    if not path.exists():
        _make_key(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise CryotileError(
            f"{path} may be read by others than its owner; remove it to have a new key created"
        )
    return path.read_text(encoding="ascii")


def _make_key(path: Path) -> None:
    """Write a new key, unless another process does so at the same moment."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with writing(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_urlsafe(48).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # A link never replaces a file, so that all processes get the key of the first.
        with suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
