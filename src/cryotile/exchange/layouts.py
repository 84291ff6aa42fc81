"""The layouts that cryotile reads, and which one a file has: its content tells, not its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from cryotile.errors import InvalidValue
from cryotile.exchange import (
    atl15,
    c3s_antarctica,
    c3s_greenland,
    cci_antarctica,
    cci_greenland,
    cf_grid,
    eolis,
    its_live,
    table,
)
from cryotile.exchange.grid_file import opened
from cryotile.exchange.joining import join
from cryotile.exchange.own import of_product
from cryotile.exchange.reference import Reference, period_text
from cryotile.maps.product import is_product, open_product

__all__ = ["LAYOUTS", "Layout", "read_reference"]


class Layout(Protocol):
    """A module of a layout."""

    NAME: str

    def recognize(self, file: Any, /) -> bool:
        """Return whether an open file has the layout."""

    def read(self, path: Path, file: Any, /) -> Reference:
        """Return its rates or heights."""


LAYOUTS: tuple[Layout, ...] = (
    atl15,
    c3s_antarctica,
    c3s_greenland,
    cci_greenland,
    its_live,
    cci_antarctica,
    eolis,
)
"""In the order in which they are asked."""


def read_reference(
    paths: Sequence[Path],
    *,
    variable: str | None = None,
    sigma: str | None = None,
    mapping: Path | None = None,
) -> Reference:
    """Read a reference.

    Parameters
    ----------
    paths : sequence of Path
        A file; or files of one layout, such as the months of EOLIS or the quadrants of ATL15, or a directory of them.
    variable, sigma : str or None
        Names of the rate and its sigma, of a grid of no known layout or of a table.
    mapping : Path or None
        Columns of a table, see :func:`cryotile.exchange.table.read`.

    Returns
    -------
    Reference

    Raises
    ------
    InvalidValue
        A file does not exist or has no layout that is known, files are of different layouts or grids, or a period is
        reversed.
    DamagedFile
        A file is damaged.
    """
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise InvalidValue(
            f"{paths[0] if paths else 'the reference'} has no NetCDF file; give a file"
        )
    found = [_read(file, variable, sigma, mapping) for file in files]
    for reference in found:
        _check_periods(reference)
    return found[0] if len(found) == 1 else join(found)


def _check_periods(reference: Reference) -> None:
    for rate in reference.rates:
        if rate.period is not None and rate.period[0] > rate.period[1]:
            raise InvalidValue(
                f"{reference.name}: the period of {rate.label} ends before its start ({period_text(rate.period)});"
                " correct its dates"
            )


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.nc")) if path.is_dir() and not is_product(path) else [path]


def _read(path: Path, variable: str | None, sigma: str | None, mapping: Path | None) -> Reference:
    if sigma is not None and variable is None and not table.is_table(path):
        raise InvalidValue(
            f'sigma {sigma!r} is one of a grid whose rate is named; give variable="NAME" too'
        )
    if mapping is not None and not table.is_table(path):
        raise InvalidValue(
            f"{path} is not a table, so that no mapping of columns applies; leave it out"
        )
    if table.is_table(path):
        if not path.is_file():
            raise InvalidValue(
                f"{path} does not exist or is not a file; give a NetCDF file or a table"
            )
        return table.read(path, variable, sigma, mapping)
    if variable is None and is_product(path):
        return of_product(open_product(path), str(path))
    with opened(path) as file:
        if variable is None:
            for layout in LAYOUTS:
                if layout.recognize(file):
                    return layout.read(path, file)
        return cf_grid.read(path, file, variable, sigma)
