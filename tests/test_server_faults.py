"""A server whose processes are killed while workers claim and settle: each task is done once, and nobody intervenes."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from cryotile.ledgers.http import HTTPLedger
from cryotile.task import Outcome, Task
from farm_server import PASSWORD
from served_farm import served
from services.postgres import postgres

__all__ = ["postgres", "served"]

LONG = bool(os.environ.get("CRYOTILE_LONG"))
KILLS = 100 if LONG else 6
# Every so many kills it is the whole server and not one of its processes.
WHOLE = 3
WORKERS, BATCH = 3, 4
# Steps of workers between two kills, at most.
STEPS = 60


class Crew:
    """Workers in threads, and what each is doing."""

    def __init__(self, address, key):
        self._address, self._key = address, key
        self.step = threading.Condition()
        self.steps = 0
        self.doing: dict[int, str] = {}
        self.done: list[int] = []
        self.lost: list[str] = []
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(WORKERS)]

    def start(self):
        for thread in self._threads:
            thread.start()

    def join(self):
        for thread in self._threads:
            thread.join()

    @property
    def over(self):
        return not any(thread.is_alive() for thread in self._threads)

    def _note(self, worker, what):
        with self.step:
            self.doing[worker] = what
            self.steps += 1
            self.step.notify_all()

    def _work(self, worker):
        ledger = HTTPLedger(self._address, self._key)
        while ledger.unsettled():
            self._note(worker, "claiming")
            leases = ledger.claim(BATCH)
            outcomes = {lease: Outcome(lease.task, 0.0, lease.attempt, "here") for lease in leases}
            self._note(worker, "settling")
            self.lost += [lease.id for lease in ledger.settle(outcomes)]
            self.done += [lease.task.index for lease in leases]
            self._note(worker, "between")


# Each kill of the long form takes a start of the server, and workers wait for it with growing pauses.
@pytest.mark.timeout(3600)
def test_each_task_is_done_once_however_often_the_server_is_killed(served):
    draw, hit = random.Random(11), Counter()
    address, key = f"http://ann:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{served.port}", "faults/1"
    count = KILLS * STEPS * BATCH // 2
    with ExitStack() as stack:
        server = stack.enter_context(served.running())
        HTTPLedger(address, key).enroll([Task(index, 1.0) for index in range(count)])
        crew = Crew(address, key)
        crew.start()
        for kill in range(KILLS):
            with crew.step:
                target = crew.steps + draw.randrange(STEPS)
                crew.step.wait_for(lambda: crew.steps >= target or crew.over)  # noqa: B023 - at once
                hit.update(crew.doing.values())
                if kill % WHOLE == WHOLE - 1:
                    os.killpg(server.pid, signal.SIGKILL)
                else:
                    os.kill(draw.choice(_children(server.pid)), signal.SIGKILL)
            if kill % WHOLE == WHOLE - 1:
                server.wait()
                server = stack.enter_context(served.running())
        assert not crew.over
        crew.join()
        assert sorted(crew.done) == list(range(count))
        assert crew.lost == []
        token = served.log_in()
        runs = served.ask("GET", "/api/v1/runs", token=token)[1]["runs"]
        run = next(run for run in runs if run["key"] == key)
        assert (run["done"], run["failed"]) == (count, 0)
        workers = served.ask("GET", f"/api/v1/runs/{run['run']}/workers", token=token)[1]["workers"]
        assert sum(worker["attempts"] for worker in workers) == count
    assert {"claiming", "settling"} <= set(hit)
    if LONG:
        assert "between" in hit


def _children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
