"""The page for people: the login, a table of runs and their progress, and errors."""

from __future__ import annotations

import secrets
from typing import Any

from flask import Blueprint, g, redirect, render_template, request, session
from werkzeug.exceptions import HTTPException, Unauthorized

from cryotile.taskfarm.server import accounts
from cryotile.taskfarm.server.auth import Principal, identify, session_principal
from cryotile.taskfarm.server.listing import list_runs, summarize
from cryotile.taskfarm.server.state import server

__all__ = ["is_for_person", "pages", "render_error"]

pages = Blueprint("pages", __name__)

# Seconds after which a user must log in again.
_SESSION = 12 * 3600.0

# Units of an age: seconds of one, name, and the age up to which it is used.
_UNITS = ((1, "s", 120), (60, "min", 7200), (3600, "h", 172800), (86400, "days", float("inf")))


@pages.get("/")
def home() -> Any:
    """Show the user's runs, the newest first; without a session, the login."""
    who = session_principal()
    if who is None:
        return _render("login.html", problem=None)
    rows = reversed(list_runs(server().database, who))
    return _render("runs.html", runs=[_progress(row, who) for row in rows], name=who.name)


@pages.post("/")
def log_in() -> Any:
    """Begin a session."""
    who = identify(request.form.get("name", "").strip(), request.form.get("password", ""))
    if who is None:
        raise Unauthorized("name or password is wrong; try again")
    lifetime = min(_SESSION, server().settings.token_lifetime)
    g.principal = who
    session["token"] = accounts.issue_token(who.id, who.name, lifetime)
    return redirect("/", 303)


@pages.post("/logout")
def log_out() -> Any:
    """End a session, and revoke its token."""
    who = session_principal()
    if who is None:
        raise Unauthorized("your session has ended already; log in to begin another")
    g.principal = who
    accounts.revoke_tokens(who.id, who.name, who.token)
    server().access.forget()
    session.clear()
    return redirect("/", 303)


def is_for_person() -> bool:
    """Tell whether a browser will show the answer of the current request: programs do not prefer HTML."""
    offered = ["application/json", "text/html"]
    return request.accept_mimetypes.best_match(offered) == "text/html"


def render_error(error: HTTPException) -> str:
    """Return the page of an error: the login with the reason if a login helps, else the reason."""
    template = "login.html" if error.code in (401, 429) else "error.html"
    # A page of runs that reloads while the database does not answer must go on reloading.
    again = error.code == 503
    return _render(template, problem=error.description, title=error.name, again=again)


def _render(template: str, **values: Any) -> str:
    # The policy of the answer allows the one style sheet that has this nonce.
    g.nonce = secrets.token_urlsafe(16)
    return render_template(template, **values)


def _progress(row: Any, who: Principal) -> dict[str, Any]:
    run = summarize(row, who)
    return {
        "name": run.name or run.key,
        "run": run,
        # Rounded down: 100 % means that nothing is left.
        "percent": 100 * run.done // max(1, run.tasks),
        "seen": "never" if row.seen is None else _age(row.clock - row.seen),
    }


def _age(seconds: float) -> str:
    """Return an age in words, such as ``20 min ago``."""
    size, unit, _ = next(each for each in _UNITS if seconds < each[2])
    return f"{max(0, int(seconds)) // size} {unit} ago"
