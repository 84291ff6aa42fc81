"""What a map of rates cannot know, in sentences that follow from its own selection."""

from __future__ import annotations

from collections.abc import Collection

import xarray as xr

__all__ = ["DROPPED_FLOATING_ICE", "instruments", "unknowns"]

DROPPED_FLOATING_ICE = "source_points_on_floating_ice_dropped"
"""Global attribute: number of points that the ingest of the granules dropped because they are on floating ice."""


def instruments(product: xr.Dataset) -> set[str]:
    """Return which of ``radar`` and ``laser`` a product has points of, by their modes; empty if it does not say."""
    modes = str(product.attrs.get("source_modes", "")).replace(",", " ").split()
    return {"laser" if mode == "laser" else "radar" for mode in modes}


def unknowns(product: xr.Dataset, removed: Collection[str] = ()) -> list[str]:
    """Return a sentence for each error that neither the rates nor their standard errors know.

    Parameters
    ----------
    product : Dataset
        With the global attributes of a product.
    removed : collection of str
        Of ``gia`` and ``firn``, what is subtracted from the rates.

    Returns
    -------
    list of str
        None of them has a semicolon.  The differences of radar from laser are those of Ravinder et al. (2024,
        doi:10.1029/2024GL110822) in Greenland.
    """
    kinds = instruments(product)
    found = []
    if "radar" in kinds:
        found.append(
            "radar penetrates cold snow by a depth that changes with time: in Greenland, rates of CryoSat-2 less those"
            " of ICESat-2 are 3.3 +/- 6.0 cm/yr in the ablation zone and -0.2 +/- 1.5 cm/yr in the interior (Ravinder"
            " et al. 2024)"
        )
    if kinds == {"radar", "laser"}:
        found.append("radars and lasers are mixed, and a step between them acts as a change")
    if "firn" not in removed:
        found.append("changes of the air in the firn are not removed: they are volume without mass")
    if "gia" not in removed:
        found.append("the uplift of the bedrock is not removed")
    found.append("a drift that all passes share is in no standard error")
    return [*found, _floating_ice(product)]


def _floating_ice(product: xr.Dataset) -> str:
    """Return what becomes of floating ice, by the selection and by the points that the ingest dropped."""
    dropped = product.attrs.get(DROPPED_FLOATING_ICE)
    tides = "heights of floating ice follow tides, and show a ninth of a change of thickness"
    if "floating_ice" in str(product.attrs.get("selection", "")):
        return tides
    if dropped is None:
        return "the surface types of the points are those of the ingest: by default floating ice is left out"
    if int(dropped) > 0:
        return f"floating ice is left out, {int(dropped):,} points of the granules"
    return f"no points of floating ice were left out of the granules: {tides}"
