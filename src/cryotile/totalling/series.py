"""Volume of regions over time: differences from one date, with the standard errors of differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.fit.variables import student_quantile
from cryotile.geo.regions import WHOLE
from cryotile.maps.heights import KEPT, bins_of, plan_with, without_heights
from cryotile.times import parse_instant
from cryotile.totalling.corrections import uniform_density
from cryotile.totalling.table import CUBIC_KM, GIGATONNE

__all__ = ["volumes"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Heights:
    """What a product keeps of the heights of regions.

    Attributes
    ----------
    height : ndarray, shape (regions, times)
        m³; NaN in a bin without a height.
    covariance : ndarray, shape (regions, times, times)
        m⁶.
    dof : ndarray, shape (regions, times, times)
        Degrees of freedom of the difference of two times.
    seen : ndarray, shape (regions, times), or None
        Share of the fitted area that has a height in a bin, 0 to 1; None: not kept.
    """

    height: Array
    covariance: Array
    dof: Array
    seen: Array | None


def volumes(
    maps: xr.Dataset,
    regions: Sequence[str] = (),
    *,
    density: float | None = None,
    relative_to: str | None = None,
    name: str = "the product",
) -> tuple[xr.Dataset, list[str]]:
    """Return the volume of regions over time, relative to one date.

    The standard error of the difference of the dates i and j is √(C_ii + C_jj − 2 C_ij), where C is the covariance
    that the product keeps; the interval has Student's quantile of its degrees of freedom.

    Parameters
    ----------
    maps : Dataset
        As of :func:`cryotile.open`, planned with basins and heights.
    regions : sequence of str
        Names of regions, or ``all`` for their union; empty: all of them.
    density : float or None
        kg m-3, for the mass; None: no mass.
    relative_to : str or None
        A date within the bin that volumes are relative to; None: the first bin in which each region has a height.
    name : str
        What messages call the maps.

    Returns
    -------
    Dataset, dimensions (region, height_time)
        ``volume`` (km3), ``volume_sigma``, ``volume_lower`` and ``volume_upper`` (ends of the 95 % interval);
        ``volume_dof``; ``seen``, the share of the fitted area with a height in the bin; with a density ``mass`` (Gt)
        and the same of it; ``relative_to``, the start of the bin that a region is relative to.
    list of str
        What is assumed.

    Raises
    ------
    InvalidValue
        The maps have no heights of regions, a name or date is unknown, or a value breaks a rule.
    """
    weight = None if density is None else uniform_density(density)
    _check(maps, name)
    chosen = _chosen(maps, regions, name)
    kept = _kept(maps, chosen)
    bounds = maps["height_time_bnds"].to_numpy()
    origin = _origins(kept, bounds, relative_to, chosen)
    rows, dims = np.arange(len(chosen)), ("region", "height_time")
    volume = (kept.height - kept.height[rows, origin][:, None]) / CUBIC_KM
    own = np.diagonal(kept.covariance, axis1=1, axis2=2)
    shared = kept.covariance[rows, :, origin]
    variance = own + own[rows, origin][:, None] - 2 * shared
    variance[rows, origin] = 0.0
    sigma = np.where(np.isfinite(volume), np.sqrt(np.maximum(variance, 0.0)), np.nan) / CUBIC_KM
    dof = kept.dof[rows, :, origin]
    half = np.where(sigma > 0, student_quantile(0.975, dof) * sigma, sigma)
    found = xr.Dataset(
        {
            **_with_interval("volume", (volume, sigma, half), "km3"),
            "volume_dof": (dims, dof, {"units": "1", "long_name": "degrees of freedom of volume"}),
        },
        coords={
            "region": ("region", np.array(chosen, dtype=object), {"long_name": "region"}),
            **bins_of(maps),
        },
        attrs={n: maps.attrs[n] for n in KEPT if n in maps.attrs},
    )
    start = np.where(np.isfinite(volume).any(axis=1), bounds[origin, 0], np.datetime64("NaT"))
    about = {"long_name": "start of the bin that the region is relative to"}
    found["relative_to"] = ("region", start, about)
    if kept.seen is not None:
        of_bin = {"units": "1", "long_name": "share of the fitted area with a height in the bin"}
        found["seen"] = (dims, kept.seen, of_bin)
    notes = list(_said(maps, found, chosen))
    if weight is not None:
        mass = [v * CUBIC_KM * weight / GIGATONNE for v in (volume, sigma, half)]
        found = found.assign(_with_interval("mass", mass, "Gt"))
        notes.append(f"density {weight:g} kg m-3 everywhere")
    return found, notes


def _check(maps: xr.Dataset, name: str) -> None:
    """Refuse maps without heights of regions, and name the command that plans a run with them."""
    if "height" not in maps and "region_height" not in maps:
        raise InvalidValue(without_heights(maps, name))
    if "region_area" not in maps and "region_rate" not in maps:
        again = plan_with(maps, "--basins", "FILE", "--column", "NAME")
        raise InvalidValue(
            f"{name} has no basins, because its run was planned without them; plan another with: {again}"
        )
    if "region_height" not in maps:
        raise InvalidValue(
            f"{name} has no heights of its basins, because an earlier cryotile made it; plan another run with:"
            f" {plan_with(maps)}"
        )


def _chosen(maps: xr.Dataset, regions: Sequence[str], name: str) -> list[str]:
    """Return the names of the regions that are wanted, or of all that have a series."""
    known = [str(region) for region in maps["region"].to_numpy()]
    known += [WHOLE] if "whole_height" in maps else []
    for region in regions:
        if region not in known:
            raise InvalidValue(
                f"basin {region!r} is not one of {name}; choose one of {', '.join(known)}"
            )
    return list(dict.fromkeys(regions)) or known


def _kept(maps: xr.Dataset, chosen: Sequence[str]) -> _Heights:
    known = [str(region) for region in maps["region"].to_numpy()]

    def of(what: str) -> Array | None:
        if f"region_{what}" not in maps:
            return None
        values = maps[f"region_{what}"].to_numpy().astype(np.float64)
        # Areas of regions add up; what their heights share does not follow from them.
        whole = values.sum(axis=0) if what.endswith("area") else None
        if whole is None and f"whole_{what}" in maps:
            whole = maps[f"whole_{what}"].to_numpy()
        rows = [values[known.index(n)] if n in known else np.asarray(whole) for n in chosen]
        return np.stack(rows)

    height, covariance = of("height"), of("height_covariance")
    assert height is not None
    assert covariance is not None
    dof, area, fitted = of("height_dof"), of("height_area"), of("fitted_area")
    seen = None
    if area is not None and fitted is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            seen = area / fitted[:, None]
    return _Heights(
        height, covariance, np.full(covariance.shape, np.inf) if dof is None else dof, seen
    )


def _origins(
    kept: _Heights, bounds: npt.NDArray[np.datetime64], relative_to: str | None, chosen: list[str]
) -> npt.NDArray[np.intp]:
    """Return the number of the bin that each region is relative to."""
    known = np.isfinite(kept.height)
    if not known.any():
        raise InvalidValue(
            f"no bin has a height of {', '.join(chosen)}; choose other basins, or plan with longer bins"
        )
    if relative_to is None:
        return np.asarray(known.argmax(axis=1), np.intp)
    date = parse_instant(relative_to).to_datetime64()
    within = np.flatnonzero((bounds[:, 0] <= date) & (date < bounds[:, 1]))
    first, last = (str(bound)[:10] for bound in (bounds[0, 0], bounds[-1, 1]))
    if not within.size:
        raise InvalidValue(
            f"relative_to {relative_to} is outside the bins of heights, which are from {first} to {last}; give a date"
            " among them"
        )
    without = [name for name, has in zip(chosen, known[:, within[0]], strict=True) if not has]
    if without:
        has_all = bounds[known.all(axis=0), 0]
        dates = f", e.g. {str(has_all[0])[:10]}" if has_all.size else ""
        raise InvalidValue(
            f"relative_to {relative_to} is in a bin without a height of basin {without[0]}; give another date{dates}"
        )
    return np.full(len(chosen), within[0])


def _with_interval(
    name: str, of: Sequence[Array], units: str
) -> dict[str, tuple[tuple[str, str], Array, dict[str, str]]]:
    """Return variables of values, standard errors and half widths of intervals."""
    value, sigma, half = of
    parts = {
        name: (value, f"change of {name} since relative_to"),
        f"{name}_sigma": (sigma, f"standard error of {name}"),
        f"{name}_lower": (value - half, f"lower end of the 95 % confidence interval of {name}"),
        f"{name}_upper": (value + half, f"upper end of the 95 % confidence interval of {name}"),
    }
    return {
        key: (("region", "height_time"), values, {"units": units, "long_name": text})
        for key, (values, text) in parts.items()
    }


def _said(maps: xr.Dataset, found: xr.Dataset, chosen: Sequence[str]) -> Iterator[str]:
    starts = found["relative_to"].to_numpy().astype("datetime64[D]")
    for start in np.unique(starts[~np.isnat(starts)]):
        of = [name for name, own in zip(chosen, starts, strict=True) if own == start]
        which = "each basin" if len(of) == len(chosen) else f"basin {', '.join(of)}"
        yield f"{which} is relative to the bin from {start}, and has the standard error of the difference from it"
    if "seen" in found and (part := found["seen"].where(found["volume"].notnull())).min() < 0.995:
        low, high = (f"{100 * float(share):.0f}" for share in (part.min(), part.max()))
        share = low if low == high else f"{low} to {high}"
        yield (
            f"{share} % of the fitted area has a height in a bin; a post without one has the straight line of"
            " its fit, and the mean departure of the others from theirs"
        )
    if "region_height_dof" not in maps:
        yield "the degrees of freedom are unknown: the intervals are those of a normal distribution"
    if WHOLE not in chosen and "whole_height" not in maps:
        yield f"no series of {WHOLE}: the product does not keep what its basins share"
    empty = [
        name
        for name, values in zip(chosen, found["volume"].to_numpy(), strict=True)
        if not np.isfinite(values).any()
    ]
    if empty:
        yield f"no bin has a height of basin {', '.join(empty)}"
