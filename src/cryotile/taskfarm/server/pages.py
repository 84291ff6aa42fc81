"""The page: a table of runs and their progress; without a session, the login."""

from __future__ import annotations

import secrets
from typing import Any

from flask import Blueprint, g, redirect, render_template, request, session
from werkzeug.exceptions import Forbidden, HTTPException, TooManyRequests, Unauthorized

from cryotile.taskfarm.server import accounts
from cryotile.taskfarm.server.auth import Principal, identify
from cryotile.taskfarm.server.listing import list_runs
from cryotile.taskfarm.server.state import server

__all__ = ["pages"]

pages = Blueprint("pages", __name__)

# Seconds after which one has to log in again.
_SESSION = 12 * 3600.0


@pages.get("/")
def home() -> Any:
    """Show the runs of who has logged in."""
    who = _logged_in()
    g.nonce = secrets.token_urlsafe(16)
    if who is None:
        return render_template("login.html", problem=None)
    rows = [_progress(row) for row in list_runs(server().database, who)]
    return render_template("runs.html", runs=rows, name=who.name)


@pages.post("/")
def log_in() -> Any:
    """Begin a session."""
    _refuse_strangers()
    name, password = request.form.get("name", ""), request.form.get("password", "")
    try:
        who = identify(name.strip(), password)
    except TooManyRequests as error:
        return _ask(error)
    if who is None:
        return _ask(Unauthorized("name or password is wrong"))
    lifetime = min(_SESSION, server().settings.token_lifetime)
    g.principal = who
    session["token"] = accounts.issue_token(who.id, who.name, lifetime)
    return redirect("/", 303)


@pages.post("/logout")
def log_out() -> Any:
    """End a session, and the token that it stands on."""
    who = _logged_in()
    if who is None:
        raise Unauthorized("nobody is logged in here")
    _refuse_strangers()
    g.principal = who
    accounts.revoke_tokens(who.id, who.name, who.token)
    server().access.forget()
    session.clear()
    return redirect("/", 303)


def _logged_in() -> Principal | None:
    token = session.get("token")
    return server().access.of_token(token) if isinstance(token, str) else None


def _refuse_strangers() -> None:
    """Refuse forms that other sites send in a visitor's name."""
    origin = request.headers.get("Origin")
    if origin is not None and origin != request.host_url.rstrip("/"):
        raise Forbidden("the form is from another site")


def _ask(error: HTTPException) -> tuple[str, int, dict[str, str]]:
    """Show the login again, with what was wrong."""
    g.nonce = secrets.token_urlsafe(16)
    headers = {}
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(error.retry_after)
    return render_template("login.html", problem=error.description), error.code or 401, headers


def _progress(row: Any) -> dict[str, Any]:
    settled = int(row.done) + int(row.failed)
    return {
        "name": row.name or row.key,
        "uuid": row.uuid,
        "tasks": row.tasks,
        "waiting": row.tasks - settled - int(row.leased),
        "leased": int(row.leased),
        "done": int(row.done),
        "failed": int(row.failed),
        # Not rounded: 100 % is said when nothing is left.
        "percent": 100 * int(row.done) // max(1, row.tasks),
        "silence": None if row.seen is None else max(0, round(row.clock - row.seen)),
    }
