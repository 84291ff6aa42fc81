"""Size and speed of the point DB, as ratios within one run: ``make bench-pointdb``.

Every time is compared with that of the least possible work: the same columns read or written by pyarrow alone.
Contenders take turns, and medians are compared.  The last part estimates values for 10¹¹ points.  ``--table FILE``
writes the ratios as a table, ``--plot FILE`` draws them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from growing import antarctica, checkpoint, estimate, opening
from reading import read
from report import draw, goals, write_table
from writing import ingest, size


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=20_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plot", type=Path, default=None)
    parser.add_argument("--table", type=Path, default=None)
    parser.add_argument("--only", default="", help="Measure the parts with this in their name.")
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
        "checkpoint of all squares of Antarctica": checkpoint,
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


if __name__ == "__main__":
    main()
