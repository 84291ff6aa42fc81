"""Requests to an HTTP server that speaks JSON, repeated while it does not answer; needs the extra ``http``."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from math import inf
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from cryotile.errors import CryotileError, InvalidValue, MissingDependency
from cryotile.processes import backoff

try:
    import requests
    from requests.auth import HTTPBasicAuth
    from urllib3.exceptions import NewConnectionError
except ModuleNotFoundError as error:
    raise MissingDependency(
        "clients of a task-farm server need requests: pip install 'cryotile[http]'"
    ) from error

__all__ = ["PATIENCE", "Refused", "Site", "Unanswered", "answers", "credentials"]

PATIENCE = 600.0
"""Seconds for which a request without an answer is repeated."""

# Seconds to connect, and of silence within an answer; without them a worker waits for a vanished host for ever.
_TIMEOUT = 10.0, 60.0

# Seconds in which a server that is there answers.
_PROMPT = 2.0

# The first and the longest pause between two tries, seconds.
_PAUSES = 0.1, 10.0

# Limits of the patience, seconds: before the first answer, since the address may be wrong, and for server errors.
_FIRST_PATIENCE = 30.0
_FAULT_PATIENCE = 60.0

# The server is overloaded, or its database is unreachable: nothing was changed.
_LATER = {429, 502, 503, 504}

# Compression does not make shorter bodies smaller.
_WORTH_PACKING = 4096

logger = logging.getLogger(__name__)


class Refused(CryotileError, RuntimeError):
    """A server has understood a request and refuses it.

    Attributes
    ----------
    status : int
        Status code of the answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unanswered(CryotileError, ConnectionError):
    """A server did not answer within the time limit; everything that it acknowledged before is kept."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a request has no answer.

    Attributes
    ----------
    reason : str
        Reason, without its remedy.
    patience : float
        Seconds for which the request may be repeated at most; 0 if it must not be.
    retry_after : float
        Seconds that the server asks to wait first.
    """

    reason: str
    patience: float
    retry_after: float = 0.0


