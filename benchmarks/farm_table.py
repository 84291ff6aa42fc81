"""The table of the task-farm server's benchmark, with what is to be reached, and its plot."""

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

BARE, SEED, OURS = "bare PUT", "seed, PostgreSQL", ("PostgreSQL", "SQLite")
COLUMNS = (BARE, SEED, *OURS)


@dataclass(frozen=True)
class Row:
    """What is measured, and what is to be reached.

    Attributes
    ----------
    name : str
        With its unit.
    goal : str
        In words.
    reached : callable
        Tells of a column's value, with all values of the table, whether it is reached.
    """

    name: str
    goal: str
    reached: Callable[[float, Table], bool]


STRESS, RATE = "stress test, 4 clients: requests/s", "stress test, 4 clients: tasks/s"
ROWS = [
    Row(STRESS, "≥ 0.4 of the bare PUT", lambda x, t: x >= 0.4 * t.value(STRESS, BARE)),
    Row(RATE, "≥ 3 times the seed", lambda x, t: x >= 3 * t.value(RATE, SEED)),
    Row("the same beside {rows} rows, of an empty server's", "≥ 0.8", lambda x, _: x >= 0.8),
    Row("mean update, 1 client, ms", "≤ 3", lambda x, _: x <= 3),
    Row("mean update, 16 clients, ms", "≤ 25", lambda x, _: x <= 25),
    Row("server's processor time a request, ms", "≤ 1.2", lambda x, _: x <= 1.2),
    Row("the seed's client, 2 workers: tasks/s", "≥ 100", lambda x, _: x >= 100),
    Row("run info beside {rows} rows, ms", "≤ 5", lambda x, _: x <= 5),
    Row("native run info beside {rows} rows, ms", "≤ 5", lambda x, _: x <= 5),
    Row("restart all of {rows}, s", "≤ 2", lambda x, _: x <= 2),
    Row("our client, 2 workers, empty tasks/s", "≥ 5000", lambda x, _: x >= 5000),
    Row("8 processes claim by 20: tasks/s", "≥ 2000, none twice", lambda x, _: x >= 2000),
    Row("8 processes claim one by one: tasks/s", "none twice", lambda x, _: x > 0),
    Row("the disk syncs 8 KiB in, ms", "as it is", lambda _, __: True),
]
(_, _, BESIDE, UPDATE, UPDATE_16, CPU, SEEDS_CLIENT, INFO, NATIVE_INFO, RESTART, EMPTY, CLAIMS, ONES, SYNC) = (
    row.name for row in ROWS
)  # fmt: skip


@dataclass
class Table:
    """Results by row and column; several of one place are measured again, and their median counts."""

    size: int
    rows: int
    found: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, row: str, column: str, value: float) -> None:
        """Note a result, and say it."""
        self.found[row, column].append(value)
        print(f"{row.format(rows=self.rows)}, {column}: {value:.4g}", file=sys.stderr, flush=True)

    def value(self, row: str, column: str) -> float:
        """Return a result; not a number when there is none."""
        return median(self.found.get((row, column), [float("nan")]))

    @contextmanager
    def trying(self, column: str, *rows: str) -> Iterator[None]:
        """Go on if the measurement of some rows fails, and show that it did."""
        try:
            yield
        # A service that is not to be had ends a test, in pytest's way.
        except (Exception, OutcomeException) as error:  # noqa: BLE001 - whatever it is, the other rows go on
            traceback.print_exc()
            said = " ".join(f"{type(error).__name__}: {error}".split())[:100]
            self.failed |= {(row, column): said for row in rows}

    def cell(self, row: Row, column: str) -> str:
        """Say what came out, with ✓ or ✗ where something is to be reached."""
        if (row.name, column) in self.failed:
            return f"failed ({self.failed[row.name, column]})"
        if (row.name, column) not in self.found:
            return ""
        value = self.value(row.name, column)
        mark = f" {'✓' if row.reached(value, self) else '✗'}" if column in OURS else ""
        return f"{value:.3g}{mark}"

    def text(self) -> str:
        """Return it as Markdown."""
        lines = [f"| | {' | '.join(COLUMNS)} | to reach |", "|---" * (len(COLUMNS) + 2) + "|"]
        for row in ROWS:
            cells = " | ".join(self.cell(row, column) for column in COLUMNS)
            lines.append(f"| {row.name.format(rows=f'{self.rows:,}')} | {cells} | {row.goal} |")
        return "\n".join(lines)


def plot(table: Table, path: Path) -> None:
    """Plot each row's values, relative to the largest."""
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
    names = [f"{row.name.format(rows=f'{table.rows:,}')}\nto reach: {row.goal}" for row in ROWS]
    axes.set_yticks([number + 0.4 - height / 2 for number in range(len(ROWS))], names, fontsize=8)
    axes.set(xticks=[], xlim=(0, 1.15))
    axes.invert_yaxis()
    axes.legend(handles, COLUMNS, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=5)
    figure.savefig(path)
