"""Runs on a server as workers make them, told to it call by call, so that a test decides what has happened."""

from __future__ import annotations

import base64
import sqlite3
import zlib
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cryotile.farm.http import Site

Values = npt.NDArray[np.uint8]

CELLS = 15
"""Cells along a side of a thumbnail."""

VARIABLES = {
    "dhdt": {"units": "m yr-1", "range": [-2.0, 2.0]},
    "dhdt_sigma": {"units": "m yr-1", "range": [0.0, 0.5]},
    "status": {"flags": {"ok": 0, "no_points": 1, "too_few_points": 2}},
}


class WatchedRun:
    """A run of a server, and what its workers tell.

    Parameters
    ----------
    site : Site
        The server, called as the owner of the run.
    name : str
        Name of the run.
    tasks : int or list
        Number of tasks, or the index and cost of each.
    map : dict, optional
        Where the tasks lie.
    settings : value
        Other fields of the call that creates a run.
    """

    def __init__(
        self,
        site: Site,
        name: str,
        tasks: int | list[list[float]],
        map: dict[str, Any] | None = None,
        **settings: float,
    ) -> None:
        self._site = site
        listed = {"count": tasks} if isinstance(tasks, int) else {"tasks": tasks}
        body = {"key": name, "name": name, **listed, **settings}
        self.uuid = site.ask("POST", "runs", body=body)["run"]
        self.path = f"runs/{self.uuid}"
        if map is not None:
            site.ask("PUT", f"{self.path}/map", body=map)

    def claim(self, n: int = 1, worker: str = "w", host: str = "here") -> list[dict[str, Any]]:
        """Claim tasks as a worker; return its leases."""
        who = {"uuid": worker, "host": host, "pid": 4000 + len(worker)}
        answer = self._site.ask("POST", f"{self.path}/leases", body={"worker": who, "n": n})
        leases: list[dict[str, Any]] = answer["leases"]
        return leases

    def settle(self, leases: list[dict[str, Any]], worker: str = "w", **ending: Any) -> None:
        """End leases; ``ending`` holds seconds, error or thumbnail."""
        self.tell(worker, ({"lease": each["lease"], "seconds": 2.0, **ending} for each in leases))

    def tell(self, worker: str, outcomes: Iterable[dict[str, Any]]) -> None:
        """Send outcomes as a worker."""
        query = {"worker": worker}
        self._site.ask("POST", f"{self.path}/outcomes", body=[*outcomes], query=query)

    def fail(self, n: int, error: str, **claimant: str) -> None:
        """Claim tasks, and let them fail; {} in the error stands for the task."""
        for lease in self.claim(n, **claimant):
            self.settle([lease], claimant.get("worker", "w"), error=error.format(lease["task"]))

    def ask(self, method: str, part: str = "", body: Any = None) -> Any:
        """Call the server about the run, as its owner."""
        return self._site.ask(method, f"{self.path}{part}", body=body)


def disc_map(side: int) -> dict[str, Any]:
    """Return the map of a round ice sheet within a square of tiles."""
    rows, columns = np.nonzero(_radii(side) < 0.97)
    turn = np.linspace(0, 2 * np.pi, 200)
    middle, reach = side / 2, 0.9 * side / 2
    ring = [[-200e3], [-2300e3]] + 15e3 * np.stack(
        [
            middle + reach * (1 + 0.05 * np.sin(5 * turn)) * trig
            for trig in (np.cos(turn), np.sin(turn))
        ]
    )
    return {
        "crs": "EPSG:3413",
        "tile_size": 15e3,
        "origin": [-200e3, -2300e3],
        "columns": columns.tolist(),
        "rows": rows.tolist(),
        "outline": [ring.T.tolist()],
        "thumbnail_shape": [CELLS, CELLS],
        "variables": VARIABLES,
    }


def disc_values(layout: dict[str, Any], side: int) -> Values:
    """Return values of the thumbnails of all tiles, shape (tiles, variables, rows, columns): thinning at the rim."""
    inner = (np.arange(CELLS) + 0.5) / CELLS
    x = np.array(layout["columns"])[:, None, None] + inner[None, None, :]
    y = np.array(layout["rows"])[:, None, None] + inner[None, :, None]
    distance = np.hypot(x - side / 2, y - side / 2) / (0.9 * side / 2)
    ice = distance < 1
    rate = 0.5 - 2.5 * distance**4 + 0.2 * np.sin(x) * np.cos(0.7 * y)
    dhdt = np.where(ice, 1 + np.round(254 * (np.clip(rate, -2, 2) + 2) / 4), 0)
    sigma = np.where(ice, 1 + np.round(254 * np.clip(distance**2 / 2 + 0.05, 0, 1)), 0)
    status = np.where(ice, 1 + 2 * (distance > 0.93), 2)
    return np.stack([dhdt, sigma, status], axis=1).astype("u1")


def packed(values: Values) -> str:
    """Return a thumbnail as an outcome carries it."""
    return base64.b64encode(zlib.compress(values.astype("u1").tobytes(), 9)).decode()


def show_case(site: Site, name: str) -> WatchedRun:
    """Make a run in the middle of its work: six workers, most tiles done, some failed."""
    side = 24
    layout = disc_map(side)
    values = disc_values(layout, side)
    random = np.random.default_rng(7)
    cost = random.lognormal(3, 0.6, len(values))
    tasks = [[index, float(each)] for index, each in enumerate(cost)]
    run = WatchedRun(site, name, tasks, layout, attempts=1)
    for number in range(6):
        worker, host = f"worker{number}", f"node{number:02d}.cluster"
        leases = run.claim(len(values) // 8, worker, host)
        outcomes = [
            {
                "lease": lease["lease"],
                "seconds": float(2 * cost[lease["task"]] * random.lognormal(0, 0.3)),
                "thumbnail": packed(values[lease["task"]]),
            }
            for lease in leases[3:]
        ]
        run.tell(worker, outcomes)
        memory = {"worker": worker, "memory": (610 + 9 * number) * 2**20}
        site.ask("PATCH", f"{run.path}/leases", body=[], query=memory)
    run.fail(
        9,
        "OSError: [Errno 28] No space left on device: '/scratch/run/tile{}.nc'",
        host="node07",
        worker="u",
    )
    run.fail(4, "Traceback …\nMemoryError: tile {} needs 3.2 GB", host="node08", worker="v")
    return run


AGE = """
UPDATE tasks SET settled = settled - (
    SELECT coalesce(sum(later.seconds), 0) FROM tasks AS later
    WHERE later.run_id = tasks.run_id AND later.worker_id = tasks.worker_id AND later.idx > tasks.idx
) WHERE settled > 0;
UPDATE tallies SET mark_at = seen, last_at = seen - timed_seconds, last_done = 0, last_seconds = 0;
"""


def let_tasks_last(database: Path) -> None:
    """Change what is stored: each worker has done its tasks one after another, for as long as each of them took."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(AGE)


def _radii(side: int) -> npt.NDArray[np.float64]:
    """Return the distance of the middle of each tile from the middle of the square, as a share of its reach."""
    middle = np.arange(side) + 0.5 - side / 2
    return np.hypot(*np.meshgrid(middle, middle)) / (side / 2)