class Site:
    """An HTTP server that speaks JSON.

    Connections are kept open.  A site must not be shared by threads.

    Parameters
    ----------
    base : str
        Base address, without a user.
    auth : (str, str), optional
        User name and password, or a token and an empty password.
    patience : float
        Seconds for which a request without an answer is repeated.
    verify : bool or str
        Whether to check certificates, or the file of the authority to check them by.
    find : callable, optional
        Returns where the server is now, as ``(base, auth)``; asked again when a request has no answer.

    Raises
    ------
    InvalidValue
        The file of the authority cannot be used.

    Attributes
    ----------
    base : str
        Base address with a final slash.
    session : requests.Session
        Connections to the server.
    auth : (str, str) or None
        User name and password, or token, of the requests.
    """

    def __init__(
        self,
        base: str,
        *,
        auth: tuple[str, str] | None = None,
        patience: float = PATIENCE,
        verify: bool | str = True,
        find: Callable[[], tuple[str, tuple[str, str] | None]] | None = None,
    ) -> None:
        if isinstance(verify, str):
            _check_authority(verify)
        self.base = base.rstrip("/") + "/"
        self.session = requests.Session()
        self.auth = auth
        self._patience = patience
        self._verify = verify
        # What the environment says of this address: proxies and certificates.
        self._settings: tuple[str, dict[str, Any]] = "", {}
        self._find = find
        # A server that is found by asking has been there.
        self._answered = find is not None

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        again: Mapping[str, Any] | None = None,
        repeatable: bool = True,
        patience: float | None = None,
    ) -> Any:
        """Send a request, repeat it if need be, and return the answer.

        Parameters
        ----------
        method : str
            ``GET``, ``POST``, …
        path : str
            Path below the base address.
        body : object, optional
            Body, as :mod:`json` can write it.
        query : mapping, optional
            Query of the address.
        again : mapping, optional
            Members to add when the request is repeated: to the body if that is a mapping, else to the query.
        repeatable : bool
            Whether the request may take effect twice.  Otherwise it is repeated only if it certainly had no effect.
        patience : float, optional
            Seconds for which the request is repeated; by default those of the site.

        Returns
        -------
        object
            The decoded answer; None if it is empty.

        Raises
        ------
        Refused
            The server refuses the request.
        Unanswered
            The server does not answer within the time limit.
        """
        patience = self._patience if patience is None else patience
        if not self._answered:
            patience = min(patience, _FIRST_PATIENCE)
        start = time.monotonic()
        for pause in backoff(*_PAUSES):
            result = self._try(method, path, body, query, repeatable)
            if isinstance(result, requests.Response):
                self._answered = True
                # Another server may have the address that this one had.
                if result.status_code != 401 or not self._has_moved():
                    return self._read(result, method, path)
                continue
            self._has_moved()
            waited = time.monotonic() - start
            if waited + result.retry_after >= min(patience, result.patience):
                raise Unanswered(
                    f"{self.base}: {result.reason}; check that the server runs and the address is right, then repeat "
                    "the command to continue"
                )
            pause += result.retry_after
            level = logging.WARNING if pause > 1 else logging.DEBUG
            logger.log(level, "%s: %s; trying again in %.1f s", self.base, result.reason, pause)
            time.sleep(pause)
            if again and isinstance(body, Mapping):
                body = {**body, **again}
            elif again:
                query = {**(query or {}), **again}
        raise AssertionError("backoff never ends")

    def _has_moved(self) -> bool:
        """Look where the server is now; return whether that is another place than before."""
        before = self.base, self.auth
        if self._find is not None:
            base, self.auth = self._find()
            self.base = base.rstrip("/") + "/"
        return (self.base, self.auth) != before

    def _try(
        self,
        method: str,
        path: str,
        body: Any,
        query: Mapping[str, Any] | None,
        repeatable: bool,
    ) -> requests.Response | _Failure:
        """Send a request once, and return the answer or why there is none."""
        headers, content = _packed(body)
        # As bytes, since requests encodes text in Latin-1, and the server reads UTF-8.
        auth = self.auth and HTTPBasicAuth(*(each.encode(errors="replace") for each in self.auth))
        try:
            if self._settings[0] != self.base:
                self._settings = self.base, self._read_environment()
            answer = self.session.request(
                method,
                self.base + path,
                params=query,
                data=content,
                headers=headers,
                auth=auth,
                timeout=_TIMEOUT,
                allow_redirects=False,
                **self._settings[1],
            )
        except requests.exceptions.SSLError as error:
            return _Failure(f"its certificate cannot be checked ({_reason(error)})", 0.0)
        except (requests.ConnectionError, requests.Timeout) as error:
            unheard = isinstance(error, requests.ConnectTimeout) or _is_unheard(error)
            return _Failure(_reason(error), inf if repeatable or unheard else 0.0)
        except requests.exceptions.InvalidURL as error:
            raise InvalidValue(
                f"invalid address {self.base} ({error}); write http://host:5000"
            ) from error
        except requests.RequestException as error:
            return _Failure(_reason(error), inf if repeatable else 0.0)
        said = f"HTTP {answer.status_code} {answer.reason}"
        if answer.status_code in _LATER:
            return _Failure(said, inf, _retry_after(answer))
        if answer.status_code >= 500 and repeatable:
            return _Failure(said, _FAULT_PATIENCE, _retry_after(answer))
        return answer

    def _read_environment(self) -> dict[str, Any]:
        """Return the proxies and certificates for the address, which requests would look for in each request."""
        self.session.trust_env = True
        try:
            found = self.session.merge_environment_settings(self.base, {}, None, self._verify, None)
        except ValueError:
            # The address is invalid; requests says why.
            return {}
        # Without a user, requests looks in ~/.netrc.
        self.session.trust_env = self.auth is None
        return found

    def _read(self, answer: requests.Response, method: str, path: str) -> Any:
        if not 200 <= answer.status_code < 300:
            where = f"{method} {self.base}{path}: HTTP {answer.status_code}"
            raise Refused(f"{where}: {_complaint(answer)}", answer.status_code)
        if not answer.content:
            return None
        try:
            return answer.json()
        except requests.exceptions.JSONDecodeError as error:
            raise Refused(
                f"{method} {self.base}{path}: the answer is not JSON, as of a task-farm server; correct the address",
                answer.status_code,
            ) from error


