"""Check whether two halves of a data set agree within their errors, and whether many passes share an error.

Each tile is fitted twice, from two disjoint sets of passes, and the difference of the two rates is compared with
their sigmas.  And it is fitted without the passes of each season, and of each campaign: if passes share no error, the
change of the rate has a known spread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd
import xarray as xr

from cryotile.backends import open_backend, share_of
from cryotile.errors import FailedTasks, InvalidValue, Unfinished, command
from cryotile.farm.journal import Journaled
from cryotile.farm.task import Pending, Progress, Task
from cryotile.files import make_directory, make_way, writing
from cryotile.fit.agreement import SPLITS, Agreement, agreement, compare, halves
from cryotile.fit.agreement import variables as variables_of_split
from cryotile.fit.groups import (
    GROUPINGS,
    MAPPED,
    Grouping,
    Sharing,
    campaigns,
    leave_out,
    seasons,
    sharing,
)
from cryotile.fit.groups import variables as variables_of_grouping
from cryotile.fit.variables import Variable
from cryotile.geo.grid import Tile
from cryotile.maps.mosaic import mosaic
from cryotile.maps.product import write_product
from cryotile.maps.tiles import TileStore
from cryotile.runs.origin import about
from cryotile.runs.progress import Tell, follow
from cryotile.runs.run import Run
from cryotile.runs.tasklist import last_line
from cryotile.runs.work import fit_wanted, opened_run, read_window

__all__ = ["COMPARISONS", "ValidateTile", "Validation", "compare_tiles", "spread_out"]

log = logging.getLogger(__name__)

COMPARISONS = tuple(MAPPED)
"""Splits into halves, then groups of passes that are left out."""


@dataclass(frozen=True)
class ValidateTile:
    """Work of a validation: read the points of a tile, fit its posts to either half or without groups, save the result.

    Attributes
    ----------
    run : Path
        The run directory.
    generation : int
        The task list that task indices refer to.
    comparisons : tuple of str
        Of :data:`COMPARISONS`.
    """

    run: Path
    generation: int
    comparisons: tuple[str, ...]

    def __call__(self, task: Task, progress: Progress) -> None:
        """Compare the fits in the tile of a task, by each comparison that is not done already."""
        run, db = opened_run(self.run, self.generation)
        validation = Validation(run, self.comparisons)
        tile = run.tile(task.index)
        still_open = [name for name in self.comparisons if not validation.is_current(name, task)]
        if not still_open:
            return
        config = run.settings.fit
        # The column "ascending" tells halves apart, "platform" campaigns, whether they are terms or not.
        columns = tuple(dict.fromkeys([*config.point_columns, "ascending", "platform"]))
        points = read_window(run, db, tile.window(config.reach), columns=columns)
        for done, name in enumerate(still_open, start=1):
            progress((done - 0.7) / len(still_open))
            validation.save(name, task, validation.compared(name, points, tile))


@dataclass(frozen=True)
class Validation:
    """Results of the validation of a run: tiles of differences, their mosaic, figures.

    Attributes
    ----------
    run : Run
        The run whose fits are compared.
    comparisons : tuple of str
        Of :data:`COMPARISONS`.
    """

    run: Run
    comparisons: tuple[str, ...]

    @classmethod
    def of(cls, run: Run, asked: Sequence[str] = ()) -> Validation:
        """Return a validation by the comparisons that are asked for, or else by all that the recipe allows.

        Raises
        ------
        InvalidValue
            The recipe ``plane`` has no fit without groups of passes.
        """
        has_groups = run.settings.fit.recipe == "passes"
        wrong = [name for name in asked if name in GROUPINGS and not has_groups]
        if wrong:
            raise InvalidValue(
                f"{wrong[0]} needs a run of the recipe 'passes', and {run.path} has"
                f" {run.settings.fit.recipe!r}; compare halves with --split {' or '.join(SPLITS)}"
            )
        possible = COMPARISONS if has_groups else tuple(SPLITS)
        return cls(run, tuple(dict.fromkeys(asked)) or possible)

    @property
    def path(self) -> Path:
        """The directory, ``validation`` in that of the run."""
        return self.run.path / "validation"

    def store(self, name: str) -> TileStore:
        """Return the tile store of a comparison; its directory must exist before a tile is saved."""
        return TileStore(self.path / "tiles" / name)

    def grouping(self, name: str) -> Grouping:
        """Return the groups of passes that are left out, of the snapshot of the run."""
        return _grouping(self.run.path.resolve(), self.run.generation, name)

    def variables(self, name: str) -> tuple[Variable, ...]:
        """Return the variables of a comparison."""
        if name in SPLITS:
            return variables_of_split(SPLITS[name])
        return variables_of_grouping(self.grouping(name))

    def compared(self, name: str, points: pd.DataFrame, tile: Tile) -> xr.Dataset:
        """Fit the posts of a tile to either half of its points, or without groups of passes."""
        if name in SPLITS:
            one, other = (fit_wanted(self.run, points[half], tile) for half in halves(points, name))
            return compare(one, other, SPLITS[name])
        settings = self.run.settings
        wanted = None if settings.mask is None else settings.mask.of(tile)
        return leave_out(points, tile.x, tile.y, settings.fit, self.grouping(name), wanted=wanted)

    def make_directories(self) -> None:
        """Make the directories of the tiles, and way for them and for all other files."""
        with writing(self.path):
            for directory in (self.path, self.path / "tiles"):
                make_way(directory, directory=True)
            for name in self.comparisons:
                make_way(self.store(name).path, directory=True)
                make_directory(self.store(name).path)
                for suffix in (".nc", ".png"):
                    make_way(self.path / f"{name}{suffix}")
            make_way(self.path / "validation.json")

    def missing(self, tasks: Sequence[Task]) -> list[Task]:
        """Return the tasks whose tile is missing in some comparison."""
        return [
            task
            for task in tasks
            if not all(self.is_current(name, task) for name in self.comparisons)
        ]

    def is_current(self, name: str, task: Task) -> bool:
        """Return whether a tile is stored, with the points and settings that the run has now."""
        return self.store(name).is_current(self.run.tile(task.index), self._fingerprint(task))

    def save(self, name: str, task: Task, compared: xr.Dataset) -> None:
        """Save the tile of a task."""
        self.store(name).save(self.run.tile(task.index), compared, self._fingerprint(task))

    def _fingerprint(self, task: Task) -> str:
        return self.run.fingerprint(task.index)

    def compared_tasks(self, name: str) -> list[Task]:
        """Return the tasks whose tiles are stored, by this call or an earlier one."""
        return [task for task in self.run.tasks if self.is_current(name, task)]

    def assemble(self, name: str) -> tuple[Path, list[Agreement] | list[Sharing]]:
        """Write what the stored tiles of a comparison tell as a map, NetCDF, and summarize it.

        Parameters
        ----------
        name : str
            Of :data:`COMPARISONS`.

        Returns
        -------
        (Path, list of Agreement or of Sharing)
            The file, in which posts of other tiles are ``not_computed``; the summary of all posts, then by the passes
            of the half that has fewer, or by seasons or campaigns.
        """
        run, settings = self.run, self.run.settings
        compared = mosaic(
            self.store(name),
            settings.map_grid,
            tiles=(run.tile(task.index) for task in self.compared_tasks(name)),
            empty=run.empty_tiles(),
            variables=self.variables(name),
            mask=settings.mask,
        )
        path = self.path / f"{name}.nc"
        if name in SPLITS:
            title = "Elevation change rate of {} less {} passes".format(*SPLITS[name])
        else:
            title = f"Elevation change rate without each {name}"
        write_product(
            compared,
            path,
            grid=settings.map_grid,
            config=settings.fit,
            about={**about(run), "title": title},
        )
        if name in SPLITS:
            return path, agreement(compared, SPLITS[name])
        return path, sharing(compared, self.grouping(name))


@lru_cache(maxsize=len(GROUPINGS))
def _grouping(path: Path, generation: int, name: str) -> Grouping:
    """Return a grouping, once for the many tiles that a worker compares."""
    run, db = opened_run(path, generation)
    period = run.settings.fit.period
    assert period is not None
    return seasons(period) if name == "season" else campaigns(db.granules_at(run.snapshot), period)


def spread_out(tasks: Sequence[Task], most: int | None) -> list[Task]:
    """Return every n-th task of a list that is ordered by cost, at most ``most``; all if that is None."""
    count = len(tasks) if most is None else min(most, len(tasks))
    return [tasks[k * len(tasks) // count] for k in range(count)]


def compare_tiles(
    validation: Validation,
    tasks: Sequence[Task],
    backend: str = "auto",
    *,
    progress: bool = False,
    tell: Tell = log.info,
) -> Sequence[Task]:
    """Compare the fits in some tiles of a run, where that is not done already.

    Parameters
    ----------
    validation : Validation
        Run and comparisons.
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
        backend, home=validation.path, key=f"{run.key}/{'+'.join(validation.comparisons)}"
    )
    share = share_of(farm, tasks)
    pending = Pending(share, validation.missing)
    work = ValidateTile(run.path.resolve(), run.generation, validation.comparisons)
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
