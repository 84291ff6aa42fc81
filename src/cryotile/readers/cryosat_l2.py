"""ESA CryoSat-2 Level 2 (LRM, SAR, SARIn, GDR) and L2I in NetCDF-4, Baselines D to F.

Both have the same names of variables and different flag words.  Heights and flags follow the CryoSat-2 NetCDF L2 and
L2I format specifications (ESA, CS-RS-ACS-ESL-5265 and its counterpart for L2), checked against real files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryotile.points import MODES, SURFACE_TYPES
from cryotile.readers.base import Identity, ProductReader, Records, codes, find_passes
from cryotile.readers.source import Shape, Source
from cryotile.times import tai_to_utc

__all__ = ["L2", "L2I", "CryosatL2", "ErrorFlag"]

_NAME = re.compile(
    r"_SIR_(?P<kind>LRM|SAR|SIN|GDR)(?P<level>_2|I2)__.*_(?P<baseline>[A-Z])(?P<version>\d{3})$"
)

_MODES = {1: "lrm", 2: "sar", 3: "sarin_poca"}
_MODE_OF_KIND = {"LRM": 1, "SAR": 2, "SIN": 3}
_HEIGHTS = tuple(f"height_{retracker}_20_ku" for retracker in (1, 2, 3))
_SURFACES = {0: "ocean", 1: "lake", 2: "grounded_ice", 3: "ice_free_land"}

# LRM: retracker 3 (OCOG) has the fewest errors over ice sheets; retrackers 2 and 3 do not run in the other modes.
_RETRACKER = {"lrm": 3, "sar": 1, "sarin_poca": 1}

_NO_FLAGS = -(2**31)
_NOTE = (
    "the product does not distinguish floating from grounded ice: all of it counts as grounded_ice"
)


@dataclass(frozen=True)
class ErrorFlag:
    """A bit that rejects a record.

    Attributes
    ----------
    reason : str
        A key of :data:`cryotile.readers.REASONS`.
    mask : int
        The bit.
    variable : str
        The flag word that contains it.
    mode : str or None
        The only mode in which it applies; None: all modes.
    """

    reason: str
    mask: int
    variable: str
    mode: str | None = None


@dataclass(frozen=True)
class CryosatL2(ProductReader):
    """Reader of Level 2 or of L2I.

    Attributes
    ----------
    product : str
        Name of the product.
    level : str
        End of the type in ``product_name``.
    word : str
        Variable with the error bits of the heights.
    height_errors : mapping of int to int
        Retracker → its error bit in ``word``.
    flags : tuple of ErrorFlag
        The other bits that reject a record.
    variables : mapping of str to tuple of str
        Extra column → variable and unit; ``{}`` stands for the retracker.
    notes : tuple of str
        Facts that a user should know about every granule.
    """

    product: str
    level: str
    word: str
    height_errors: Mapping[int, int]
    flags: tuple[ErrorFlag, ...]
    variables: Mapping[str, tuple[str, str]]
    notes: tuple[str, ...] = (_NOTE,)

    def recognises(self, source: Source) -> bool:
        """Return whether ``product_name`` is of this level or, if it is absent, flag word and a height are there."""
        name = source.attribute("product_name")
        if name is None:
            return self.word in source and any(height in source for height in _HEIGHTS)
        match = _NAME.search(str(name))
        return match is not None and match["level"] == self.level

    def contents(self, source: Source, extra: Sequence[str]) -> tuple[Identity, Records]:
        """Return identity and records of a granule."""
        orbit = source.optional_integer("abs_orbit_number")
        records = self._records(source, orbit, extra)
        return self._identity(source, records.time, orbit), records

    def _records(self, source: Source, orbit: int | None, extra: Sequence[str]) -> Records:
        tai = source.values("time_20_ku")
        mode = codes(self._instrument_mode(source, tai.shape), _MODES, MODES)
        retracker = np.full(tai.shape, 1)
        for name, number in _RETRACKER.items():
            retracker[mode == MODES.index(name)] = number
        latitude = source.values("lat_poca_20_ku", tai.shape)
        time = tai_to_utc(tai, epoch="2000-01-01")
        passes = find_passes("cryosat2", orbit, _northward(source, tai), time, latitude)
        return Records(
            platform="cryosat2",
            longitude=source.values("lon_poca_20_ku", tai.shape),
            latitude=latitude,
            time=time,
            elevation=_used(source.values, "height_{}_20_ku", retracker),
            uncertainty=np.full(tai.shape, np.nan),
            pass_id=passes.pass_id,
            ascending=passes.ascending,
            mode=mode,
            surface_type=codes(
                source.raw_or("surf_type_20_ku", tai.shape, -1), _SURFACES, SURFACE_TYPES
            ),
            rejected=self._rejected(source, mode, retracker),
            extra={
                name: _used(source.values_or_nan, self.variables[name][0], retracker)
                for name in extra
            },
            notes=passes.notes,
        )

    def _instrument_mode(self, source: Source, shape: Shape) -> NDArray[Any]:
        """Return the mode of each record, from the name of the product or file if the granule lacks the variable."""
        variable = "flag_instr_mode_op_20_ku"
        match = _NAME.search(str(source.attribute("product_name") or source.path.stem))
        mode = _MODE_OF_KIND.get(match["kind"]) if match else None
        return source.raw(variable, shape) if mode is None else source.raw_or(variable, shape, mode)

    def _rejected(
        self, source: Source, mode: NDArray[np.int8], retracker: NDArray[np.int_]
    ) -> dict[str, NDArray[np.bool_]]:
        # Bits are tested one by one, because some warnings are set on every record of a file.
        # A flag of a mode that the granule does not have need not be in it.
        flags = [
            flag for flag in self.flags if not flag.mode or (mode == MODES.index(flag.mode)).any()
        ]
        words = {
            name: source.raw(name, mode.shape)
            for name in {self.word, *(flag.variable for flag in flags)}
        }
        height_mask = np.zeros(mode.shape, dtype=words[self.word].dtype)
        for number in np.unique(retracker):
            height_mask[retracker == number] = self.height_errors[int(number)]
        rejected = {
            "flag_missing": words[self.word] == _NO_FLAGS,
            "height_error": (words[self.word] & height_mask) != 0,
        }
        for flag in flags:
            counts = True if flag.mode is None else mode == MODES.index(flag.mode)
            rejected[flag.reason] = ((words[flag.variable] & flag.mask) != 0) & counts
        return rejected

    def _identity(
        self, source: Source, times: NDArray[np.datetime64], orbit: int | None
    ) -> Identity:
        match = _NAME.search(str(source.attribute("product_name")))
        return Identity(
            product=self.product,
            zone=match["kind"] if match else "unknown",
            start=source.sensing_start(source.attribute("sensing_start"), times),
            orbit=orbit or 0,
            baseline=match["baseline"] if match else "",
            version=int(match["version"]) if match else 0,
        )


def _used(
    read: Callable[[str, Shape], NDArray[np.float64]], variable: str, retracker: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Read the values of ``variable``, whose ``{}`` stands for the retracker used; NaN where it did not run.

    Values that a mode does not use are 0 in L2I and the fill value in L2.
    """
    values = np.full(retracker.shape, np.nan)
    for number in np.unique(retracker):
        chosen = retracker == number
        values[chosen] = read(variable.format(number), retracker.shape)[chosen]
    values[values == 0.0] = np.nan
    return values


