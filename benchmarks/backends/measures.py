"""The measures of each contender; every function returns the figures of one contender and one round."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contenders import Contender
from launch import Lost, Report, launch
from works import Nap, Naps

__all__ = ["Scale", "empty_tasks", "kill", "make_map", "makespan", "map_seconds"]

Result = dict[str, Any]

# Empty tasks are counted from this fraction of them on, so that the start and the first batches do not count.
WARM = 0.1

LOGNORMAL = Naps(2000, mean=0.2, sigma=1.0)
EQUAL = Naps(200, mean=0.05, sigma=0.0)

_numbers = itertools.count()


@dataclass(frozen=True)
class Scale:
    """The size of each measure.

    Attributes
    ----------
    rounds : int
        Number of rounds of empty tasks.
    empty : float
        Fraction of the usual number of empty tasks.
    naps, workers
        Tasks and number of workers of the makespan.
    killed, pool
        Equal naps of which one is killed, and number of workers.
    posting : float or None
        Posting of the real map, m; that of the demo is 1000.  None: no map.
    coordinator : float
        Seconds for which rank 0 is watched.
    """

    rounds: int = 3
    empty: float = 1.0
    naps: Naps = LOGNORMAL
    workers: int = 16
    killed: Naps = EQUAL
    pool: int = 4
    posting: float | None = 316.0
    coordinator: float = 20.0


SHORT = Scale(
    rounds=1, empty=0.1, naps=Naps(500, 0.05, 1.0), workers=8, posting=None, coordinator=5.0
)

# Processes of a contender that shares a ledger, and workers of the others, for empty tasks.
PULLERS = 8
WORKERS = 2


def empty_tasks(contender: Contender, scratch: Path, part: float) -> Result:
    """Return the empty tasks per second, and the seconds from launch to the end of the first."""
    count = max(100, int(part * contender.empty))
    workers = PULLERS if contender.form == "pull" else WORKERS
    members = workers if contender.form in ("pull", "members") else 1
    order = {"home": str(_new(scratch)), "workers": workers, "empty": count}
    report = launch(contender, order, members=members, limit=120)
    if len(report.ends) != count:
        raise Lost(f"{count - len(report.ends)} of {count} empty tasks did not end")
    first = int(WARM * count)
    seconds = report.ends[-1] - report.ends[first]
    return {
        "rate": (count - 1 - first) / seconds,
        "start": report.ends[0] - report.launched,
        "workers": workers,
    }


def makespan(contender: Contender, scratch: Path, naps: Naps, workers: int) -> Result:
    """Return makespan over ideal: from when all workers have started until the farm knows that all tasks are done."""
    report, nap = _sleep(contender, scratch, naps, workers)
    slept = nap.slept()
    if slept.count != naps.count:
        raise Lost(f"{slept.count} of {naps.count} naps were taken")
    return {
        "ratio": (report.ends[-1] - slept.began) / naps.ideal(workers),
        "all there": slept.began - report.launched,
    }


def kill(contender: Contender, scratch: Path, naps: Naps, workers: int) -> Result:
    """Return the seconds by which equal naps take longer if one worker dies in the middle of a nap."""
    seconds = []
    for victim in (-1, naps.count // 2):
        report, nap = _sleep(contender, scratch, naps, workers, victim=victim)
        seconds.append(report.ends[-1] - nap.slept().began)
    return {"lost": seconds[1] - seconds[0]}


def _sleep(
    contender: Contender, scratch: Path, naps: Naps, workers: int, victim: int = -1
) -> tuple[Report, Nap]:
    home = _new(scratch)
    order = {"home": str(home), "workers": workers, "naps": naps, "victim": victim}
    limit = 60 + 3 * naps.ideal(workers)
    report = launch(contender, order, members=contender.members(workers), limit=limit)
    return report, Nap(naps, str(home), workers)


def make_map(scratch: Path, posting: float) -> Path:
    """Simulate and ingest the demo's mission and plan its map; return the run directory, with no task done."""
    from cryotile.simulate import World

    granules, db, run = scratch / "granules", scratch / "ice.pdb", scratch / "run"
    _cryotile("simulate", granules)
    _cryotile("ingest", db, *sorted(granules.glob("*.nc")), "--crs", World().crs)
    _cryotile("plan", run, "--db", db, "--posting", posting, "--radius", 2000, "--tile-size", 50)
    return run


def map_seconds(contender: Contender, scratch: Path, run: Path) -> Result:
    """Return the seconds of the whole command for a map, and a digest of all its tiles."""
    own = _new(scratch)
    shutil.copytree(run, own)
    workers = 1 if contender.name == "serial" else WORKERS
    order = {"home": str(own / "orders"), "workers": workers, "run": str(own)}
    report = launch(contender, order, members=contender.members(workers), limit=300)
    digest = hashlib.sha256()
    for path in sorted((own / "tiles").rglob("*")):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    shutil.rmtree(own)
    return {"seconds": report.over - report.launched, "digest": digest.hexdigest()}


def _cryotile(*words: object) -> None:
    subprocess.run(
        [sys.executable, "-m", "cryotile", *map(str, words)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _new(scratch: Path) -> Path:
    """Return the path of a directory that does not exist yet."""
    return scratch / f"{next(_numbers):03d}"
