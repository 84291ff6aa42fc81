"""Users, tokens, members of runs and the audit log: their tables, and every change to them.

All functions need an application context.  Every change is one transaction together with its line in the audit log.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from flask import g, has_request_context, request
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session
from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Text,
    delete,
    func,
    select,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session
from werkzeug.security import generate_password_hash

from cryotile.errors import InvalidValue
from cryotile.ledgers.sql import schema

if TYPE_CHECKING:
    from cryotile.taskfarm.server.auth import Principal

__all__ = [
    "MEMBER_ROLES",
    "MOST_TOKENS",
    "STEPS",
    "TOKEN",
    "USER_NAME",
    "USER_ROLES",
    "AuditEntry",
    "Member",
    "Token",
    "User",
    "add_user",
    "audit",
    "digest",
    "find_user",
    "forget_run",
    "issue_token",
    "members",
    "note",
    "remove_user",
    "revoke_digest",
    "revoke_tokens",
    "set_member",
    "set_role",
    "tables",
    "tokens_of",
    "users",
]

USER_ROLES = ("user", "admin")
MEMBER_ROLES = ("viewer", "worker", "owner")
"""Roles in a run; each includes the rights of those before it."""

MOST_TOKENS = 5000
"""Tokens of a user that are valid at once; each worker of the first client makes one."""

USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")

TOKEN = re.compile(r"ct_[A-Za-z0-9_-]{43}")
"""Tokens; the prefix tells them from user names, since HTTP Basic may carry either as its user."""

_NEW_RIGHTS = text("UPDATE access SET version = version + 1")

_LONGEST_PASSWORD = 1024

_NUMBER = BigInteger().with_variant(Integer, "sqlite")


class _Base(DeclarativeBase):
    metadata: ClassVar[MetaData] = schema.metadata


class _Tables(SQLAlchemy):
    """Flask-SQLAlchemy on the connections of the ledger, so that a process has one connection pool."""

    @property
    def engines(self) -> dict[str | None, Engine]:
        """The one engine, under the default bind key."""
        from flask import current_app

        return {None: current_app.extensions["cryotile"].database.engine}


tables = _Tables(model_class=_Base)


class User(_Base):
    """A user of the server; an ``admin`` sees and changes every run, a ``user`` those that they are a member of."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    # An scrypt hash with its salt and parameters.
    password: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(String(16))
    created: Mapped[float] = mapped_column(Float(53))


class Token(_Base):
    """A right to act as a user until a time; only its digest is stored."""

    __tablename__ = "tokens"
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[int] = mapped_column(BigInteger, index=True)
    created: Mapped[float] = mapped_column(Float(53))
    expires: Mapped[float] = mapped_column(Float(53))


class Member(_Base):
    """The role of a user in a run that another user created: ``owner``, ``worker`` or ``viewer``."""

    __tablename__ = "members"
    run_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    user_id: Mapped[int] = mapped_column(
        BigInteger, primary_key=True, autoincrement=False, index=True
    )
    role: Mapped[str] = mapped_column(String(16))


