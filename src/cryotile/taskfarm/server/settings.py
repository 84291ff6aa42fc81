"""What a server is set up with: from arguments, else from the environment, else something that works."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryotile.errors import CryotileError, InvalidValue
from cryotile.files import make_directory, writing

__all__ = ["Settings", "data_directory"]

_DAY = 86400.0

# A key that can be guessed is none: 16 bytes, however they are written.
_SHORTEST_KEY = 16


def data_directory() -> Path:
    """Directory of the database and the key that a server makes when it is given none."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "cryotile"


def _database_url() -> str:
    if url := os.environ.get("CRYOTILE_DATABASE_URL"):
        return url
    make_directory(data_directory())
    return f"sqlite:///{data_directory() / 'farm.db'}"


def _number(name: str, default: float, low: float) -> float:
    given = os.environ.get(name)
    if not given:
        return default
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not low <= value < 1e10:
        raise InvalidValue(f"{name}={given!r} is no number of {low:g} or more; mend or unset it")
    return value


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Attributes
    ----------
    database_url : str
        ``$CRYOTILE_DATABASE_URL``, else SQLite in :func:`data_directory`.
    secret_key : str
        Signs the sessions of the page: ``$CRYOTILE_SECRET_KEY``, else the content of ``secret-key`` in
        :func:`data_directory`, which is made at the first start, readable by its owner alone.
    seed_lease : float
        Seconds after its last update for which the seed's client keeps a task; ``$CRYOTILE_SEED_LEASE``, else an hour.
    token_lifetime : float
        Seconds until a token expires; ``$CRYOTILE_TOKEN_LIFETIME``, else 30 days.
    proxies : int
        How many proxies of ours stand before the server and tell in X-Forwarded-For who asks;
        ``$CRYOTILE_PROXIES``, else none.
    connections : int
        To the database, of each process; one for each of its threads.
    """

    database_url: str = field(default_factory=_database_url)
    secret_key: str = field(default_factory=lambda: os.environ.get("CRYOTILE_SECRET_KEY", ""))
    seed_lease: float = field(default_factory=lambda: _number("CRYOTILE_SEED_LEASE", 3600.0, 1.0))
    token_lifetime: float = field(
        default_factory=lambda: _number("CRYOTILE_TOKEN_LIFETIME", 30 * _DAY, 1.0)
    )
    proxies: int = field(default_factory=lambda: int(_number("CRYOTILE_PROXIES", 0, 0)))
    connections: int = 8

    def key(self) -> str:
        """Return the secret key, and make it if there is none.

        Raises
        ------
        InvalidValue
            The key that was given is too short.
        CryotileError
            Others may read the file of the key.
        """
        if self.secret_key:
            if len(self.secret_key) < _SHORTEST_KEY:
                raise InvalidValue(
                    f"CRYOTILE_SECRET_KEY has {len(self.secret_key)} characters, {_SHORTEST_KEY} or more are needed; "
                    "unset it, and a key is made"
                )
            return self.secret_key
        return _kept_key(data_directory() / "secret-key")


def _kept_key(path: Path) -> str:
    make_directory(path.parent)
    if not path.exists():
        _make_key(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise CryotileError(
            f"{path} may be read by others than its owner; remove it, and a new key is made"
        )
    return path.read_text(encoding="ascii")


def _make_key(path: Path) -> None:
    """Write a new key, unless another process does so at this moment."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with writing(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_urlsafe(48).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # A link never replaces what is there: all processes come to have the key of the first.
        with suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
