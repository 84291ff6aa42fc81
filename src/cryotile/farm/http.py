"""Questions to an HTTP server, asked again when it does not answer; needs the extra ``http``."""

from __future__ import annotations

import gzip
import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from cryotile.errors import CryotileError, InvalidValue, MissingDependency
from cryotile.processes import backoff

try:
    import requests
    from urllib3.exceptions import NewConnectionError
except ModuleNotFoundError as error:
    raise MissingDependency(
        "to talk to a task-farm server needs requests: pip install 'cryotile[http]'"
    ) from error

__all__ = ["PATIENCE", "Refused", "Site", "Unanswered", "credentials"]

PATIENCE = 600.0
"""Seconds for which a question that is not answered is asked again."""

# Seconds to connect, and of silence within an answer; without them a host that vanished holds a worker for ever.
_TIMEOUT = 10.0, 60.0

# Pauses between two tries, seconds: the first, and the longest.
_PAUSES = 0.1, 10.0

# Who was never answered has perhaps the wrong address, and learns it sooner; so does who hits a fault of the server.
_FIRST_PATIENCE = 30.0
_FAULT_PATIENCE = 60.0

# The server is overrun, or what is behind it is away: nothing was done.
_LATER = {429, 502, 503, 504}

# Shorter bodies do not get smaller.
_WORTH_PACKING = 4096

logger = logging.getLogger(__name__)


