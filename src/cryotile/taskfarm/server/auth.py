"""Who asks, and what he may: checked from memory, which is asked of the database again when somebody changed something.

A password is checked once, and from then on known by a keyed digest; so a client that sends it with every call costs
one hash.  Attempts at passwords are limited, and nothing else is: a token that is not known costs a question by key.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from flask import Response, current_app, g, jsonify, request
from flask_httpauth import HTTPBasicAuth, HTTPTokenAuth, MultiAuth
from sqlalchemy import select, text
from werkzeug.exceptions import Forbidden, NotFound, TooManyRequests
from werkzeug.security import check_password_hash, generate_password_hash

from cryotile.ledgers.sql.database import Database
from cryotile.ledgers.sql.runs import RunRecord, find_run
from cryotile.taskfarm.server.accounts import MEMBER_ROLES, NAME, TOKEN, digest, note
from cryotile.taskfarm.server.models import Member, Token, User

__all__ = ["Access", "Attempts", "Principal", "check", "identify", "member_run", "principal"]

# Seconds after which a process looks whether another one changed rights.
_GLANCE = 1.0

# Remembered answers of a kind; when there are more, all are asked for again.
_MEMORY = 20_000

# Failed attempts at passwords from one address in so many seconds.
_ATTEMPTS, _PERIOD = 10, 60.0

_VERSION = text("SELECT version FROM access")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Attributes
    ----------
    id : int
        Number of the user.
    name : str
        Of the user.
    admin : bool
        Whether he may see and change everything.
    token : str or None
        The token by which he is known; None for a password.
    """

    id: int
    name: str
    admin: bool
    token: str | None = None


class Attempts:
    """Failed attempts, by whoever makes them; a few in a while are let pass.

    Parameters
    ----------
    limit : int
        How many.
    period : float
        In so many seconds.
    """

    def __init__(self, limit: int = _ATTEMPTS, period: float = _PERIOD) -> None:
        self._limit, self._period = limit, period
        self._failed: dict[str, deque[float]] = {}

    def wait(self, address: str) -> float:
        """Return for how many seconds an address has to wait; 0 when it may try."""
        times = self._failed.get(_network(address))
        if times is None or len(times) < self._limit:
            return 0.0
        return max(0.0, times[0] + self._period - time.monotonic())

    def fail(self, address: str) -> None:
        """Take note of a failed attempt."""
        if len(self._failed) > _MEMORY:
            self._failed.clear()
        times = self._failed.setdefault(_network(address), deque(maxlen=self._limit))
        times.append(time.monotonic())


