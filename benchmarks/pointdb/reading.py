"""Measure the read of a tile, and a tile from disk to disk."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pyarrow.dataset as ds
from made import SWATH, grown, ignore, medians, side_of

from cryotile._fit import Kernel
from cryotile.fit import inputs
from cryotile.pointdb import PointDB
from cryotile.runs import work
from cryotile.runs.run import plan_run
from cryotile.runs.work import fit_tile

TILE = 50e3
MARGIN = 2e3
AROUND = {139: 2e3, 676: 2e3, 2643: 5e3}
"""Points within the radius of a post, on average: the radius, m."""

COLUMNS = ["x", "y", "time", "elevation", "pass_id"]
STORED = ["x_cm", "y_cm", "time", "elevation_mm", "pass_id"]


def read(scratch: Path, counts: list[int], repeats: int) -> dict[str, float]:
    """Compare the read of a tile with its margin to a bare read of all row groups of the fragments that it touches.

    One tile lies within a chunk, so that the bare read has the least work; in the other, four chunks meet.
    """
    found: dict[str, float] = {}
    for count in counts:
        db = grown(scratch / f"{count}.pdb", count)
        chunk = middle_chunk(side_of(count, SWATH))
        for where, corner in (("within a chunk", chunk + 10e3), ("across four", chunk - 25e3)):
            label = f"{count / 1e6:g} million, {where}"
            found |= {f"{label}: {k}": v for k, v in read_tile(db, corner, repeats).items()}
        found[f"{count / 1e6:g} million: fragments"] = len(db.fragments())
        shutil.rmtree(db.path)
    return found | disk_to_disk(scratch, counts[0], repeats)


def middle_chunk(side: float) -> float:
    """Return the coordinate, on both axes, of the corner of a chunk in the middle of a square."""
    return side / 2 // 100e3 * 100e3


def read_tile(db: PointDB, corner: float, repeats: int) -> dict[str, float]:
    low, high = corner - MARGIN, corner + TILE + MARGIN
    paths = [str(path) for path in db.fragments((low, low, high, high))]
    inside = within(low, low, high, high)
    times = medians(
        {
            "ours": lambda: db.read((low, low, high, high), columns=COLUMNS),
            "bare": lambda: ds.dataset(paths).to_table(columns=STORED),
            "filtered": lambda: ds.dataset(paths).to_table(columns=STORED, filter=inside),
        },
        2 * repeats,
    )
    points = len(db.read((low, low, high, high), columns=["time"]))
    return {
        "points of the tile": points,
        "ms": times["ours"] * 1000,
        "ns a point": times["ours"] / points * 1e9,
        "of a bare read": times["ours"] / times["bare"],
        "of a bare read with the bounds as filter": times["ours"] / times["filtered"],
    }


def within(x_min: float, y_min: float, x_max: float, y_max: float) -> ds.Expression:
    x, y = ds.field("x_cm"), ds.field("y_cm")
    first = (x >= int(x_min * 100)) & (y >= int(y_min * 100))
    return first & (x <= int(x_max * 100)) & (y <= int(y_max * 100))


def disk_to_disk(scratch: Path, count: int, repeats: int) -> dict[str, float]:
    """Compare a tile from the point DB to its file with a bare read and the kernel, at three densities of points."""
    found: dict[str, float] = {}
    for around, radius in AROUND.items():
        label = f"disk to disk, {around} points within {radius / 1000:g} km"
        measured = tile_to_disk(scratch / str(around), count, around, radius, repeats)
        found |= {f"{label}: {what}": value for what, value in measured.items()}
        shutil.rmtree(scratch / str(around))
    return found


def tile_to_disk(
    scratch: Path, count: int, around: int, radius: float, repeats: int
) -> dict[str, float]:
    density = around / (math.pi * (radius / 1000) ** 2)
    db = grown(scratch / "points.pdb", count, density=density)
    corner = middle_chunk(side_of(count, density))
    bounds = (corner, corner, corner + TILE, corner + TILE)
    request = {
        "posting": 1000.0,
        "radius": radius,
        "recipe": "plane",
        "bounds": bounds,
        "tile_size": round(TILE / 1000),
    }
    run = plan_run(scratch / "run", request, db=db)
    # The costliest task is a whole tile.
    task = run.tasks[0]
    window = run.tile(0).window(radius)
    paths = [str(path) for path in db.fragments(window)]
    inside = within(*window)
    spent = {"kernel": [], "read": [], "fit": [], "save": []}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            result = function(*arguments, **options)
            spent[name].append(time.perf_counter() - begin)
            return result

        return call

    def kernel(*arguments: Any, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(fit=timed("kernel", Kernel(*arguments, **options).fit))

    watched = [
        (work, "read_window", "read"),
        (work, "fit_posts", "fit"),
        (type(run.store), "save", "save"),
    ]
    with ExitStack() as stack:
        stack.enter_context(patch.object(inputs, "Kernel", kernel))
        for place, name, what in watched:
            stack.enter_context(patch.object(place, name, timed(what, getattr(place, name))))
        times = medians(
            {
                "whole": lambda: fit_tile(run, db, task, ignore),
                "bare": lambda: ds.dataset(paths).to_table(columns=STORED),
                "filtered": lambda: ds.dataset(paths).to_table(columns=STORED, filter=inside),
            },
            2 * repeats,
        )
    part = {name: statistics.median(values) for name, values in spent.items()}
    return {
        "ms": times["whole"] * 1000,
        "ms of a bare read": times["bare"] * 1000,
        "ms of the kernel": part["kernel"] * 1000,
        "ms of reading": part["read"] * 1000,
        "ms of the fit around the kernel": (part["fit"] - part["kernel"]) * 1000,
        "ms of saving": part["save"] * 1000,
        "of (bare read + kernel)": times["whole"] / (times["bare"] + part["kernel"]),
        "of (bare read with the bounds as filter + kernel)": times["whole"]
        / (times["filtered"] + part["kernel"]),
    }
