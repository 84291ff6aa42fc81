"""The map behind a total, as a file: fitted and filled rates, and which is which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

import cryotile
from cryotile.errors import InvalidValue
from cryotile.files import atomic_path
from cryotile.maps.netcdf import is_map, write_dataset
from cryotile.totalling.table import Totals

__all__ = ["write_filled"]


def write_filled(totals: Totals, product: xr.Dataset, path: Path) -> None:
    """Write the rates of a total with flags of the filled ones, whole or not at all.

    Parameters
    ----------
    totals : Totals
        Of the product.
    product : Dataset
        The product, for its grid mapping.
    path : Path
        NetCDF-4.

    Raises
    ------
    InvalidValue
        The name does not end in ``.nc``.
    UnwritablePath
        The directory cannot be written, or the disk is full.
    """
    if path.suffix.lower() != ".nc":
        raise InvalidValue(f"{path} does not end in .nc; name the map e.g. {path.stem}.nc")
    posts, filled = totals.posts, totals.filled
    number = np.where(posts.wanted, posts.regions.number + 1, 0).astype(np.int32)
    has_rate = np.isfinite(filled.rate) & posts.wanted
    mapping = str(product["dhdt"].attrs["grid_mapping"])
    kind = np.where(filled.filled, 2, has_rate).astype(np.int8)
    names = " ".join(name.replace(" ", "_") for name in posts.regions.names)
    on_posts = {"grid_mapping": mapping, "cell_measures": "area: cell_area"}
    flags = {"units": "1", **on_posts}
    dataset = xr.Dataset(
        {
            "dhdt": (
                ("y", "x"),
                np.where(has_rate, filled.rate, np.nan),
                {**product["dhdt"].attrs, "ancillary_variables": "fill_flag"},
            ),
            "fill_flag": (
                ("y", "x"),
                kind,
                {
                    "long_name": "where the rate comes from",
                    "flag_values": np.array([0, 1, 2], np.int8),
                    "flag_meanings": f"no_rate fitted {filled.by if filled.by != 'none' else 'filled'}",
                    **flags,
                },
            ),
            "region_number": (
                ("y", "x"),
                number,
                {
                    "long_name": f"region by the column {posts.regions.column}",
                    "flag_values": np.arange(len(posts.regions.names) + 1, dtype=np.int32),
                    "flag_meanings": f"none {names}",
                    **flags,
                },
            ),
            "cell_area": (("y", "x"), posts.area, {**product["cell_area"].attrs}),
            mapping: ((), np.int32(0), dict(product[mapping].attrs)),
        },
        coords={
            name: (name, product[name].to_numpy(), dict(product[name].attrs)) for name in ("y", "x")
        },
        attrs={
            **{name: product.attrs[name] for name in ("Conventions", "crs", "posting")},
            "title": "Rates of elevation change behind totals over basins, fitted and filled",
            "history": f"cryotile {cryotile.__version__}: cryotile totals; {product.attrs.get('history', '')}",
            "comment": "; ".join(totals.notes),
        },
    )
    maps = {str(n): v.to_numpy() for n, v in dataset.data_vars.items() if is_map(v)}
    with atomic_path(path) as temporary:
        write_dataset(
            temporary,
            dataset,
            lambda part: {name: values[part] for name, values in maps.items()},
            lambda _: None,
        )
