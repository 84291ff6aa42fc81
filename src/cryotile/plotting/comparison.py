"""Two maps and their difference, for the report of ``compare``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.fit.variables import Status
from cryotile.plotting.colours import Shading, symmetric_limits
from cryotile.plotting.panel import Panel
from cryotile.plotting.picture import styled
from cryotile.plotting.sheet import Sheet, draw_sheet

__all__ = ["plot_comparison"]


def plot_comparison(
    product: xr.DataArray,
    reference: xr.DataArray,
    *,
    crs: pyproj.CRS | str,
) -> npt.NDArray[Any]:
    """Draw two maps in the same colours, and the first less the second.

    Parameters
    ----------
    product, reference : DataArray, dimensions (y, x)
        Of the same posts, time base, sign and units, which are an attribute of ``product``; NaN: no value.
    crs : pyproj.CRS or str
        Their projection.

    Returns
    -------
    ndarray of Axes, shape (3,)
        Product, reference, difference.

    Raises
    ------
    InvalidValue
        The posts differ.
    MissingDependency
        matplotlib or cmcrameri is not installed.
    """
    pair = _pair(product, reference)
    shown = np.concatenate([pair[name].to_numpy().ravel() for name in ("dhdt", "reference")])
    titles = {"dhdt": "product", "reference": "reference", "difference": "product − reference"}
    with styled():
        both = Shading(symmetric_limits(shown), "cmc.vik_r")
        panels = []
        for name, title in titles.items():
            shading = Shading(None, "cmc.vik_r") if name == "difference" else both
            status = f"{name}_status"
            panel = Panel.of(pair, name, shading=shading, title=title, status=status)
            panels.append(replace(panel, variable=product))
        projection = pyproj.CRS.from_user_input(crs)
        return draw_sheet(panels, projection, Sheet(3.4, 3, text=_text(pair)))


def _pair(product: xr.DataArray, reference: xr.DataArray) -> xr.Dataset:
    """Return both maps and their difference, and the status of each."""
    product, reference = (
        one.sortby(["y", "x"]).transpose("y", "x") for one in (product, reference)
    )
    if not all(np.array_equal(product[axis], reference[axis]) for axis in ("x", "y")):
        raise InvalidValue(
            f"the posts of the maps differ ({product.sizes['x']} × {product.sizes['y']} and"
            f" {reference.sizes['x']} × {reference.sizes['y']} posts); bring both to one grid first"
        )
    pair = product.rename("dhdt").astype(np.float64).to_dataset()
    values = {"dhdt": pair["dhdt"].to_numpy(), "reference": reference.to_numpy().astype(np.float64)}
    values["difference"] = values["dhdt"] - values["reference"]
    units = {"units": str(product.attrs.get("units", "1"))}
    for name, numbers in values.items():
        if name != "dhdt":
            pair[name] = (("y", "x"), numbers, units)
        state = np.where(np.isfinite(numbers), Status.OK, Status.NO_POINTS)
        pair[f"{name}_status"] = (("y", "x"), state)
    either = np.minimum(pair["dhdt_status"], pair["reference_status"])
    return pair.assign(status=either)


def _text(pair: xr.Dataset) -> str:
    difference = pair["difference"].to_numpy()
    difference = difference[np.isfinite(difference)]
    if difference.size == 0:
        return "No post has a value in both maps."
    median = float(np.median(difference))
    spread = 1.4826 * float(np.median(np.abs(difference - median)))
    units = pair["difference"].attrs["units"].replace("yr-1", "yr⁻¹")
    units = "" if units == "1" else f" {units}"
    return (
        f"{difference.size:,} posts with both; difference: mean {difference.mean():+.3g}{units}, median"
        f" {median:+.3g}{units}, 1.4826 MAD {spread:.3g}{units}. Grey: no value."
    )