class Access:
    """What a process knows of users and runs; true until somebody changes something, or a second longer.

    Parameters
    ----------
    database : Database
        Where it is from.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version = -1
        self._looked = 0.0
        self._tokens: dict[str, tuple[Principal, float]] = {}
        self._passwords: dict[bytes, Principal] = {}
        self._roles: dict[tuple[int, int], str | None] = {}
        self._runs: dict[str, RunRecord] = {}
        self._salt = secrets.token_bytes(32)
        # One hash at a time: passwords never take more than one core from the tasks.
        self._hashing = threading.Lock()
        self.attempts = Attempts()

    def look(self) -> None:
        """See whether what is remembered is still true, once a second."""
        now = time.monotonic()
        if now - self._looked < _GLANCE and self._version >= 0:
            return
        self._looked = now
        version = self._database.read(lambda c: c.execute(_VERSION).scalar_one())
        if version != self._version:
            self._version = version
            for memory in (self._tokens, self._passwords, self._roles, self._runs):
                memory.clear()

    def forget(self) -> None:
        """Look at the next question: this process has changed something."""
        self._looked = -_GLANCE

    def of_token(self, token: str) -> Principal | None:
        """Return whose token it is; None when it is none, has expired or was revoked."""
        self.look()
        found = self._tokens.get(token)
        if found is None:
            version = self._version
            found = self._database.read(lambda c: _find_token(c, token))
            if found is not None:
                self._keep(self._tokens, token, found, version)
        return found[0] if found is not None and time.time() < found[1] else None

    def of_password(self, name: str, password: str, address: str) -> Principal | None:
        """Return whose password it is.

        Raises
        ------
        TooManyRequests
            Too many attempts from this address have failed.
        """
        self.look()
        known = hmac.digest(self._salt, f"{name}\0{password}".encode(errors="replace"), "sha256")
        if (found := self._passwords.get(known)) is not None:
            return found
        if (wait := self.attempts.wait(address)) > 0:
            raise TooManyRequests(
                f"too many attempts with wrong passwords; wait {wait:.0f} s, or use a token",
                retry_after=int(wait) + 1,
            )
        with self._hashing:
            # A hundred workers that start at once with one password wait for one hash.
            if (found := self._passwords.get(known)) is not None:
                return found
            version = self._version
            found = self._verify(name, password)
            if found is not None:
                self._keep(self._passwords, known, found, version)
        if found is None:
            self.attempts.fail(address)
            note("wrong password", name[:64], user="-", commit=True)
        return found

    def run(self, uuid: str) -> RunRecord | None:
        """Return a run by its uuid."""
        self.look()
        found = self._runs.get(uuid)
        if found is None:
            version = self._version
            found = find_run(self._database, uuid)
            if found is not None and found.uuid == uuid:
                self._keep(self._runs, uuid, found, version)
        return found

    def role(self, who: Principal, run: RunRecord) -> str | None:
        """Return what somebody is to a run; None for a stranger."""
        if who.admin or run.owner == who.name:
            return "owner"
        self.look()
        key = (run.id, who.id)
        if key in self._roles:
            return self._roles[key]
        version = self._version
        query = select(Member.role).where(Member.run_id == run.id, Member.user_id == who.id)
        found = self._database.read(lambda c: c.execute(query).scalar_one_or_none())
        self._keep(self._roles, key, found, version)
        return found

    @cached_property
    def _nobody(self) -> str:
        """Hash of a password that nobody has."""
        return generate_password_hash(secrets.token_hex(), "scrypt")

    def _verify(self, name: str, password: str) -> Principal | None:
        query = select(User.id, User.password, User.role).where(User.name == name)
        row = self._database.read(lambda c: c.execute(query).one_or_none())
        # As long for a name that nobody has: else one could learn which there are.
        right = check_password_hash(row.password if row else self._nobody, password)
        return Principal(row.id, name, row.role == "admin") if row and right else None

    def _keep(self, memory: dict[Any, Any], key: object, value: object, version: int) -> None:
        """Remember an answer, unless it was asked for before the last change was seen."""
        if version != self._version:
            return
        if len(memory) > _MEMORY:
            memory.clear()
        memory[key] = value


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
    """Who has one address of IPv6 has 2⁶⁴ of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


_basic = HTTPBasicAuth(realm="cryotile")
_bearer = HTTPTokenAuth("Bearer", realm="cryotile")
_both = MultiAuth(_basic, _bearer)


def identify(name: str, password: str) -> Principal | None:
    """Return who it is that gives a token, or a user name with its password."""
    access: Access = current_app.extensions["cryotile"].access
    if TOKEN.fullmatch(name) is not None:
        return access.of_token(name)
    if not password or NAME.fullmatch(name) is None:
        return None
    return access.of_password(name, password, request.remote_addr or "")


def _verify_basic(name: str | None, password: str | None) -> Principal | None:
    return identify(name or "", password or "")


def _verify_bearer(token: str | None) -> Principal | None:
    return identify(token or "", "")


def _refuse(status: int) -> tuple[Response, int]:
    return jsonify(
        error="who asks is not known; give a token, or a user name with its password"
    ), status


def _admit() -> None:
    g.principal = _both.current_user()


_basic.verify_password(_verify_basic)
_bearer.verify_token(_verify_bearer)
for _kind in (_basic, _bearer):
    _kind.error_handler(_refuse)

check = cast("Callable[[], Response | None]", _both.login_required(_admit))
"""Let a request of somebody known pass, or return the refusal."""


def principal() -> Principal:
    """Return who asks."""
    return cast("Principal", g.principal)


def member_run(uuid: str, role: str) -> RunRecord:
    """Return a run in which who asks has at least a role.

    Raises
    ------
    NotFound
        There is none, or he is no member of it.
    Forbidden
        He is less.
    """
    access: Access = current_app.extensions["cryotile"].access
    run = access.run(uuid)
    has = None if run is None else access.role(principal(), run)
    if run is None or has is None:
        raise NotFound(f"run {uuid} is unknown, or you are no member of it; ask its owner")
    if MEMBER_ROLES.index(has) < MEMBER_ROLES.index(role):
        raise Forbidden(f"you are {has} of run {uuid}, this needs the role {role}; ask its owner")
    return run
