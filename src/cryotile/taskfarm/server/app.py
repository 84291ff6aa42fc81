"""The application: its parts, the rules for every request, the form of errors, and serving it by gunicorn."""

from __future__ import annotations

import ctypes
import logging
import math
import secrets
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Flask, Request, Response, g, jsonify, request
from flask.json.provider import DefaultJSONProvider
from flask.sessions import NullSession, SecureCookieSession, SecureCookieSessionInterface
from gunicorn.app.base import BaseApplication
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection
from werkzeug.exceptions import (
    BadRequest,
    Forbidden,
    HTTPException,
    InternalServerError,
    LengthRequired,
    MethodNotAllowed,
    ServiceUnavailable,
    Unauthorized,
)
from werkzeug.middleware.proxy_fix import ProxyFix

from cryotile.errors import InvalidValue
from cryotile.ledgers.sql.database import Database, Unreachable
from cryotile.ledgers.sql.schema import upgrade
from cryotile.taskfarm.server import account_api, api, legacy_api, watch_api
from cryotile.taskfarm.server.accounts import STEPS, tables
from cryotile.taskfarm.server.auth import Access, authenticate, session_principal
from cryotile.taskfarm.server.connections import LONGEST_BODY, PROTECTION, BufferedWorker
from cryotile.taskfarm.server.pages import is_for_person, pages, render_error
from cryotile.taskfarm.server.settings import ServerSettings
from cryotile.taskfarm.server.state import Server, WorkerIds

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["create_app", "serve"]

logger = logging.getLogger(__name__)

# Seconds that a request waits for an unreachable database, before the client is told to repeat it.
_PATIENCE = 8.0

# Seconds after which that client should repeat it.
_RETRY_AFTER = 2

# The pages authenticate by session, and show the login without one.
_OPEN = {"pages.home", "pages.log_in", "pages.log_out", "pages.get_file", "api.healthz"}

# Seconds for which a connection is kept open between two requests of a worker.
_KEEP_ALIVE = 75

# Threads per process: most wait for the disk, six send event streams.
_THREADS = 12

# Seconds after which a thread that computes an answer for a page lets claims go first; Python has 5 ms.
_SWITCH_INTERVAL = 0.0005

# Heaps of glibc that the threads of a process share, and the number of that setting in malloc.h.  Otherwise each thread
# keeps the memory of the longest answer that it ever made.
_HEAPS, _M_ARENA_MAX = 2, -8

# Connections per process: each worker of a farm keeps one open.
_CONNECTIONS = 4096

_POLICY = "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


class _Application(Flask):
    """Flask without steps that cost time in each of a thousand requests a second."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the view itself: none is a coroutine."""
        return func

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, with the headers that protect its reader's browser."""

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[..., object]:
            # Added here, since a response object checks and copies each header again.
            return start_response(status, _protected(headers), *more)

        return super().wsgi_app(environ, start)


class _Sessions(SecureCookieSessionInterface):
    """Sessions of the page, and of the calls that it makes; calls of programs have none, so no signature is checked."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Return the session of a request."""
        if request.path.startswith("/api/") and (
            "HTTP_COOKIE" not in request.environ or "HTTP_AUTHORIZATION" in request.environ
        ):
            return NullSession()
        return super().open_session(app, request)


class _JSON(DefaultJSONProvider):
    """JSON by msgspec, which takes a tenth of the time of Flask's own, and knows structs."""

    default = staticmethod(msgspec.to_builtins)

    def response(self, *args: Any, **given: Any) -> Any:
        """Answer with an object as JSON."""
        try:
            content = msgspec.json.encode(args[0] if args else given)
        except UnicodeEncodeError:
            # Half a surrogate pair of a request that is quoted; Python's JSON escapes it.
            return super().response(*args, **given)
        return Response(content, mimetype=self.mimetype)


