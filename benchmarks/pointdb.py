"""Size and speed of the point DB, as ratios within one run: `python benchmarks/pointdb.py [--points 20000000]`.

Every time is put beside that of the least work that could do: the same columns read or written by pyarrow alone.
Contenders take turns, and medians are compared.  At last, from what was measured, an estimate for 10¹¹ points.  With
`--table FILE` the ratios are written as a table, with `--plot FILE` they are drawn.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import netCDF4
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyproj

from cryotile import fit, work
from cryotile._fit import Kernel
from cryotile.ingest import freeze_ingest
from cryotile.intake import Criteria, take_in
from cryotile.plan import PlanRequest
from cryotile.pointdb import PointDB
from cryotile.pointdb import fragments as fragment_files
from cryotile.pointdb.compact import FULL
from cryotile.pointdb.encoding import encode, schema, to_table
from cryotile.pointdb.layout import chunk_directory, chunk_numbers
from cryotile.pointdb.log import _write_checkpoint
from cryotile.pointdb.order import in_total_order
from cryotile.pointdb.squares import SQUARES
from cryotile.pointdb.state import FRAGMENTS, GRANULES, State
from cryotile.points import Granule
from cryotile.projection import project
from cryotile.readers import read_granule
from cryotile.run import plan_run
from cryotile.simulate import World, simulate
from cryotile.task import Task
from cryotile.work import IngestBatch, fit_tile

START = np.datetime64("2015-01-01", "ms")
TILE = 50e3
MARGIN = 2e3
COLUMNS = ["x", "y", "time", "elevation", "pass_id"]
REGION = (-2_200e3, -2_200e3, 2_200e3, 2_200e3)
WHOLE = 1e11
"""Points of the estimate."""
AREA = np.pi * 2_150e3**2
"""Of the thinned Antarctica, m²."""
STORED = ["x_cm", "y_cm", "time", "elevation_mm", "pass_id"]


def swath(seed: int, count: int, side: float) -> pd.DataFrame:
    """Points like those of CryoSat-2's swath mode: lines across a track, 60 points each, every 400 m."""
    random = np.random.default_rng(seed)
    lines = count // 60
    heading = random.uniform(0, np.pi)
    along = np.arange(lines) * 400.0 % side
    track = np.arange(lines) * 400.0 // side
    origin = random.uniform(0, side, int(track.max()) + 1)
    across = np.sort(random.uniform(-7500, 7500, (lines, 60)), axis=1)
    x = (origin[track.astype(int)][:, None] + across * np.sin(heading)) % side
    y = (along[:, None] + across * np.cos(heading) + random.normal(0, 40, (lines, 60))) % side
    days = random.integers(0, 1500, int(track.max()) + 1)[track.astype(int)]
    when = START + days * np.timedelta64(86_400_000, "ms") + (np.arange(lines) * 50) % 86_400_000
    surface = 2000 + 0.003 * x - 0.001 * y + 20 * np.sin(x / 7e3) * np.cos(y / 9e3)
    flat = lines * 60
    return pd.DataFrame(
        {
            "x": x.ravel(),
            "y": y.ravel(),
            "time": np.repeat(when, 60),
            "elevation": (surface + random.normal(0, 2, (lines, 60))).ravel(),
            "uncertainty": np.abs(random.normal(1.5, 0.6, flat)),
            "pass_id": np.repeat((1 << 32) + 2 * (days * 14 + 5000), 60).astype(np.int64),
            "ascending": pd.array(np.zeros(flat, bool), "boolean"),
            "platform": pd.Categorical.from_codes(np.zeros(flat, np.int8), ["cryosat2"]),
            "mode": pd.Categorical.from_codes(np.zeros(flat, np.int8), ["sarin_swath"]),
            "surface_type": pd.Categorical.from_codes(np.zeros(flat, np.int8), ["grounded_ice"]),
        }
    )


def as_granule(number: int, points: pd.DataFrame) -> Granule:
    name = f"swath-{number}"
    return Granule(name, "swath", "D", 1, name, f"{number:064x}", len(points), {}, points)


