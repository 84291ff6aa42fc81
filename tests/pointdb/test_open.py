"""The cost of opening a point DB does not grow with its history."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cryotile.pointdb import PointDB
from tests.support.made_up import granule, points, with_points
from tests.support.services.provide import provide


def opened(path: Path, log: Path) -> list[str]:
    """Return the files of the log that a process opens when it opens the DB, traced by strace."""
    strace = provide(["strace"], ["strace"])["strace"]
    program = "import sys; from cryotile.pointdb import PointDB; PointDB(sys.argv[1])"
    command = [
        strace,
        "-f",
        "-e",
        "trace=open,openat",
        "-o",
        str(log),
        sys.executable,
        "-c",
        program,
    ]
    subprocess.run([*command, str(path)], check=True)
    return [line.split('"')[1] for line in log.read_text().splitlines() if f"{path}/log/" in line]


def test_one_checkpoint_and_at_most_64_later_entries_are_read(tmp_path: Path) -> None:
    db = PointDB.create(tmp_path / "a.pdb", "EPSG:3031")
    for seed in range(127):
        db.append([with_points(granule(seed), points(seed, 3).head(0))])
    # 127 is the worst case: 64 is a checkpoint, 63 commits follow it, and the next would be a checkpoint.
    files = opened(db.path, tmp_path / "strace.txt")
    entries = {name.split("/")[-2] for name in files if name.endswith("commit.json")}
    tables = [name for name in files if "/all-" in name]
    assert entries == {f"{number:08d}" for number in range(64, 128)}
    assert sorted(Path(name).name for name in tables) == [
        "all-fragments.parquet",
        "all-granules.parquet",
    ]
    assert not [name for name in files if name.endswith("squares.parquet") and "all-" not in name]
