"""A point DB and runs on it, in the states that files are damaged in; and commands that are called in this process."""

from __future__ import annotations

import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely

from cryotile.backends import pool, pull
from cryotile.backends.base import attempt
from cryotile.backends.pool import TaskSource
from cryotile.cli import main
from cryotile.farm import journal
from cryotile.farm.journal import Journaled
from cryotile.farm.task import Outcome, Work
from cryotile.ledgers import Ending
from cryotile.ledgers.directory import claimant
from cryotile.ledgers.directory.ledger import DirLedger
from cryotile.pointdb import log
from cryotile.pointdb.fragments import Writer
from cryotile.runs import work as run_work
from cryotile.runs.ingest import Ingest
from cryotile.runs.run import Run
from cryotile.runs.work import FitTile
from tests.support.maps import vector_file

PLAN = (
    *("--posting", 1000, "--radius", 3000, "--recipe", "plane", "--tile-size", 4),
    *("--bounds", 0, 0, 11_000, 7_000, "--period", "2015-01-01", "2017-01-01"),
)
INGEST = ("--crs", "EPSG:3031", "--chunk-size", 10_000, "--backend", "serial")

DIR = ("--backend", "dir:1", "--lease", 1)

PATIENCE = 120
"""Seconds after which a command counts as hung, also where other processes keep the machine busy."""


_WORK = pool.work


@dataclass(frozen=True)
class Said:
    """What a command did: exit code, output, complaints, lines of the log."""

    code: int
    output: str
    errors: str
    log: tuple[str, ...]


class Hung(BaseException):
    """A command took too long; no handler of errors catches it."""


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Hung


def call(*words: object) -> Said:
    """Run a command in this process; an error that the command line does not turn into one line gets through."""
    run_work.opened_run.cache_clear()
    run_work._opened_db.cache_clear()
    output, errors, lines = io.StringIO(), io.StringIO(), _Lines()
    before, sys.argv = sys.argv, ["cryotile", *map(str, words)]
    logging.getLogger().addHandler(lines)
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(PATIENCE)
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            main()
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    finally:
        signal.alarm(0)
        logging.getLogger().removeHandler(lines)
        sys.argv = before
    return Said(code, output.getvalue(), errors.getvalue(), tuple(lines.lines))


def succeed(*words: object) -> Said:
    """Run a command that must succeed."""
    said = call(*words)
    assert said.code == 0, (words, said)
    return said


def _in_this_process(
    task_source: TaskSource, work: Work, *, children: int, stall: float
) -> Iterator[Outcome]:
    """Do the work of a pool without child processes."""
    while True:
        waiting = task_source.stock()
        taken = task_source.take(1, lambda _: True) if waiting else []
        if taken:
            yield from task_source.report({taken[0]: 0.0})
            yield from task_source.settle([attempt(work, taken[0], lambda _: None)])
        elif task_source.over():
            return
        else:
            yield from task_source.report({})
            # What it waits for is the expiry of a lease, which no event tells.
            time.sleep(0.01)


