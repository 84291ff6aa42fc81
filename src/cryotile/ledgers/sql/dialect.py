"""Statements in the dialects of SQLite and PostgreSQL.

The dialects differ in a few words, which are written in brackets: ``[now]`` is the database's clock, ``[given]`` makes
rows of the JSON list ``:given``, ``[locked]`` locks the rows of a query and skips those that others have locked,
``[lock]`` waits for these, ``[minute]`` is the minute in which a task was settled.  SQLite has one writer at a time, so
it needs no locks.  But its planner does not know how many rows are in which state, so ``[waiting]``, ``[leased]``,
``[failed]``, ``[begun]`` and ``[settled]`` name the index, and ``given`` is MATERIALIZED, so that its rows are looked
up in ``tasks`` and not the other way round.

A statement that changes the state of tasks returns, for each task, the change of the counts of its run; the columns
``+leased`` to ``+timed_product`` are added to the tally of the worker in the same transaction.  On PostgreSQL both are
one statement, which needs no transaction around it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult, Row

__all__ = ["ADD_TALLY_SQL", "COUNTS", "MARK_INTERVAL", "WITH_TALLY", "Statement", "TaskUpdate"]

_WORDS = {
    "sqlite": {
        "[now]": "((julianday('now') - 2440587.5) * 86400.0)",
        "[given]": "json_each(:given)",
        "[locked]": "",
        "[lock]": "",
        "[waiting]": "INDEXED BY tasks_waiting",
        "[leased]": "INDEXED BY tasks_leased",
        "[failed]": "INDEXED BY tasks_failed",
        "[begun]": "INDEXED BY tasks_begun",
        "[settled]": "INDEXED BY tasks_settled",
        "[minute]": "CAST(settled / 60 AS integer)",
    },
    "postgresql": {
        "[now]": "CAST(extract(epoch FROM clock_timestamp()) AS float8)",
        # The condition is always true; the planner takes it for rare, and so looks each row up in ``tasks``.
        "[given]": "(SELECT value FROM json_array_elements(CAST(:given AS json)) WHERE json_typeof(value) = 'array') x",
        "[locked]": "FOR UPDATE SKIP LOCKED",
        "[lock]": "FOR UPDATE",
        "[waiting]": "",
        "[leased]": "",
        "[failed]": "",
        "[begun]": "",
        "[settled]": "",
        "[minute]": "CAST(floor(settled / 60) AS bigint)",
    },
}

# Sets of parameters sent at a time.
_QUEUED = 64

COUNTS = (
    "leased", "done", "failed", "returned", "attempts", "cost",
    "timed", "timed_cost", "timed_seconds", "timed_cost2", "timed_seconds2", "timed_product",
)  # fmt: skip
"""Columns of a tally that a change of tasks adds to."""

MARK_INTERVAL = 300.0
"""Seconds between two marks of a tally: the rate since the last but one is of the last 5 to 10 minutes."""

# add_tally: a worker's part of the counts of a run, when it was seen, and its marks.
_LATER = f"CASE WHEN excluded.seen > tallies.mark_at + {MARK_INTERVAL} THEN"
_MARKS = f"""
    last_at = {_LATER} tallies.mark_at ELSE tallies.last_at END,
    last_done = {_LATER} tallies.mark_done ELSE tallies.last_done END,
    last_seconds = {_LATER} tallies.mark_seconds ELSE tallies.last_seconds END,
    mark_done = {_LATER} tallies.done ELSE tallies.mark_done END,
    mark_seconds = {_LATER} tallies.timed_seconds ELSE tallies.mark_seconds END,
    mark_at = {_LATER} excluded.seen ELSE tallies.mark_at END
"""
_ADD = f"""
ON CONFLICT (run_id, worker_id) DO UPDATE SET
    seen = excluded.seen, {_MARKS},
    {", ".join(f"{n} = tallies.{n} + excluded.{n}" for n in COUNTS)}