def answers(address: str) -> bool:
    """Tell whether a task-farm server answers at an address, such as ``http://host:5000``, within two seconds."""
    try:
        return requests.get(f"{address}/healthz", timeout=_PROMPT).ok
    except requests.RequestException:
        return False


def credentials(address: str) -> tuple[SplitResult, tuple[str, str] | None]:
    """Split user and password off an address.

    Parameters
    ----------
    address : str
        ``http://host:5000``, ``https://token@host`` or ``https://user:password@host``.

    Returns
    -------
    SplitResult
        The address without user and password.
    (str, str) or None
        User name and password, or a token and an empty password: from the address, else from ``$CRYOTILE_TOKEN``.

    Raises
    ------
    InvalidValue
        It is not the address of an HTTP server.
    """
    try:
        parts = urlsplit(address)
        found = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        # A port that is not a number, or half an IPv6 address.
        found = False
    if not found:
        # Without user and password.
        shown = re.sub("//.*@", "//", address)
        raise InvalidValue(f"address {shown!r} names no server; write http://host:5000")
    _, at, place = parts.netloc.rpartition("@")
    auth = (unquote(parts.username or ""), unquote(parts.password or "")) if at else None
    if auth is None and (token := os.environ.get("CRYOTILE_TOKEN")):
        auth = (token, "")
    return parts._replace(netloc=place), auth


def _check_authority(file: str) -> None:
    """Refuse a file of a certificate authority that cannot be used: at a request, its error names no remedy."""
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        raise InvalidValue(
            f"{file!r} is not the file of a certificate authority ({error.strerror or error}); name a readable PEM"
            " file in $CRYOTILE_CA_BUNDLE or verify="
        ) from None


def _packed(body: Any) -> tuple[dict[str, str], bytes | None]:
    """Return a body as JSON with its headers, compressed if that makes it smaller."""
    if body is None:
        return {}, None
    headers, content = {"Content-Type": "application/json"}, json.dumps(body).encode()
    if len(content) >= _WORTH_PACKING:
        content = gzip.compress(content, 1)
        headers["Content-Encoding"] = "gzip"
    return headers, content


def _is_unheard(error: requests.RequestException) -> bool:
    """Tell whether a request certainly did not reach the server."""
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", None), NewConnectionError)


def _reason(error: requests.RequestException) -> str:
    """Return the message of requests, without the objects that it lists."""
    cause = error.args[0] if error.args else error
    text = " ".join(str(getattr(cause, "reason", None) or cause).split())
    return text.rpartition("object at 0x")[2].partition(": ")[2] or text or type(error).__name__


def _retry_after(answer: requests.Response) -> float:
    """Return the seconds that a server asks to wait; 0 if it does not say."""
    given = answer.headers.get("Retry-After", "")
    if given.isascii() and given.isdigit():
        return float(given)
    try:
        # By the server's own clock, so that no two clocks are compared.
        now = parsedate_to_datetime(answer.headers.get("Date") or formatdate(usegmt=True))
        return max(0.0, (parsedate_to_datetime(given) - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _complaint(answer: requests.Response) -> str:
    """Return the error that a server gives, in one line."""
    try:
        said = answer.json()["error"]
    except (requests.exceptions.JSONDecodeError, KeyError, TypeError):
        said = answer.reason
    return " ".join(str(said).split())[:500]
