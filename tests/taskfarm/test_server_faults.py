"""A server whose processes are killed while workers claim and settle: each task is done once, without intervention."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from cryotile.farm.task import Task
from cryotile.ledgers.http import HttpLedger
from tests.support.claimants import BATCH, Pool
from tests.support.served_farm import served

__all__ = ["served"]

LONG = bool(os.environ.get("CRYOTILE_LONG"))
KILLS = 100 if LONG else 6
# Every third kill hits the whole server, the others one of its processes.
WHOLE = 3
# Largest number of workers' steps between two kills.
STEPS = 60
# Moments of workers that kills must hit; the short form may have too few kills to hit all.
MOMENTS = {"claiming", "settling", *(["between"] if LONG else [])}


# Each kill of the long form takes a start of the server, and workers wait for it with growing pauses.
@pytest.mark.timeout(3600)
def test_each_task_is_done_once_however_often_the_server_is_killed(served):
    draw, hit, kills, count, key = random.Random(11), Counter(), 0, 0, "faults/1"
    ledger, pool = HttpLedger(served.url, key), Pool(served.url, key)
    pool.start()
    while kills < KILLS or not set(hit) >= MOMENTS:
        # More tasks than the workers can do in this many steps, so that they never run out between two kills.
        ledger.enroll([Task(index, 1.0) for index in range(count, count + STEPS * BATCH)])
        count += STEPS * BATCH
        kills += 1
        with pool.step:
            target = pool.steps + draw.randrange(STEPS)
            pool.step.wait_for(lambda: pool.steps >= target or pool.over, 60)  # noqa: B023 - called at once
            assert not pool.over
            hit.update(pool.doing.values())
            if kills % WHOLE == 0:
                os.killpg(served.server.pid, signal.SIGKILL)
            else:
                os.kill(draw.choice(_children(served.server.pid)), signal.SIGKILL)
        if kills % WHOLE == 0:
            served.server.wait()
            served.start()
    pool.last.set()
    pool.join()
    assert sorted(pool.done) == list(range(count))
    assert pool.lost == []
    token = served.log_in()
    runs = served.ask("GET", "/api/v1/runs", token=token)[1]["runs"]
    run = next(run for run in runs if run["key"] == key)
    assert (run["done"], run["failed"]) == (count, 0)
    workers = served.ask("GET", f"/api/v1/runs/{run['run']}/workers", token=token)[1]["workers"]
    assert sum(worker["attempts"] for worker in workers) == count


def _children(pid):
    # The process that was killed last may not have a successor yet.
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        pass
    return [int(child) for child in children]