def _northward(source: Source, time: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the rate of the latitude of nadir, which is positive where the satellite flies north; None if unknown.

    The latitude of echoes jumps back and forth.  ``ascending_flag`` is one letter for a file that may turn at 88
    degrees; it is used if the file has no nadir or is too short.
    """
    for nadir, at in (("lat_20_ku", "time_20_ku"), ("lat_01", "time_cor_01")):
        if nadir not in source or at not in source:
            continue
        latitude = source.values(nadir)
        times = source.values(at, latitude.shape)
        known = np.isfinite(latitude) & np.isfinite(times)
        if np.count_nonzero(known) >= 2:
            rate: NDArray[np.float64] = np.interp(time, times[known], np.gradient(latitude[known]))
            return rate
    flag = source.attribute("ascending_flag")
    return np.full(time.shape, 1.0 if flag == "A" else -1.0) if flag in ("A", "D") else None


_STATUS = "flag_prod_status_20_ku"

L2 = CryosatL2(
    product="cryosat2_l2",
    level="_2",
    word=_STATUS,
    height_errors={1: 16777216, 2: 8388608, 3: 4194304},
    flags=(
        ErrorFlag("height_ambiguous", 2048, _STATUS),
        ErrorFlag("block_degraded", 134217728, _STATUS),
        ErrorFlag("orbit_error", 67108864, _STATUS),
        ErrorFlag("orbit_discontinuity", 33554432, _STATUS),
        ErrorFlag("mispointing_error", 64, _STATUS),
        ErrorFlag("bad_baseline", 8, _STATUS),
        ErrorFlag("slope_model_invalid", 16, _STATUS, mode="lrm"),
    ),
    variables={"power": ("sig0_{}_20_ku", "dB"), "peakiness": ("peakiness_20_ku", "1")},
)

L2I = CryosatL2(
    product="cryosat2_l2i",
    level="I2",
    word="flag_quality_20_ku",
    height_errors={1: 4096, 2: 2048, 3: 1024},
    flags=(
        ErrorFlag("xtrack_angle_error", 16, "flag_quality_20_ku"),
        # Values, not bits: 0 no warning, 1 warning, 2 not checked; so the lowest bit is the warning.
        ErrorFlag("height_ambiguous", 1, "flag_sarin_ambiguity_warning_20_ku", mode="sarin_poca"),
        # Its fill value, -1, has all bits set, so a block without flags counts as degraded.
        ErrorFlag("block_degraded", -(2**31), "flag_mcd_20_ku"),
    ),
    variables={
        "power": ("sig0_{}_20_ku", "dB"),
        "peakiness": ("peakiness_20_ku", "1"),
        "coherence": ("coherence_20_ku", "1"),
        "across_track_angle": ("across_track_angle_20_ku", "rad"),
        "reference_dem": ("dem_height_20_ku", "m"),
    },
)
