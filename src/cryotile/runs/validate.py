"""Check whether two halves of a data set agree within their errors.

Each tile is fitted twice, from two disjoint sets of passes, and the difference of the two rates is compared with
their sigmas.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from cryotile.backends import open_backend, share_of
from cryotile.errors import FailedTasks, Unfinished, command
from cryotile.farm.journal import Journaled
from cryotile.farm.task import Pending, Progress, Task
from cryotile.files import make_directory, make_way, writing
from cryotile.fit.agreement import SPLITS, Agreement, agreement, compare, halves, variables
from cryotile.maps.mosaic import mosaic
from cryotile.maps.product import write_product
from cryotile.maps.tiles import TileStore
from cryotile.runs.origin import about
from cryotile.runs.progress import Tell, follow
from cryotile.runs.run import Run
from cryotile.runs.tasklist import last_line
from cryotile.runs.work import fit_wanted, opened_run, read_window

__all__ = ["ValidateTile", "Validation", "compare_halves", "spread_out"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ValidateTile:
    """Work of a validation: read the points of a tile, fit its posts to either half, save the differences.

    Attributes
    ----------
    run : Path
        The run directory.
    generation : int
        The task list that task indices refer to.
    splits : tuple of str
        Of :data:`SPLITS`.
    """

    run: Path
    generation: int
    splits: tuple[str, ...]

    def __call__(self, task: Task, progress: Progress) -> None:
        """Compare the halves in the tile of a task, by each split that is not done already."""
        run, db = opened_run(self.run, self.generation)
        validation = Validation(run, self.splits)
        tile = run.tile(task.index)
        open_splits = [s for s in self.splits if not validation.is_current(s, task)]
        if not open_splits:
            return
        config = run.settings.fit
        # The column "ascending" tells the halves apart, whether it is a term or not.
        columns = tuple(dict.fromkeys([*config.point_columns, "ascending"]))
        points = read_window(run, db, tile.window(config.reach), columns=columns)
        for done, split in enumerate(open_splits, start=1):
            progress((done - 0.7) / len(open_splits))
            fits = []
            for half in halves(points, split):
                fits.append(fit_wanted(run, points[half], tile))
                progress((done - 0.7 + 0.3 * len(fits)) / len(open_splits))
            validation.save(split, task, compare(fits[0], fits[1], SPLITS[split]))


@dataclass(frozen=True)
class Validation:
    """Results of the validation of a run: tiles of differences, their mosaic, figures.

    Attributes
    ----------
    run : Run
        The run whose halves are compared.
    splits : tuple of str
        Of :data:`SPLITS`.
    """

    run: Run
    splits: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The directory, ``validation`` in that of the run."""
        return self.run.path / "validation"

    def store(self, split: str) -> TileStore:
        """Return the tile store of a split; its directory must exist before a tile is saved."""
        return TileStore(self.path / "tiles" / split)

    def make_directories(self) -> None:
        """Make the directories of the tiles, and way for them and for all other files."""
        with writing(self.path):
            for directory in (self.path, self.path / "tiles"):
                make_way(directory, directory=True)
            for split in self.splits:
                make_way(self.store(split).path, directory=True)
                make_directory(self.store(split).path)
                for suffix in (".nc", ".png"):
                    make_way(self.path / f"{split}{suffix}")
            make_way(self.path / "validation.json")

    def missing(self, tasks: Sequence[Task]) -> list[Task]:
        """Return the tasks whose tile is missing in some split."""
        return [task for task in tasks if not all(self.is_current(s, task) for s in self.splits)]

    def is_current(self, split: str, task: Task) -> bool:
        """Return whether a tile is stored, with the points and settings that the run has now."""
        return self.store(split).is_current(self.run.tile(task.index), self._fingerprint(task))

    def save(self, split: str, task: Task, differences: xr.Dataset) -> None:
        """Save the tile of a task."""
        self.store(split).save(self.run.tile(task.index), differences, self._fingerprint(task))

    def _fingerprint(self, task: Task) -> str:
        return self.run.fingerprint(task.index)

    def assemble(self, split: str, tasks: Sequence[Task]) -> tuple[Path, list[Agreement]]:
        """Write the differences of some tiles as a map, NetCDF, and summarize their spread.

        Parameters
        ----------
        split : str
            Of :data:`SPLITS`.
        tasks : sequence of Task
            Tasks whose tiles are stored; posts of others are ``not_computed``.

        Returns
        -------
        (Path, list of Agreement)
            The file; the agreement of all posts, then by the passes of the half that has fewer.
        """
        run, settings, names = self.run, self.run.settings, SPLITS[split]
        differences = mosaic(
            self.store(split),
            settings.map_grid,
            tiles=(run.tile(task.index) for task in tasks),
            empty=run.empty_tiles(),
            variables=variables(names),
            mask=settings.mask,
        )
        path = self.path / f"{split}.nc"
        title = f"Elevation change rate of {names[0]} less {names[1]} passes"
        write_product(
            differences,
            path,
            grid=settings.map_grid,
            config=settings.fit,
            about={**about(run), "title": title},
        )
        return path, agreement(differences, names)


def spread_out(tasks: Sequence[Task], most: int | None) -> list[Task]:
    """Return every n-th task of a list that is ordered by cost, at most ``most``; all if that is None."""
    count = len(tasks) if most is None else min(most, len(tasks))
    return [tasks[k * len(tasks) // count] for k in range(count)]


def compare_halves(
    validation: Validation,
    tasks: Sequence[Task],
    backend: str = "auto",
    *,
    progress: bool = False,
    tell: Tell = log.info,
) -> Sequence[Task]:
    """Compare the halves in some tiles of a run, where that is not done already.

    Parameters
    ----------
    validation : Validation
        Run and splits.
    tasks : sequence of Task
        The tiles.
    backend : str
        Spec of the backend.
    progress : bool
        Whether to show a progress bar.
    tell : callable
        Receives, without a bar, a line a minute on the progress.

    Returns
    -------
    sequence of Task
        Those that this process answers for, all of which are done.

    Raises
    ------
    FailedTasks
        A tile failed.
    Unfinished
        A tile is missing.
    """
    run = validation.run
    validation.make_directories()
    farm = open_backend(
        backend, home=validation.path, key=f"{run.key}/{'+'.join(validation.splits)}"
    )
    share = share_of(farm, tasks)
    pending = Pending(share, validation.missing)
    work = ValidateTile(run.path.resolve(), run.generation, validation.splits)
    errors = []
    journal = validation.path / "journal"
    with follow(
        run, pending, verb="validate", journal=journal, shown=progress, tell=tell
    ) as settle:
        for outcome in farm.run(pending, Journaled(work, journal.resolve())):
            errors += [outcome] if outcome.error else []
            settle(outcome)
    if errors:
        raise FailedTasks(
            f"{len(errors):,} tile{'s' * (len(errors) != 1)} failed (the first, {run.names[errors[0].task.index]}:"
            f" {last_line(str(errors[0].error))}); fix the cause, then continue with: {command('validate', run.path)}"
        )
    if missing := validation.missing(share):
        raise Unfinished(
            f"{len(missing):,} of {len(share):,} tile{'s' * (len(share) != 1)} are not compared; go on with:"
            f" {command('validate', run.path)}"
        )
    return share
