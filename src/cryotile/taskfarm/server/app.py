"""The application: its parts, what holds for every request, and what an error looks like."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, g, jsonify, request
from flask.sessions import NullSession, SecureCookieSession, SecureCookieSessionInterface
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.middleware.proxy_fix import ProxyFix

from cryotile.errors import InvalidValue
from cryotile.ledgers.sql.database import Database, Unreachable
from cryotile.ledgers.sql.schema import upgrade
from cryotile.taskfarm.server import api, legacy_api, pages, views
from cryotile.taskfarm.server.auth import Access, check
from cryotile.taskfarm.server.models import STEPS, accounts
from cryotile.taskfarm.server.served import Server
from cryotile.taskfarm.server.settings import Settings
from cryotile.taskfarm.server.workers import Workers

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["create_app"]

logger = logging.getLogger(__name__)

# Seconds for which a request waits for a database that is away; then the client is told to ask again.
_PATIENCE = 8.0

# The pages see to it themselves: without a session there is the login and nothing else.
_OPEN = {"pages.home", "pages.log_in", "pages.log_out", "views.healthz"}

_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


class _Application(Flask):
    """Flask, but for what every one of a thousand requests a second would pay for."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Look at no function whether it is a coroutine: none is."""
        return func

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, and protect whoever reads the answer in a browser."""

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[..., object]:
            # Here and not in the response, which checks and copies each header again.
            return start_response(status, headers + _protection(), *more)

        return super().wsgi_app(environ, start)


class _Sessions(SecureCookieSessionInterface):
    """Sessions of the page; programs have none, and are not kept waiting for what signs them."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Read the session of a request."""
        if request.path.startswith("/api/"):
            return NullSession()
        return super().open_session(app, request)


def create_app(settings: Settings | None = None) -> Flask:
    """Make the application; the tables are created or upgraded if need be.

    Parameters
    ----------
    settings : Settings, optional
        From the environment when not given.

    Returns
    -------
    Flask

    Raises
    ------
    CryotileError
        A setting is wrong, or the database cannot be used.
    """
    settings = settings or Settings()
    database = Database(
        settings.database_url, connections=settings.connections, patience=_PATIENCE, linger=math.inf
    )
    database.change(_upgrade)
    app = _Application("cryotile.taskfarm.server", static_folder=None)
    app.session_interface = _Sessions()
    app.config.update(
        SECRET_KEY=settings.key(),
        SQLALCHEMY_DATABASE_URI=database.engine.url,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=settings.proxies > 0,
        # Flask-HTTPAuth lets OPTIONS pass unasked, for pages of other sites; there are none.
        PROVIDE_AUTOMATIC_OPTIONS=False,
        MAX_CONTENT_LENGTH=4 * 2**20,
        MAX_FORM_MEMORY_SIZE=16 * 2**10,
    )
    app.extensions["cryotile"] = Server(database, settings, Access(database), Workers(database))
    accounts.init_app(app)
    for part in (legacy_api.legacy_api, api.api, pages.pages, views.views):
        app.register_blueprint(part)
    app.before_request(_admit)
    app.register_error_handler(HTTPException, _explain)
    app.register_error_handler(InvalidValue, _reject)
    for away in (Unreachable, SQLAlchemyError, NoConnection):
        app.register_error_handler(away, _ask_again)
    app.register_error_handler(Exception, _fail)
    if settings.proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=settings.proxies, x_proto=settings.proxies, x_host=settings.proxies
        )
    return app


def _upgrade(connection: Connection) -> None:
    upgrade(connection)
    upgrade(connection, "server", STEPS)


def _admit() -> Response | None:
    """Ask everybody who he is, also who asks for what does not exist."""
    if request.method == "OPTIONS":
        raise MethodNotAllowed
    return None if request.endpoint in _OPEN else check()


def _protection() -> list[tuple[str, str]]:
    style = f"'nonce-{g.nonce}'" if "nonce" in g else "'none'"
    policy = f"default-src 'none'; style-src {style}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    headers = [*_HEADERS, ("Content-Security-Policy", policy)]
    if request.is_secure:
        headers.append(("Strict-Transport-Security", "max-age=31536000"))
    return headers


def _explain(error: HTTPException) -> Any:
    """Say in JSON what was wrong with a request."""
    response = error.get_response()
    if error.code is not None and error.code >= 400:
        response.set_data(jsonify(error=error.description or error.name).get_data())
        response.content_type = "application/json"
    return response


def _reject(error: InvalidValue) -> tuple[Response, int]:
    return jsonify(error=str(error)), 400


def _ask_again(error: Exception) -> tuple[Response, int, dict[str, str]]:
    """Say that the database is away: nothing that was acknowledged is lost, and every call may be asked again."""
    logger.warning("%s %s: %s", request.method, request.path, error)
    sentence = "the database does not answer at this moment; ask again, nothing was lost"
    return jsonify(error=sentence), 503, {"Retry-After": "2"}


def _fail(error: Exception) -> tuple[Response, int]:
    """Leave the traceback in the log, by a number, and the client without it."""
    number = secrets.token_hex(4)
    logger.error("%s %s failed (%s)", request.method, request.path, number, exc_info=error)
    return jsonify(error=f"the server failed; its log says why under {number}"), 500
