"""A product in the layout of another one, for programs that read that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.exchange import atl15, cci_antarctica, eolis
from cryotile.exchange.writing import Exported, Source

__all__ = ["FORMATS", "export_product"]


FORMATS: Mapping[str, Callable[[Source, Path], Exported]] = {
    "atl15": atl15.write,
    "cci-sec": cci_antarctica.write,
    "eolis": eolis.write,
}
"""Name of a layout → the function that takes a source and the output, and returns what was written."""


def export_product(product: xr.Dataset, name: str, layout: str, output: Path) -> Exported:
    """Write a product in a layout.

    Parameters
    ----------
    product : Dataset, dimensions (y, x)
        A product or an open run.
    name : str
        What messages call it.
    layout : str
        Of :data:`FORMATS`.
    output : Path
        A ``.nc`` file; or a directory, in which files get the names of the layout.

    Returns
    -------
    Exported

    Raises
    ------
    InvalidValue
        The layout is unknown, or has several files and the output is one.
    UnwritablePath
        A file cannot be written.
    """
    if layout not in FORMATS:
        raise InvalidValue(f"layout {layout!r} is unknown; choose one of {', '.join(FORMATS)}")
    if output.suffix.lower() != ".nc" and not output.is_dir() and output.suffix:
        raise InvalidValue(f"{output} does not end in .nc; name the file e.g. {output.stem}.nc")
    return FORMATS[layout](Source.of(product, name), output)
