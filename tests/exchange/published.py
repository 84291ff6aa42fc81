"""Small files in the layouts of others, made by hand: real ones were not to be had.

Each is written from the public description that its reader names.  All hold the same truth: a rate that is a plane in
x and y, the same over every period, so that a wrong row order, unit, sign or CRS shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pyproj

SOUTH, NORTH = "EPSG:3031", "EPSG:3413"

CORNERS = {SOUTH: (-1_500_000.0, -450_000.0), NORTH: (-150_000.0, -1_750_000.0)}


def truth(x: np.ndarray, y: np.ndarray, crs: str) -> np.ndarray:
    """Rate at x, y of the CRS, m/yr."""
    left, bottom = CORNERS[crs]
    return -0.3 + 0.002 * (x - left) / 1e3 - 0.004 * (y - bottom) / 1e3


SIGMA = 0.05


def axes(crs: str, posting: float, count: int = 13) -> tuple[np.ndarray, np.ndarray]:
    """x and y ascending; y has one post more, so that rows and columns differ."""
    left, bottom = CORNERS[crs]
    return left + posting * np.arange(count), bottom + posting * np.arange(count + 1)


def put(node: Any, name: str, dims: tuple[str, ...], values: Any, **attributes: Any) -> None:
    """Add a variable; dimensions are made as needed."""
    values = np.asarray(values)
    for dim, size in zip(dims, values.shape, strict=True):
        if dim not in node.dimensions:
            node.createDimension(dim, size)
    fill = attributes.pop("_FillValue", None)
    variable = node.createVariable(name, values.dtype, dims, fill_value=fill)
    variable.set_auto_maskandscale(False)
    variable.setncatts(attributes)
    variable[...] = values


def atl15(
    path: Path,
    *,
    posting: float = 1000.0,
    cf_alone: bool = False,
    monthly: bool = False,
    columns: slice = slice(None),
) -> str:
    """Groups by lag; the semi-major axis in km; a GeoTransform through centres; fill value the largest float."""
    suffix = f"_{posting / 1e3:g}km" if posting in (10e3, 20e3, 40e3) else ""
    x, y = axes(NORTH, posting)
    x = x[columns]
    rate = truth(*np.meshgrid(x, y), NORTH).astype("f4")
    fill = np.finfo("f4").max
    with netCDF4.Dataset(path, "w") as file:
        for group, days in {
            "delta_h": np.array([365.25, 456.5625, 730.5]),
            "dhdt_003mo" if monthly else "dhdt_lag1": np.array([410.9, 502.2]),
            "dhdt_012mo" if monthly else "dhdt_lag4": np.array([547.9]),
        }.items():
            node = file.createGroup(group)
            put(node, "x", ("x",), x, units="meters", standard_name="projection_x_coordinate")
            put(node, "y", ("y",), y, units="meters", standard_name="projection_y_coordinate")
            put(node, "time", ("time",), days, units="days since 2018-01-01")
            put(
                node,
                "Polar_Stereographic",
                (),
                np.int8(0),
                grid_mapping_name="polar_stereographic",
                straight_vertical_longitude_from_pole=-45.0,
                latitude_of_projection_origin=90.0,
                standard_parallel=70.0,
                false_easting=0.0,
                false_northing=0.0,
                semi_major_axis=6378.137,
                semi_minor_axis=6356.752,
                inverse_flattening=298.257223563,
                GeoTransform=np.array([x[0], posting, 0.0, y[0], 0.0, posting]),
                **({} if cf_alone else {"crs_wkt": pyproj.CRS(NORTH).to_wkt()}),
            )
            value = "delta_h" if group == "delta_h" else "dhdt"
            factor = (
                (days[:, None, None] - 730.5) / 365.25
                if value == "delta_h"
                else np.ones((len(days), 1, 1))
            )
            maps = (rate * factor).astype("f4")
            maps[:, 0, 0] = fill
            units = "meters" if value == "delta_h" else "meters years^-1"
            told = {"units": units, "_FillValue": fill, "grid_mapping": "Polar_Stereographic"}
            put(node, f"{value}{suffix}", ("time", "y", "x"), maps, **told)
            put(
                node,
                f"{value}_sigma{suffix}",
                ("time", "y", "x"),
                np.full_like(maps, SIGMA),
                **told,
            )
    return NORTH


def cci_antarctica(path: Path) -> str:
    """Dimensions ny, nx that are not named as the coordinates; the CRS as a text; y descending."""
    x, y = axes(SOUTH, 5000.0)
    rate = truth(*np.meshgrid(x, y), SOUTH)
    longitude, latitude = pyproj.Transformer.from_crs(SOUTH, "EPSG:4326", always_xy=True).transform(
        *np.meshgrid(x, y[::-1])
    )
    with netCDF4.Dataset(path, "w") as file:
        put(file, "x", ("nx",), x, units="meters", standard_name="projection_x_coordinate")
        put(file, "y", ("ny",), y[::-1], units="meters", standard_name="projection_y_coordinate")
        put(
            file,
            "grid_projection",
            (),
            np.int8(0),
            grid_mapping_name="polar_stereographic_south",
            crs="epsg:3031",
            central_meridian=0.0,
        )
        put(file, "lat", ("ny", "nx"), latitude, units="degrees_north")
        put(file, "lon", ("ny", "nx"), longitude, units="degrees_east")
        told = {"units": "m/yr", "grid_mapping": "grid_projection", "_FillValue": np.float32(-9999)}
        values = rate[::-1].astype("f4")
        values[2, 3] = -9999
        put(file, "sec", ("ny", "nx"), values, **told)
        put(file, "sec_uncertainty", ("ny", "nx"), np.full_like(values, SIGMA), **told)
        put(file, "surface_type", ("ny", "nx"), np.full(rate.shape, 2, "i1"))
    return SOUTH


def cci_cumulative(path: Path, *, ends: Sequence[float] = (2020.0,)) -> str:
    """The change since the start of a period, with the period in decimal years."""
    x, y = axes(SOUTH, 5000.0)
    change = 10.0 * truth(*np.meshgrid(x, y), SOUTH)
    with netCDF4.Dataset(path, "w") as file:
        put(file, "x", ("nx",), x, units="meters")
        put(file, "y", ("ny",), y, units="meters")
        put(file, "start_time", ("time_period",), np.array([2010.0]), units="years")
        put(file, "end_time", ("end",), np.array(ends), units="years")
        dims = ("time_period", "ny", "nx")
        put(file, "dh", dims, change[None].astype("f4"), units="m")
        put(file, "uncertainty", dims, np.full_like(change[None], 10 * SIGMA), units="m")
    return SOUTH


def with_a_bad_square(rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return maps of two times, of which one square is wrong, and the flags that say so."""
    maps = np.stack([rate, rate], axis=-1)
    good = np.ones(maps.shape, "i1")
    maps[4, 5], good[4, 5] = 3.0, 0
    return maps, good


