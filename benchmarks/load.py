"""Load a task-farm server with many workers and people who watch: latency, errors and memory over time.

The server is ``cryotile serve`` with PostgreSQL on this machine, beside its clients::

    PYTHONPATH=. python benchmarks/load.py --output docs/_static

Each worker keeps one connection, and sends one request for each batch of tasks, which settles the batch, with a
thumbnail of each tile, and claims the next one.  Each watcher does what the page of a run does that colours tiles by
dh/dt: it reads the event stream, and asks for tiles, thumbnails, history, workers and failures, one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tests.support.services.farm import FarmServer
from tests.support.services.postgres import Postgres
from tests.support.watched_runs import disc_map, disc_values, packed

from cryotile.farm.http import Site
from cryotile.taskfarm.client import log_in
from farm_clients import WHO, cpu_seconds

# Seconds that a worker works on a batch on average, and tasks of a batch.
THINK, BATCH = 10.0, 3

# Seconds between the last answer to the page and its next question, while the counts change all the time.
ASK = 1.0

# Thumbnails in one answer, at most.
PICTURES = 20_000

# Tiles along a side of the map that the thumbnails are of.
SIDE = 24

# Seconds after which an answer counts as missing.
LIMIT = 30.0

# Seconds between two looks at the memory of the server.
LOOK = 5.0

# Targets: 99th percentile of the duration of a claim, seconds, and largest growth of the memory.
P99, GROWTH = 0.25, 1.1

_PAGE = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass
class Found:
    """What was measured; times are seconds since the start."""

    claims: list[tuple[float, float]] = field(default_factory=list)
    questions: list[tuple[float, float]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)
    events: int = 0
    opened: int = 0
    start: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.start


class Link:
    """A connection to the server that stays open between requests, and is opened again if the server closed it."""

    def __init__(self, port: int, token: str, found: Found) -> None:
        self._port, self._found = port, found
        self._given = (
            f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nAccept-Encoding: gzip\r\n"
        )
        self.reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> asyncio.StreamReader:
        """Connect."""
        self.close()
        self.reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, limit=2**20
        )
        self._found.opened += 1
        return self.reader

    def close(self) -> None:
        """Disconnect."""
        if self._writer is not None:
            self._writer.close()

    async def send(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str]]:
        """Send a request, and return status and headers of the answer."""
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} /api/v1/{path} HTTP/1.1\r\n{self._given}Content-Length: {len(content)}\r\n"
        )
        kind = "Content-Type: application/json\r\n" if content else ""
        for again in (False, True):
            reader = self.reader if self.reader is not None and not again else await self.open()
            try:
                assert self._writer is not None
                self._writer.write(f"{head}{kind}\r\n".encode() + content)
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                break
            except (ConnectionError, asyncio.IncompleteReadError):
                # A connection that was idle may have been closed meanwhile, a new one not.
                if again:
                    raise
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[float, bytes]:
        """Send a request, and return the seconds until the whole answer was there, and the answer."""
        start = time.monotonic()
        async with asyncio.timeout(LIMIT):
            status, headers = await self.send(method, path, body)
            assert self.reader is not None
            content = await self.reader.readexactly(int(headers.get("content-length", 0)))
        if status >= 300:
            raise RuntimeError(f"{method} {path.partition('?')[0].rpartition('/')[2]}: {status}")
        return time.monotonic() - start, content


async def work(number: int, link: Link, run: str, thumbnails: list[str], found: Found) -> None:
    """Do what a worker does, until cancelled."""
    identity = {"uuid": f"worker-{number}", "host": f"node{number // 64}", "pid": number}
    await asyncio.sleep(random.uniform(0, THINK))
    leases: list[dict[str, Any]] = []
    while True:
        token = f"{random.getrandbits(56):x}"
        if leases:
            path = f"runs/{run}/outcomes?worker={identity['uuid']}&claim={BATCH}&token={token}"
            body: Any = [
                {"lease": each["lease"], "seconds": 1.0, "thumbnail": random.choice(thumbnails)}
                for each in leases
            ]
        else:
            path, body = f"runs/{run}/leases", {"worker": identity, "n": BATCH, "token": token}
        try:
            seconds, answer = await link.ask("POST", path, body)
            found.claims.append((found.now(), seconds))
            leases = json.loads(answer)["leases"]
        except (OSError, RuntimeError, TimeoutError, EOFError) as error:
            found.errors[f"{type(error).__name__}: {error}"] += 1
            link.reader = None
        await asyncio.sleep(random.uniform(0, 2 * THINK))


async def refresh(link: Link, path: str, found: Found) -> None:
    """Ask for what the page shows, as it does after changes, until cancelled."""

    async def ask(part: str) -> bytes:
        seconds, content = await link.ask("GET", f"{path}{part}")
        found.questions.append((found.now(), seconds))
        return content

    tiles, pictures = "tiles", "thumbnails?variable=dhdt&detail=1"
    since = after = ""
    while True:
        try:
            _, since = changes(await ask(f"{tiles}{since and f'?since={since}'}"))
            count = PICTURES
            while count == PICTURES:
                count, after = changes(await ask(f"{pictures}{after and f'&since={after}'}"))
            for part in ("history", "workers", "failures"):
                await ask(part)
        except (OSError, RuntimeError, TimeoutError, EOFError) as error:
            found.errors[f"{type(error).__name__}: {error}"] += 1
            link.reader = None
        await asyncio.sleep(ASK)


def changes(answer: bytes) -> tuple[int, str]:
    """Return how many tasks an answer in binary holds, and the time from which to ask for the next changes."""
    _, count, _, after = struct.unpack_from("<IIId", gzip.decompress(answer))
    return count, repr(after)


async def listen(link: Link, found: Found) -> None:
    """Read the event stream, and connect again when it ends, until cancelled."""
    while True:
        try:
            link.reader = None
            await link.send("GET", "events")
            assert link.reader is not None
            while line := await link.reader.readline():
                found.events += line.startswith(b"data:")
        except (OSError, RuntimeError, EOFError) as error:
            found.errors[f"{type(error).__name__}: {error}"] += 1
        await asyncio.sleep(2.0)


async def watch_memory(leader: int, found: Found) -> None:
    """Note the memory of the server's processes, until cancelled."""
    while True:
        found.memory.append((found.now(), memory(leader)))
        await asyncio.sleep(LOOK)


