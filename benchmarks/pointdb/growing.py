"""Measure a point DB that has grown for years and one of all Antarctica; estimate values for a larger one."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from made import as_granule, medians, swath
from reading import MARGIN, TILE

from cryotile.pointdb import PointDB
from cryotile.pointdb.compact import FULL
from cryotile.pointdb.encoding import SQUARES
from cryotile.pointdb.log import Log, write_checkpoint
from cryotile.pointdb.snapshot import FRAGMENTS, GRANULES, Commit, Snapshot
from cryotile.pointdb.sort_order import chunk_directory, chunk_numbers
from cryotile.runs.run import plan_run

REGION = (-2_200e3, -2_200e3, 2_200e3, 2_200e3)
WHOLE = 1e11
"""Points of the estimate."""
AREA = np.pi * 2_150e3**2
"""Of the thinned Antarctica, m²."""


def long_log(path: Path, commits: int, fragments: int) -> None:
    """Write the log of a DB that has grown for years: small commits, and a checkpoint of the final size."""
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
        "footer": [t[:16] for t in tokens],
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
        snapshot = Snapshot(number, GRANULES.empty_table(), table)
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
            "checkpoint": write_checkpoint(entry, snapshot, SQUARES.empty_table())
            if whole
            else None,
            "squares": digest,
        }
        body = json.dumps(content)[1:].encode()
        seal = f'{{"checksum": "{hashlib.sha256(body).hexdigest()}", '
        (entry / "commit.json").write_bytes(seal.encode() + body)


def opening(scratch: Path, commits: int, fragments: int, repeats: int) -> dict[str, float]:
    """Measure the opening of a DB of many commits, also on a file system that takes 1 ms to open a file."""
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
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        opened = [line for line in log.read_text().splitlines() if f"{path}/log/0" in line]
        found["opens of entries"] = sum("commit.json" in line for line in opened)
        found["opens of checkpoint tables"] = sum("all-" in line for line in opened)
        found["s with 1 ms added to every open"] = float(done.stdout)
    return found


LIMIT = 10**9
"""Memory in which the squares of Antarctica must be counted and a checkpoint be written, bytes."""

COUNTING = """
import resource, sys
from cryotile.pointdb import PointDB
from cryotile.pointdb.log import Log
from cryotile.pointdb.snapshot import Commit

path = sys.argv[1]
print(len(PointDB(path).squares()))
log = Log(PointDB(path).path / "log")
log.commit(log.load(), Commit(squares=log.table(1, "squares", log.read(1))))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def checkpoint(scratch: Path) -> dict[str, float]:
    """Measure the memory of a checkpoint after 63 commits that each change all squares of Antarctica."""
    path, side = scratch / "squares.pdb", 760
    log = Log(PointDB.create(path, "EPSG:3031").path / "log")
    index = np.arange(3 * side**2)
    kinds = {
        "platform": (index % 3, ["cryosat2", "icesat2", "envisat"]),
        "mode": (index % 3, ["sarin_swath", "laser", "lrm"]),
    }
    times = pa.array(index).cast(SQUARES.field("time_min").type)
    columns = {
        "ix": pa.array((index // 3 % side).astype(np.int32)),
        "iy": pa.array((index // 3 // side).astype(np.int32)),
        **{
            name: pa.DictionaryArray.from_arrays(codes.astype(np.int8), texts)
            for name, (codes, texts) in kinds.items()
        },
        "count": pa.array(np.ones(len(index), np.int64)),
        "digest": pa.array(index.astype(np.uint64)),
        "time_min": times,
        "time_max": times,
    }
    change, snapshot = pa.table(columns, schema=SQUARES), log.load()
    while snapshot.number < 63:
        snapshot = log.commit(snapshot, Commit(squares=change))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))

    begin = time.perf_counter()
    # Other allocators reserve more than they use.
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, str(path)],
        env=environment,
        preexec_fn=limit,
        check=True,
        capture_output=True,
        text=True,
    )
    squares, peak = map(float, done.stdout.split())
    return {
        "squares": squares,
        "s to count them and to write a checkpoint": time.perf_counter() - begin,
        "MB to count them and to write a checkpoint": peak / 1e6,
    }


def antarctica(scratch: Path) -> dict[str, float]:
    """Measure a DB with every chunk of Antarctica, thinned."""
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
    request = {"posting": 1000.0, "radius": 2000.0, "recipe": "plane", "bounds": REGION}
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
    """Estimate values for 10¹¹ points from the measurements of parts that grow with points, fragments or squares."""
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
