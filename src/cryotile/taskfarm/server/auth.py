"""Authentication and rights, from a cache that becomes invalid when any process changes rights.

A password is hashed once and then known by a keyed digest, so that a client that sends it with every call costs one
hash.  Only failed passwords are rate-limited: an unknown token costs one indexed query.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from flask import Response, current_app, g, jsonify, request, session
from flask_httpauth import HTTPBasicAuth, HTTPTokenAuth, MultiAuth
from sqlalchemy import select, text
from werkzeug.exceptions import Forbidden, NotFound, TooManyRequests
from werkzeug.security import check_password_hash, generate_password_hash

from cryotile.ledgers.sql.database import Database
from cryotile.ledgers.sql.runs import RunRecord, find_run
from cryotile.taskfarm.server.accounts import (
    MEMBER_ROLES,
    TOKEN,
    USER_NAME,
    Member,
    Token,
    User,
    digest,
    note,
)

__all__ = [
    "Access",
    "LoginThrottle",
    "Principal",
    "authenticate",
    "identify",
    "member_run",
    "principal",
    "session_principal",
]

# Seconds after which a process checks again whether another one changed rights.
_CHECK = 1.0

# Cached answers of a kind; a full cache is emptied.
_CACHED = 20_000

# Failed passwords that one address may send within a period of seconds.
_FAILURES, _PERIOD = 10, 60.0

# Failed passwords for one user, from all addresses, after which an address may send one.
_SUSPECT = 30

# Different passwords that may wait to be hashed; each takes a thread from the tasks.
_HASHES = 3

_VERSION = text("SELECT version FROM access")


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated user of a request.

    Attributes
    ----------
    id : int
        Id of the user.
    name : str
        Name of the user.
    admin : bool
        Whether the user sees and changes every run.
    token : str or None
        Token that the request carries; None if it carries a password.
    """

    id: int
    name: str
    admin: bool
    token: str | None = None


class LoginThrottle:
    """Failed passwords by network address, or by user, of which a few are allowed in a period.

    Parameters
    ----------
    limit : int
        Number of failures that are allowed.
    period : float
        Length of the period, seconds.
    """

    def __init__(self, limit: int = _FAILURES, period: float = _PERIOD) -> None:
        self._limit, self._period = limit, period
        self._failures: dict[str, deque[float]] = {}

    def wait(self, address: str, limit: int | None = None) -> float:
        """Return the seconds that an address must wait before its next attempt; 0 if it may try now.

        Parameters
        ----------
        address : str
            Network address, or name of a user.
        limit : int, optional
            Number of failures that are allowed in place of that of the throttle, and not above it.
        """
        times, limit = self._failures.get(_network(address), ()), limit or self._limit
        if len(times) < limit:
            return 0.0
        return max(0.0, times[-limit] + self._period - time.monotonic())

    def fail(self, address: str) -> None:
        """Count a failed attempt."""
        if len(self._failures) > _CACHED:
            # Those that still count are kept, unless there are too many even so.
            old = time.monotonic() - self._period
            found = {key: times for key, times in self._failures.items() if times[-1] > old}
            self._failures = found if len(found) < _CACHED else {}
        times = self._failures.setdefault(_network(address), deque(maxlen=self._limit))
        times.append(time.monotonic())


