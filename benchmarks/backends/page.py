"""The page of the documentation that the benchmark writes: measured figures and their targets."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from works import Naps

__all__ = ["figure", "write_page"]

Results = dict[str, Any]

PAGE = """\
# How fast they are

<!-- Written by make bench-backends; change benchmarks/backends/page.py instead. -->

All backends and alternatives to them, in one run of `make bench-backends` ({minutes:.0f} minutes) on {cores} cores of
{processor}, Python {python}, {date}; load average {load:.1f} at the beginning{end}. Absolute figures are valid for this
machine only; ratios apply to others, too.{earlier}

```{{figure}} ../_static/backends.svg
:alt: Bars for each backend and each measure of the table below.

The figures of the table; cryotile's backends in blue, others in grey. A cross marks a farm that did not finish.
```

{table}

Empty tasks a second
: Tasks that do nothing, counted after the first tenth, with cryotile's progress and journal on: the overhead of the
  farm itself. The alternatives get each task by its own `submit` and keep no journal (joblib makes batches). {workers}
  workers; {pullers} processes of one worker each for backends that share a ledger. Median of {rounds} rounds.

Start-up
: From launching the command until its first task is done, with those workers; with Dask this includes starting the
  cluster.

All at work
: From launching the command until the last of {pool} workers has started: {pool} interpreters on {cores} cores.

Makespan / ideal
: {count} tasks that sleep {mean:g} s on average, their logarithms normal with σ = {sigma:g}, neighbours alike, on
  {pool} workers, from when all have started. The ideal is the sum divided by {pool}, or the longest task, whichever is
  more. Costs are known within 20 %, and all get the list costliest first. Cut into equal blocks, in the order of the
  map and without regard to costs, the same tasks would take {blocks:.2f} times the ideal.

Lost to a kill
: The additional time that {killed} naps of {nap:g} s on {hands} workers take if one worker is killed (SIGKILL) in the
  middle of a nap. Differences below 0.1 s are noise.

Map
: The demo's map with ten times its posts, by {workers} workers (`serial`: one): the whole command. {same}

## Targets

{targets}

{lost}"""

HEAD = (
    "backend",
    "empty tasks/s",
    "start-up, s",
    "all at work, s",
    "makespan / ideal",
    "lost to a kill, s",
    "map, s",
)

# Column → measure, key and format.
COLUMNS = (
    ("empty", "rate", ",.0f"),
    ("empty", "start", ".2f"),
    ("makespan", "all there", ".1f"),
    ("makespan", "ratio", ".3f"),
    ("kill", "lost", ".2f"),
    ("map", "seconds", ".1f"),
)


class Target(NamedTuple):
    """A target and the figure reached."""

    what: str
    wanted: str
    reached: str
    good: bool


def figure(results: Results, name: str, measure: str, key: str) -> float | None:
    """Return a contender's figure, the median if there are several; None if it has none."""
    found = results["contenders"].get(name, {}).get(measure)
    rounds = found if isinstance(found, list) else [found or {}]
    values = [each[key] for each in rounds if key in each]
    return statistics.median(values) if values else None


def write_page(results: Results, path: Path) -> str:
    """Write the page and return its tables for the terminal."""
    scale, machine = results["scale"], results["machine"]
    naps, killed = Naps(*scale["naps"]), Naps(*scale["killed"])
    rounds = [each for c in results["contenders"].values() for each in c["empty"]]
    seats = [each["workers"] for each in rounds if "workers" in each] or [0]
    table, targets = _table(results), _targets_table(results)
    text = PAGE.format(
        **{key: machine[key] for key in ("cores", "processor", "python", "date", "load")},
        end=f", {machine['load at end']:.1f} at the end" if "load at end" in machine else "",
        minutes=results["minutes"],
        earlier=_earlier(results),
        table=table,
        workers=min(seats),
        pullers=max(seats),
        rounds=scale["rounds"],
        pool=scale["workers"],
        **naps._asdict(),
        blocks=_equal_blocks(naps, scale["workers"]),
        killed=killed.count,
        nap=killed.mean,
        hands=scale["pool"],
        same=_sameness(results),
        targets=targets,
        lost="\n".join(_losses(results)),
    )
    path.write_text(text.rstrip() + "\n")
    return f"{table}\n\n{targets}"