def c3s_antarctica(path: Path) -> str:
    """Dimensions y, x, time; windows of five years by their bounds; a flag that marks bad values."""
    x, y = axes(SOUTH, 25_000.0)
    rate = truth(*np.meshgrid(x, y), SOUTH)
    middle = np.array([8000.0, 8030.0])
    with netCDF4.Dataset(path, "w") as file:
        put(file, "x", ("x",), x / 1e3, units="km", standard_name="projection_x_coordinate")
        put(file, "y", ("y",), y / 1e3, units="km", standard_name="projection_y_coordinate")
        put(file, "time", ("time",), middle, units="days since 1990-01-01", bounds="time_bounds")
        put(file, "time_bounds", ("time", "bnds"), middle[:, None] + np.array([-913.0, 913.0]))
        maps, good = with_a_bad_square(rate)
        put(file, "sec", ("y", "x", "time"), maps, units="m/yr")
        put(file, "sec_uncert", ("y", "x", "time"), np.full(maps.shape, SIGMA), units="m/yr")
        put(file, "sec_ok", ("y", "x", "time"), good)
    return SOUTH


def c3s_greenland(path: Path) -> str:
    """Starts and ends of windows; time last."""
    x, y = axes(NORTH, 25_000.0)
    rate = truth(*np.meshgrid(x, y), NORTH)
    with netCDF4.Dataset(path, "w") as file:
        put(file, "x", ("x",), x, units="m")
        put(file, "y", ("y",), y, units="m")
        unit = "days since 1990-01-01"
        put(file, "start_time", ("t",), np.array([8000.0, 8030.0]), units=unit)
        put(file, "end_time", ("t",), np.array([9826.0, 9856.0]), units=unit)
        maps, good = with_a_bad_square(rate)
        put(file, "dhdt", ("y", "x", "t"), maps, units="m/year")
        put(file, "dhdt_uncert", ("y", "x", "t"), np.full(maps.shape, SIGMA), units="m/year")
        put(file, "dhdt_ok", ("y", "x", "t"), good)
        put(file, "dh", ("y", "x", "t"), maps, units="m")
    return NORTH


def cci_greenland(path: Path) -> str:
    """Time last, in hours since 1990 that only the user guide names; no unit of the rate."""
    x, y = axes(NORTH, 5000.0)
    rate = truth(*np.meshgrid(x, y), NORTH)
    with netCDF4.Dataset(path, "w") as file:
        put(file, "x", ("x",), x, units="m")
        put(file, "y", ("y",), y, units="m")
        put(file, "Start_time", ("t",), np.array([192_000.0]))
        put(file, "End_time", ("t",), np.array([235_824.0]))
        put(file, "SEC", ("y", "x", "t"), rate[..., None], units="[none]")
        put(file, "SECer", ("y", "x", "t"), np.full((*rate.shape, 1), SIGMA), units="[none]")
    return NORTH


