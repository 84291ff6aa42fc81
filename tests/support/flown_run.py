"""A run over a small ice cap that CryoSat-2 has flown over for eight years, with bad passes and outliers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cryotile.pointdb import PointDB
from cryotile.points import Granule, pass_id
from cryotile.runs.run import Run, plan_run
from cryotile.runs.work import FitTile
from cryotile.simulate.mission import Mission, Noise, crossings, fly
from cryotile.simulate.orbit import CRYOSAT2
from cryotile.simulate.world import GROUNDED, World

WORLD = World(bounds=(-14e3, -1354e3, 14e3, -1326e3))
NOISE = Noise(bad_share=0.05, outlier_share=0.01, ambiguous_share=0.0)
PERIOD = ("2011-01-01", "2019-01-01")
REQUEST = {"posting": 1000.0, "radius": 1500.0, "tile_size": 10, "period": PERIOD}


def fly_over() -> pd.DataFrame:
    """Return points on the ice, as a reader gives them and projected."""
    mission = Mission(WORLD, CRYOSAT2, NOISE, seed=3)
    flown = []
    for crossing in crossings(mission, *(np.datetime64(day) for day in PERIOD)):
        flyover = fly(mission, crossing)
        if flyover is not None:
            echoes = flyover.beams[0]
            echoes = echoes[(echoes["surface_type"] == GROUNDED) & ~echoes["lost"]]
            ids = [pass_id("cryosat2", crossing.number, up) for up in echoes["ascending"]]
            flown.append(echoes.assign(pass_id=ids))
    points = pd.concat(flown, ignore_index=True)
    return pd.DataFrame(
        {
            **{name: points[name] for name in ("x", "y", "elevation", "uncertainty")},
            "time": points["time"].dt.floor("ms").astype("datetime64[ms]"),
            "pass_id": points["pass_id"].astype("int64"),
            "ascending": points["ascending"].astype("boolean"),
            "platform": pd.Categorical(["cryosat2"] * len(points)),
            "mode": pd.Categorical(["sarin_poca"] * len(points)),
            "surface_type": pd.Categorical(["grounded_ice"] * len(points)),
        }
    )


def plan_flown(directory: Path, points: pd.DataFrame, request: dict[str, object] = REQUEST) -> Run:
    """Plan a run over points, which go through a point DB."""
    db = PointDB.create(directory / "ice.pdb", WORLD.crs)
    db.append([as_granule(points)])
    return plan_run(directory / "run", request, db=db)


def as_granule(points: pd.DataFrame) -> Granule:
    """Return one granule with all the points."""
    return Granule(
        id="flown",
        product="made_up",
        baseline="D",
        version=1,
        name="FLOWN.nc",
        checksum="0" * 64,
        record_count=len(points),
        dropped={},
        points=points,
    )


def work(run: Run) -> None:
    """Fit all tiles of a run in this process."""
    for task in run.tasks:
        FitTile(run.path, run.generation)(task, lambda fraction: None)