def _earlier(results: Results) -> str:
    """Return a sentence about the measures of an earlier run."""
    kept = results.get("earlier")
    return f" Measured in an earlier run: {', '.join(kept)}." if kept else ""


def _table(results: Results) -> str:
    lines = [_row(HEAD), _row(["---", *["---:"] * len(COLUMNS)])]
    for name in results["contenders"]:
        cells = [_cell(results, name, *column) for column in COLUMNS]
        lines.append(_row([f"`{name}`", *cells]))
    return "\n".join(lines)


def _cell(results: Results, name: str, measure: str, key: str, form: str) -> str:
    value = figure(results, name, measure, key)
    if value is not None:
        return format(value, form)
    return "lost" if "reason" in results["contenders"][name].get(measure, {}) else "–"


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _targets_table(results: Results) -> str:
    lines = [_row(["", "target", "reached", ""]), _row(["---", "---:", "---:", "---"])]
    lines += [
        _row([what, wanted, reached, "yes" if good else "**missed**"])
        for what, wanted, reached, good in _targets(results)
    ]
    return "\n".join(lines)


def _targets(results: Results) -> Iterator[Target]:
    """Yield the targets whose figures were measured."""
    for ours, other, times in (("local", "ProcessPoolExecutor", 2), ("mpi", "MPICommExecutor", 5)):
        rate, yardstick = (figure(results, name, "empty", "rate") for name in (ours, other))
        if rate and yardstick:
            ratio = rate / yardstick
            what = f"`{ours}`: empty tasks per second over those of `{other}`’s `submit`"
            yield Target(what, f"≥ {times}", f"{ratio:.1f}", ratio >= times)
    if rate := figure(results, "dir", "empty", "rate"):
        yield Target(
            "`dir`: empty tasks per second of 8 processes", "≥ 4,000", f"{rate:,.0f}", rate >= 4000
        )
    even = ("local", "mpi", "dir", "sqlite", "postgresql", "http", "executor(loky)", "dask")
    makespans = dict.fromkeys(even, 1.02) | {"array": 1.05}
    for name, most in makespans.items():
        if ratio := figure(results, name, "makespan", "ratio"):
            yield Target(
                f"`{name}`: makespan over ideal", f"≤ {most}", f"{ratio:.3f}", ratio <= most
            )
    if share := results.get("coordinator", {}).get("share"):
        what = "`mpi`: share of a core that rank 0 uses, 1000 workers with a million tasks of 10 s"
        yield Target(what, "< 10 %", f"{100 * share:.1f} %", share < 0.1)
    if seconds := results.get("joining"):
        what = "`dir`: time until a new worker holds tasks, 95 % of 400,000 tasks settled"
        yield Target(what, "≤ 5 s", f"{seconds:.2f} s", seconds <= 5)


def _equal_blocks(naps: Naps, workers: int) -> float:
    """Return makespan over ideal of an array job whose members take equal numbers of consecutive tasks."""
    seconds = naps.seconds()
    bounds = [len(seconds) * member // workers for member in range(workers + 1)]
    blocks = [sum(seconds[low:high]) for low, high in itertools.pairwise(bounds)]
    return max(blocks) / naps.ideal(workers)


def _sameness(results: Results) -> str:
    maps = [
        c["map"]["digest"] for c in results["contenders"].values() if "digest" in c.get("map", {})
    ]
    if not maps:
        return ""
    return (
        "All wrote the same tiles, byte for byte." if len(set(maps)) == 1 else "**Tiles differ.**"
    )


def _losses(results: Results) -> Iterator[str]:
    """Yield the section about contenders that did not finish."""
    losses = [
        (name, measure, found["reason"])
        for name, contender in results["contenders"].items()
        for measure in ("makespan", "kill", "map")
        if "reason" in (found := contender.get(measure, {}))
    ]
    if not losses:
        return
    yield "## Contenders that did not finish\n"
    yield "With their own error messages:\n"
    for name, measure, reason in losses:
        shown = reason if len(reason) < 160 else f"{reason[:160].rpartition(' ')[0]} …"
        yield f"- `{name}`, {measure}: {shown.replace('*', '')}"