class _Gunicorn(BaseApplication):  # type: ignore[misc]  # gunicorn is not annotated
    """The application in gunicorn, configured by arguments and not by a file."""

    def __init__(self, settings: ServerSettings, options: dict[str, Any]) -> None:
        self._settings, self._options = settings, options
        super().__init__()

    def load_config(self) -> None:
        """Set the options that this version of gunicorn knows."""
        for name, value in self._options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the application; called once in each process."""
        return create_app(self._settings)


def create_app(settings: ServerSettings | None = None) -> Flask:
    """Return the application; create or upgrade its tables first if need be.

    Parameters
    ----------
    settings : ServerSettings, optional
        By default from the environment.

    Returns
    -------
    Flask

    Raises
    ------
    CryotileError
        A setting is invalid, or the database cannot be used.
    """
    settings = settings or ServerSettings()
    # Other C libraries do not have it.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _HEAPS)
    for place in settings.run_directories:
        if not place.is_dir():
            # Its file system may come later, and the farm works without it.
            logger.warning(
                "CRYOTILE_RUN_DIRECTORIES names %s, which is not a directory; until it is, the page explains no post"
                " of its runs",
                place,
            )
    database = Database(
        settings.database_url, connections=settings.connections, patience=_PATIENCE, linger=math.inf
    )
    database.change(_upgrade)
    app = _Application("cryotile.taskfarm.server", static_folder=None)
    app.session_interface = _Sessions()
    app.json = _JSON(app)
    app.config.update(
        SECRET_KEY=settings.key(),
        SQLALCHEMY_DATABASE_URI=database.engine.url,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=settings.proxies > 0,
        # Flask-HTTPAuth does not authenticate OPTIONS, which pages of other sites need; no such page may call.
        PROVIDE_AUTOMATIC_OPTIONS=False,
        MAX_CONTENT_LENGTH=LONGEST_BODY,
        MAX_FORM_MEMORY_SIZE=16 * 2**10,
    )
    app.extensions["cryotile"] = Server(database, settings, Access(database), WorkerIds(database))
    tables.init_app(app)
    # The calls of both are among those of the native API.
    assert account_api.api is watch_api.api is api.api
    for part in (legacy_api.legacy_api, api.api, pages):
        app.register_blueprint(part)
    app.before_request(_admit)
    app.register_error_handler(HTTPException, _explain)
    app.register_error_handler(InvalidValue, _reject)
    for unreachable in (Unreachable, SQLAlchemyError, NoConnection):
        app.register_error_handler(unreachable, _ask_to_repeat)
    app.register_error_handler(Exception, _fail)
    if settings.proxies:
        app.wsgi_app = _behind_proxies(app.wsgi_app, settings)  # type: ignore[method-assign,assignment]
    return app


def _behind_proxies(serve: WSGIApplication, settings: ServerSettings) -> WSGIApplication:
    """Return an application that believes its proxies, and nobody else, who the client is."""
    settings.is_proxy("")  # Refuse invalid networks at the start.
    count = settings.proxies
    believing = ProxyFix(serve, x_for=count, x_proto=count, x_host=count)
    is_proxy = lru_cache(1024)(settings.is_proxy)

    def wsgi_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        known = is_proxy(environ.get("REMOTE_ADDR", ""))
        return (believing if known else serve)(environ, start_response)

    return wsgi_app


def _upgrade(connection: Connection) -> None:
    upgrade(connection)
    upgrade(connection, "server", STEPS)


def _admit() -> Response | None:
    """Refuse requests of other sites' pages, and authenticate all others, unknown routes included."""
    if request.method == "OPTIONS":
        raise MethodNotAllowed
    # Only of a body of known length can the server tell whether it has arrived; see connections.
    if "HTTP_TRANSFER_ENCODING" in request.environ:
        raise LengthRequired("the body has no Content-Length; send one, not Transfer-Encoding")
    # A token is made by GET, as the first server did.
    if request.method not in ("GET", "HEAD") or request.endpoint == "legacy.get_token":
        _refuse_other_sites()
    if request.endpoint in _OPEN:
        return None
    if "HTTP_COOKIE" in request.environ and (who := session_principal()) is not None:
        g.principal = who
        return None
    if _is_from_script():
        raise Unauthorized("the session has ended; log in again")
    refusal = authenticate()
    if refusal is not None and is_for_person() and not request.path.startswith("/api/"):
        raise Unauthorized("log in to see this page")
    return refusal


