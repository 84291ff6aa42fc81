"""Run one process of a contender: carry out its order, a JSON file, and write a report.

Started by ``launch.py``, under mpirun where the contender is an MPI program.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from contenders import CONTENDERS, Job, ledger
from works import Nap, Naps, do_nothing, equal_tasks

from cryotile.farm.task import Task


def job_of(order: dict[str, Any], member: int) -> Job:
    """Return the job that an order asks for."""
    home = Path(order["home"])
    if "run" in order:
        # Imported here: the other measures must start without these packages.
        from cryotile.runs.run import Run
        from cryotile.runs.work import FitTile

        run = Run.load(order["run"])
        work = FitTile(run.path, run.generation)
        job = Job(run.tasks, work, order["workers"], run.path, run.journal, run.key, run.pending)
    elif "naps" in order:
        naps = Naps(*order["naps"])
        nap = Nap(naps, str(home), order["all_workers"], order.get("victim", -1))
        job = Job(naps.tasks(), nap, order["workers"], home, home / "journal")
    else:
        tasks = equal_tasks(order["empty"])
        job = Job(tasks, do_nothing, order["workers"], home, home / "journal")
    if order["share"] and "run" not in order:
        job = replace(job, choose=partial(_muster, home, member, order["members"]))
    return replace(job, member=member, members=order["members"])


def _muster(home: Path, member: int, members: int, tasks: Sequence[Task]) -> list[Task]:
    """Return all tasks once all members have come here: a late member would repeat tasks."""
    (home / f"{member}.member").touch()
    while len(list(home.glob("*.member"))) < members:
        time.sleep(0.01)
    return list(tasks)


def main(words: Sequence[str]) -> None:
    order_path, member = Path(words[0]), int(words[1])
    order = json.loads(order_path.read_text())
    known = {contender.name: contender for contender in CONTENDERS}
    contender = ledger(order["url"]) if order.get("url") else known[order["contender"]]
    ends = contender.run(job_of(order, member))
    # All ranks of an MPI program are the same member, and only one of them has seen tasks end.
    report = Path(order["home"], f"{member}-{os.getpid()}.report")
    report.write_text(json.dumps(ends))


if __name__ == "__main__":
    main(sys.argv[1:])