class AuditEntry(_Base):
    """One line of the audit log; it holds names, because the rows behind ids may be deleted later."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(_NUMBER, primary_key=True)
    at: Mapped[float] = mapped_column(Float(53))
    user: Mapped[str] = mapped_column("user_name", String(64))
    address: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(Text)


def _create(connection: Connection) -> None:
    """Create version 1 of the tables."""
    created = [schema.metadata.tables[name] for name in ("users", "tokens", "members", "audit")]
    schema.metadata.create_all(connection, tables=created, checkfirst=False)
    # Counts changes of rights: one query tells a process whether its cache is still valid.
    connection.execute(text("CREATE TABLE access (version BIGINT NOT NULL)"))
    connection.execute(text("INSERT INTO access (version) VALUES (1)"))


STEPS: Sequence[schema.Step] = (_create,)
"""Upgrades of these tables, one per version; see :func:`cryotile.ledgers.sql.schema.upgrade`."""


@contextmanager
def _changing(
    action: str, subject: str, *, rights: bool = True
) -> Iterator[scoped_session[Session]]:
    """Make a change and its audit line one transaction; with ``rights``, caches of all processes become invalid."""
    session = tables.session
    try:
        yield session
        note(action, subject)
        if rights:
            session.execute(_NEW_RIGHTS)
        session.commit()
    except BaseException:
        # Ctrl-C included: half a change must not wait in the session for the next commit.
        session.rollback()
        raise


def note(action: str, subject: str, *, user: str = "", commit: bool = False) -> None:
    """Add a line to the audit log.

    Parameters
    ----------
    action : str
        A few words, such as ``create run``.
    subject : str
        User name or run uuid that the action concerns, and details.
    user : str
        Name of the acting user; by default that of the request, or ``-`` on the command line.
    commit : bool
        Whether to commit the line at once, outside another change.
    """
    address = (request.remote_addr or "") if has_request_context() else ""
    who = user or (g.principal.name if has_request_context() and "principal" in g else "-")
    tables.session.add(
        AuditEntry(at=time.time(), user=who, address=address, action=action, subject=subject)
    )
    if commit:
        tables.session.commit()


def find_user(name: str) -> User | None:
    """Return the user of a name; None if the name is unknown or invalid."""
    if USER_NAME.fullmatch(name) is None:
        return None
    return tables.session.execute(select(User).where(User.name == name)).scalar_one_or_none()


def users() -> list[User]:
    """Return all users, ordered by name."""
    return list(tables.session.execute(select(User).order_by(User.name)).scalars())


def add_user(name: str, password: str, role: str | None = None) -> bool:
    """Add a user, or change the password of an existing one and revoke their tokens.

    Parameters
    ----------
    name : str
        Letters, digits and ``._@+-``.
    password : str
        Not empty.
    role : str, optional
        ``user`` or ``admin``; by default an existing user keeps their role and a new one is a ``user``.

    Returns
    -------
    bool
        Whether the user is new.

    Raises
    ------
    InvalidValue
        Name, password or role is invalid.
    """
    if USER_NAME.fullmatch(name) is None or TOKEN.fullmatch(name) is not None:
        raise InvalidValue(
            f"invalid user name {name!r}: use up to 64 letters, digits and ._@+-, a letter or digit first"
        )
    if not 0 < len(password) <= _LONGEST_PASSWORD:
        raise InvalidValue(
            f"the password has {len(password)} characters and must have 1 to {_LONGEST_PASSWORD}; choose another"
        )
    if role is not None and role not in USER_ROLES:
        raise InvalidValue(f"role {role!r} is unknown; choose {' or '.join(USER_ROLES)}")
    hashed = generate_password_hash(password, "scrypt")
    user = find_user(name)
    changed = role is not None and role != ("user" if user is None else user.role)
    subject = f"{name} {role}" if changed else name
    if user is None:
        with _changing("add user", subject) as session:
            session.add(User(name=name, password=hashed, role=role or "user", created=time.time()))
        return True
    with _changing("change password", subject) as session:
        user.password = hashed
        user.role = role or user.role
        session.execute(delete(Token).where(Token.user_id == user.id))
    return False


def remove_user(name: str) -> bool:
    """Remove a user and their tokens, and return whether they existed.

    Their runs remain, for admins and the other owners.
    """
    user = find_user(name)
    if user is None:
        return False
    with _changing("remove user", name) as session:
        session.execute(delete(Token).where(Token.user_id == user.id))
        session.execute(delete(Member).where(Member.user_id == user.id))
        # Otherwise the next user of this name would own them.
        runs = schema.runs
        session.execute(runs.update().where(runs.c.owner == name).values(owner=None))
        session.delete(user)
    return True


def set_role(user: User, role: str) -> None:
    """Make a user an ``admin`` or a ``user``."""
    with _changing("set role", f"{user.name} {role}"):
        user.role = role


def tokens_of(user_id: int) -> list[Token]:
    """Return the tokens of a user that have not expired, the last one first."""
    query = select(Token).where(Token.user_id == user_id, Token.expires > time.time())
    return list(tables.session.execute(query.order_by(Token.created.desc())).scalars())


def digest(token: str) -> str:
    """Return the digest under which a token is stored; a token is random, so no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def issue_token(user_id: int, name: str, lifetime: float) -> str:
    """Return a new token of a user, valid for ``lifetime`` seconds; the oldest ones beyond the limit end."""
    token = f"ct_{secrets.token_urlsafe(32)}"
    now = time.time()
    with _changing("make token", name, rights=False) as session:
        own = Token.user_id == user_id
        session.execute(delete(Token).where(own, Token.expires < now))
        newest = select(Token.created).where(own).order_by(Token.created.desc())
        last = session.execute(newest.offset(MOST_TOKENS - 1).limit(1)).scalar_one_or_none()
        if last is not None:
            session.execute(delete(Token).where(own, Token.created <= last))
            session.execute(_NEW_RIGHTS)
        session.add(
            Token(digest=digest(token), user_id=user_id, created=now, expires=now + lifetime)
        )
    return token


