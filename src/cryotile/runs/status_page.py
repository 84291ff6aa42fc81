"""The page about a run as one file: what a server would answer, from the tiles and the journals of its directory."""

from __future__ import annotations

import base64
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cryotile.errors import DamagedFile
from cryotile.farm.failures import folded, kind_of
from cryotile.farm.journal import Ending, read_endings
from cryotile.farm.task import ATTEMPTS
from cryotile.runs.progress import Tell
from cryotile.runs.run import Run
from cryotile.runs.status import Observer, RunningTask, RunStatus, State
from cryotile.runs.task_map import VARIABLES, task_map, thumbnail_values
from cryotile.taskfarm.page import one_file
from cryotile.taskfarm.picture import coarse, pack_thumbnails, pack_tiles, streams

__all__ = ["status_page"]

States = npt.NDArray[np.uint8]

Place = tuple[str, int]
"""Host and process of a worker."""

log = logging.getLogger(__name__)

# Thumbnails in one file, and the number of tiles from which on each has one value only.
_MOST, _FULL = 20_000, 5_000

# Tasks that show cost against seconds, tasks and hosts named in a group of failures, and the seconds of streams.
_SAMPLES, _TASKS, _HOSTS, _HOUR = 1000, 100, 20, 3600.0


def status_page(run: Run, tell: Tell = log.info) -> str:
    """Return the page about a run as one HTML file, which needs neither a server nor a network.

    Parameters
    ----------
    run : Run
        Any run.
    tell : callable
        Receives a line if the page shows less than there is.

    Returns
    -------
    str
        HTML.
    """
    observer = Observer(run)
    seen, states, now = observer.look(), observer.states, time.time()
    endings = [each for each in read_endings(run.journal) if each.task < len(run.tasks)]
    # Workers, also those that are at their first tile, or died there.
    known = [*map(_place, endings), *map(_place, seen.running), *map(_place, seen.lost)]
    numbers = {place: number for number, place in enumerate(dict.fromkeys(known), 1)}
    embedded = {
        "run": _summary(run, seen, endings, now),
        "map": task_map(run),
        "tiles": _text(pack_tiles(0, now, [_tiles(run, states, endings, seen, numbers)])),
        "thumbnails": _thumbnails(run, states, now, tell),
        "history": _history(run, endings, seen, numbers, now),
        "workers": {"workers": _workers(endings, numbers, seen, now)},
        "failures": {"groups": _groups(run, endings, seen)},
    }
    return one_file(f"{run.path.resolve().name} - cryotile", embedded)


def _place(each: Ending | RunningTask) -> Place:
    return each.host, each.pid


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _summary(run: Run, seen: RunStatus, endings: Sequence[Ending], now: float) -> dict[str, Any]:
    return {
        "run": run.uuid, "key": run.key, "name": run.path.resolve().name, "owner": None, "role": "viewer",
        "created": (run.path / run.file_name).stat().st_mtime, "clock": now,
        "lease": 0.0, "attempts": ATTEMPTS, "paused": False, "epoch": 0, "map": True,
        "tasks": seen.tiles, "waiting": seen.waiting, "leased": len(seen.running),
        "done": seen.done, "failed": len(seen.failed),
        "seen": max((*(e.time for e in endings), *(now - a.silent for a in seen.running)), default=None),
        "workers": sum(seen.hosts.values()), "rate": seen.tiles_per_minute / 60,
        "seconds_left": seen.seconds_left,
    }  # fmt: skip


def _tiles(
    run: Run,
    states: States,
    endings: Sequence[Ending],
    seen: RunStatus,
    numbers: Mapping[Place, int],
) -> list[tuple[Any, ...]]:
    """Return rows of all tasks that are not plainly waiting."""
    last = {each.task: each for each in sorted(endings, key=lambda each: each.time)}
    attempts = Counter(each.task for each in endings)
    running = {each.tile: numbers[_place(each)] for each in seen.running}
    names = run.names if running else ()
    at_work = {index: running[name] for index, name in enumerate(names) if name in running}
    rows: list[tuple[Any, ...]] = []
    for index, (state, cost) in enumerate(zip(states.tolist(), run.costs.tolist(), strict=True)):
        end = last.get(index)
        if state != State.WAITING or end is not None:
            seconds, worker = (None, 0) if end is None else (end.seconds, numbers[_place(end)])
            worker = at_work.get(index, worker)
            rows.append((index, seconds, cost, worker, state, attempts[index]))
    return rows


