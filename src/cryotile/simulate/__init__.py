"""Simulated missions over an ice cap of known elevation change, in the formats of real products.

>>> from cryotile.simulate import World, simulate
>>> world = World()
>>> granules = simulate("granules", start="2011-01-01", years=3.0)   # doctest: +SKIP
>>> world.dhdt(0.0, -1350e3)                                         # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from cryotile.errors import InvalidValue
from cryotile.files import make_directory, writing
from cryotile.readers import is_simulated
from cryotile.simulate import atl06, atl11, cryotempo, eolis, l2i, tables
from cryotile.simulate.mission import Crossing, Flyover, Mission, Noise, crossings, fly
from cryotile.simulate.orbit import CRYOSAT2, ICESAT2, Orbit
from cryotile.simulate.world import World
from cryotile.times import SECONDS_PER_YEAR, parse_instant

__all__ = ["PRODUCTS", "Noise", "Product", "World", "simulate"]


LONGEST = 30  # years


@dataclass(frozen=True)
class Product:
    """A product that can be simulated.

    Attributes
    ----------
    orbit : Orbit
        Orbit of the satellite.
    noise : Noise
        Errors of the instrument.
    write : callable
        Writes the flyovers of a group as granules and returns their paths.
    first : str
        First day of the satellite's measurements, UTC.
    start : str
        First day of a simulated mission unless another is given, UTC.
    lateral : tuple of float
        Distance of each laser beam left of the track, m.
    together : callable
        Orbit and crossing → key of the group of the crossing, such as its month.
    """

    orbit: Orbit
    noise: Noise
    write: Callable[[Path, Sequence[Flyover]], list[Path]]
    first: str = "2010-07-16"
    start: str = "2011-01-01"
    lateral: tuple[float, ...] = ()
    together: Callable[[Orbit, Crossing], tuple[float, ...]] = lambda _, crossing: (
        crossing.number,
        crossing.first,
    )


def _each(
    write: Callable[[Path, Flyover], list[Path]],
) -> Callable[[Path, Sequence[Flyover]], list[Path]]:
    """Write each flyover separately."""
    return lambda directory, flyovers: [
        path for flyover in flyovers for path in write(directory, flyover)
    ]


def _month(orbit: Orbit, crossing: Crossing) -> tuple[float, ...]:
    moment = pd.Timestamp(orbit.time(crossing.number, np.array([crossing.first]))[0])
    return (moment.year, moment.month)


def _track(orbit: Orbit, crossing: Crossing) -> tuple[float, ...]:
    return (orbit.cycle(crossing.number)[1], round(crossing.first, 3))


def _icesat2(write: Callable[[Path, Sequence[Flyover]], list[Path]]) -> Product:
    return Product(
        ICESAT2,
        atl06.NOISE,
        write,
        first="2018-10-14",
        start="2019-01-01",
        lateral=tuple(atl06.BEAMS.values()),
    )


PRODUCTS: Mapping[str, Product] = {
    "cryotempo": Product(CRYOSAT2, Noise(), _each(cryotempo.write)),
    "l2i": Product(CRYOSAT2, Noise(), _each(l2i.write)),
    "l2": Product(CRYOSAT2, Noise(), _each(l2i.write_l2)),
    "l2i-d": Product(CRYOSAT2, Noise(), _each(l2i.write_baseline_d)),
    "atl06": _icesat2(_each(atl06.write)),
    "atl11": replace(_icesat2(atl11.write), together=_track),
    "eolis": Product(CRYOSAT2, Noise(), eolis.write, together=_month),
    "csv": Product(CRYOSAT2, Noise(), tables.write_csv, together=_month),
    "parquet": Product(CRYOSAT2, Noise(), tables.write_parquet, together=_month),
    "hdf5": Product(CRYOSAT2, Noise(), tables.write_hdf5, together=_month),
    "netcdf": Product(CRYOSAT2, Noise(), tables.write_netcdf, together=_month),
}
"""What :func:`simulate` can write: Cryo-TEMPO land ice, CryoSat-2 L2I (Baselines E and D) and L2 in SARIn and LRM,
ICESat-2 ATL06 and ATL11, Cryo-TEMPO EOLIS points, and tables of CryoSat-2 points in four formats."""


def simulate(
    directory: str | PathLike[str],
    *,
    product: str = "cryotempo",
    start: str | None = None,
    years: float = 3.0,
    seed: int = 0,
    world: World | None = None,
    noise: Noise | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[Path]:
    """Simulate a mission over a world and write its granules, one per pass (and mode), month or track.

    The same arguments give the same files, byte for byte.  A longer mission gives the same granules and more of them;
    granules of a month (tables, EOLIS) or of a reference track (ATL11) may gain points.

    Parameters
    ----------
    directory : path
        Directory of the granules; created if missing.  It must hold nothing but simulated granules; those of the same
        name are overwritten.
    product : str
        One of :data:`PRODUCTS`.
    start : str, optional
        First day, UTC, such as ``"2011-01-01"``; default: that of the product.
    years : float
        Length of the mission, in years of 365.25 days.
    seed : int
        Seed of all noise; not negative.
    world : World, optional
        The world below the satellite; default: a cap 160 km across in EPSG:3413.
    noise : Noise, optional
        Errors of the measurements; default: those of the product.
    progress : callable, optional
        Called with the fraction done.

    Returns
    -------
    list of Path
        The granules, in order of time.

    Raises
    ------
    InvalidValue
        If an argument is invalid, or the directory holds something else.
    UnwritablePath
        If the directory cannot be written.
    """
    chosen = _product(product)
    begin, end = _span(chosen, start or chosen.start, years)
    if seed < 0:
        raise InvalidValue(f"seed {seed} is negative; give 0 or more")
    mission = Mission(
        world or World(), chosen.orbit, noise or chosen.noise, seed=seed, lateral=chosen.lateral
    )
    target = Path(directory)
    _check_content(target)
    with writing(target):
        make_directory(target)
    granules: list[Path] = []
    found, done = crossings(mission, begin, end), 0
    key = partial(chosen.together, chosen.orbit)
    for _, together in groupby(sorted(found, key=key), key):
        batch = list(together)
        flyovers = [flyover for flyover in (fly(mission, c) for c in batch) if flyover is not None]
        if flyovers:
            granules += chosen.write(target, flyovers)
        done += len(batch)
        if progress is not None:
            progress(done / len(found))
    return granules


def _check_content(directory: Path) -> None:
    """Refuse a directory with anything else: real granules could be overwritten, or taken for simulated ones."""
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        # Hidden files are those of the system, and what a killed simulation left.
        if not path.name.startswith(".") and not is_simulated(path):
            raise InvalidValue(
                f"{directory} holds {path.name}, which is not a simulated granule; give an empty directory, or that of"
                " an earlier simulation"
            )


def _product(name: str) -> Product:
    if name not in PRODUCTS:
        raise InvalidValue(
            f"product {name!r} cannot be simulated; choose one of {', '.join(PRODUCTS)}"
        )
    return PRODUCTS[name]


def _span(product: Product, start: str, years: float) -> tuple[np.datetime64, np.datetime64]:
    """Return the first and last instant of the mission."""
    begin = parse_instant(start)
    if begin < pd.Timestamp(product.first):
        raise InvalidValue(
            f"start {start!r} is before the first measurements of the satellite; give {product.first} or later"
        )
    if not 0 < years <= LONGEST:
        raise InvalidValue(
            f"mission length is {years} years; give more than 0 and at most {LONGEST}"
        )
    end = begin + pd.Timedelta(seconds=years * SECONDS_PER_YEAR)
    return begin.to_datetime64(), end.to_datetime64()
