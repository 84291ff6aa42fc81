"""Physical values of stored numbers: fill values, ranges, scale and offset."""

from __future__ import annotations

import numpy as np
import pytest

from cryotile.geo.values import has_utc_calendar, physical_values

NAN = np.nan


@pytest.mark.parametrize(
    ("raw", "attributes", "expected"),
    [
        (np.array([1, -7], "i2"), {"_FillValue": np.int16(-7)}, [1, NAN]),
        (np.array([1, -7, -8], "i4"), {"missing_value": np.array([-7, -8])}, [1, NAN, NAN]),
        (np.array([1, -7]), {"missing_value": -7.0, "_FillValue": 3}, [1, NAN]),
        (np.array([0, 5, 11]), {"valid_range": np.array([1, 10])}, [NAN, 5, NAN]),
        (np.array([0, 5, 11]), {"valid_min": 1}, [NAN, 5, 11]),
        (np.array([0, 5, 11]), {"valid_max": 10}, [0, 5, NAN]),
        (np.array([1.0, 9.969209968386869e36]), {}, [1, NAN]),
        (np.array([1.0, 9.969209968386869e36], "f4"), {}, [1, NAN]),
        (np.array([1, -32767], ">i2"), {"scale_factor": 0.5}, [0.5, NAN]),
        (np.array([1, -127], "i1"), {}, [1, -127]),
        (np.array([1, 2], "i2"), {"scale_factor": 0.5, "add_offset": 10.0}, [10.5, 11]),
        # A range in the type of the stored numbers applies to these; one in the type of the scale, to scaled values.
        (np.array([10, 30], "i2"), {"scale_factor": 0.1, "valid_max": np.int16(20)}, [1, NAN]),
        (np.array([10, 30], "i2"), {"scale_factor": 0.1, "valid_max": 2.0}, [1, NAN]),
        (np.array([10, 30], "i2"), {"scale_factor": 0.1, "valid_max": 20.0}, [1, 3]),
        (np.array([1.5, 0.1], "f4"), {"_FillValue": 0.1}, [1.5, NAN]),
        (np.array([1, 2], "i1"), {"missing_value": -9999}, [1, 2]),
        (np.array([1, 2]), {"missing_value": b"none", "valid_range": "0 to 1"}, [1, 2]),
        (np.array([1, 2]), {"_FillValue": NAN}, [1, 2]),
        (np.array([NAN, 2]), {"_FillValue": NAN}, [NAN, 2]),
    ],
)
def test_attributes_decide_which_stored_numbers_are_valid(raw, attributes, expected):
    np.testing.assert_allclose(physical_values(raw, attributes), expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("calendar", "known"),
    [(None, True), ("standard", True), ("Gregorian", True), ("noleap", False), ("360_day", False)],
)
def test_only_the_standard_calendar_is_accepted(calendar, known):
    assert has_utc_calendar(calendar) is known
