"""Workers and their children are killed at moments drawn by seed, over the whole run; every task is done nevertheless.

The short form kills some twenty times.  The long form, with ``CRYOTILE_LONG=1`` or by ``make test-faults``, kills at
least 200 times.
"""

from __future__ import annotations

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cryotile.ledgers.directory.ledger import DirLedger
from tests.support import forked
from tests.support.mortal import TASKS_OF_A_LIFE, Death, check_deaths, draw_lives, work

LONG = bool(os.environ.get("CRYOTILE_LONG"))
LIVES = 140 if LONG else 6
TASKS = TASKS_OF_A_LIFE * LIVES


def live(directory: Path, deaths: tuple[Death, ...], moment: float | None = None) -> int | None:
    """Run a worker until it dies, is killed after some seconds, or the run is over; return its exit code."""
    return forked.exit_code(forked.start(work, directory, TASKS, deaths), moment)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1])
def test_every_task_is_done_whichever_process_dies_at_any_moment(tmp_path, seed):
    (tmp_path / "results").mkdir()
    (tmp_path / "deaths").mkdir()
    lives, draw = draw_lives(seed, LIVES), random.Random(seed)
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(lambda deaths: live(tmp_path, deaths), lives)) == {-signal.SIGKILL}
        check_deaths(tmp_path / "deaths", lives)
        # In addition, some workers are killed from outside at any moment.
        sudden = [draw.uniform(0.2, 2.0) for _ in range(LIVES // 3)]
        codes = list(pool.map(lambda moment: live(tmp_path, (), moment), sudden))
    assert live(tmp_path, ()) == 0

    kills = 3 * LIVES + codes.count(-signal.SIGKILL)
    assert kills >= (200 if LONG else 12)
    check_results(tmp_path, kills)


def check_results(directory: Path, kills: int) -> None:
    """Check that every task is settled once and that saved results are correct."""
    assert DirLedger(directory, "run/1").unsettled() == 0
    results = [path for path in (directory / "results").iterdir() if path.name.isdecimal()]
    assert all(path.read_text() == f"{path.name} " * 8 for path in results)
    outcomes = [line.split() for line in (directory / "outcomes").read_text().splitlines()]
    done = [index for index, good in outcomes if good == "1"]
    assert len(set(done)) == len(done)
    # A task at which three processes died has failed; all others are done.
    failed = {index for index, good in outcomes if good == "0"}
    assert 3 * len(failed) <= kills
    assert {path.name for path in results} | failed == {str(index) for index in range(TASKS)}
    # The ledger leaves only a file for each settled bucket.
    listed = directory / "farm" / "run_1" / "0000"
    left = {path.name for path in listed.iterdir()} - {"tasks", "again"}
    assert left == {f"{bucket:06d}.done" for bucket in range(-(-TASKS // 256))}
