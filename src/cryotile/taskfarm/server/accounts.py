"""What is done to users, tokens and members, within the application's context; every change is in the audit log."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import g, has_request_context, request
from flask_sqlalchemy.session import Session
from sqlalchemy import delete, select, text
from sqlalchemy.orm import scoped_session
from werkzeug.security import generate_password_hash

from cryotile.errors import InvalidValue
from cryotile.ledgers.sql.schema import runs
from cryotile.taskfarm.server.models import Entry, Member, Token, User, accounts

__all__ = [
    "MEMBER_ROLES",
    "NAME",
    "TOKEN",
    "USER_ROLES",
    "add_user",
    "digest",
    "find_user",
    "forget_run",
    "issue_token",
    "note",
    "remove_user",
    "revoke_tokens",
    "set_member",
    "users",
]

USER_ROLES = ("user", "admin")
MEMBER_ROLES = ("viewer", "worker", "owner")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
"""Names of users."""

TOKEN = re.compile(r"ct_[A-Za-z0-9_-]{43}")
"""Tokens are told from names by their look."""

_LONGEST_PASSWORD = 1024


@contextmanager
def _changing(
    action: str, subject: str, *, rights: bool = True
) -> Iterator[scoped_session[Session]]:
    """Change something in one transaction and note it; with ``rights``, what processes remember is no longer true."""
    session = accounts.session
    try:
        yield session
        note(action, subject)
        if rights:
            session.execute(text("UPDATE access SET version = version + 1"))
        session.commit()
    except BaseException:
        # Ctrl-C, too: half a change must not wait in the session for the next commit.
        session.rollback()
        raise


def note(action: str, subject: str, *, user: str = "", commit: bool = False) -> None:
    """Add a line to the audit log: who did what to whom or which run.

    Parameters
    ----------
    action : str
        One of a few words.
    subject : str
        Name of a user, or uuid of a run, and more.
    user : str
        Who; the user of the request, or ``-`` for the command line, when not given.
    commit : bool
        Whether it stands alone.
    """
    address = (request.remote_addr or "") if has_request_context() else ""
    who = user or (g.principal.name if has_request_context() and "principal" in g else "-")
    accounts.session.add(
        Entry(at=time.time(), user=who, address=address, action=action, subject=subject)
    )
    if commit:
        accounts.session.commit()


def find_user(name: str) -> User | None:
    """Find a user by name."""
    return accounts.session.execute(select(User).where(User.name == name)).scalar_one_or_none()


def users() -> list[User]:
    """Return all users, by name."""
    return list(accounts.session.execute(select(User).order_by(User.name)).scalars())


def add_user(name: str, password: str, role: str | None = None) -> bool:
    """Add a user, or give one another password; the tokens made with the old one fall.

    Parameters
    ----------
    name : str
        Letters, digits and ``._@+-``.
    password : str
        Not empty.
    role : str, optional
        ``user`` or ``admin``; that of the user, or ``user`` for a new one, when not given.

    Returns
    -------
    bool
        Whether the user is new.

    Raises
    ------
    InvalidValue
        Name, password or role are none.
    """
    # Either may be sent as the user of HTTP Basic, so a name must not look like a token.
    if NAME.fullmatch(name) is None or TOKEN.fullmatch(name) is not None:
        raise InvalidValue(
            f"user name {name!r} is none; up to 64 letters, digits and ._@+-, a letter or digit first"
        )
    if not 0 < len(password) <= _LONGEST_PASSWORD:
        raise InvalidValue(
            f"a password has 1 to {_LONGEST_PASSWORD} characters, this one {len(password)}; give another"
        )
    if role is not None and role not in USER_ROLES:
        raise InvalidValue(f"role {role!r} is unknown; choose {' or '.join(USER_ROLES)}")
    hashed = generate_password_hash(password, "scrypt")
    user = find_user(name)
    if user is None:
        with _changing("add user", name) as session:
            session.add(User(name=name, password=hashed, role=role or "user", created=time.time()))
        return True
    with _changing("change password", name) as session:
        user.password = hashed
        user.role = role or user.role
        session.execute(delete(Token).where(Token.user_id == user.id))
    return False


def remove_user(name: str) -> bool:
    """Remove a user with his tokens; his runs stay, for admins and their other owners.  False when there is none."""
    user = find_user(name)
    if user is None:
        return False
    with _changing("remove user", name) as session:
        session.execute(delete(Token).where(Token.user_id == user.id))
        session.execute(delete(Member).where(Member.user_id == user.id))
        # Else the next user of this name would own them.
        session.execute(runs.update().where(runs.c.owner == name).values(owner=None))
        session.delete(user)
    return True


def digest(token: str) -> str:
    """By which a token is known; a token is random, so nobody finds it by guessing."""
    return hashlib.sha256(token.encode()).hexdigest()


def issue_token(user_id: int, name: str, lifetime: float) -> str:
    """Make a token of a user that is good for so many seconds."""
    token = f"ct_{secrets.token_urlsafe(32)}"
    now = time.time()
    with _changing("make token", name, rights=False) as session:
        session.execute(delete(Token).where(Token.user_id == user_id, Token.expires < now))
        session.add(
            Token(digest=digest(token), user_id=user_id, created=now, expires=now + lifetime)
        )
    return token


def revoke_tokens(user_id: int, name: str, token: str | None = None) -> None:
    """End a token of a user, or all of them."""
    doomed = delete(Token).where(Token.user_id == user_id)
    if token is not None:
        doomed = doomed.where(Token.digest == digest(token))
    with _changing("revoke token" if token else "revoke all tokens", name) as session:
        session.execute(doomed)


def set_member(run_id: int, uuid: str, user: User, role: str | None) -> None:
    """Make a user owner, worker or viewer of a run, or a stranger."""
    with _changing("set member", f"{uuid} {user.name} {role or 'stranger'}") as session:
        session.execute(delete(Member).where(Member.run_id == run_id, Member.user_id == user.id))
        if role is not None:
            session.add(Member(run_id=run_id, user_id=user.id, role=role))


def forget_run(run_id: int, uuid: str) -> None:
    """Remove the members of a run that is deleted."""
    with _changing("delete run", uuid) as session:
        session.execute(delete(Member).where(Member.run_id == run_id))
