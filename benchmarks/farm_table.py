"""The table of the task-farm server's benchmark, with targets, and its plot."""

from __future__ import annotations

import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from _pytest.outcomes import OutcomeException

__all__ = [
    "BARE", "BESIDE", "CLAIMS", "COLUMNS", "CPU", "EMPTY", "INFO", "NATIVE_INFO", "ONES", "OURS", "RATE", "RESTART",
    "ROWS", "SEED", "SEEDS_CLIENT", "STRESS", "SYNC", "UPDATE", "UPDATE_16", "Row", "Table", "plot",
]  # fmt: skip

BARE, SEED, OURS = "bare PUT", "taskfarm 0.4.0, PostgreSQL", ("PostgreSQL", "SQLite")
COLUMNS = (BARE, SEED, *OURS)


@dataclass(frozen=True)
class Row:
    """A measured quantity and its target.

    Attributes
    ----------
    name : str
        Name with its unit.
    goal : str
        Target in words.
    reached : callable
        Returns whether a value reaches the target, given the value and the table.
    """

    name: str
    goal: str
    reached: Callable[[float, Table], bool]


STRESS, RATE = "stress test, 4 clients: requests/s", "stress test, 4 clients: tasks/s"
ROWS = [
    Row(STRESS, "≥ 0.4 of the bare PUT", lambda x, t: x >= 0.4 * t.value(STRESS, BARE)),
    Row(RATE, "≥ 3 times the first server", lambda x, t: x >= 3 * t.value(RATE, SEED)),
    Row("the same beside {rows} rows, relative to an empty server", "≥ 0.8", lambda x, _: x >= 0.8),
    Row("mean update, 1 client, ms", "≤ 3", lambda x, _: x <= 3),
    Row("mean update, 16 clients, ms", "≤ 25", lambda x, _: x <= 25),
    Row("processor time of the server per request, ms", "≤ 1.2", lambda x, _: x <= 1.2),
    Row("the published client, 2 workers: tasks/s", "≥ 100", lambda x, _: x >= 100),
    Row("run info beside {rows} rows, ms", "≤ 5", lambda x, _: x <= 5),
    Row("native run info beside {rows} rows, ms", "≤ 5", lambda x, _: x <= 5),
    Row("restart all of {rows}, s", "≤ 2", lambda x, _: x <= 2),
    Row("our client, 2 workers, empty tasks/s", "≥ 5000", lambda x, _: x >= 5000),
    Row("8 processes claim by 20: tasks/s", "≥ 2000, none twice", lambda x, _: x >= 2000),
    Row("8 processes claim one by one: tasks/s", "none twice", lambda x, _: x > 0),
    Row("the disk syncs 8 KiB in, ms", "no target", lambda _, __: True),
]
(_, _, BESIDE, UPDATE, UPDATE_16, CPU, SEEDS_CLIENT, INFO, NATIVE_INFO, RESTART, EMPTY, CLAIMS, ONES, SYNC) = (
    row.name for row in ROWS
)  # fmt: skip


@dataclass
class Table:
    """Results by row and column; the median counts where a cell was measured several times."""

    size: int
    rows: int
    found: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, row: str, column: str, value: float) -> None:
        """Add a result, and print it."""
        self.found[row, column].append(value)
        print(f"{row.format(rows=self.rows)}, {column}: {value:.4g}", file=sys.stderr, flush=True)

    def value(self, row: str, column: str) -> float:
        """Return a result; NaN if there is none."""
        return median(self.found.get((row, column), [float("nan")]))

    @contextmanager
    def trying(self, column: str, *rows: str) -> Iterator[None]:
        """Show a failure in the cells of some rows, and continue."""
        try:
            yield
        # A missing service raises an outcome of pytest.
        except (Exception, OutcomeException) as error:  # noqa: BLE001 - the other rows continue after any error
            traceback.print_exc()
            said = " ".join(f"{type(error).__name__}: {error}".split())[:100]
            self.failed |= {(row, column): said for row in rows}

    def cell(self, row: Row, column: str) -> str:
        """Return the text of a cell, with ✓ or ✗ if the row has a target."""
        if (row.name, column) in self.failed:
            return f"failed ({self.failed[row.name, column]})"
        if (row.name, column) not in self.found:
            return ""
        value = self.value(row.name, column)
        mark = f" {'✓' if row.reached(value, self) else '✗'}" if column in OURS else ""
        return f"{value:{',.0f' if value >= 1000 else '.3g'}}{mark}"

    def text(self) -> str:
        """Return the table as Markdown."""
        lines = [f"| | {' | '.join(COLUMNS)} | target |", "|---" * (len(COLUMNS) + 2) + "|"]
        for row in ROWS:
            cells = " | ".join(self.cell(row, column) for column in COLUMNS)
            lines.append(f"| {row.name.format(rows=f'{self.rows:,}')} | {cells} | {row.goal} |")
        return "\n".join(lines)


def plot(table: Table, path: Path) -> None:
    """Plot the values of each row, relative to the largest."""
    from matplotlib import pyplot as plt

    height = 0.8 / len(COLUMNS)
    figure, axes = plt.subplots(figsize=(9, 0.75 * len(ROWS) + 1), layout="constrained")
    for number, row in enumerate(ROWS):
        values = {c: table.value(row.name, c) for c in COLUMNS if (row.name, c) in table.found}
        for column, value in values.items():
            place = COLUMNS.index(column)
            y, width = number + place * height, value / max(values.values())
            axes.barh(y, width, height, color=f"C{place}")
            axes.text(width, y, f" {value:.3g}", va="center", fontsize=7)
    handles = [axes.barh(0, 0, color=f"C{place}") for place in range(len(COLUMNS))]
    names = [f"{row.name.format(rows=f'{table.rows:,}')}\ntarget: {row.goal}" for row in ROWS]
    axes.set_yticks([number + 0.4 - height / 2 for number in range(len(ROWS))], names, fontsize=8)
    axes.set(xticks=[], xlim=(0, 1.15))
    axes.invert_yaxis()
    axes.legend(handles, COLUMNS, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=5)
    figure.savefig(path)