def cci_greenland_old(path: Path) -> str:
    """Version 1.2: no time dimension, the period as a text, CF parameters of the projection."""
    x, y = axes(NORTH, 5000.0)
    rate = truth(*np.meshgrid(x, y), NORTH)
    with netCDF4.Dataset(path, "w") as file:
        put(file, "x", ("x",), x, units="m")
        put(file, "y", ("y",), y, units="m")
        put(
            file,
            "grid_projection",
            (),
            np.int8(0),
            ellipsoid="WGS84",
            false_easting=0.0,
            false_northing=0.0,
            grid_mapping_name="polar_stereographic",
            latitude_of_projection_origin=90.0,
            standard_parallel=70.0,
            straight_vertical_longitude_from_pole=-45.0,
        )
        told = {"grid_mapping": "grid_projection", "units": "[none]"}
        period = "January 2011 - December 2015"
        put(file, "SEC", ("y", "x"), rate, Time=period, **told)
        put(file, "SEC_error", ("y", "x"), np.full(rate.shape, SIGMA), **told)
        put(file, "landtype", ("y", "x"), np.full(rate.shape, 4, "i2"))
    return NORTH


def its_live(path: Path) -> str:
    """Heights relative to an epoch; a flag marks the pole hole, which is filled with a constant."""
    x, y = axes(SOUTH, 1920.0)
    rate = truth(*np.meshgrid(x, y), SOUTH)
    days = 23_376.0 + 365.25 * np.arange(6)  # from 2014-01-01 on
    with netCDF4.Dataset(path, "w") as file:
        put(file, "x", ("x",), x, units="m")
        put(file, "y", ("y",), y[::-1], units="m")
        put(file, "time", ("time",), days, units="days since 1950-01-01")
        put(file, "mapping", (), np.int8(0), grid_mapping_name="x", spatial_epsg="3031")
        heights = (rate * (days - days[0])[:, None, None] / 365.25)[:, ::-1]
        flags = np.zeros(rate.shape, "i1")
        heights[:, 0, 0], flags[0, 0] = 0.5 * np.arange(6), 3
        put(file, "dh", ("time", "y", "x"), heights.astype("f4"), units="m", grid_mapping="mapping")
        put(file, "rmse", ("time", "y", "x"), np.full(heights.shape, SIGMA, "f4"), units="m")
        put(file, "quality_flag", ("y", "x"), flags)
    return SOUTH


def eolis(path: Path, *, month: str = "2015-01-16", crs: str = SOUTH) -> str:
    """Elevations of a month; time in seconds."""
    x, y = axes(crs, 2000.0)
    years = (np.datetime64(month) - np.datetime64("2015-01-16")) / np.timedelta64(1, "D") / 365.25
    elevation = 1000.0 + truth(*np.meshgrid(x, y), crs) * years
    seconds = float((np.datetime64(month) - np.datetime64("1970-01-01")) / np.timedelta64(1, "s"))
    with netCDF4.Dataset(path, "w") as file:
        put(file, "x", ("x",), x, units="m", bounds="x_bnds")
        put(file, "y", ("y",), y, units="m", bounds="y_bnds")
        put(file, "x_bnds", ("x", "nv"), x[:, None] + np.array([-1000.0, 1000.0]))
        put(file, "y_bnds", ("y", "nv"), y[:, None] + np.array([-1000.0, 1000.0]))
        put(file, "time", (), seconds, units="seconds since 1970-01-01")
        put(file, "crs", (), np.int8(0), grid_mapping_name="x", crs_wkt=pyproj.CRS(crs).to_wkt())
        put(file, "elevation", ("y", "x"), elevation, units="m", grid_mapping="crs")
        put(file, "uncertainty", ("y", "x"), np.full(elevation.shape, SIGMA), units="m")
    return crs


def cf_grid(
    path: Path,
    *,
    crs: str = SOUTH,
    posting: float = 1000.0,
    factor: float = 1.0,
    rate: Mapping[str, Any] = {"units": "m yr-1"},
    sigma: Mapping[str, Any] = {"units": "m yr-1"},
    sigma_value: float = SIGMA,
    period: tuple[str, str] | None = ("2015-01-01", "2018-01-01"),
    shift: float = 0.0,
    mapping: Mapping[str, Any] | None = None,
    edit: Callable[[np.ndarray], None] = lambda _: None,
) -> str:
    """A rate ``trend`` with ``trend_error`` on any grid; what differs is the test's."""
    x, y = (at + shift for at in axes(crs, posting, 40))
    values = truth(*np.meshgrid(x, y), crs) * factor
    edit(values)
    with netCDF4.Dataset(path, "w") as file:
        put(file, "x", ("x",), x, units="m", standard_name="projection_x_coordinate")
        put(file, "y", ("y",), y, units="m", standard_name="projection_y_coordinate")
        named = {"crs_wkt": pyproj.CRS(crs).to_wkt()} if mapping is None else dict(mapping)
        put(file, "crs", (), np.int8(0), grid_mapping_name="polar_stereographic", **named)
        put(file, "trend", ("y", "x"), values, grid_mapping="crs", **rate)
        put(file, "trend_error", ("y", "x"), np.full(values.shape, sigma_value), **sigma)
        if period is not None:
            file.setncatts({"time_coverage_start": period[0], "time_coverage_end": period[1]})
    return crs
