"""The task-farm server beside the seed's, and beside a bare PUT: table, and plot if asked for.

All run under gunicorn with two processes, on this machine, with their clients beside them; PostgreSQL with fsync::

    PYTHONPATH=tests python benchmarks/taskfarm.py --plot docs/_static/bench-taskfarm.svg

Clients are ours, so that all servers are asked alike; only the row of the seed's client is its own program.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
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

from cryotile.backends import open_backend
from cryotile.ledgers.http import HTTPLedger
from cryotile.task import Outcome, Task
from cryotile.taskfarm import TaskFarm, TaskFarmWorker
from cryotile.web import Site
from nothing import do_nothing
from services.farm import PASSWORD, USER, FarmServer, await_answer, free_port
from services.postgres import Postgres
from services.seed import SeedServer, seed_client

WHO = (USER, PASSWORD)
UPDATES = 10
SPAWN = mp.get_context("spawn")
TICKS = os.sysconf("SC_CLK_TCK")

LOOP = """
    import sys, time
    from taskfarm_worker import TaskFarmWorker
    tf = TaskFarmWorker(*sys.argv[1:4], url_base=sys.argv[4])
    for t in tf.tasks:
        tf.update(50)
        tf.update(100)
        tf.done()
"""


def clients(count: int, work: Callable[..., Any], *given: Any) -> tuple[list[Any], float]:
    """Let so many processes work at the same time: what each returns, and the seconds from start to the last's end."""
    barrier, results = SPAWN.Barrier(count + 1), SPAWN.SimpleQueue()
    processes = [
        SPAWN.Process(target=_client, args=(barrier, results, work, given)) for _ in range(count)
    ]
    for process in processes:
        process.start()
    barrier.wait(120)
    start = time.perf_counter()
    found = [results.get() for _ in processes]
    seconds = time.perf_counter() - start
    for process in processes:
        process.join()
    if None in found:
        raise RuntimeError("a client has failed; what it printed says why")
    return found, seconds