def memory(leader: int) -> float:
    """Return the resident memory of a server's first process and its children, MiB."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(stat.parent.name) == leader or int(fields[1]) == leader:
                total += int(fields[21])
    return total * _PAGE


async def load(
    server: FarmServer,
    token: str,
    run: str,
    thumbnails: list[str],
    *,
    workers: int,
    watchers: int,
    seconds: float,
) -> Found:
    """Let workers and watchers use a server for some time."""
    found = Found()

    def link() -> Link:
        return Link(server.port, token, found)

    jobs = [work(number, link(), run, thumbnails, found) for number in range(workers)]
    for _ in range(watchers):
        jobs.append(listen(link(), found))
        jobs.append(refresh(link(), f"runs/{run}/", found))
    jobs.append(watch_memory(server.server.pid, found))
    tasks = [asyncio.create_task(job) for job in jobs]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
    return found


def report(found: Found, cpu: float, options: argparse.Namespace) -> tuple[str, bool]:
    """Return a table of what was measured, and whether every target is reached."""
    # Connections are opened, and caches are filled, in the first tenth.
    begin = options.seconds / 10
    claims = np.array([seconds for at, seconds in found.claims if at > begin])
    asked = np.array([seconds for at, seconds in found.questions if at > begin])
    used = np.array([amount for at, amount in found.memory if at > begin])
    third = max(1, len(used) // 3)
    growth = float(used[-third:].mean() / used[:third].mean())
    p99, errors = float(np.quantile(claims, 0.99)), sum(found.errors.values())
    marks = {name: "✓" if reached else "✗" for name, reached in (
        ("errors", not errors), ("p99", p99 < P99), ("memory", growth < GROWTH))}  # fmt: skip
    rows = [
        ("requests of workers in a second", f"{len(claims) / (options.seconds - begin):.0f}", ""),
        ("settle and claim, median, ms", f"{1e3 * np.median(claims):.1f}", ""),
        ("settle and claim, 99th percentile, ms", f"{1e3 * p99:.0f} {marks['p99']}", f"< {1e3 * P99:.0f}"),
        ("settle and claim, longest, ms", f"{1e3 * claims.max():.0f}", ""),
        ("questions of the page, median, ms", f"{1e3 * np.median(asked):.1f}", ""),
        ("questions of the page, 99th percentile, ms", f"{1e3 * np.quantile(asked, 0.99):.0f}", ""),
        ("events sent", f"{found.events}", ""),
        ("errors", f"{errors} {marks['errors']}", "0"),
        ("memory of the server, first and last third, MiB",
         f"{used[:third].mean():.0f}, {used[-third:].mean():.0f} {marks['memory']}", f"< {GROWTH:g} times"),
        ("processor time of the server, cores", f"{cpu / options.seconds:.2f}", ""),
    ]  # fmt: skip
    lines = ["| | found | target |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    lines += ["", f"{options.workers} workers, {options.watchers} watchers, {options.seconds / 60:g} minutes, "
              f"{os.cpu_count()} cores shared with the clients; load before {options.before:.1f}."]  # fmt: skip
    lines += [f"{number} times {error}" for error, number in found.errors.most_common(5)]
    return "\n".join(lines), "✗" not in "".join(marks.values())


def plot(found: Found, path: Path) -> None:
    """Plot percentiles of the duration of a claim, and the memory, over time."""
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, figsize=(8, 5), sharex=True, layout="constrained")
    at, seconds = np.array(found.claims).T
    # One value for each thirtieth of the time.
    edges = np.linspace(0, at.max(), 31)
    middles = (edges[1:] + edges[:-1]) / 120
    for share, name in ((0.5, "median"), (0.99, "99th percentile")):
        values = [
            1e3 * np.quantile(part, share)
            if len(part := seconds[(at >= low) & (at <= high)])
            else np.nan
            for low, high in pairwise(edges)
        ]
        above.plot(middles, values, label=name)
    above.axhline(1e3 * P99, color="0.5", linestyle="--", label="target of the 99th percentile")
    above.set(ylabel="settle and claim (ms)", ylim=(0, None))
    above.legend()
    at, amount = np.array(found.memory).T
    below.plot(at / 60, amount)
    below.set(xlabel="time (minutes)", ylabel="memory of the server (MiB)", ylim=(0, None))
    figure.savefig(path)


def main() -> None:
    """Measure, print the table, and write table and plot; exit with 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=2000)
    parser.add_argument("--watchers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--tasks", type=int, default=400_000, help="tasks of the run")
    parser.add_argument("--sqlite", action="store_true", help="SQLite in place of PostgreSQL")
    parser.add_argument(
        "--output", type=Path, help="directory for bench-load.md and bench-load.svg"
    )
    options = parser.parse_args()
    options.before = os.getloadavg()[0]
    # Unwind on a signal, which stops the server.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = "" if options.sqlite else stack.enter_context(Postgres()).url
        server = stack.enter_context(FarmServer(directory, url))
        token = log_in(*WHO, server.seed_url).auth[0]
        site = Site(f"{server.address}/api/v1", auth=(token, ""))
        run = site.ask("POST", "runs", body={"name": "load", "count": options.tasks})["run"]
        layout = disc_map(SIDE)
        thumbnails = [packed(values) for values in disc_values(layout, SIDE)]
        rows, columns = np.divmod(np.arange(options.tasks), round(options.tasks**0.5) + 1)
        layout |= {"columns": columns.tolist(), "rows": rows.tolist()}
        site.ask("PUT", f"runs/{run}/map", body=layout)
        used = cpu_seconds(server.server.pid)
        found = asyncio.run(
            load(
                server,
                token,
                run,
                thumbnails,
                workers=options.workers,
                watchers=options.watchers,
                seconds=options.seconds,
            )
        )
        table, reached = report(found, cpu_seconds(server.server.pid) - used, options)
        said = (directory / "serve.log").read_text()
    print(table)
    print(said, file=sys.stderr)
    if options.output:
        (options.output / "bench-load.md").write_text(f"{table}\n")
        plot(found, options.output / "bench-load.svg")
    sys.exit(not reached)


if __name__ == "__main__":
    main()
