"""The explanation of a post, by the command ``cryotile explain``: the server itself knows nothing of ice."""

from __future__ import annotations

import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterable
from pathlib import Path

from werkzeug.exceptions import BadRequest, NotFound, ServiceUnavailable

from cryotile.errors import command
from cryotile.ledgers.sql.runs import RunRecord

__all__ = ["explanation"]

# Seconds that an explanation may take.
_LIMIT = 120.0

# The file of a run directory that holds its uuid.
_SETTINGS = "run.toml"

# One at a time in a process: each starts another process, which reads the points around the post.
_seat = threading.BoundedSemaphore(1)


def explanation(run: RunRecord, places: Iterable[Path], x: float, y: float) -> str:
    """Return what ``cryotile explain`` prints of a post.

    Parameters
    ----------
    run : RunRecord
        A run that was planned in one of the places.
    places : iterable of Path
        Run directories, and directories that hold some.
    x, y : float
        Place of the post, metres in the CRS of the run.

    Raises
    ------
    NotFound
        The directory of the run is in none of the places.
    BadRequest
        There is no such post, or the command fails for another reason that it gives.
    ServiceUnavailable
        Another post is being explained, or the command takes too long.
    """
    place = _find(run.key.partition("/")[0], places)
    at = ("--at", f"{x:.12g}", f"{y:.12g}")
    other_way = command("explain", "RUN", *at)
    if place is None:
        raise NotFound(
            f"the server does not see the directory of run {run.uuid}; where it is, write {other_way}"
        )
    if not _seat.acquire(blocking=False):
        raise ServiceUnavailable("another post is being explained; ask again", retry_after=2)
    try:
        words = [sys.executable, "-m", "cryotile", "explain", str(place), *at]
        done = subprocess.run(words, capture_output=True, text=True, timeout=_LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        raise ServiceUnavailable(
            f"the explanation took more than {_LIMIT:.0f} s; write {other_way}"
        ) from error
    finally:
        _seat.release()
    if done.returncode and not done.stdout:
        reason = done.stderr.strip().rpartition("\n")[2].removeprefix("cryotile: ")
        raise BadRequest(reason.replace(str(place), "RUN") or f"it failed; write {other_way}")
    # A tile that another kernel has made is explained, and then complained of.
    return (done.stdout + done.stderr).replace(str(place), "RUN")


def _find(uuid: str, places: Iterable[Path]) -> Path | None:
    """Return the run directory with a uuid."""
    for place in places:
        found = [place] if (place / _SETTINGS).is_file() else sorted(place.glob(f"*/{_SETTINGS}"))
        for directory in (each.parent if each.name == _SETTINGS else each for each in found):
            if _uuid_of(directory / _SETTINGS) == uuid:
                return directory
    return None


def _uuid_of(path: Path) -> str | None:
    try:
        return str(tomllib.loads(path.read_text(encoding="utf-8")).get("uuid"))
    except (OSError, ValueError):
        return None