def _thumbnails(run: Run, states: States, now: float, tell: Tell) -> dict[str, str]:
    """Return the thumbnails of the tiles that are done, by variable; of a large run those of some, evenly chosen."""
    done = np.flatnonzero(states == State.DONE).tolist()
    chosen = done[:: -(-len(done) // _MOST) or 1]
    if len(chosen) < len(done):
        tell(f"the page shows the fit of {len(chosen):,} of {len(done):,} tiles")
    indices, values = [], []
    for index in chosen:
        tile = run.tile(index)
        try:
            fitted = run.store.load(tile)
        except DamagedFile as error:
            tell(str(error))
            continue
        indices.append(index)
        values.append(thumbnail_values(tile, run.settings.tile_size, fitted))
    if not indices:
        return {}
    found, whole = {}, np.stack(values)
    for place, (name, about) in enumerate(VARIABLES.items()):
        each = whole[:, place]
        if len(indices) > _FULL:
            each = coarse(each, flags="flags" in about)
        found[name] = _text(pack_thumbnails(0, now, indices, each))
    return found


def _history(
    run: Run, endings: Sequence[Ending], seen: RunStatus, numbers: Mapping[Place, int], now: float
) -> dict[str, Any]:
    done, failed = (
        Counter(int(each.time // 60) for each in endings if (each.error is None) is good)
        for good in (True, False)
    )
    last = now if seen.running else max((each.time for each in endings), default=now)
    since = last - _HOUR
    spans = [(numbers[_place(e)], e.time - e.seconds, e.time) for e in endings if e.time >= since]
    spans += [(numbers[_place(each)], now - each.seconds, now) for each in seen.running]
    good = sorted((each for each in endings if each.error is None), key=lambda each: -each.time)
    costs = run.costs
    return {
        "clock": now,
        "minutes": [[minute, done[minute], failed[minute]] for minute in sorted({*done, *failed})],
        "samples": [[float(costs[each.task]), each.seconds] for each in good[:_SAMPLES]],
        "streams_from": since,
        "streams": [{"worker": number, "spans": busy} for number, busy in streams(spans).items()],
    }


def _workers(
    endings: Sequence[Ending], numbers: Mapping[Place, int], seen: RunStatus, now: float
) -> list[dict[str, Any]]:
    """Return the workers, the last active one first; one that ended in the middle of a task looks stuck."""
    lost = {_place(each) for each in seen.lost}
    running = Counter(map(_place, seen.running))
    ended: dict[Place, list[Ending]] = {place: [] for place in numbers}
    ages = dict.fromkeys(numbers, math.inf)
    for each in endings:
        ended[_place(each)].append(each)
        ages[_place(each)] = min(ages[_place(each)], max(0.0, now - each.time))
    for task in (*seen.running, *seen.lost):
        ages[_place(task)] = min(ages[_place(task)], task.silent)
    found = []
    for place, own in ended.items():
        failed = sum(each.error is not None for each in own)
        found.append({
            "number": numbers[place], "uuid": f"{place[0]} {place[1]}", "host": place[0], "pid": place[1],
            "memory": None, "stuck": place in lost, "age": ages[place], "leased": running[place],
            "done": len(own) - failed, "failed": failed, "attempts": len(own),
        })  # fmt: skip
    return sorted(found, key=lambda each: each["age"])


def _groups(run: Run, endings: Sequence[Ending], seen: RunStatus) -> list[dict[str, Any]]:
    """Return the failures by kind; a failed task belongs to its last failure."""
    index_of = {name: index for index, name in enumerate(run.names)} if seen.failed else {}
    failed = {index_of[name]: error for name, error in seen.failed.items()}
    texts: dict[str, str] = {}
    hosts: dict[str, set[str]] = {}
    attempts: Counter[str] = Counter()
    for each in endings:
        if each.error is not None:
            kind = kind_of(each.error)
            texts.setdefault(kind, each.error)
            hosts.setdefault(kind, set()).add(each.host)
            attempts[kind] += 1
    tasks: dict[str, list[int]] = {}
    for index, error in sorted(failed.items()):
        kind = kind_of(error)
        # The record of a failed task has the whole traceback, the journal one line.
        texts[kind] = error
        tasks.setdefault(kind, []).append(index)
    return [
        {
            "group": kind, "error": folded(text), "text": text, "count": len(tasks.get(kind, ())),
            "attempts": attempts[kind], "hosts": sorted(hosts.get(kind, ()))[:_HOSTS],
            "tasks": tasks.get(kind, [])[:_TASKS],
        }
        for kind, text in sorted(texts.items(), key=lambda each: -attempts[each[0]])
    ]  # fmt: skip