def grown(path: Path, count: int, batch: int = 1_000_000) -> PointDB:
    """A DB of so many points as dense as a swath DB is, in a square that grows with them."""
    db = PointDB.create(path, "EPSG:3031")
    side = 1000 * np.sqrt(count / 200)
    for number in range(max(1, count // batch)):
        db.append([as_granule(number, swath(number, min(batch, count), side))])
    db.compact()
    return db


def medians(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, function in contenders.items():
            gc.collect()
            begin = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def size(scratch: Path) -> dict[str, float]:
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
    """Ingest against its least parts: read the variables, transform, write the encoded columns; each timed alone."""
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
        take_in(files, db, Criteria(), _ignore)

    def write() -> None:
        path = scratch / f"bare-{next(numbers)}.parquet"
        path.write_bytes(fragment_files._parquet(table))

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
    """The batches of one ingest by one worker and by two, which have started before."""
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
    # Long enough for the other worker to start, too.
    time.sleep(seconds)


def _take_in(path: Path, tasks: list[Task]) -> None:
    work = IngestBatch(path)
    for task in tasks:
        work(task, _ignore)


def _ignore(fraction: float) -> None:
    """Take a progress call."""


def read(scratch: Path, counts: list[int], repeats: int) -> dict[str, float]:
    """Read a tile with its margin against a bare read of all row groups of the fragments it touches.

    One tile lies within a chunk, so that the bare read has the least to do, the other where four meet.
    """
    found: dict[str, float] = {}
    for count in counts:
        db = grown(scratch / f"{count}.pdb", count)
        chunk = 1000 * np.sqrt(count / 200) / 2 // 100e3 * 100e3
        for where, corner in (("within a chunk", chunk + 10e3), ("across four", chunk - 25e3)):
            label = f"{count / 1e6:g} million, {where}"
            found |= {f"{label}: {k}": v for k, v in read_tile(db, corner, repeats).items()}
        found[f"{count / 1e6:g} million: fragments"] = len(db.fragments())
        if count == counts[-1]:
            found |= disk_to_disk(scratch, db, chunk, repeats)
        shutil.rmtree(db.path)
    return found


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


def disk_to_disk(scratch: Path, db: PointDB, corner: float, repeats: int) -> dict[str, float]:
    """A tile from the point DB to its file, against a bare read and the kernel alone.

    A post sees some 2500 points: the radius of 2 km in 200 points/km², which is that of swath data.
    """
    bounds = (corner, corner, corner + TILE, corner + TILE)
    request = PlanRequest(
        posting=1000.0, radius=MARGIN, recipe="plane", bounds=bounds, tile_size=round(TILE / 1000)
    )
    run = plan_run(scratch / "run", request, db=db)
    # The dearest, that is a whole one.
    task = run.tasks[0]
    window = run.tile(0).window(MARGIN)
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
        stack.enter_context(patch.object(fit, "Kernel", kernel))
        for place, name, what in watched:
            stack.enter_context(patch.object(place, name, timed(what, getattr(place, name))))
        times = medians(
            {
                "whole": lambda: fit_tile(run, db, task, _ignore),
                "bare": lambda: ds.dataset(paths).to_table(columns=STORED),
                "filtered": lambda: ds.dataset(paths).to_table(columns=STORED, filter=inside),
            },
            2 * repeats,
        )
    part = {name: statistics.median(values) for name, values in spent.items()}
    return {
        "disk to disk: ms": times["whole"] * 1000,
        "disk to disk: ms of a bare read": times["bare"] * 1000,
        "disk to disk: ms of the kernel": part["kernel"] * 1000,
        "disk to disk: ms of reading": part["read"] * 1000,
        "disk to disk: ms of the fit around the kernel": (part["fit"] - part["kernel"]) * 1000,
        "disk to disk: ms of saving": part["save"] * 1000,
        "disk to disk: of (bare read + kernel)": times["whole"] / (times["bare"] + part["kernel"]),
        "disk to disk: of (bare read with the bounds as filter + kernel)": times["whole"]
        / (times["filtered"] + part["kernel"]),
    }


def long_log(path: Path, commits: int, fragments: int) -> None:
    """Write the log of a DB that has grown for years: small entries, and checkpoints of the final size."""
    PointDB.create(path, "EPSG:3031")
    random = np.random.default_rng(1)
    tokens = [random.bytes(32).hex() for _ in range(fragments)]
    chunk = np.sort(
        chunk_numbers(random.integers(-25, 25, fragments), random.integers(-25, 25, fragments))
    )
    numbers = np.arange(fragments, dtype=np.int64)
    columns = {
        "path": [
            f"{chunk_directory(int(c))}/{t[:16]}-0.parquet"
            for c, t in zip(chunk, tokens, strict=True)
        ],
        "chunk": chunk,
        "rows": numbers + 10**6,
        "bytes": numbers * 14,
        "checksum": tokens,
        **{f"{axis}_cm_{end}": numbers.astype(np.int32) for axis in "xy" for end in ("min", "max")},
        "time_min": numbers,
        "time_max": numbers,
        "platform": ["cryosat2"] * fragments,
        "mode": ["sarin_swath"] * fragments,
        "granules": [[int(n)] for n in numbers],
    }
    table = pa.Table.from_pydict(columns, schema=FRAGMENTS)
    last = commits // 64 * 64
    for number in range(1, commits + 1):
        entry = path / "log" / f"{number:08d}"
        entry.mkdir()
        sink = pa.BufferOutputStream()
        pq.write_table(SQUARES.empty_table(), sink)
        (entry / "squares.parquet").write_bytes(sink.getvalue().to_pybytes())
        digest = hashlib.sha256(sink.getvalue().to_pybytes()).hexdigest()
        state = State(number, number, GRANULES.empty_table(), table)
        whole = number == last
        content = {
            "id": f"{number:016x}",
            "number": number,
            "cryotile": "0.1.0",
            "time": "2026-01-01T00:00:00+00:00",
            "granules": {"added": [], "removed": []},
            "fragments": {"added": [], "removed": []},
            "compaction": False,
            "history": {"oldest": 0, "kept": []},
            "fenced": [],
            "checkpoint": _write_checkpoint(entry, state, SQUARES.empty_table()) if whole else None,
            "squares": digest,
        }
        body = json.dumps(content)[1:].encode()
        seal = f'{{"checksum": "{hashlib.sha256(body).hexdigest()}", '
        (entry / "commit.json").write_bytes(seal.encode() + body)


def opening(scratch: Path, commits: int, fragments: int, repeats: int) -> dict[str, float]:
    path = scratch / "long.pdb"
    long_log(path, commits, fragments)
    found = {"ms": medians({"open": lambda: PointDB(path)}, repeats)["open"] * 1000}
    strace = shutil.which("strace")
    if strace:
        program = (
            "import sys, time; from cryotile.pointdb import PointDB; PointDB(sys.argv[2]);"
            " begin = time.perf_counter(); PointDB(sys.argv[1]); print(time.perf_counter() - begin)"
        )
        PointDB.create(scratch / "empty.pdb", "EPSG:3031")
        log = scratch / "strace.txt"
        command = [strace, "-f", "-e", "trace=openat", "-e", "inject=openat:delay_enter=1000"]
        command += [
            "-o",
            str(log),
            sys.executable,
            "-c",
            program,
            str(path),
            str(scratch / "empty.pdb"),
        ]
        said = subprocess.run(command, check=True, capture_output=True, text=True)
        opened = [line for line in log.read_text().splitlines() if f"{path}/log/0" in line]
        found["opens of entries"] = sum("commit.json" in line for line in opened)
        found["opens of checkpoint tables"] = sum("all-" in line for line in opened)
        found["s with 1 ms added to every open"] = float(said.stdout)
    return found


def antarctica(scratch: Path) -> dict[str, float]:
    """A DB with every chunk of Antarctica, thinned."""
    random = np.random.default_rng(2)
    db = PointDB.create(scratch / "antarctica.pdb", "EPSG:3031")
    appended = 0.0
    for number in range(2):
        points = swath(number, 600_000, 1.0)
        angle = random.uniform(0, 2 * np.pi, len(points))
        radius = 2_150e3 * np.sqrt(random.random(len(points)))
        points["x"], points["y"] = radius * np.cos(angle), radius * np.sin(angle)
        granule = as_granule(number, points)
        begin = time.perf_counter()
        db.append([granule])
        appended += time.perf_counter() - begin
    before = sum(1 for _ in db.path.rglob("*"))
    db.compact()
    files = list(db.path.rglob("*"))
    request = PlanRequest(posting=1000.0, radius=2000.0, recipe="plane", bounds=REGION)
    begin = time.perf_counter()
    run = plan_run(scratch / "run", request, db=db)
    planned = time.perf_counter() - begin
    return {
        "chunks": len({path.parent for path in db.fragments()}),
        "inodes after two ingests": before,
        "inodes after a compaction": len(files),
        "files": sum(path.is_file() for path in files),
        "s to append 1.2 million points, every chunk twice": appended,
        "ms to open": medians({"s": lambda: PointDB(db.path)}, 3)["s"] * 1000,
        "ms to open and count all squares": medians({"s": lambda: PointDB(db.path).squares()}, 3)[
            "s"
        ]
        * 1000,
        "squares": len(db.squares()),
        "tiles": len(run.tasks),
        "s to plan": planned,
        "ms to read a tile": medians({"r": lambda: db.read((0, 0, 54e3, 54e3))}, 3)["r"] * 1000,
    }


def estimate(results: dict[str, dict[str, float]], points: int) -> dict[str, float]:
    """What 10¹¹ points would take, from what was measured: parts that grow with points, fragments or squares."""
    ingest, ice = results["ingest"], results["whole Antarctica"]
    tile, opened = results["read a tile"], results["open 10 000 commits, 100 000 fragments"]
    label = f"{points / 1e6:g} million, within a chunk"
    fragments = ice["chunks"] + WHOLE / FULL
    in_tile = WHOLE / AREA * (TILE + 2 * MARGIN) ** 2
    return {
        "TB": WHOLE * results["size"]["bytes per point"] / 1e12,
        "fragments, compacted": fragments,
        "inodes": fragments + ice["inodes after a compaction"] - ice["chunks"],
        "core-hours to ingest": WHOLE / ingest["points/s"] / 3600,
        "days to ingest with 16 workers": WHOLE / ingest["points/s"] / 86400 / 16,
        "s to open": opened["ms"] / 1000 * fragments / 100_000,
        "s to plan": ice["s to plan"],
        "points of a tile": in_tile,
        "s to read a tile": in_tile * tile[f"{label}: ns a point"] / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=20_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plot", type=Path, default=None)
    parser.add_argument("--table", type=Path, default=None)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    parts = {
        "size": size,
        "ingest": lambda scratch: ingest(scratch, arguments.repeats),
        "read a tile": lambda scratch: read(
            scratch, [arguments.points // 4, arguments.points], arguments.repeats
        ),
        "open 10 000 commits, 100 000 fragments": lambda scratch: opening(
            scratch, 10_047, 100_000, arguments.repeats
        ),
        "whole Antarctica": antarctica,
    }
    results: dict[str, dict[str, float]] = {}
    for name, part in parts.items():
        if arguments.only in name:
            with tempfile.TemporaryDirectory() as scratch:
                results[name] = part(Path(scratch))
            show(name, results[name])
    if len(results) == len(parts):
        results["estimate for 10¹¹ points"] = estimate(results, arguments.points)
        show("estimate for 10¹¹ points", results["estimate for 10¹¹ points"])
    lines = goals(results)
    for line in lines:
        print(f"{line.what:60} {line.value:10.3g}  {line.sense} {line.goal:g}")
    if arguments.table:
        write_table(lines, results, arguments.table)
    if arguments.plot:
        draw(lines, arguments.plot)


def show(name: str, found: dict[str, float]) -> None:
    print(name)
    for what, value in found.items():
        print(f"  {what:60} {value:12.4g}", flush=True)


class Line(NamedTuple):
    """A ratio, and what it should reach."""

    what: str
    value: float
    goal: float
    sense: str


def goals(results: dict[str, dict[str, float]]) -> list[Line]:
    """List every ratio beside what it should reach."""
    known = {
        "bytes per point": ("size, bytes a point", 16.0, "at most"),
        "of pandas' default": ("size, of a default Parquet file by pandas", 0.55, "at most"),
        "of the bare minimum's speed": ("ingest, of the bare minimum's speed", 0.6, "at least"),
        "speed-up of two workers": ("ingest, two workers over one", 1.7, "at least"),
        "disk to disk: of (bare read + kernel)": (
            "tile, disk to disk, of bare read and kernel",
            1.3,
            "at most",
        ),
        "s with 1 ms added to every open": ("opening with 1 ms a file, s", 1.0, "at most"),
        "opens of entries": ("opening, entries read", 64.0, "at most"),
    }
    lines = [
        Line(known[what][0], value, *known[what][1:])
        for found in results.values()
        for what, value in found.items()
        if what in known
    ]
    return lines + [
        Line(f"read of a tile, {what.partition(':')[0]}, of a bare read", value, 1.3, "at most")
        for what, value in results.get("read a tile", {}).items()
        if what.endswith(": of a bare read")
    ]


def write_table(lines: list[Line], results: dict[str, dict[str, float]], path: Path) -> None:
    """Write the ratios, and everything that was measured, as Markdown."""
    text = ["| what | measured | meant to reach |", "|---|---|---|"]
    text += [f"| {line.what} | {line.value:.3g} | {line.sense} {line.goal:g} |" for line in lines]
    for name, found in results.items():
        text += ["", f"**{name}**", "", "| what | measured |", "|---|---|"]
        text += [f"| {what} | {value:.4g} |" for what, value in found.items()]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


def draw(lines: list[Line], path: Path) -> None:
    """Draw every ratio over its goal."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.45 * len(lines) + 1), layout="constrained")
    labels = [f"{line.what} ({line.sense} {line.goal:g})" for line in lines]
    axes.barh(labels, [line.value / line.goal for line in lines], color="#4477aa")
    axes.axvline(1.0, color="#cc3311")
    for row, line in enumerate(lines):
        axes.text(0.02, row, f"{line.value:.3g}", va="center", color="white")
    axes.invert_yaxis()
    axes.set_xlabel("measured over what it should reach")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