class Refused(CryotileError, RuntimeError):
    """A server has understood a question, and refuses.

    Attributes
    ----------
    status : int
        Status code of its answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unanswered(CryotileError, ConnectionError):
    """A server did not answer as it should, however often it was asked; what was settled before is safe."""


class Site:
    """An HTTP server that speaks JSON.

    Connections are kept open.  Not for several threads at once.

    Parameters
    ----------
    base : str
        Address below which it is asked; without a user.
    auth : (str, str), optional
        User name and password, or a token and nothing.
    patience : float
        Seconds for which a question that is not answered is asked again.
    verify : bool or str
        Whether certificates are checked, or the file of the authority to check them by.

    Attributes
    ----------
    base : str
        The address, with a slash at its end.
    session : requests.Session
        The connections.
    auth : (str, str) or None
        As whom it is asked.
    """

    def __init__(
        self,
        base: str,
        *,
        auth: tuple[str, str] | None = None,
        patience: float = PATIENCE,
        verify: bool | str = True,
    ) -> None:
        self.base = base.rstrip("/") + "/"
        self.session = requests.Session()
        self.auth = auth
        self._patience = patience
        self._verify = verify
        self._answered = False

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
        """Ask, and again if need be.

        Parameters
        ----------
        method : str
            ``GET``, ``POST``, …
        path : str
            Below the base address.
        body : object, optional
            What :mod:`json` can write.
        query : mapping, optional
            The query of the address.
        again : mapping, optional
            What is added when the question is asked again: to the body, if that is a mapping, else to the query.
        repeatable : bool
            Whether to ask twice does no harm.  If it does, the question is asked again only where it is sure that
            nothing was done.
        patience : float, optional
            Seconds for which it is asked again; as long as the site's when not given.

        Returns
        -------
        object
            The decoded answer; None when it is empty.

        Raises
        ------
        Refused
            The server refuses.
        Unanswered
            It does not answer.
        """
        patience = self._patience if patience is None else patience
        if not self._answered:
            patience = min(patience, _FIRST_PATIENCE)
        start = time.monotonic()
        for pause in backoff(*_PAUSES):
            trouble, wait = self._try(method, path, body, query, repeatable)
            if isinstance(trouble, requests.Response):
                self._answered = True
                return self._read(trouble, method, path)
            if wait is None or time.monotonic() - start >= min(patience, wait or patience):
                raise Unanswered(
                    f"{self.base}: {trouble}; see that the server runs and the address is right, then give the same "
                    "command again: it goes on"
                )
            level = logging.WARNING if pause > 1 else logging.DEBUG
            logger.log(level, "%s: %s; trying again", self.base, trouble)
            time.sleep(pause)
            if again and isinstance(body, Mapping):
                body = {**body, **again}
            elif again:
                query = {**(query or {}), **again}
        raise AssertionError("backoff never ends")

    def _try(
        self,
        method: str,
        path: str,
        body: Any,
        query: Mapping[str, Any] | None,
        repeatable: bool,
    ) -> tuple[requests.Response | str, float | None]:
        """Ask once: the answer; or what went wrong, and for how long (0: the usual) it may be asked again."""
        headers, content = _packed(body)
        try:
            answer = self.session.request(
                method,
                self.base + path,
                params=query,
                data=content,
                headers=headers,
                auth=self.auth,
                timeout=_TIMEOUT,
                # With each request: what a session is told, the environment overrules.
                verify=self._verify,
                allow_redirects=False,
            )
        except requests.exceptions.SSLError as error:
            return f"its certificate cannot be checked ({_reason(error)})", None
        except (requests.ConnectionError, requests.Timeout) as error:
            unheard = isinstance(error, requests.ConnectTimeout) or _is_unheard(error)
            return _reason(error), 0.0 if repeatable or unheard else None
        except requests.exceptions.InvalidURL as error:
            raise InvalidValue(
                f"{self.base} is no address ({error}); write http://host:5000"
            ) from error
        except requests.RequestException as error:
            return _reason(error), 0.0 if repeatable else None
        if answer.status_code in _LATER:
            return f"HTTP {answer.status_code} {answer.reason}", 0.0
        if answer.status_code >= 500 and repeatable:
            return f"HTTP {answer.status_code} {answer.reason}", _FAULT_PATIENCE
        return answer, None

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
                f"{method} {self.base}{path}: the answer is no JSON; this is no task-farm server, mend the address",
                answer.status_code,
            ) from error


def credentials(address: str) -> tuple[SplitResult, tuple[str, str] | None]:
    """Split who asks off an address.

    Parameters
    ----------
    address : str
        ``http://host:5000``, ``https://token@host`` or ``https://user:password@host``.

    Returns
    -------
    SplitResult
        The address without them.
    (str, str) or None
        User name and password, or a token and nothing: of the address, else of ``$CRYOTILE_TOKEN``.

    Raises
    ------
    InvalidValue
        The address names no host.
    """
    parts = urlsplit(address)
    _, at, place = parts.netloc.rpartition("@")
    if not parts.hostname:
        raise InvalidValue(f"address {address!r} names no host; write {parts.scheme}://host:5000")
    auth = (unquote(parts.username or ""), unquote(parts.password or "")) if at else None
    if auth is None and (token := os.environ.get("CRYOTILE_TOKEN")):
        auth = (token, "")
    return parts._replace(netloc=place), auth


def _packed(body: Any) -> tuple[dict[str, str], bytes | None]:
    """Write a body, and pack it if that is worth it."""
    if body is None:
        return {}, None
    headers, content = {"Content-Type": "application/json"}, json.dumps(body).encode()
    if len(content) >= _WORTH_PACKING:
        content = gzip.compress(content, 1)
        headers["Content-Encoding"] = "gzip"
    return headers, content


def _is_unheard(error: requests.RequestException) -> bool:
    """Tell whether a question cannot have reached the server."""
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", None), NewConnectionError)


def _reason(error: requests.RequestException) -> str:
    """What requests says, without the objects that it lists."""
    cause = error.args[0] if error.args else error
    text = " ".join(str(getattr(cause, "reason", None) or cause).split())
    return text.rpartition("object at 0x")[2].partition(": ")[2] or text or type(error).__name__


def _complaint(answer: requests.Response) -> str:
    """What a server says is wrong, in one line."""
    try:
        said = answer.json()["error"]
    except (requests.exceptions.JSONDecodeError, KeyError, TypeError):
        said = answer.reason
    return " ".join(str(said).split())[:500]