def revoke_tokens(user_id: int, name: str, token: str | None = None) -> None:
    """Revoke one token of a user, or all of them if ``token`` is None."""
    if token is not None:
        revoke_digest(user_id, name, digest(token))
        return
    with _changing("revoke all tokens", name) as session:
        session.execute(delete(Token).where(Token.user_id == user_id))


def revoke_digest(user_id: int, name: str, stored: str) -> None:
    """Revoke the token of a user that is stored under a digest."""
    with _changing("revoke token", name) as session:
        session.execute(delete(Token).where(Token.user_id == user_id, Token.digest == stored))


def set_member(run_id: int, uuid: str, user: User, role: str | None) -> None:
    """Set the role of a user in a run; with None they are no longer a member."""
    action = "remove member" if role is None else "set member"
    with _changing(action, f"{uuid} {user.name} {role or ''}".rstrip()) as session:
        session.execute(delete(Member).where(Member.run_id == run_id, Member.user_id == user.id))
        if role is not None:
            session.add(Member(run_id=run_id, user_id=user.id, role=role))


def members(run_id: int) -> list[tuple[str, str]]:
    """Return the names and roles of the members of a run, by name; its creator need not be among them."""
    query = select(User.name, Member.role).join(Member, Member.user_id == User.id)
    found = tables.session.execute(query.where(Member.run_id == run_id).order_by(User.name))
    return [(row.name, row.role) for row in found]


def audit(
    who: Principal | None, *, run: str | None, before: int | None, limit: int
) -> list[AuditEntry]:
    """Return entries of the audit log, the last one first.

    Parameters
    ----------
    who : Principal or None
        Only their actions, and those that concern runs that they own; None: all.
    run : str or None
        Only entries about the run of this uuid.
    before : int or None
        Only entries of a lower id.
    limit : int
        Largest number of entries.
    """
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    about = func.substr(AuditEntry.subject, 1, 32)
    if who is not None:
        owned = select(Member.run_id).where(Member.user_id == who.id, Member.role == "owner")
        runs = schema.runs.c
        own = select(runs.uuid).where((runs.owner == who.name) | runs.id.in_(owned))
        query = query.where((AuditEntry.user == who.name) | about.in_(own))
    if run is not None:
        query = query.where(about == run)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    return list(tables.session.execute(query).scalars())


def forget_run(run_id: int, uuid: str) -> None:
    """Remove the members of a deleted run."""
    with _changing("delete run", uuid) as session:
        session.execute(delete(Member).where(Member.run_id == run_id))
