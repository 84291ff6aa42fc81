"""Server-sent events: a state as JSON, whenever it has changed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flask import Response, request, stream_with_context

__all__ = ["stream"]

# Seconds between two looks, between two signs of life, and after which a client is to ask again.
_PAUSE, _SILENCE, _LONGEST = 1.0, 15.0, 300.0

# Streams of a process at once: its other threads are for the workers.
_seats = threading.BoundedSemaphore(2)

# What changes although nothing has happened.
_RESTLESS = {"clock"}


def stream(look: Callable[[], Mapping[str, Any] | None]) -> Response:
    """Answer with events until the run is over; where threads are scarce with one, and the client asks again.

    Parameters
    ----------
    look : callable
        Returns counts with ``waiting`` and ``leased``, or None when there is nothing to look at any more.

    Returns
    -------
    Response
    """
    stays = bool(request.environ.get("wsgi.multithread")) and _seats.acquire(blocking=False)
    response = Response(stream_with_context(_events(look, stays)), mimetype="text/event-stream")
    # nginx would keep events back until there are many.
    response.headers["X-Accel-Buffering"] = "no"
    if stays:
        response.call_on_close(_seats.release)
    return response


def _events(look: Callable[[], Mapping[str, Any] | None], stays: bool) -> Iterator[str]:
    end, last, spoke = time.monotonic() + _LONGEST, None, time.monotonic()
    yield "retry: 2000\n\n"
    while (seen := look()) is not None:
        state = {name: value for name, value in seen.items() if name not in _RESTLESS}
        now = time.monotonic()
        if state != last:
            last, spoke = state, now
            yield f"data: {json.dumps(seen)}\n\n"
        elif now - spoke > _SILENCE:
            spoke = now
            yield ": still here\n\n"
        if not stays or now > end or state["waiting"] + state["leased"] == 0:
            return
        time.sleep(_PAUSE)
