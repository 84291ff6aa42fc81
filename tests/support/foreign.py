"""Granules of products of which no file was to be had, written as their descriptions say, from one known flight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyproj

from cryotile.simulate.headers import new_hdf5
from cryotile.times import seconds_since, utc_to_gps

COUNT = 60
"""Records of a flight; a multiple of 20, because REAPER has rows of 20."""

BAD = 7
"""The record that each product is told to be bad."""


class Flight(NamedTuple):
    """The truth: where, when and how high; ascending in Greenland."""

    time: np.ndarray
    longitude: np.ndarray
    latitude: np.ndarray
    elevation: np.ndarray

    @property
    def window(self) -> tuple[str, str]:
        return str(self.time[0]), str(self.time[-1])

    def without_bad(self) -> Flight:
        return Flight(*(np.delete(column, BAD) for column in self))


def flight(start: str, step: str = "50") -> Flight:
    """Return a flight north at 7 km/s from 72° N 40° W, with a record every ``step`` milliseconds."""
    along = np.arange(COUNT)
    return Flight(
        np.datetime64(start, "ms") + along * np.timedelta64(int(step), "ms"),
        -40.0 - 0.001 * along,
        72.0 + 0.003 * along,
        2500.0 + 3.25 * along,
    )


def packed(values: np.ndarray, dtype: str, scale: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Return integers with their scale, and the largest one for a missing value."""
    fill = np.iinfo(dtype).max
    whole = np.where(np.isfinite(values), np.rint(np.nan_to_num(values) / scale), fill)
    return whole.astype(dtype), {"scale_factor": scale, "_FillValue": np.array(fill, dtype)}


def flags(bad: int = 1) -> tuple[np.ndarray, dict[str, Any]]:
    return np.where(np.arange(COUNT) == BAD, bad, 0).astype("i1"), {}