class Access:
    """Users, runs and rights that a process has cached; a change in another process is seen within a second.

    Parameters
    ----------
    database : Database
        Database of the accounts and the ledger.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version = -1
        self._checked = 0.0
        self._tokens: dict[str, tuple[Principal, float]] = {}
        # None for a wrong password, so that repeating it costs no hash.
        self._passwords: dict[bytes, Principal | None] = {}
        self._roles: dict[tuple[int, int], str | None] = {}
        self._runs: dict[str, RunRecord] = {}
        self._salt = secrets.token_bytes(32)
        # One hash at a time: passwords never take more than one core from the tasks.
        self._hashing = threading.Lock()
        # Requests that wait for each password to be hashed.
        self._asked: Counter[bytes] = Counter()
        self.throttle = LoginThrottle()
        self.suspects = LoginThrottle(_SUSPECT)

    def check(self) -> None:
        """Empty the cache if rights have changed; asks the database once a second."""
        now = time.monotonic()
        if now - self._checked < _CHECK and self._version >= 0:
            return
        self._checked = now
        version = self._database.read(lambda c: c.execute(_VERSION).scalar_one())
        if version != self._version:
            self._version = version
            for cache in (self._tokens, self._passwords, self._roles, self._runs):
                cache.clear()

    def forget(self) -> None:
        """Check at the next request: this process has changed rights."""
        self._checked = -_CHECK

    def of_token(self, token: str) -> Principal | None:
        """Return the user of a token; None if it is unknown, expired or revoked."""
        self.check()
        found = self._tokens.get(token)
        if found is None:
            version = self._version
            found = self._database.read(lambda c: _find_token(c, token))
            if found is not None:
                self._keep(self._tokens, token, found, version)
        return found[0] if found is not None and time.time() < found[1] else None

    def of_password(self, name: str, password: str, address: str) -> Principal | None:
        """Return the user of a name and password; None if they are wrong.

        Raises
        ------
        TooManyRequests
            Too many passwords from this address were wrong.
        """
        self.check()
        key = hmac.digest(self._salt, f"{name}\0{password}".encode(errors="replace"), "sha256")
        if (found := self._passwords.get(key)) is not None:
            return found
        wait = self.throttle.wait(address)
        if self.suspects.wait(name) > 0:
            # Many addresses guess this user's password: the first attempt of an address is still admitted, since it
            # may be the user's own.
            wait = max(wait, self.throttle.wait(address, 1))
        if wait > 0:
            raise TooManyRequests(
                f"too many wrong passwords from this address; wait {wait:.0f} s, or use a token",
                retry_after=int(wait) + 1,
            )
        found = self._hash_once(key, name, password)
        if found is None:
            self.throttle.fail(address)
            self.suspects.fail(name)
            note("wrong password", name[:64], user="-", commit=True)
        return found

    def _hash_once(self, key: bytes, name: str, password: str) -> Principal | None:
        """Return the user of a name and password; a hundred workers with the same one wait for one hash."""
        if key not in self._asked and len(self._asked) >= _HASHES:
            raise TooManyRequests(
                "other passwords are being checked; repeat the request, or use a token",
                retry_after=1,
            )
        self._asked[key] += 1
        try:
            with self._hashing:
                with suppress(KeyError):
                    return self._passwords[key]
                version = self._version
                found = self._verify(name, password)
                self._keep(self._passwords, key, found, version)
                return found
        finally:
            self._asked[key] -= 1
            if self._asked[key] <= 0:
                del self._asked[key]

    def run(self, uuid: str) -> RunRecord | None:
        """Return the run of a uuid; None if it is unknown."""
        self.check()
        found = self._runs.get(uuid)
        if found is None:
            version = self._version
            found = find_run(self._database, uuid)
            if found is not None and found.uuid == uuid:
                self._keep(self._runs, uuid, found, version)
        return found

    def role(self, who: Principal, run: RunRecord) -> str | None:
        """Return the role of a user in a run; None if they are not a member."""
        if who.admin or run.owner == who.name:
            return "owner"
        self.check()
        key = (run.id, who.id)
        # Asked once, not first whether it is there: another thread may empty the cache between.
        with suppress(KeyError):
            return self._roles[key]
        version = self._version
        query = select(Member.role).where(Member.run_id == run.id, Member.user_id == who.id)
        found = self._database.read(lambda c: c.execute(query).scalar_one_or_none())
        self._keep(self._roles, key, found, version)
        return found

    @cached_property
    def _unused_hash(self) -> str:
        """Hash of a password that nobody has."""
        return generate_password_hash(secrets.token_hex(), "scrypt")

    def _verify(self, name: str, password: str) -> Principal | None:
        query = select(User.id, User.password, User.role).where(User.name == name)
        row = self._database.read(lambda c: c.execute(query).one_or_none())
        # An unknown name takes as long as a known one, so that timing does not tell which names exist.
        right = check_password_hash(row.password if row else self._unused_hash, password)
        return Principal(row.id, name, row.role == "admin") if row and right else None

    def _keep(self, cache: dict[Any, Any], key: object, value: object, version: int) -> None:
        """Cache an answer, unless it was read before the last change of rights was seen."""
        if version != self._version:
            return
        if len(cache) > _CACHED:
            cache.clear()
        cache[key] = value


def _find_token(connection: Any, token: str) -> tuple[Principal, float] | None:
    query = (
        select(User.id, User.name, User.role, Token.expires)
        .join(Token, Token.user_id == User.id)
        .where(Token.digest == digest(token))
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return Principal(row.id, row.name, row.role == "admin", token), row.expires


def _network(address: str) -> str:
    """Return what a throttle counts by: one IPv6 subscriber has 2⁶⁴ addresses."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def _access() -> Access:
    return cast("Access", current_app.extensions["cryotile"].access)


_basic = HTTPBasicAuth(realm="cryotile")
_bearer = HTTPTokenAuth("Bearer", realm="cryotile")
_both = MultiAuth(_basic, _bearer)


def identify(name: str, password: str) -> Principal | None:
    """Return the user of a token, given as the name, or of a user name and password; None if they are wrong."""
    access = _access()
    if TOKEN.fullmatch(name) is not None:
        return access.of_token(name)
    if not password or USER_NAME.fullmatch(name) is None:
        return None
    return access.of_password(name, password, request.remote_addr or "")


def _verify_basic(name: str | None, password: str | None) -> Principal | None:
    return identify(name or "", password or "")


def _verify_bearer(token: str | None) -> Principal | None:
    return identify(token or "", "")


def _refuse(status: int) -> tuple[Response, int]:
    return jsonify(
        error="the request is not authenticated; give a token, or a user name and password"
    ), status


def _admit() -> None:
    g.principal = _both.current_user()


_basic.verify_password(_verify_basic)
_bearer.verify_token(_verify_bearer)
for _kind in (_basic, _bearer):
    _kind.error_handler(_refuse)

authenticate = cast("Callable[[], Response | None]", _both.login_required(_admit))
"""Set the principal of the current request, or return the refusal."""


def session_principal() -> Principal | None:
    """Return the user of the session of the current request; None without one."""
    token = session.get("token")
    return _access().of_token(token) if isinstance(token, str) else None


def principal() -> Principal:
    """Return the authenticated user of the current request."""
    return cast("Principal", g.principal)


def member_run(uuid: str, role: str) -> RunRecord:
    """Return a run in which the caller has a role, or one that includes it.

    Raises
    ------
    NotFound
        The run is unknown, or the caller is not a member of it.
    Forbidden
        The caller's role does not include it.
    """
    access = _access()
    run = access.run(uuid)
    has = None if run is None else access.role(principal(), run)
    if run is None or has is None:
        raise NotFound(f"run {uuid} is unknown, or you are not a member of it; ask its owner")
    if MEMBER_ROLES.index(has) < MEMBER_ROLES.index(role):
        raise Forbidden(
            f"your role in run {uuid} is {has}, and this needs the role {role}; ask its owner"
        )
    return run