"""
_INTO = f"INSERT INTO tallies (run_id, worker_id, seen, mark_at, last_at, {', '.join(COUNTS)})"
_VALUES = ", ".join(f":{name}" for name in COUNTS)
ADD_TALLY_SQL = f"{_INTO} VALUES (:run, :worker, [now], [now], [now], {_VALUES}) {_ADD}"
WITH_TALLY = f"""
, tally AS (
    {_INTO}
    SELECT CAST(:run AS bigint), CAST(:worker AS bigint), [now], [now], [now],
           {", ".join(f'coalesce(sum("+{name}"), 0)' for name in COUNTS)}
    FROM change {_ADD}
)
"""


class Statement:
    """One statement.

    Parameters
    ----------
    sql : str
        The statement, with the words in brackets of this module.
    """

    def __init__(self, sql: str) -> None:
        self._texts = {dialect: _translate(sql, dialect) for dialect in _WORDS}

    def __call__(self, connection: Connection, /, **parameters: Any) -> CursorResult[Any]:
        """Execute it."""
        return connection.exec_driver_sql(self._texts[connection.dialect.name], parameters)

    def many(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        """Execute it for several sets of parameters."""
        # In portions, because drivers copy their queue again and again.
        for first in range(0, len(rows), _QUEUED):
            portion = rows[first : first + _QUEUED]
            connection.exec_driver_sql(self._texts[connection.dialect.name], portion)


class TaskUpdate:
    """An UPDATE of tasks that also adds to the tally of a worker.

    Parameters
    ----------
    sql : str
        The UPDATE without RETURNING; a ``WITH`` clause may come first.
    returning : str
        Columns to return.
    counts : mapping of str to str
        The change of each count by one task, in SQL; 0 by default.
    """

    def __init__(self, sql: str, *, returning: str, counts: Mapping[str, str]) -> None:
        # Changes that are the same for all tasks are not returned with each task.
        self._fixed = {
            name: int(counts.get(name, "0")) for name in COUNTS if _is_fixed(counts, name)
        }
        varying = [name for name in COUNTS if name not in self._fixed]
        told = "".join(f', {counts[name]} AS "+{name}"' for name in varying)
        self._varying = varying
        self._sqlite = _translate(f"{sql} RETURNING {returning}{told}", "sqlite")
        self._add_tally = _translate(ADD_TALLY_SQL, "sqlite")
        added = ", ".join(f'{counts.get(name, "0")} AS "+{name}"' for name in COUNTS)
        queries, _, update = f"{sql} RETURNING {returning}, {added}".rpartition("UPDATE tasks")
        chained = f"{queries.rstrip()}, " if "WITH " in queries else f"{queries}WITH "
        columns = returning.replace("tasks.", "")
        self._postgresql = _translate(
            f"{chained} change AS (UPDATE tasks{update}) {WITH_TALLY} SELECT {columns} FROM change",
            "postgresql",
        )

    def __call__(self, connection: Connection, /, **parameters: Any) -> Sequence[Row[Any]]:
        """Execute it; ``run`` and ``worker`` must be among the parameters."""
        if connection.dialect.name == "postgresql":
            return connection.exec_driver_sql(self._postgresql, parameters).all()
        rows = connection.exec_driver_sql(self._sqlite, parameters).all()
        totals = {name: each * len(rows) for name, each in self._fixed.items()}
        # Column by column: fewer statements of Python a task.
        columns = list(zip(*rows, strict=True))[-len(self._varying) :] if self._varying else []
        totals |= dict.fromkeys(self._varying, 0)
        totals |= {n: sum(column) for n, column in zip(self._varying, columns, strict=False)}
        tally = {"run": parameters["run"], "worker": parameters["worker"], **totals}
        connection.exec_driver_sql(self._add_tally, tally)
        return rows


def _is_fixed(counts: Mapping[str, str], name: str) -> bool:
    return counts.get(name, "0").lstrip("-").isdecimal()


def _translate(sql: str, dialect: str) -> str:
    """Return a statement for the driver of a dialect, which SQLAlchemy then passes on as it is."""
    for word, meaning in _WORDS[dialect].items():
        sql = sql.replace(word, meaning)
    return re.sub(r":(\w+)", r"%(\1)s", sql) if dialect == "postgresql" else sql