def _client(barrier: Any, results: Any, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    prepared = work(*given)
    barrier.wait(120)
    result = None
    try:
        result = prepared()
    finally:
        # Who waits for all is not to wait for ever for one that failed.
        results.put(result)


def stress(url: str, run: str, tasks: int) -> Callable[[], list[float]]:
    """The seed's stress test: claim, ten updates, done; the seconds of each update."""
    farm = TaskFarmWorker(*WHO, run, url_base=url)

    def go() -> list[float]:
        times = []
        for _ in range(tasks):
            assert farm.task is not None
            for update in range(1, UPDATES + 1):
                start = time.perf_counter()
                farm.update(100 * update / UPDATES)
                times.append(time.perf_counter() - start)
            farm.done()
        return times

    return go


def put(url: str, count: int) -> Callable[[], int]:
    """Ask the bare server."""
    site = Site(url, auth=("token", ""))
    site.ask("PUT", "api/task", body={"percentCompleted": 1})

    def go() -> int:
        for _ in range(count):
            site.ask("PUT", "api/task", body={"percentCompleted": 50})
        return count

    return go


def empty_tasks(url: str, key: str, count: int) -> Callable[[], list[Outcome]]:
    """Work on a list of empty tasks with one child."""
    tasks = [Task(index, 0.0) for index in range(count)]
    farm = open_backend(f"{url}?children=1", home=None, key=key)
    return lambda: list(farm.run(tasks, do_nothing))


def cpu_seconds(leader: int) -> float:
    """Processor time that a server's processes have used: the first, and its children."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat.parent.name) == leader or int(fields[1]) == leader:
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


class Table:
    """Results by row and server."""

    def __init__(self, columns: list[str]) -> None:
        self.columns = columns
        self.rows: dict[str, dict[str, float]] = {}

    def add(self, row: str, column: str, value: float) -> None:
        """Note a result, and say it."""
        self.rows.setdefault(row, {})[column] = value
        print(f"{row}, {column}: {value:.4g}", file=sys.stderr, flush=True)

    def text(self) -> str:
        """Return it as Markdown."""
        lines = ["| |" + "|".join(self.columns) + "|", "|---" * (len(self.columns) + 1) + "|"]
        for row, values in self.rows.items():
            cells = (f"{values[name]:.3g}" if name in values else "" for name in self.columns)
            lines.append(f"| {row} |" + "|".join(cells) + "|")
        return "\n".join(lines)


def measure_seed_api(table: Table, column: str, url: str, leader: int, size: int) -> None:
    """Measure what both servers know: the stress test, with four clients, then with one and with 16."""
    for count, tasks in ((4, size), (1, size), (16, max(1, size // 8))):
        run = TaskFarm(*WHO, numTasks=count * tasks, url_base=url).uuid
        used = cpu_seconds(leader)
        found, seconds = clients(count, stress, url, run, tasks)
        # A claim, the updates, and done; the percentage is part of the claim's answer.
        requests = count * tasks * (UPDATES + 2)
        if count == 4:
            table.add("stress, 4 clients: requests/s", column, requests / seconds)
            table.add("stress, 4 clients: tasks/s", column, count * tasks / seconds)
            used = cpu_seconds(leader) - used
            table.add("processor time of the server a request, ms", column, 1e3 * used / requests)
        else:
            times = [each for part in found for each in part]
            table.add(f"mean update, {count} clients, ms", column, 1e3 * mean(times))


def measure_seed_client(table: Table, column: str, url: str, python: Path, tasks: int) -> None:
    """Measure the seed's own client: two workers that update each task twice."""
    run = TaskFarm(*WHO, numTasks=tasks, url_base=url)
    command = [str(python), "-c", textwrap.dedent(LOOP), *WHO, run.uuid, url]
    start = time.perf_counter()
    workers = [subprocess.Popen(command, env={}, stderr=subprocess.DEVNULL) for _ in range(2)]
    for worker in workers:
        worker.wait()
    seconds = time.perf_counter() - start
    table.add("the seed's client, 2 workers: tasks/s", column, run.numDone / seconds)


def measure_native(table: Table, column: str, url: str, size: int) -> None:
    """Measure our client with leases in batches: two workers, empty tasks."""
    key, count = f"{uuid.uuid4().hex}/1", 200 * size
    HTTPLedger(url, key).enroll([Task(index, 0.0) for index in range(count)])
    _, seconds = clients(2, empty_tasks, url, key, count)
    table.add("our client, 2 workers, empty tasks: tasks/s", column, count / seconds)


def measure_full(table: Table, column: str, server: FarmServer, rows: int) -> None:
    """Measure what a run of many tasks, all with their rows, makes of asking and of restarting."""
    run = TaskFarm(*WHO, numTasks=rows, url_base=server.seed_url)
    site = Site(f"{server.address}/api/v1", auth=WHO)
    worker = {"uuid": uuid.uuid4().hex, "host": "bench", "pid": os.getpid()}
    for _ in range(-(-rows // 10_000)):
        site.ask("POST", f"runs/{run.uuid}/leases", body={"worker": worker, "n": 10_000})
    times = []
    for _ in range(20):
        start = time.perf_counter()
        run.info("")
        times.append(time.perf_counter() - start)
    table.add(f"run info, {rows} rows, ms", column, 1e3 * mean(times))
    start = time.perf_counter()
    run.restart(everything=True)
    table.add(f"restart all of {rows}, s", column, time.perf_counter() - start)


@contextmanager
def bare_server(directory: Path) -> Iterator[tuple[str, int]]:
    """Serve the bare PUT: its address, and its first process."""
    url, log = f"http://127.0.0.1:{(port := free_port())}", directory / "bare.log"
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}"]
    # As ours does: threads keep connections open.
    command += ["-k", "gthread", "--threads", "8", "--chdir", str(Path(__file__).parent)]
    with log.open("wb") as output:
        server = subprocess.Popen([*command, "bare:create_app()"], stdout=output, stderr=output)
    await_answer(url, server, log)
    yield url, server.pid
    server.terminate()
    server.wait()


def plot(table: Table, path: Path) -> None:
    """Plot each row's values, relative to the largest."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.75 * len(table.rows) + 1), layout="constrained")
    height = 0.8 / len(table.columns)
    for place, column in enumerate(table.columns):
        for row, values in enumerate(table.rows.values()):
            if column in values:
                y = row + place * height
                width = values[column] / max(values.values())
                axes.barh(y, width, height, color=f"C{place}", label=column if row == 0 else None)
                axes.text(width, y, f" {values[column]:.3g}", va="center", fontsize=7)
    for place, column in enumerate(table.columns):
        axes.barh(0, 0, color=f"C{place}", label=column)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(table.rows))], list(table.rows))
    axes.set(xticks=[], xlim=(0, 1.15))
    axes.invert_yaxis()
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(
        unique.values(), unique.keys(), loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=5
    )
    figure.savefig(path)


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=100, help="tasks a client in the stress test")
    parser.add_argument("--rows", type=int, default=1_000_000, help="tasks in the full database")
    parser.add_argument(
        "--environments", type=Path, default=Path("build/bench"), help="for the seed"
    )
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    table = Table(["bare PUT", "seed, PostgreSQL", "PostgreSQL", "SQLite"])
    python = seed_client(options.environments.resolve() / "client") / "python"
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def directory(name: str) -> Path:
            (scratch / name).mkdir()
            return scratch / name

        with bare_server(directory("bare")) as (url, leader):
            used, count = cpu_seconds(leader), 12 * options.size
            _, seconds = clients(4, put, url, count)
            used = cpu_seconds(leader) - used
            table.add("stress, 4 clients: requests/s", "bare PUT", 4 * count / seconds)
            table.add(
                "processor time of the server a request, ms", "bare PUT", 1e3 * used / (4 * count)
            )
        postgres = stack.enter_context(Postgres())
        place = options.environments.resolve() / "server"
        theirs = SeedServer(place, directory("seed"), database_url=postgres.url, processes=2)
        with theirs:
            measure_seed_api(
                table, "seed, PostgreSQL", theirs.seed_url, theirs.server.pid, options.size // 5
            )
            measure_seed_client(table, "seed, PostgreSQL", theirs.seed_url, python, options.size)
        for column in ("PostgreSQL", "SQLite"):
            url = stack.enter_context(Postgres()).url if column == "PostgreSQL" else ""
            with FarmServer(directory(column), url) as ours:
                measure_seed_api(table, column, ours.seed_url, ours.server.pid, options.size)
                measure_seed_client(table, column, ours.seed_url, python, 4 * options.size)
                measure_native(table, column, ours.url, options.size)
                measure_full(table, column, ours, options.rows)
                run = TaskFarm(*WHO, numTasks=4 * options.size, url_base=ours.seed_url).uuid
                _, seconds = clients(4, stress, ours.seed_url, run, options.size)
                row = f"stress beside {options.rows} rows: tasks/s"
                table.add(row, column, 4 * options.size / seconds)
    print(table.text())
    if options.plot:
        plot(table, options.plot)


if __name__ == "__main__":
    main()
