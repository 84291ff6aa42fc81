"""Workers and their children are killed at moments drawn by seed, over the whole run; every task is done all the same.

The short form kills some twenty times.  The long form, with ``CRYOTILE_LONG=1`` or by ``make test-faults``, kills at
least 200 times.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

from cryotile.ledgers.dir import DirLedger
from mortal import Death

SOURCES = str(Path(__file__).parent.parent / "src")
LONG = bool(os.environ.get("CRYOTILE_LONG"))
LIVES = 140 if LONG else 6
TASKS = 120 * LIVES


def draw_lives(seed: int) -> list[tuple[Death, ...]]:
    """Draw what befalls each worker: two of its children die, then it dies itself."""
    draw = random.Random(seed)
    saves = [("save", when) for when in ("before", "in", "after")] * LIVES
    own = list(product(("claim", "settle"), ("before", "in", "after"))) * LIVES
    lives = []
    for number in range(LIVES):
        # All kinds in turn, each at a random one of its moments.
        kinds = [*saves[2 * number : 2 * number + 2], own[number]]
        lives.append(
            tuple(
                Death(f"{number}-{part}", act, when, draw.randint(1, 2 if act == "claim" else 12))
                for part, (act, when) in enumerate(kinds)
            )
        )
    return lives


def live(directory: Path, deaths: tuple[Death, ...], moment: float | None = None) -> int:
    """Run a worker until it dies, is killed at a moment (seconds from its start), or the run is over; its exit code."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from mortal import Death, Path, work
work(Path({str(directory)!r}), {TASKS}, {deaths!r})
"""
    worker = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": SOURCES},
        stderr=subprocess.DEVNULL,
    )
    try:
        return worker.wait(moment)
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.wait()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1])
def test_whoever_dies_whenever_every_task_is_done(tmp_path, seed):
    (tmp_path / "results").mkdir()
    (tmp_path / "deaths").mkdir()
    draw = random.Random(seed)
    # Besides, some workers are killed from outside, whatever they are about.
    sudden = [draw.uniform(0.2, 2.0) for _ in range(LIVES // 3)]
    ends = [(deaths, None) for deaths in draw_lives(seed)] + [((), moment) for moment in sudden]
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(lambda end: live(tmp_path, *end), ends))
    assert live(tmp_path, ()) == 0

    hits = Counter(death.read_text() for death in (tmp_path / "deaths").iterdir())
    moments = product(("claim", "settle", "save"), ("before", "in", "after"))
    assert set(hits) == {f"{act} {when}" for act, when in moments}
    kills = sum(hits.values()) + codes[LIVES:].count(-9)
    assert kills >= (200 if LONG else 12)
    check_results(tmp_path, kills)


def check_results(directory: Path, kills: int) -> None:
    """Check that all is settled and nothing settled twice, and that what was saved is right."""
    assert DirLedger(directory, "run/1").unsettled() == 0
    results = [path for path in (directory / "results").iterdir() if path.name.isdecimal()]
    assert all(path.read_text() == f"{path.name} " * 8 for path in results)
    outcomes = [line.split() for line in (directory / "outcomes").read_text().splitlines()]
    done = [index for index, good in outcomes if good == "1"]
    assert len(set(done)) == len(done)
    # A task at which processes died three times has failed; all others are done.
    failed = {index for index, good in outcomes if good == "0"}
    assert 3 * len(failed) <= kills
    assert {path.name for path in results} | failed == {str(index) for index in range(TASKS)}
    # The farm's bookkeeping leaves nothing behind but a file for each settled bucket.
    listed = directory / "farm" / "run_1" / "0000"
    left = {path.name for path in listed.iterdir()} - {"tasks", "again"}
    assert left == {f"{bucket:06d}.done" for bucket in range(-(-TASKS // 256))}
