"""Size and speed of the point DB, as ratios within one run: `python benchmarks/pointdb.py [--points 20000000]`.

Every time is put beside that of the least work that could do: the same columns read or written by pyarrow alone.
Contenders take turns, and medians are compared.  With `--plot FILE` the ratios are drawn.
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
from multiprocessing import get_context
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyproj

from cryotile.pointdb import PointDB
from cryotile.pointdb import fragments as fragment_files
from cryotile.pointdb.encoding import encode, schema, to_table
from cryotile.pointdb.layout import chunk_directory, chunk_numbers
from cryotile.pointdb.log import _write_checkpoint
from cryotile.pointdb.order import in_total_order
from cryotile.pointdb.squares import SQUARES
from cryotile.pointdb.state import FRAGMENTS, GRANULES, State
from cryotile.points import Granule
from cryotile.projection import project
from cryotile.readers import read_granule
from cryotile.simulate import World, simulate
from cryotile.work import append_batches

START = np.datetime64("2015-01-01", "ms")
TILE = 50e3
MARGIN = 2e3
COLUMNS = ["x", "y", "time", "elevation", "pass_id"]
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
    files = simulate(scratch / "granules", years=0.05, world=world)
    granules = [read_granule(path) for path in files]
    form = schema({}, "EPSG:3413")
    crs = pyproj.CRS("EPSG:3413")
    together = pd.concat([granule.points for granule in granules], ignore_index=True)
    stored = encode(project(together, crs), [])
    stored = in_total_order(stored, 100e3)
    table = to_table(stored | {"granule": np.zeros(len(together), np.int32)}, form)
    numbers = iter(range(10**6))

    def ours(part: list[Path] = files, path: Path | None = None) -> None:
        db = PointDB.create(path or scratch / f"ingest-{next(numbers)}.pdb", "EPSG:3413")
        for _ in append_batches(part, db, surface_types=["grounded_ice"], where=None):
            pass

    def write() -> None:
        path = scratch / f"bare-{next(numbers)}.parquet"
        path.write_bytes(fragment_files._parquet(table))

    times = medians(
        {
            "ours": ours,
            "read": lambda: read_variables(files),
            "transform": lambda: project(together, crs),
            "write": write,
        },
        repeats,
    )
    bare = times["read"] + times["transform"] + times["write"]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(abs, range(8)))
        ratios = []
        for _ in range(repeats):
            one = [pool.submit(_ingest_some, files, str(scratch / f"one-{next(numbers)}.pdb"))]
            path = str(scratch / f"two-{next(numbers)}.pdb")
            alone = one[0].result()
            begin = time.perf_counter()
            for future in [pool.submit(_ingest_some, files[i::2], path) for i in (0, 1)]:
                future.result()
            ratios.append(alone / (time.perf_counter() - begin))
    return {
        "granules": len(files),
        "points": len(together),
        "points/s": len(together) / times["ours"],
        "of the bare minimum's speed": bare / times["ours"],
        "speed-up of two workers": statistics.median(ratios),
    }


def _ingest_some(files: list[Path], path: str) -> float:
    begin = time.perf_counter()
    db = PointDB.create(path, "EPSG:3413")
    for _ in append_batches(files, db, surface_types=["grounded_ice"], where=None):
        pass
    return time.perf_counter() - begin


def read(scratch: Path, counts: list[int], repeats: int) -> dict[str, float]:
    """Read a tile with its margin against a bare read of all row groups of the fragments it touches."""
    found: dict[str, float] = {}
    for count in counts:
        db = grown(scratch / f"{count}.pdb", count)
        middle = 1000 * np.sqrt(count / 200) / 2 // 100e3 * 100e3 + 10e3
        bounds = (middle - MARGIN, middle - MARGIN, middle + TILE + MARGIN, middle + TILE + MARGIN)
        paths = [str(path) for path in db.fragments(bounds)]
        cm = [int(edge * 100) for edge in bounds]
        inside = (
            (ds.field("x_cm") >= cm[0])
            & (ds.field("x_cm") <= cm[2])
            & (ds.field("y_cm") >= cm[1])
            & (ds.field("y_cm") <= cm[3])
        )

        def ours(db: PointDB = db, bounds: tuple[float, ...] = bounds) -> pd.DataFrame:
            return db.read(bounds, columns=COLUMNS)

        def bare(paths: list[str] = paths) -> pa.Table:
            return ds.dataset(paths).to_table(columns=STORED)

        def filtered(paths: list[str] = paths, inside: ds.Expression = inside) -> pa.Table:
            return ds.dataset(paths).to_table(columns=STORED, filter=inside)

        times = medians({"ours": ours, "bare": bare, "filtered": filtered}, repeats)
        label = f"{count / 1e6:g} million"
        found[f"{label}: points of the tile"] = len(ours())
        found[f"{label}: ms"] = times["ours"] * 1000
        found[f"{label}: of a bare read"] = times["ours"] / times["bare"]
        found[f"{label}: of a bare read with the bounds as filter"] = (
            times["ours"] / times["filtered"]
        )
        found[f"{label}: fragments"] = len(db.fragments())
        shutil.rmtree(db.path)
    return found


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
        found["ms with 1 ms added to every open, under strace"] = float(said.stdout) * 1000
    return found


def antarctica(scratch: Path) -> dict[str, float]:
    """A DB with every chunk of Antarctica, thinned."""
    random = np.random.default_rng(2)
    db = PointDB.create(scratch / "antarctica.pdb", "EPSG:3031")
    appended = 0.0
    for number in range(2):
        points = swath(number, 600_000, 1.0)
        angle, radius = (
            random.uniform(0, 2 * np.pi, len(points)),
            np.sqrt(random.random(len(points))),
        )
        points["x"] = 2_150e3 * radius * np.cos(angle)
        points["y"] = 2_150e3 * radius * np.sin(angle)
        granule = as_granule(number, points)
        begin = time.perf_counter()
        db.append([granule])
        appended += time.perf_counter() - begin
    squares = medians({"s": lambda: PointDB(db.path).squares()}, 3)["s"]
    tile = medians({"r": lambda: db.read((0, 0, 54e3, 54e3))}, 3)["r"]
    inodes = sum(1 for _ in db.path.rglob("*"))
    return {
        "chunks": len({path.parent for path in db.fragments()}),
        "files and directories": inodes,
        "s to append 1.2 million points, every chunk twice": appended,
        "ms to open and count all squares": squares * 1000,
        "ms to read a tile": tile * 1000,
        "squares": len(db.squares()),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=20_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plot", type=Path, default=None)
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
    results = {}
    for name, part in parts.items():
        if arguments.only in name:
            with tempfile.TemporaryDirectory() as scratch:
                results[name] = part(Path(scratch))
            print(name)
            for what, value in results[name].items():
                print(f"  {what:60} {value:12.4g}", flush=True)
    if arguments.plot:
        draw(results, arguments.plot)


def draw(results: dict[str, dict[str, float]], path: Path) -> None:
    """Draw every ratio beside what it should reach."""
    import matplotlib.pyplot as plt

    goals = {
        "of pandas' default": (0.55, "size, of pandas' default (at most 0.55)"),
        "of the bare minimum's speed": (0.6, "ingest, of the bare minimum's speed (at least 0.6)"),
        "speed-up of two workers": (1.7, "ingest, two workers over one (at least 1.7)"),
    }
    bars = [
        (label, value, goal)
        for found in results.values()
        for what, value in found.items()
        for key, (goal, label) in goals.items()
        if what == key
    ]
    bars += [
        (f"read of a tile, DB of {what.split(':')[0]} (at most 1.3)", value, 1.3)
        for what, value in results.get("read a tile", {}).items()
        if what.endswith("of a bare read")
    ]
    figure, axes = plt.subplots(figsize=(8, 0.6 * len(bars) + 1), layout="constrained")
    axes.barh([label for label, _, _ in bars], [value for _, value, _ in bars], color="#4477aa")
    for row, (_, _, goal) in enumerate(bars):
        axes.plot([goal, goal], [row - 0.4, row + 0.4], color="#cc3311")
    axes.set_xlabel("ratio within one run; red: the goal")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
