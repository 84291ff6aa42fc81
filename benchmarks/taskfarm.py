"""The task-farm server beside the seed's, and beside a bare PUT: a table with what is to be reached, and a plot.

All run under gunicorn with two processes, on this machine, with their clients beside them; PostgreSQL with fsync,
SQLite with synchronous=FULL::

    PYTHONPATH=tests python benchmarks/taskfarm.py

The stress test goes round the servers three times, and medians are shown.  Clients are ours, so that all servers are
asked alike; only the row of the seed's client is its own program.  A row that fails says so, and the others go on.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

from _pytest.outcomes import OutcomeException

from cryotile.ledgers.http import HTTPLedger
from cryotile.ledgers.sql import SQLLedger
from cryotile.task import Task
from cryotile.taskfarm import TaskFarm
from cryotile.web import Site
from farm_clients import UPDATES, WHO, claim_all, clients, cpu_seconds, empty_tasks, put, stress
from services.farm import FarmServer, await_answer, free_port
from services.postgres import Postgres
from services.seed import SeedServer, seed_client

BARE, SEED, OURS = "bare PUT", "seed, PostgreSQL", ("PostgreSQL", "SQLite")
COLUMNS = (BARE, SEED, *OURS)
# Rounds of the stress test, but on a busy machine none is begun after so many seconds.
ROUNDS, PATIENCE = 3, 180.0

# Seconds after which the seed's client is ended.
LIMIT = 240.0

LOOP = """
    import sys
    from taskfarm_worker import TaskFarmWorker
    tf = TaskFarmWorker(*sys.argv[1:4], url_base=sys.argv[4])
    for t in tf.tasks:
        tf.update(50)
        tf.update(100)
        tf.done()
