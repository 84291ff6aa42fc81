"""Measure the size of points, and the speed of ingest."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import pyproj
from made import as_granule, ignore, medians, swath

from cryotile.farm.task import Task
from cryotile.geo.projection import project
from cryotile.pointdb import PointDB
from cryotile.pointdb.encoding import encode, schema, to_table
from cryotile.pointdb.fragments import fragment_bytes
from cryotile.pointdb.sort_order import in_total_order
from cryotile.readers import read_granule
from cryotile.runs.ingest import freeze_ingest
from cryotile.runs.ingest_batch import Criteria, take_in
from cryotile.runs.work import IngestBatch
from cryotile.simulate import World, simulate


def size(scratch: Path) -> dict[str, float]:
    """Compare the bytes of a point with those that pandas writes by default."""
    points = swath(1, 1_000_000, 70e3)
    db = PointDB.create(scratch / "size.pdb", "EPSG:3031")
    db.append([as_granule(1, points)])
    points.to_parquet(scratch / "default.parquet")
    ours = sum(path.stat().st_size for path in db.fragments()) / len(points)
    return {
        "bytes per point": ours,
        "of pandas' default": ours / ((scratch / "default.parquet").stat().st_size / len(points)),
    }


def read_variables(files: list[Path]) -> list[dict[str, np.ndarray]]:
    names = ["time", "longitude", "latitude", "elevation", "uncertainty"]
    names += ["instrument_mode", "surface_type"]
    read = []
    for path in files:
        with netCDF4.Dataset(path) as data:
            read.append({name: data[name][...] for name in names})
    return read


def ingest(scratch: Path, repeats: int) -> dict[str, float]:
    """Compare ingest with its least parts, each timed alone: read the variables, transform, write encoded columns."""
    world = World(bounds=(-700e3, -2000e3, 700e3, -600e3))
    files = simulate(scratch / "granules", years=0.25, world=world)
    granules = [read_granule(path) for path in files]
    crs = pyproj.CRS("EPSG:3413")
    together = pd.concat([granule.points for granule in granules], ignore_index=True)
    stored = in_total_order(encode(project(together, crs), []), 100e3)
    table = to_table(
        stored | {"granule": np.zeros(len(together), np.int32)}, schema({}, "EPSG:3413")
    )
    transformer = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    place = [together[name].to_numpy() for name in ("longitude", "latitude")]
    numbers = iter(range(10**6))

    def ours() -> None:
        db = PointDB.create(scratch / f"ingest-{next(numbers)}.pdb", "EPSG:3413")
        take_in(files, db, Criteria(), ignore)

    def write() -> None:
        path = scratch / f"bare-{next(numbers)}.parquet"
        path.write_bytes(fragment_bytes(table))

    times = medians(
        {
            "ours": ours,
            "read": lambda: read_variables(files),
            "transform": lambda: transformer.transform(*place),
            "write": write,
            "our readers": lambda: [read_granule(path) for path in files],
        },
        repeats,
    )
    bare = times["read"] + times["transform"] + times["write"]
    return {
        "granules": len(files),
        "points": len(together),
        "points/s": len(together) / times["ours"],
        **{f"s to {name} alone": times[name] for name in ("read", "transform", "write")},
        "s in all": times["ours"],
        "s of it in readers": times["our readers"],
        "of the bare minimum's speed": bare / times["ours"],
        "speed-up of two workers": two_workers(scratch, files, repeats),
    }


def two_workers(scratch: Path, files: list[Path], repeats: int) -> float:
    """Return the speed-up of two workers, which have started before, over one, for the batches of one ingest."""
    ratios = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_warm, [0.5] * 8))
        for number in range(repeats):
            times = []
            for workers in (1, 2):
                db = PointDB.create(scratch / f"{workers}-{number}.pdb", "EPSG:3413")
                frozen = freeze_ingest(db, files, Criteria(), workers=2)
                shares = [frozen.tasks[i::workers] for i in range(workers)]
                begin = time.perf_counter()
                for future in [pool.submit(_take_in, frozen.path, share) for share in shares]:
                    future.result()
                times.append(time.perf_counter() - begin)
            ratios.append(times[0] / times[1])
    return statistics.median(ratios)


def _warm(seconds: float) -> None:
    # Long enough for the other worker to start.
    time.sleep(seconds)


def _take_in(path: Path, tasks: list[Task]) -> None:
    work = IngestBatch(path)
    for task in tasks:
        work(task, ignore)