@contextmanager
def small_steps() -> Iterator[None]:
    """Write a checkpoint with every fourth commit; work on ledgers in this process, without long pauses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "CHECKPOINT_INTERVAL", 4)
        patch.setattr(log, "VISIBILITY_LIMIT", 0.1)
        patch.setattr(pool, "work", _in_this_process)
        patch.setattr(pull, "_PAUSES", (0.01, 0.05))
        yield


def write_granules(directory: Path) -> list[Path]:
    """Write tables of points on a surface that rises by a metre a year."""
    directory.mkdir()
    to_degrees = pyproj.Transformer.from_crs("EPSG:3031", "EPSG:4326", always_xy=True)
    random = np.random.default_rng(7)
    paths = []
    for number in range(8):
        x, y = random.uniform(-3e3, 14e3, 250), random.uniform(-3e3, 10e3, 250)
        longitude, latitude = to_degrees.transform(x, y)
        days = 90.0 * number + 1.0
        table = {
            "longitude": longitude,
            "latitude": latitude,
            "time": pd.Timestamp("2015-01-01")
            + pd.to_timedelta(days * 86400 + np.arange(250) / 100, "s"),
            "elevation": 2000 + 0.001 * x + days / 365.25 + random.normal(0, 0.1, 250),
            "orbit": np.full(250, 1000 + number),
            "platform": "icesat2",
            "mode": "laser",
            "surface_type": "grounded_ice",
        }
        paths.append(directory / f"g{number}.csv")
        pd.DataFrame(table).to_csv(paths[-1], index=False)
    return paths


def ingest(db: Path, *granules: Path) -> Said:
    """Ingest granules, each with a commit of its own."""
    for granule in granules:
        said = succeed("ingest", db, granule, *INGEST)
    return said


def build(root: Path) -> None:
    """Make the worlds ``planned``, ``half`` and ``complete`` below a directory.

    Each is a directory ``world`` with the granules, ``ice.pdb`` and ``run``: always at the same path, which products
    name, and moved to its own place when it is finished.
    """
    world = root / "world"
    world.mkdir()
    granules = write_granules(world / "granules")
    db, run = world / "ice.pdb", world / "run"
    ingest(db, *granules[:6])
    succeed("remove", db, "g5.csv")
    succeed("compact", db)
    ingest(db, granules[6])
    vector_file(world / "mask.gpkg", shapely.box(-500, -500, 10_500, 7_500))
    succeed("plan", run, "--db", db, "--mask", world / "mask.gpkg", *PLAN)
    ingest(db, granules[5])
    _damage_a_commit(db)
    ingest(db, granules[5], granules[7])
    _leave_marker(db)
    _fail_a_batch(db)
    succeed("plan", run)
    shutil.copytree(world, root / "planned")
    _work_and_die(run)
    shutil.copytree(world, root / "half")
    succeed("retry", run)
    succeed("run", run, *DIR)
    next((run / "tiles").iterdir()).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "work", _WORK)
        succeed("run", run, "--backend", "local:2")
    succeed("validate", run, "--backend", "serial")
    succeed("explain", run, "--at", 5000, 3000)
    _submit(run)
    world.rename(root / "complete")


def _leave_marker(db: Path) -> None:
    writer = Writer(db)
    writer.beat()
    (db / "writers" / writer.id).write_text(_dead_process())


def _fail_a_batch(db: Path) -> None:
    """Note a failure of two batches that are done since."""
    for path in sorted((db / "ingests").iterdir())[:2]:
        frozen = Ingest.load(path)
        list(frozen.record([Outcome(frozen.tasks[0], 0.1, 3, "somewhere", "ValueError: no")]))


@cache
def _dead_process() -> str:
    """Return the name of a process that has ended."""
    command = [sys.executable, "-c", "from cryotile.processes import this_process as p; print(p())"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _work_and_die(path: Path) -> None:
    """Do a task of a run; claim others, and hand one back; let two fail; then leave claims of a dead process."""
    run = Run.load(path)
    with pytest.MonkeyPatch.context() as patch:
        for module in (claimant, journal):
            patch.setattr(module, "this_process", _dead_process)
        ledger = DirLedger(run.path, run.key)
        ledger.enroll(run.pending())
        one, other = ledger.claim(2)
        work = Journaled(FitTile(run.path, run.generation), run.journal)
        ledger.renew({one.id: 0.0, other.id: None})
        work(one.task, lambda _: None)
        ledger.settle({one.id: Ending(0.1, None)})
        ledger.release([lease.id for lease in ledger.claim(1)])
        (again,) = ledger.claim(1)
        ledger.renew({again.id: 0.5})
        ledger.release([lease.id for lease in ledger.claim(1)])
        (run.path / "failed" / f"{run.names[3]}.json").touch()
        assert run.failed() == {}
        list(
            run.record(
                Outcome(task, 0.1, 3, "somewhere", "ValueError: no") for task in run.tasks[4:]
            )
        )


def _submit(run: Path) -> None:
    """Submit twice to a scheduler that accepts everything."""
    program = run.parent / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 17\n")
    program.chmod(0o755)
    tile = next((run / "tiles").iterdir())
    content = tile.read_bytes()
    tile.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        for _ in range(2):
            succeed("submit", run, "--scheduler", "slurm", "--members", 2)
    tile.write_bytes(content)


def _damage_a_commit(db: Path) -> None:
    """Let the newest commit be set aside."""
    newest = max((db / "log").glob("[0-9]*"))
    (newest / "commit.json").write_bytes(b"")
    succeed("remove", db, "--damaged")
