"""Compare the task-farm server with the first one and with a bare PUT: a table with targets, and a plot.

All run under gunicorn with two processes on this machine, beside their clients; PostgreSQL with fsync, SQLite with
synchronous=FULL::

    PYTHONPATH=. python benchmarks/taskfarm.py

The stress test visits the servers three times, and medians are shown.  A full server is compared with an empty one in
turns, because a shared disk syncs a block in a tenth of a millisecond at one time and in ten at another (last row).
Clients are ours, so that all servers get the same requests; only the row of the published client is its own program.
If a row fails, the table says so and the others continue.
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
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

from tests.support.services.farm import FarmServer, await_answer
from tests.support.services.ports import free_port
from tests.support.services.postgres import Postgres
from tests.support.services.seed import SeedServer, seed_client

from cryotile.farm.http import Site
from cryotile.farm.task import Task
from cryotile.ledgers.http import HttpLedger
from cryotile.ledgers.sql.ledger import SqlLedger
from cryotile.taskfarm import TaskFarm
from farm_clients import UPDATES, WHO, claim_all, clients, cpu_seconds, empty_tasks, put, stress
from farm_table import (
    BARE,
    BESIDE,
    CLAIMS,
    CPU,
    EMPTY,
    INFO,
    NATIVE_INFO,
    ONES,
    OURS,
    RATE,
    RESTART,
    ROWS,
    SEED,
    SEEDS_CLIENT,
    STRESS,
    SYNC,
    UPDATE,
    UPDATE_16,
    Table,
    plot,
)

# Number of syncs of the disk, and bytes of each, as a database does.
SYNCS, BLOCK = 50, 8192
# Rounds of the stress test; on a busy machine, no round begins after PATIENCE seconds.
ROUNDS, PATIENCE = 3, 180.0

# Seconds after which the published client is killed.
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


def measure_bare(table: Table, url: str, leader: int) -> None:
    """Measure a server that stores nothing."""
    used, count = cpu_seconds(leader), (UPDATES + 2) * table.size
    _, seconds = clients(4, put, url, count)
    table.add(STRESS, BARE, 4 * count / seconds)
    table.add(CPU, BARE, 1e3 * (cpu_seconds(leader) - used) / (4 * count))


def measure_disk(table: Table, directory: Path) -> None:
    """Measure the sync of the disk that every transaction waits for."""
    with (directory / "block").open("wb") as file:
        for _ in range(SYNCS):
            start = time.perf_counter()
            os.pwrite(file.fileno(), bytes(BLOCK), 0)
            os.fdatasync(file.fileno())
            table.found[SYNC, BARE].append(1e3 * (time.perf_counter() - start))


def measure_stress(table: Table, column: str, url: str, leader: int, tasks: int) -> None:
    """Measure the stress test on a server."""
    run = TaskFarm(*WHO, numTasks=4 * tasks, url_base=url).uuid
    used = cpu_seconds(leader)
    _, seconds = clients(4, stress, url, run, tasks)
    # A claim, the updates, and done; the percentage is part of the claim's answer.
    requests = 4 * tasks * (UPDATES + 2)
    table.add(STRESS, column, requests / seconds)
    table.add(RATE, column, 4 * tasks / seconds)
    table.add(CPU, column, 1e3 * (cpu_seconds(leader) - used) / requests)


def measure_updates(table: Table, column: str, url: str, tasks: int) -> None:
    """Measure the duration of an update, with one client and with 16."""
    for count, row in ((1, UPDATE), (16, UPDATE_16)):
        each = max(2, tasks // count)
        run = TaskFarm(*WHO, numTasks=count * each, url_base=url).uuid
        found, _ = clients(count, stress, url, run, each)
        table.add(row, column, 1e3 * mean(seconds for part in found for seconds in part))


def measure_seed_client(table: Table, column: str, url: str, python: Path, tasks: int) -> None:
    """Measure the published client: two workers that update each task twice."""
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
        raise RuntimeError("the published client has done no task")
    table.add(SEEDS_CLIENT, column, done / seconds)


def measure_native(table: Table, column: str, url: str) -> None:
    """Measure our client with leases in batches: two workers on empty tasks."""
    key, count = f"{uuid.uuid4().hex}/1", 1000 * table.size
    HttpLedger(url, key).enroll([Task(index, 0.0) for index in range(count)])
    done, seconds = clients(2, empty_tasks, url, key, count)
    if sum(done) != count:
        raise RuntimeError(f"{sum(done)} outcomes of {count} tasks")
    table.add(EMPTY, column, count / seconds)


def measure_claims(table: Table, column: str, url: str) -> None:
    """Measure how fast eight processes claim from a database, and check that they get each task once."""
    for row, batch, count in ((CLAIMS, 20, 200 * table.size), (ONES, 1, 20 * table.size)):
        key = f"{uuid.uuid4().hex}/1"
        SqlLedger(url, key).enroll([Task(index, 0.0) for index in range(count)])
        found, seconds = clients(8, claim_all, url, key, batch)
        if sorted(index for part in found for index in part) != list(range(count)):
            raise RuntimeError("a task was claimed twice or not at all")
        table.add(row, column, count / seconds)


def fill(table: Table, server: FarmServer) -> TaskFarm:
    """Create a run of many tasks that all have rows of their own."""
    run = TaskFarm(*WHO, numTasks=table.rows, url_base=server.seed_url)
    site = Site(f"{server.address}/api/v1", auth=WHO)
    worker = {"uuid": uuid.uuid4().hex, "host": "bench", "pid": os.getpid()}
    for _ in range(-(-table.rows // 10_000)):
        site.ask("POST", f"runs/{run.uuid}/leases", body={"worker": worker, "n": 10_000})
    return run


def measure_full(table: Table, column: str, server: FarmServer, directory: Path) -> None:
    """Measure claims, questions and restarts beside many rows."""
    run = fill(table, server)
    with our_server(column, directory) as (empty, _):
        for _ in range(ROUNDS):
            alone, beside = (_stress_seconds(each, table.size) for each in (empty, server))
            table.add(BESIDE, column, alone / beside)
    site = Site(f"{server.address}/api/v1", auth=WHO)
    table.add(INFO, column, _milliseconds(lambda: run.info("")))
    table.add(NATIVE_INFO, column, _milliseconds(lambda: site.ask("GET", f"runs/{run.uuid}")))
    start = time.perf_counter()
    run.restart(everything=True)
    table.add(RESTART, column, time.perf_counter() - start)


def _stress_seconds(server: FarmServer, tasks: int) -> float:
    run = TaskFarm(*WHO, numTasks=4 * tasks, url_base=server.seed_url).uuid
    return clients(4, stress, server.seed_url, run, tasks)[1]


def _milliseconds(ask: Callable[[], Any]) -> float:
    times = []
    for _ in range(20):
        start = time.perf_counter()
        ask()
        times.append(time.perf_counter() - start)
    return 1e3 * mean(times)


@contextmanager
def bare_server(directory: Path) -> Iterator[tuple[str, int]]:
    """Serve the bare PUT; yield its address and the id of its first process."""
    url, log = f"http://127.0.0.1:{(port := free_port())}", directory / "bare.log"
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}"]
    # As our server does: threads keep connections open.
    command += ["-k", "gthread", "--threads", "8", "--chdir", str(Path(__file__).parent)]
    with log.open("wb") as output:
        server = subprocess.Popen([*command, "bare:create_app()"], stdout=output, stderr=output)
    try:
        await_answer(url, server, log)
        yield url, server.pid
    finally:
        server.terminate()
        server.wait()


@contextmanager
def our_server(column: str, directory: Path) -> Iterator[tuple[FarmServer, str]]:
    """Serve with a new database of one kind; yield the server and the address of the database."""
    with ExitStack() as stack:
        url = f"sqlite:///{directory / 'farm.db'}"
        if column == "PostgreSQL":
            url = stack.enter_context(Postgres()).url
        yield stack.enter_context(FarmServer(directory, url)), url


class Servers:
    """All servers that start, each with a database of its own."""

    def __init__(self, table: Table, stack: ExitStack, environments: Path) -> None:
        self.scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.bare = self.seed = self.python = None
        self.ours: dict[str, tuple[FarmServer, str]] = {}
        with table.trying(BARE, STRESS):
            self.bare = stack.enter_context(bare_server(self.directory(BARE)))
        with table.trying(SEED, STRESS, RATE, UPDATE, UPDATE_16, CPU):
            url = stack.enter_context(Postgres()).url
            place, directory = environments / "server", self.directory("seed")
            self.seed = stack.enter_context(
                SeedServer(place, directory, database_url=url, processes=2)
            )
        for column in OURS:
            with table.trying(column, *(row.name for row in ROWS)):
                server = our_server(column, self.directory(column))
                self.ours[column] = stack.enter_context(server)
        with table.trying(SEED, SEEDS_CLIENT):
            self.python = seed_client(environments / "client") / "python"

    def directory(self, name: str) -> Path:
        """Create a directory for a server."""
        (self.scratch / name).mkdir()
        return self.scratch / name


def measure(table: Table, servers: Servers) -> None:
    """Measure all rows; the first server is slow and gets half of the tasks."""
    half, start = max(2, table.size // 2), time.monotonic()
    for turn in range(ROUNDS):
        if turn and time.monotonic() - start > PATIENCE:
            break
        measure_disk(table, servers.scratch)
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
            measure_full(table, column, server, servers.directory(f"{column} empty"))


def main() -> None:
    """Measure everything, print the table, and write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=100, help="tasks per client in the stress test")
    parser.add_argument("--rows", type=int, default=1_000_000, help="tasks in the full database")
    parser.add_argument(
        "--environments",
        type=Path,
        default=Path("build/bench"),
        help="directory of the published programs' environments",
    )
    parser.add_argument(
        "--output", type=Path, help="directory for bench-taskfarm.md and bench-taskfarm.svg"
    )
    options = parser.parse_args()
    # Unwind on a signal, which stops the servers.
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
