"""What a map of rates cannot know, in sentences that follow from its own selection."""

from __future__ import annotations

from collections.abc import Collection

import xarray as xr

__all__ = ["instruments", "unknowns"]


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
        The difference of radar from laser is that of Ravinder et al. (2024, doi:10.1029/2024GL110822): −0.2 ± 1.5 cm/yr
        in the interior of Greenland, 3.3 ± 6.0 cm/yr in its ablation zone.
    """
    kinds = instruments(product)
    found = []
    if "radar" in kinds:
        found.append(
            "radar penetrates cold snow by a depth that changes with time, so that rates of CryoSat-2 and ICESat-2"
            " differ by up to centimetres a year"
        )
    if kinds == {"radar", "laser"}:
        found.append("radars and lasers are mixed, and a step between them acts as a change")
    if "firn" not in removed:
        found.append("changes of the air in the firn are not removed: they are volume without mass")
    if "gia" not in removed:
        found.append("the uplift of the bedrock is not removed")
    found.append("a drift that all passes share is in no standard error")
    if "floating_ice" in str(product.attrs.get("selection", "")):
        return found
    return [
        *found,
        "the surface types of the points are those of the ingest: by default floating ice is left out",
    ]