def hdf5(path: Path, variables: Mapping[str, Any], attributes: Mapping[str, Any]) -> Path:
    """Write an HDF5 file of variables (name → values, or values and attributes) and attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_hdf5(path) as file:
        file.attrs.update(attributes)
        for name, stored in variables.items():
            values, own = stored if isinstance(stored, tuple) else (stored, {})
            file.create_dataset(name, data=values).attrs.update(own)
    return path


def fdr4alt(folder: Path, truth: Flight) -> Path:
    days = seconds_since(truth.time, "1950-01-01") / 86_400.0
    variables = {
        "time": (days, {"units": "days since 1950-01-01 00:00:00", "calendar": "gregorian"}),
        "ice_sheet_lon_poca": packed(truth.longitude % 360.0, "i8", 1e-7),
        "ice_sheet_lat_poca": packed(truth.latitude, "i4", 1e-7),
        "longitude": packed(truth.longitude % 360.0, "i8", 1e-7),
        "latitude": packed(truth.latitude + 0.01, "i4", 1e-7),
        "ice_sheet_elevation_ice1_roemer": packed(truth.elevation, "i4", 1e-3),
        "retracking_ice1_qual": flags(),
        "ice_sheet_qual_relocation": flags(bad=0),
        "sigma0_ice1": packed(np.full(COUNT, 8.5), "i2", 0.01),
    }
    attributes = {
        "title": "FDR4ALT Thematic Data Product: Land Ice",
        "mission_name": "ENVISAT",
        "cycle_number": 68,
        "pass_number": 860,
        "first_meas_time": str(truth.time[0]),
    }
    name = "EN1_F4A_ALT_TDP_LI_GREENL_068_0860_20080503T190810_20080503T190837_V01.nc"
    return hdf5(
        folder / name, {f"expert/{key}": each for key, each in variables.items()}, attributes
    )


def reaper(folder: Path, truth: Flight) -> Path:
    rows = (COUNT // 20, 20)
    variables = {
        "time_20hz": seconds_since(truth.time, "1990-01-01").reshape(rows),
        "offset_lon_20hz": truth.longitude.reshape(rows),
        "offset_lat_20hz": truth.latitude.reshape(rows),
        "lat_20hz": truth.latitude.reshape(rows) - 0.02,
        "offset_elevation_20hz": truth.elevation.reshape(rows),
        "ice1_qual_flag_20hz": flags()[0].reshape(rows),
        "ice1_sig0_20hz": np.full(rows, 9.25),
        "surface_type": np.full(rows[0], 2, "i1"),
    }
    name = "E2_REAP_ERS_ALT_2__19960101T000000_19960101T014000_RP01.NC"
    return hdf5(folder / name, variables, {"mission": "E1"})


def sentinel3(folder: Path, truth: Flight) -> Path:
    units = "seconds since 2000-01-01 00:00:00.0"
    variables = {
        "time_20_ku": (seconds_since(truth.time, "2000-01-01"), {"units": units}),
        "lon_cor_20_ku": packed(truth.longitude, "i4", 1e-6),
        "lat_cor_20_ku": packed(truth.latitude, "i4", 1e-6),
        "lon_20_ku": packed(truth.longitude, "i4", 1e-6),
        "lat_20_ku": packed(truth.latitude, "i4", 1e-6),
        "elevation_ice_sheet_20_ku": packed(truth.elevation, "i4", 1e-4),
        "elevation_ocog_20_ku": packed(truth.elevation + 0.5, "i4", 1e-4),
        "waveform_qual_ice_20_ku": flags(),
        "surf_class_20_ku": np.full(COUNT, 4, "i1"),
        "sig0_ice_sheet_20_ku": packed(np.full(COUNT, 11.5), "i2", 0.01),
    }
    product = "S3B_SR_2_LAN_LI_20190504T112546_20190504T121546_20230407T024613_3000_025_094______LN3_O_NT_005.SEN3"
    attributes = {
        "title": "IPF SRAL/MWR Level 2 Measurement",
        "mission_name": "Sentinel 3B",
        "product_name": product,
        "absolute_rev_number": 5310,
        "pass_number": 187,
        "first_meas_time": f"{truth.time[0]}Z",
    }
    return hdf5(folder / product / "enhanced_measurement.nc", variables, attributes)


TO_TOPEX = pyproj.Transformer.from_pipeline(
    "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step +proj=cart +ellps=WGS84"
    " +step +inv +proj=cart +a=6378136.3 +rf=298.257 +step +proj=unitconvert +xy_in=rad +xy_out=deg"
)
"""Longitude, latitude and height above WGS84 → those on the ellipsoid of TOPEX/Poseidon, by way of the centre."""


def glas(folder: Path, truth: Flight, name: str = "GLAH12") -> Path:
    longitude, latitude, height = TO_TOPEX.transform(
        truth.longitude, truth.latitude, truth.elevation
    )
    # Saturated in the middle third: the receiver makes the surface too low.
    correction = np.where(np.arange(COUNT) // 20 == 1, 0.75, 0.0)
    fill = {"_FillValue": np.array([np.finfo("f8").max]), "valid_min": np.array([-1000.0])}
    seconds = seconds_since(truth.time, "2000-01-01T12:00:00")
    variables = {
        "DS_UTCTime_40": (seconds, {"units": "seconds since 2000-01-01 12:00:00 UTC"}),
        "Time/i_rec_ndx": 7_000 + np.arange(COUNT) // 40,
        "Geolocation/d_lon": (longitude % 360.0, fill),
        "Geolocation/d_lat": (latitude, fill),
        "Elevation_Surfaces/d_elev": (height - correction, fill),
        "Elevation_Corrections/d_satElevCorr": (correction, fill),
        "Geophysical/d_ocElv": (np.full(COUNT, np.finfo("f8").max), fill),
        "Quality/elev_use_flg": flags(),
        "Quality/sigma_att_flg": flags(bad=0),
        "Quality/sat_corr_flg": np.where(correction > 0.0, 2, 0).astype("i1"),
        "Waveform/i_numPk": np.ones(COUNT, "i2"),
    }
    variables = {f"Data_40HZ/{key}": each for key, each in variables.items()}
    variables |= {
        "Data_1HZ/Time/i_rec_ndx": np.array([7_000, 7_001]),
        "Data_1HZ/Geolocation/i_track": np.array([71, 71]),
    }
    if name == "GLAH06":
        for flag, there in {"is": 1, "ld": 1, "oc": 0, "si": 0}.items():
            variables[f"Data_1HZ/Elevation_Flags/surf_{flag}_flg"] = np.full(2, there, "i1")
    attributes = {"ShortName": name, "time_coverage_start": f"{truth.time[0]}Z"}
    return hdf5(folder / f"{name}_634_2131_002_0071_0_01_0001.H5", variables, attributes)


def _since_midnight(truth: Flight, clock: str) -> np.ndarray:
    """Return seconds since midnight of the day of the first record, on a clock."""
    if clock == "utc":
        return seconds_since(truth.time, str(truth.time[0].astype("datetime64[D]")))
    midnight = utc_to_gps(truth.time[:1].astype("datetime64[D]"))
    # GPS time was ahead at midnight as it is now: the day of its own clock began so many seconds earlier.
    ahead = midnight - seconds_since(truth.time[:1].astype("datetime64[D]"), "1980-01-06")
    return utc_to_gps(truth.time) - midnight + ahead


HEADER = (
    "# Filename and settings of the processing, in nine lines\n"
    * 8
    + "# International Terrestrial Reference Frame: ITRF08\n"
    "# UTC_Seconds_Of_Day, Latitude(deg), Longitude(deg), WGS84_Ellipsoid_Height(m), South-to-North_Slope,"
    " West-to-East_Slope, RMS_Fit(cm), Number_Of_ATM_Measurments_Used, Number_Of_ATM_Measurements_Removed,"
    " Distance_Of_Block_To_The_Right_Of_Aircraft(m), Track_Identifier\n"
)


def atm_planes(folder: Path, truth: Flight, *, commas: bool = True) -> Path:
    seconds = _since_midnight(truth, "utc" if commas else "gps")
    table = pd.DataFrame(
        {
            "seconds": [f"{value:.3f}" for value in seconds],
            "latitude": [f"{value:.6f}" for value in truth.latitude],
            "longitude": [f"{value:.6f}" for value in truth.longitude % 360.0],
            "height": [f"{value:.4f}" for value in truth.elevation],
            "north": "-.0061347",
            "east": "0.0109315",
            "rms": "5.92",
            "used": 387,
            "removed": 5,
            "distance": "-76." if not commas else -76,
            "track": 1,
        }
    )
    table.loc[BAD, "height"] = "*" * 8 if commas else "-9999.0000"
    day = str(truth.time[0])[:10].replace("-", "")
    if commas:
        path = folder / f"ILATM2_{day}_180518_smooth_nadir3seg_50pt.csv"
        path.write_text(HEADER + table.to_csv(header=False, index=False).replace(",", ", "))
    else:
        path = folder / f"BLATM2_{day[2:]}_180518_smooth_nadir3seg"
        rows = ("  " + "  ".join(map(str, row)) for row in table.itertuples(index=False))
        path.write_text("\n".join(rows) + "\n")
    return path


def _packed_time(truth: Flight) -> np.ndarray:
    """Return times of day as hhmmss.sss on GPS time."""
    seconds = np.round(_since_midnight(truth, "gps"), 3) % 86_400.0
    return seconds // 3600 * 10_000 + seconds // 60 % 60 * 100 + seconds % 60


def atm_hdf5(folder: Path, truth: Flight) -> Path:
    elevation = truth.elevation.copy()
    elevation[BAD] = np.nan
    variables = {
        "latitude": truth.latitude,
        "longitude": truth.longitude % 360.0,
        "elevation": elevation.astype("f4"),
        "instrument_parameters/time_hhmmss": _packed_time(truth),
        "instrument_parameters/rel_time": np.arange(COUNT) * 0.05,
    }
    day = str(truth.time[0])[:10].replace("-", "")
    return hdf5(folder / f"ILATM1B_{day}_180518.ATM4BT4.h5", variables, {})


def atm_qfit(folder: Path, truth: Flight, words: int = 12, order: str = ">") -> Path:
    records = np.zeros((COUNT, words), np.int64)
    for column, values in (
        (0, np.arange(COUNT) * 50),
        (1, truth.latitude * 1e6),
        (2, truth.longitude % 360.0 * 1e6),
        (3, truth.elevation * 1e3),
        (-1, _packed_time(truth) * 1e3),
    ):
        records[:, column] = np.rint(values)
    records[BAD, 1:4] = 0, 0, -9_999_000
    length = np.zeros(words, np.int64)
    length[0] = 4 * words
    text = np.full((2, words), 0x20202020, np.int64)
    text[:, 0] = -9_000_008
    day = str(truth.time[0])[:10].replace("-", "")
    path = folder / f"ILATM1B_{day}_180518.ATM4BT4.qi"
    path.write_bytes(np.vstack([length, text, records]).astype(f"{order}i4").tobytes())
    return path


def lvis(folder: Path, truth: Flight, *, version: int = 1) -> Path:
    day = truth.time[0].astype("datetime64[D]")
    file_number = f"1{int((day - np.datetime64('1858-11-17')).astype(int))}003"
    low = ("LONGITUDE_LOW LATITUDE_LOW ELEVATION_LOW", "GLON GLAT ZG")[version - 1]
    first = ("LVIS_LFID", "LFID")[version - 1]
    more = " AZIMUTH INCIDENTANGLE RANGE" * (version - 1)
    lines = [
        "# Several elevations are derived from the LVIS Level 1B waveform product.",
        f"# {first} SHOTNUMBER TIME {low} LONGITUDE_HIGH LATITUDE_HIGH ELEVATION_HIGH{more}",
    ]
    seconds = seconds_since(truth.time, str(day)) % 86_400.0
    for i in range(COUNT):
        height = -9999.0 if i == BAD else truth.elevation[i]
        place = f"{truth.longitude[i] % 360.0:.6f}  {truth.latitude[i]:.6f}   {height:.3f}"
        rest = " 1.0 2.0 3.0" * (version - 1)
        lines.append(f"{file_number}  {1000 + i}  {seconds[i]:.5f}  {place} {place}{rest}")
    path = folder / f"ILVIS2_GL{str(day)[:4]}_{str(day)[5:].replace('-', '')}_R1401_042504.TXT"
    path.write_text("\n".join(lines) + "\n")
    return path


class Case(NamedTuple):
    """A product: how it is written, from which flight, and what its reader makes of it."""

    write: Callable[[Path, Flight], Path]
    truth: Flight
    product: str
    platform: str
    mode: str
    dropped: str
    place: float
    """Resolution of place, degrees."""
    height: float
    """Resolution of height, metres."""


CASES = {
    "fdr4alt": Case(
        fdr4alt,
        flight("2008-05-03T19:08:10"),
        "fdr4alt_land_ice",
        "envisat",
        "lrm",
        "retracking_failed",
        1e-7,
        1e-3,
    ),
    "reaper": Case(
        reaper,
        flight("1996-01-01T00:00:10"),
        "reaper_ers",
        "ers2",
        "lrm",
        "retracking_failed",
        1e-12,
        1e-9,
    ),
    "sentinel3": Case(
        sentinel3,
        flight("2019-05-04T11:25:46"),
        "sentinel3_land_ice",
        "sentinel3b",
        "sar",
        "poor_waveform",
        1e-6,
        1e-4,
    ),
    "glah12": Case(
        glas,
        flight("2005-10-22T06:00:00", "25"),
        "icesat_glah12",
        "icesat",
        "laser",
        "elevation_unusable",
        2e-7,
        1e-4,
    ),
    "glah06": Case(
        lambda folder, truth: glas(folder, truth, "GLAH06"),
        flight("2006-03-01T06:00:00", "25"),
        "icesat_glah06",
        "icesat",
        "laser",
        "elevation_unusable",
        2e-7,
        1e-4,
    ),
    "ilatm2": Case(
        atm_planes,
        flight("2011-03-31T18:05:18"),
        "icebridge_ilatm2",
        "atm",
        "laser",
        "no_elevation",
        1e-6,
        1e-4,
    ),
    "blatm2": Case(
        lambda folder, truth: atm_planes(folder, truth, commas=False),
        flight("1993-07-01T14:29:37"),
        "icebridge_ilatm2",
        "atm",
        "laser",
        "no_elevation",
        1e-6,
        1e-4,
    ),
    "ilatm1b": Case(
        atm_hdf5,
        flight("2014-04-30T11:03:10"),
        "icebridge_ilatm1b",
        "atm",
        "laser",
        "no_elevation",
        1e-9,
        3e-4,
    ),
    "qfit": Case(
        atm_qfit,
        flight("2009-11-04T18:13:04"),
        "icebridge_ilatm1b",
        "atm",
        "laser",
        "no_position",
        1e-6,
        1e-3,
    ),
    "lvis": Case(
        lvis,
        flight("2009-04-14T11:48:24"),
        "icebridge_ilvis2",
        "lvis",
        "laser",
        "no_elevation",
        1e-6,
        1e-3,
    ),
    "lvis2": Case(
        lambda folder, truth: lvis(folder, truth, version=2),
        flight("2017-08-25T11:48:24"),
        "icebridge_ilvis2",
        "lvis",
        "laser",
        "no_elevation",
        1e-6,
        1e-3,
    ),
}
