"""What the maps of a run are made of: its points, by the log of the point DB, and the command that plans it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import cryotile
from cryotile.errors import command
from cryotile.fit.config import FitConfig
from cryotile.maps.metadata import TITLE
from cryotile.maps.unknown import DROPPED_FLOATING_ICE
from cryotile.runs.plan import TILE_SIZE, Settings, within_period

if TYPE_CHECKING:
    from cryotile.pointdb import PointDB
    from cryotile.runs.run import Run

__all__ = ["FLAGS", "Origin", "about", "keep_origin", "origin_of", "plan_command"]

FLAGS = {
    "terms": "--term",
    "priors": "--prior",
    "weights": "--weight",
    "fallback_radii": "--fallback-radius",
    "other_platforms": "--other-platform",
    "min_span_days": "--min-span",
}
"""Setting → option of ``cryotile plan``, where the name of one does not follow from that of the other."""

INSTRUMENTS = {
    "cryosat2": "SIRAL",
    "icesat2": "ATLAS",
    "icesat": "GLAS",
    "envisat": "RA-2",
    "ers1": "RA",
    "ers2": "RA",
    "sentinel3a": "SRAL",
    "sentinel3b": "SRAL",
}
"""Known platform → its altimeter."""

COUNTS = (
    "source_granules counts the granules of the point DB with points of these platforms in the period; source_points"
    " the points in the 5 km squares that posts see, as far as squares tell which points are selected;"
    " point_db_snapshot is a digest of these points, the same whatever commits added them."
)

_ALWAYS = ("posting", "radius", "recipe", "bounds", "period", "reference_epoch")
"""Settings that a command gives even where they are the default, because the default may follow from the points."""


@dataclass(frozen=True)
class Origin:
    """Where the points of a run come from, as the log of its point DB tells.

    Attributes
    ----------
    platforms, modes : list of str
        Of the points that posts may see.
    products : list of str
        Of the granules, with their baselines.
    granules : int
        Granules of the point DB with points of these platforms in the period.
    points : int
        Points in the 5 km squares that posts see, as far as the selection can be judged by square.
    digest : str
        Of these points, hexadecimal; commits do not affect it.
    simulated : float
        Share of the points of the granules that is simulated, 0 to 1.
    floating_ice : int or None
        Points of the granules that their ingest dropped because they are on floating ice; None: the task list of an
        earlier cryotile does not say.
    """

    platforms: list[str]
    modes: list[str]
    products: list[str]
    granules: int
    points: int
    digest: str
    simulated: float
    floating_ice: int | None = None

    @classmethod
    def find(cls, settings: Settings, db: PointDB, snapshot: int | None = None) -> Origin:
        """Look up what a run with these settings reads from a point DB.

        Parameters
        ----------
        settings : Settings
            Selection, period, grid and radius.
        db : PointDB
            The points.
        snapshot : int or None
            The commit to look at; None: the newest.
        """
        x_min, y_min, x_max, y_max = settings.grid.bounds
        reach, period = settings.fit.reach, settings.fit.period
        window = x_min - reach, y_min - reach, x_max + reach, y_max + reach
        squares = db.squares(window, where=settings.where, snapshot=snapshot)
        squares = within_period(squares, period)
        squares = squares[squares["count"] > 0]
        platforms = sorted(squares["platform"].astype(str).unique())
        granules = within_period(db.granules_at(snapshot), period)
        chosen = [not set(platforms).isdisjoint(own) for own in granules["platforms"]]
        granules = granules[np.array(chosen, bool)]
        rows = granules["rows"]
        return cls(
            platforms=platforms,
            modes=sorted(squares["mode"].astype(str).unique()),
            products=sorted({_product(row) for row in granules.to_dict("records")}),
            granules=len(granules),
            points=int(squares["count"].sum()),
            digest=f"{int(squares['digest'].sum()):016x}",
            simulated=float(rows[granules["simulated"]].sum() / max(rows.sum(), 1)),
            floating_ice=sum(d.get("surface_floating_ice", 0) for d in granules["dropped"]),
        )

    @property
    def title(self) -> str:
        """Title of a product; it says so if points are simulated."""
        points = {0.0: "", 1.0: "simulated "}.get(self.simulated, "partly simulated ")
        return TITLE.replace("satellite", f"{points}satellite")

    def attributes(self) -> dict[str, str | int]:
        """Return global attributes of a product."""
        found: dict[str, str | int] = {
            "title": self.title,
            "source": f"satellite altimetry: {', '.join(self.products)}",
            "platform": ", ".join(self.platforms),
            "platform_vocabulary": "words of cryotile for the platforms of points",
            "instrument": ", ".join(INSTRUMENTS.get(word, "unknown") for word in self.platforms),
            "instrument_vocabulary": "names of the agencies",
            "source_modes": ", ".join(self.modes),
            "source_products": ", ".join(self.products),
            "source_granules": self.granules,
            "source_points": self.points,
            "point_db_snapshot": self.digest,
            "comment": COUNTS,
        }
        if self.floating_ice is not None:
            found[DROPPED_FLOATING_ICE] = self.floating_ice
        if self.simulated:
            found["simulated"] = f"{100 * self.simulated:.3g} % of the points of the granules"
        return found


def _product(granule: dict[Any, Any]) -> str:
    baseline = granule["baseline"]
    return f"{granule['product']} (baseline {baseline})" if baseline else str(granule["product"])


def origin_of(table: pd.DataFrame) -> Origin | None:
    """Return what a task list keeps of its points; None if it is that of an earlier cryotile."""
    kept = table.attrs.get("origin")
    return None if kept is None else Origin(**kept)


def keep_origin(table: pd.DataFrame, origin: Origin) -> None:
    """Keep the origin of the points in a task list; Parquet files keep it, too."""
    table.attrs["origin"] = asdict(origin)


def plan_command(settings: Settings, run: str = "RUN", db: str = "DB") -> str:
    """Return the ``cryotile plan`` that makes a run with these settings, quoted for a shell.

    Parameters
    ----------
    settings : Settings
        Of a run.
    run, db : str
        Names of the run directory and of the point DB.

    Returns
    -------
    str
    """
    fit = settings.fit
    usual = {"tile_size": TILE_SIZE, **asdict(FitConfig(recipe=fit.recipe))}
    words = list[str]()
    for name, value in settings.as_asked().items():
        if value is None or (name not in _ALWAYS and value == usual.get(name)):
            continue
        value = value.source if name == "offsets" else value
        path = name in ("mask", "basins", "offsets")
        words += _option(name, Path(value).name if path else value)
    return command("plan", run, "--db", db, *words)


def _option(name: str, value: Any) -> list[str]:
    if name == "windows":
        return ["--window", value[0], "--step", value[1]]
    flag = FLAGS.get(name, "--" + name.replace("_", "-"))
    if name in ("bounds", "period"):
        return [flag, *map(_text, value)]
    values = value if isinstance(value, tuple) else (value,)
    return [word for one in values for word in (flag, _text(one))]


def _text(value: Any) -> str:
    """Write a value: 1000.0 as 1000, any other float so that it is read as the same."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def about(run: Run) -> dict[str, str | int]:
    """Return the global attributes of a product that say what its run is made of.

    Parameters
    ----------
    run : Run
        With its newest task list.

    Returns
    -------
    dict
        Nothing of the moment and no path, so that equal points and settings give equal bytes: a mask has the name of
        its file, and its digest identifies it.
    """
    settings, origin = run.settings, origin_of(run.table)
    # No number of a product depends on the size of its tiles.
    line = plan_command(replace(settings, tile_size=TILE_SIZE))
    found: dict[str, str | int] = {
        "history": f"cryotile {cryotile.__version__}: {line}; cryotile run RUN; cryotile assemble RUN",
        "bounds": " ".join(map(_text, settings.grid.bounds)),
    }
    if settings.where is not None:
        found["selection"] = settings.where
    if settings.mask is not None:
        name = Path(settings.mask.source).name
        found["mask"] = f"{name}, SHA-256 of its posts {settings.mask.digest}"
    if settings.offsets is not None:
        name = Path(settings.offsets.source).name
        found["offsets"] = f"smooth, from the run {name}, SHA-256 {settings.offsets.digest}"
    if settings.regions is not None:
        found["basins"] = f"{Path(settings.regions.source).name}, by {settings.regions.column}"
        found["regions_digest"] = settings.regions.digest
    return found if origin is None else found | origin.attributes()