def _is_from_script() -> bool:
    """Tell whether a script of the page calls: at a challenge, the browser would open a dialog of its own."""
    given = request.headers
    return "Authorization" not in given and (
        "X-Requested-With" in given or given.get("Accept") == "text/event-stream"
    )


def _refuse_other_sites() -> None:
    """Refuse a request that a page of another site makes a visitor's browser send, with the visitor's credentials."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    # Programs send neither.  Browsers send the first over HTTPS and to this machine; "none" means typed by the user.
    if site in ("same-origin", "none") or (site is None and origin is None):
        return
    own = request.host_url.rstrip("/")
    if site is None and origin == own:
        return
    raise Forbidden(
        f"the request comes from another site ({origin or site}); open {own} and repeat it there"
    )


def _protected(given: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return headers with those that protect the reader; an answer may say itself how long it is kept."""
    named = {name for name, _ in given}
    return given + [header for header in _protection() if header[0] not in named]


def _protection() -> list[tuple[str, str]]:
    # The page loads its own files and calls its own server; its one script within HTML, the import map, has a nonce.
    scripts = f"'self' 'nonce-{g.nonce}'" if "nonce" in g else "'none'"
    policy = f"default-src 'none'; script-src {scripts}; style-src 'self'; connect-src 'self'; img-src data:; {_POLICY}"
    headers = [*PROTECTION, ("Content-Security-Policy", policy)]
    if request.is_secure:
        headers.append(("Strict-Transport-Security", "max-age=31536000"))
    return headers


def _explain(error: HTTPException) -> Any:
    """Return an error as JSON, or as a page if a browser shows it."""
    response = error.get_response()
    if error.code is None or error.code < 400:
        return response
    if is_for_person():
        response.set_data(render_error(error))
    else:
        response.set_data(jsonify(error=error.description or error.name).get_data())
        response.content_type = "application/json"
    return response


def _reject(error: InvalidValue) -> Any:
    return _explain(BadRequest(str(error)))


def _ask_to_repeat(error: Exception) -> Any:
    """Answer that the database is unreachable: acknowledged changes are safe, and every call may be repeated."""
    logger.warning("%s %s: %s", request.method, ascii(request.path), error)
    sentence = "the database does not answer; nothing was lost, repeat the request"
    return _explain(ServiceUnavailable(sentence, retry_after=_RETRY_AFTER))


def _fail(error: Exception) -> Any:
    """Log the traceback under a number, and tell the client the number alone."""
    number = secrets.token_hex(4)
    logger.error("%s %s failed (%s)", request.method, ascii(request.path), number, exc_info=error)
    return _explain(InternalServerError(f"the server failed; search its log for {number}"))


def serve(settings: ServerSettings, bind: str, *, processes: int) -> None:
    """Serve the application on this machine until a signal ends it.

    Parameters
    ----------
    settings : ServerSettings
        Settings of the server.
    bind : str
        Where to listen: ``host:port``, ``[address]:port``, or ``fd://number`` of a socket that listens already.
    processes : int
        Number of processes, each with a few threads.
    """
    # The processes inherit it.
    sys.setswitchinterval(_SWITCH_INTERVAL)
    # The key may be new: pass it on, so that all processes have the same.
    settings = replace(settings, secret_key=settings.key(), connections=_THREADS)
    options = {
        "bind": bind,
        "workers": processes,
        "worker_class": BufferedWorker,
        "worker_connections": _CONNECTIONS,
        "threads": _THREADS,
        "keepalive": _KEEP_ALIVE,
        "graceful_timeout": 10,
        "proc_name": "cryotile serve",
        "loglevel": "warning",
        # Signals control the server, and several servers may run on one host.
        "control_socket_disable": True,
    }
    _Gunicorn(settings, options).run()
