"""Calls about the caller, tokens, users, members of runs and the audit log."""

from __future__ import annotations

import time

import msgspec
from werkzeug.exceptions import BadRequest, Forbidden, NotFound

from cryotile.ledgers.sql.runs import RunRecord
from cryotile.taskfarm.server import accounts
from cryotile.taskfarm.server.api import api, operations
from cryotile.taskfarm.server.auth import member_run, principal
from cryotile.taskfarm.server.state import server
from cryotile.taskfarm.server.watch_bodies import (
    AuditEntry,
    AuditPage,
    AuditQuery,
    MemberList,
    NewToken,
    RunMember,
    TokenList,
    TokenMade,
    TokenSummary,
    UserChange,
    UserList,
    UserSummary,
    Who,
)

__all__ = ["api"]

_TOKEN_ID = 16


@operations.add("GET", "/api/v1/me", {200: "The caller."})
def get_me() -> Who:
    """Return who the caller is."""
    return Who(principal().name, principal().admin)


@operations.add("GET", "/api/v1/tokens", {200: "The tokens."})
def get_tokens() -> TokenList:
    """List the tokens of the caller that have not expired; the session of the page is one of them."""
    who = principal()
    own = None if who.token is None else accounts.digest(who.token)
    return TokenList(
        [
            TokenSummary(each.digest[:_TOKEN_ID], each.created, each.expires, each.digest == own)
            for each in accounts.tokens_of(who.id)
        ]
    )


@operations.add("POST", "/api/v1/tokens", {201: "The token."})
def make_token(body: NewToken) -> tuple[TokenMade, int]:
    """Make a token of the caller."""
    who, most = principal(), server().settings.token_lifetime
    lifetime = most if body.lifetime is None else min(body.lifetime, most)
    expires = time.time() + lifetime
    return TokenMade(accounts.issue_token(who.id, who.name, lifetime), expires), 201


@operations.add("DELETE", "/api/v1/tokens/<token>", {204: "The token is revoked."})
def revoke_token(token: str) -> None:
    """Revoke a token of the caller."""
    who = principal()
    found = [each for each in accounts.tokens_of(who.id) if each.digest[:_TOKEN_ID] == token]
    if not found:
        raise NotFound(f"you have no token {token[:_TOKEN_ID]!r}; see /api/v1/tokens")
    accounts.revoke_digest(who.id, who.name, found[0].digest)
    server().access.forget()


@operations.add("GET", "/api/v1/users", {200: "The users."})
def get_users() -> UserList:
    """List all users; for admins."""
    _check_admin()
    return UserList([UserSummary(each.name, each.role, each.created) for each in accounts.users()])


@operations.add(
    "PUT", "/api/v1/users/<name>", {200: "The user is changed.", 201: "The user is added."}
)
def put_user(name: str, body: UserChange) -> tuple[UserSummary, int]:
    """Add a user, or change their password or role; for admins."""
    _check_admin()
    known = accounts.find_user(name)
    if known is not None and name == principal().name and body.role == "user":
        raise BadRequest("you cannot take your own rights; ask another admin")
    if body.password is not None:
        new = accounts.add_user(name, body.password, body.role)
    elif known is None:
        raise BadRequest(f"user {name[:64]!r} is unknown; give a password to add them")
    else:
        new = False
        accounts.set_role(known, body.role or known.role)
    server().access.forget()
    made = accounts.find_user(name)
    assert made is not None
    return UserSummary(made.name, made.role, made.created), 201 if new else 200


@operations.add("DELETE", "/api/v1/users/<name>", {204: "The user is removed."})
def remove_user(name: str) -> None:
    """Remove a user and their tokens; their runs remain; for admins."""
    _check_admin()
    if name == principal().name:
        raise BadRequest("you cannot remove yourself; ask another admin")
    if not accounts.remove_user(name):
        raise NotFound(f"user {name[:64]!r} is unknown; see /api/v1/users")
    server().access.forget()


@operations.add("GET", "/api/v1/runs/<run>/members", {200: "The members."}, role="owner")
def get_members(run: RunRecord) -> MemberList:
    """List the members of a run, its creator first."""
    created = [] if run.owner is None else [RunMember(run.owner, "owner")]
    found = [
        msgspec.convert({"name": name, "role": role}, RunMember)
        for name, role in accounts.members(run.id)
    ]
    return MemberList([*created, *(each for each in found if each.name != run.owner)])


@operations.add("GET", "/api/v1/audit", {200: "The entries."})
def get_audit(query: AuditQuery) -> AuditPage:
    """Return the audit log, the last entry first: all of it for admins, else own actions and own runs."""
    who = principal()
    run = None if query.run is None else member_run(query.run, "owner").uuid
    asked = accounts.audit(
        None if who.admin else who, run=run, before=query.before, limit=query.limit
    )
    found = [
        AuditEntry(each.id, each.at, each.user, each.address, each.action, each.subject)
        for each in asked
    ]
    return AuditPage(found, found[-1].id if len(found) == query.limit else None)


def _check_admin() -> None:
    if not principal().admin:
        raise Forbidden("only an admin may see and change users; ask one")