"""


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
    Row("the same beside {rows} rows, of that", "≥ 0.8", lambda x, _: x >= 0.8),
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
]
(_, _, BESIDE, UPDATE, UPDATE_16, CPU, SEEDS_CLIENT, INFO, NATIVE_INFO, RESTART, EMPTY, CLAIMS, ONES) = (
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


def measure_bare(table: Table, url: str, leader: int) -> None:
    """Measure a server that keeps nothing."""
    used, count = cpu_seconds(leader), (UPDATES + 2) * table.size
    _, seconds = clients(4, put, url, count)
    table.add(STRESS, BARE, 4 * count / seconds)
    table.add(CPU, BARE, 1e3 * (cpu_seconds(leader) - used) / (4 * count))


def measure_stress(table: Table, column: str, url: str, leader: int, tasks: int) -> None:
    """Measure the stress test of both servers."""
    run = TaskFarm(*WHO, numTasks=4 * tasks, url_base=url).uuid
    used = cpu_seconds(leader)
    _, seconds = clients(4, stress, url, run, tasks)
    # A claim, the updates, and done; the percentage is part of the claim's answer.
    requests = 4 * tasks * (UPDATES + 2)
    table.add(STRESS, column, requests / seconds)
    table.add(RATE, column, 4 * tasks / seconds)
    table.add(CPU, column, 1e3 * (cpu_seconds(leader) - used) / requests)


def measure_updates(table: Table, column: str, url: str, tasks: int) -> None:
    """Measure how long an update takes, with one client and with 16."""
    for count, row in ((1, UPDATE), (16, UPDATE_16)):
        each = max(2, tasks // count)
        run = TaskFarm(*WHO, numTasks=count * each, url_base=url).uuid
        found, _ = clients(count, stress, url, run, each)
        table.add(row, column, 1e3 * mean(seconds for part in found for seconds in part))


def measure_seed_client(table: Table, column: str, url: str, python: Path, tasks: int) -> None:
    """Measure the seed's own client: two workers that update each task twice."""
    run = TaskFarm(*WHO, numTasks=tasks, url_base=url)
    command = [str(python), "-c", textwrap.dedent(LOOP), *WHO, run.uuid, url]
    start = time.perf_counter()
    workers = [subprocess.Popen(command, env={}, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        for worker in workers:
            worker.wait(LIMIT)
    finally:
        for worker in workers:
            worker.kill()
    seconds = time.perf_counter() - start
    if not (done := run.numDone):
        raise RuntimeError("the seed's client has done nothing")
    table.add(SEEDS_CLIENT, column, done / seconds)


def measure_native(table: Table, column: str, url: str) -> None:
    """Measure our client with leases in batches: two workers, empty tasks."""
    key, count = f"{uuid.uuid4().hex}/1", 1000 * table.size
    HTTPLedger(url, key).enroll([Task(index, 0.0) for index in range(count)])
    done, seconds = clients(2, empty_tasks, url, key, count)
    if sum(done) != count:
        raise RuntimeError(f"{sum(done)} outcomes of {count} tasks")
    table.add(EMPTY, column, count / seconds)


def measure_claims(table: Table, column: str, url: str) -> None:
    """Measure how fast eight processes claim from a database, and see that they get each task once."""
    for row, batch, count in ((CLAIMS, 20, 200 * table.size), (ONES, 1, 20 * table.size)):
        key = f"{uuid.uuid4().hex}/1"
        SQLLedger(url, key).enroll([Task(index, 0.0) for index in range(count)])
        found, seconds = clients(8, claim_all, url, key, batch)
        if sorted(index for part in found for index in part) != list(range(count)):
            raise RuntimeError("a task was claimed twice, or not at all")
        table.add(row, column, count / seconds)


def fill(table: Table, server: FarmServer) -> TaskFarm:
    """Make a run of many tasks that all have their rows."""
    run = TaskFarm(*WHO, numTasks=table.rows, url_base=server.seed_url)
    site = Site(f"{server.address}/api/v1", auth=WHO)
    worker = {"uuid": uuid.uuid4().hex, "host": "bench", "pid": os.getpid()}
    for _ in range(-(-table.rows // 10_000)):
        site.ask("POST", f"runs/{run.uuid}/leases", body={"worker": worker, "n": 10_000})
    return run


def measure_full(table: Table, column: str, server: FarmServer) -> None:
    """Measure what many rows make of claims, of asking and of restarting."""
    run = fill(table, server)
    tasks = table.size
    other = TaskFarm(*WHO, numTasks=4 * tasks, url_base=server.seed_url).uuid
    _, seconds = clients(4, stress, server.seed_url, other, tasks)
    table.add(BESIDE, column, 4 * tasks / seconds / table.value(RATE, column))
    site = Site(f"{server.address}/api/v1", auth=WHO)
    table.add(INFO, column, _milliseconds(lambda: run.info("")))
    table.add(NATIVE_INFO, column, _milliseconds(lambda: site.ask("GET", f"runs/{run.uuid}")))
    start = time.perf_counter()
    run.restart(everything=True)
    table.add(RESTART, column, time.perf_counter() - start)


def _milliseconds(ask: Callable[[], Any]) -> float:
    times = []
    for _ in range(20):
        start = time.perf_counter()
        ask()
        times.append(time.perf_counter() - start)
    return 1e3 * mean(times)


@contextmanager
def bare_server(directory: Path) -> Iterator[tuple[str, int]]:
    """Serve the bare PUT: its address, and its first process."""
    url, log = f"http://127.0.0.1:{(port := free_port())}", directory / "bare.log"
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}"]
    # As ours does: threads keep connections open.
    command += ["-k", "gthread", "--threads", "8", "--chdir", str(Path(__file__).parent)]
    with log.open("wb") as output:
        server = subprocess.Popen([*command, "bare:create_app()"], stdout=output, stderr=output)
    try:
        await_answer(url, server, log)
        yield url, server.pid
    finally:
        server.terminate()
        server.wait()


class Servers:
    """All servers, each with a database of its own; those that do not start are left out."""

    def __init__(self, table: Table, stack: ExitStack, environments: Path) -> None:
        self._scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.bare = self.seed = self.python = None
        self.ours: dict[str, tuple[FarmServer, str]] = {}
        with table.trying(BARE, STRESS):
            self.bare = stack.enter_context(bare_server(self._directory(BARE)))
        with table.trying(SEED, STRESS, RATE, UPDATE, UPDATE_16, CPU):
            url = stack.enter_context(Postgres()).url
            place, directory = environments / "server", self._directory("seed")
            self.seed = stack.enter_context(
                SeedServer(place, directory, database_url=url, processes=2)
            )
        for column in OURS:
            with table.trying(column, *(row.name for row in ROWS)):
                directory = self._directory(column)
                url = f"sqlite:///{directory / 'farm.db'}"
                if column == "PostgreSQL":
                    url = stack.enter_context(Postgres()).url
                self.ours[column] = stack.enter_context(FarmServer(directory, url)), url
        with table.trying(SEED, SEEDS_CLIENT):
            self.python = seed_client(environments / "client") / "python"

    def _directory(self, name: str) -> Path:
        (self._scratch / name).mkdir()
        return self._scratch / name


def measure(table: Table, servers: Servers) -> None:
    """Measure all rows; the seed's server, slow as it is, gets half of the tasks."""
    half, start = max(2, table.size // 2), time.monotonic()
    for turn in range(ROUNDS):
        if turn and time.monotonic() - start > PATIENCE:
            break
        if servers.bare:
            with table.trying(BARE, STRESS, CPU):
                measure_bare(table, *servers.bare)
        if seed := servers.seed:
            with table.trying(SEED, STRESS, RATE, CPU):
                measure_stress(table, SEED, seed.seed_url, seed.server.pid, half)
        for column, (server, _) in servers.ours.items():
            with table.trying(column, STRESS, RATE, CPU):
                measure_stress(table, column, server.seed_url, server.server.pid, table.size)
    if seed:
        with table.trying(SEED, UPDATE, UPDATE_16):
            measure_updates(table, SEED, seed.seed_url, half)
        if servers.python:
            with table.trying(SEED, SEEDS_CLIENT):
                measure_seed_client(table, SEED, seed.seed_url, servers.python, table.size)
    for column, (server, database) in servers.ours.items():
        with table.trying(column, UPDATE, UPDATE_16):
            measure_updates(table, column, server.seed_url, table.size)
        if servers.python:
            with table.trying(column, SEEDS_CLIENT):
                measure_seed_client(table, column, server.seed_url, servers.python, 8 * table.size)
        with table.trying(column, EMPTY):
            measure_native(table, column, server.url)
        with table.trying(column, CLAIMS, ONES):
            measure_claims(table, column, database)
        with table.trying(column, BESIDE, INFO, NATIVE_INFO, RESTART):
            measure_full(table, column, server)


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


def main() -> None:
    """Measure everything, print the table, and write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=100, help="tasks a client in the stress test")
    parser.add_argument("--rows", type=int, default=1_000_000, help="tasks in the full database")
    parser.add_argument(
        "--environments", type=Path, default=Path("build/bench"), help="for the seed"
    )
    parser.add_argument(
        "--output", type=Path, help="directory for bench-taskfarm.md and bench-taskfarm.svg"
    )
    options = parser.parse_args()
    # Ended by a signal, it ends its servers, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    table, before, start = Table(options.size, options.rows), os.getloadavg()[0], time.monotonic()
    with ExitStack() as stack:
        measure(table, Servers(table, stack, options.environments.resolve()))
    told = (
        f"{os.cpu_count()} cores; load before the measurement {before:.1f}; it took "
        f"{(time.monotonic() - start) / 60:.0f} minutes."
    )
    print(f"{table.text()}\n\n{told}")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "bench-taskfarm.md").write_text(f"{table.text()}\n\n{told}\n")
        plot(table, options.output / "bench-taskfarm.svg")


if __name__ == "__main__":
    main()
