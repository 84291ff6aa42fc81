"""What people see: the login, the page of runs and its files, and errors."""

from __future__ import annotations

import gzip
import hashlib
import secrets
from functools import cache
from typing import Any

from flask import Blueprint, Response, g, redirect, render_template, request, session
from werkzeug.exceptions import HTTPException, NotFound, Unauthorized

from cryotile.taskfarm import page
from cryotile.taskfarm.server import accounts
from cryotile.taskfarm.server.auth import identify, session_principal
from cryotile.taskfarm.server.operations import packed
from cryotile.taskfarm.server.state import server

__all__ = ["is_for_person", "pages", "render_error"]

pages = Blueprint("pages", __name__)

# Seconds after which a user must log in again.
_SESSION = 12 * 3600.0


@pages.get("/")
def home() -> Any:
    """Show the page of the user's runs; without a session, the login."""
    who = session_principal()
    if who is None:
        return _render("login.html", problem=None)
    return _render("home.html", name=who.name, import_map=page.import_map())


@pages.get("/page/<path:name>")
def get_file(name: str) -> Response:
    """Return a file of the page; it holds nothing of any user."""
    if name not in page.FILES:
        raise NotFound(f"the page has no file {name!r}")
    response = packed(_compressed(name), page.FILES[name])
    response.set_etag(_digest(name))
    response.headers["Cache-Control"] = "no-cache"
    response.make_conditional(request)
    return response


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


@cache
def _compressed(name: str) -> bytes:
    return gzip.compress(page.content(name), mtime=0)


@cache
def _digest(name: str) -> str:
    return hashlib.sha256(page.content(name)).hexdigest()[:16]
