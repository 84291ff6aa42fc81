"""What commands on runs say of a point DB that has grown since."""

from __future__ import annotations

from cryotile.cli.screen import counted, number
from cryotile.pointdb import PointDB
from cryotile.runs.run import Run, open_db
from cryotile.runs.staleness import beyond_bounds, beyond_period, changed_tiles

__all__ = ["beyond_lines", "grown_lines"]


def grown_lines(run: Run) -> list[str]:
    """Name the command that takes in what came since the run was planned; nothing where no tile is stale.

    Parameters
    ----------
    run : Run
        With its newest task list.
    """
    db = open_db(run)
    changed = changed_tiles(run, db)
    if not changed:
        return []
    return [
        f"{run.path}: the point DB has grown since commit {run.snapshot} (it is at {db.snapshot}), and"
        f" {counted(len(changed), 'tile')} {'is' if len(changed) == 1 else 'are'} stale; list them with: cryotile"
        f" plan {run.path}",
        *beyond_lines(run, db),
    ]


def beyond_lines(run: Run, db: PointDB) -> list[str]:
    """Name new points that the run will never see, because its bounds and its period are frozen.

    Parameters
    ----------
    run : Run
        With its newest task list.
    db : PointDB
        Its points, as of their newest commit.
    """
    beyond, span = beyond_bounds(run, db), beyond_period(run, db)
    lines = []
    if beyond is not None:
        where = " ".join(f"{edge:.0f}" for edge in beyond.extent)
        lines.append(
            f"beyond       {number(beyond.count)} new points lie beyond the bounds of the run, within {where}"
            " (x_min y_min x_max y_max); a new run takes them in"
        )
    if span is not None:
        lines.append(
            f"beyond       new points lie beyond the period of the run: there are some from {span[0]:%Y-%m-%d} to"
            f" {span[1]:%Y-%m-%d} now; a new run takes them in"
        )
    return lines
