"""A small run over made-up points: some 25 tiles that are fitted in no time."""

from __future__ import annotations

from pathlib import Path

from cryotile.farm.task import Task
from cryotile.pointdb import PointDB
from cryotile.runs.run import Run, plan_run
from cryotile.runs.work import FitTile
from tests.support.made_up import granule

REQUEST = {"posting": 1000.0, "radius": 2000.0, "where": "platform == 'icesat2'", "tile_size": 10}


def make_run(directory: Path) -> Run:
    """Plan a run in a directory."""
    db = PointDB.create(directory / "ice.pdb", "EPSG:3031")
    db.append([granule(1, 2000, extent=20e3)])
    return plan_run(directory / "run", REQUEST, db=db)


def fit(run: Run, *indices: int) -> None:
    """Fit some tiles of a run in this process."""
    work = FitTile(run.path, run.generation)
    for index in indices:
        work(run.tasks[index], lambda fraction: None)


def tile_file(run: Run, task: Task) -> Path:
    """Return the path of a task's tile."""
    return run.store.file(run.tile(task.index))
