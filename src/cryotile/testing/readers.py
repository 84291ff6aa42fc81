"""The test suite of readers.

A third party subclasses it beside its own tests and names a granule::

    class TestMyReader(ReaderContract):
        @pytest.fixture
        def granule_path(self):
            return Path("a_granule_of_mine.nc")

        @pytest.fixture
        def sensing_window(self):
            return "2020-09-30T23:56:08", "2020-09-30T23:57:58"

The suite finds the reader as a user's call does, so the reader must be installed under its entry point.  Suites of
tables with a column mapping also override the fixture ``mapping``.
"""

# ruff: noqa: D102 - the names of tests are their documentation

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryotile.points import (
    CORE_COLUMNS,
    MODES,
    SURFACE_TYPES,
    Granule,
    join_passes,
    platform_code,
)
from cryotile.readers import (
    ColumnMapping,
    all_readers,
    extra_columns,
    find_reader,
    read_granule,
)
from cryotile.readers.source import open_source

__all__ = ["ReaderContract"]

FEWEST_ECHOES, STRAIGHT = 10, 0.9

_COLUMNS = {
    {"x": "longitude", "y": "latitude"}.get(name, name): dtype
    for name, dtype in CORE_COLUMNS.items()
}


class ReaderContract:
    """Tests that hold for every granule of every product."""

    @pytest.fixture
    def granule_path(self) -> Path:
        """Return the path of a complete and valid granule."""
        raise NotImplementedError(
            "a subclass of ReaderContract must define the fixture granule_path"
        )

    @pytest.fixture
    def sensing_window(self) -> tuple[str, str]:
        """Return the first and last instant of the granule, UTC, ISO 8601, from another source than the reader."""
        raise NotImplementedError(
            "a subclass of ReaderContract must define the fixture sensing_window"
        )

    @pytest.fixture
    def mapping(self) -> ColumnMapping | None:
        """Return the column mapping if the granule is a table that needs one."""
        return None

    @pytest.fixture
    def other_name(self) -> str:
        """Return another name of the file; it keeps what the content does not tell, such as the day of a flight."""
        return "renamed.dat"

    @pytest.fixture
    def read(self, granule_path: Path, mapping: ColumnMapping | None) -> Callable[..., Granule]:
        """Return the call that reads the granule, given surfaces and columns."""
        return partial(read_granule, granule_path, mapping=mapping)

    @pytest.fixture
    def granule(self, read: Callable[..., Granule]) -> Granule:
        """Return the granule with points on all surfaces."""
        return read(surface_types=SURFACE_TYPES)

    def test_one_reader_recognises_it(
        self, granule_path: Path, mapping: ColumnMapping | None
    ) -> None:
        with open_source(granule_path) as source:
            found = [reader.product for reader in all_readers() if reader.recognises(source)]
        assert found == ([find_reader(granule_path).product] if mapping is None else [])

    def test_it_is_chosen_by_content_not_by_name(
        self,
        read: Callable[..., Granule],
        granule_path: Path,
        other_name: str,
        mapping: ColumnMapping | None,
        tmp_path: Path,
    ) -> None:
        renamed = shutil.copy(granule_path, tmp_path / other_name)
        granule, same = read(), read_granule(renamed, mapping=mapping)
        assert same.name == other_name
        assert (same.id, same.checksum, same.dropped) == (
            granule.id,
            granule.checksum,
            granule.dropped,
        )
        pd.testing.assert_frame_equal(same.points, granule.points)

    def test_points_have_the_core_columns_in_their_dtypes(self, granule: Granule) -> None:
        assert list(granule.points.columns) == list(_COLUMNS)
        assert {name: str(dtype) for name, dtype in granule.points.dtypes.items()} == _COLUMNS

    def test_every_record_is_kept_or_dropped_for_one_reason(
        self, read: Callable[..., Granule], granule: Granule
    ) -> None:
        for each in (granule, read()):
            assert len(each.points) + sum(each.dropped.values()) == each.record_count
            assert all(count > 0 for count in each.dropped.values())
            assert all(re.fullmatch(r"[a-z][a-z0-9_]*", reason) for reason in each.dropped)

    def test_no_point_lacks_a_value(self, granule: Granule) -> None:
        required = granule.points.drop(columns=["uncertainty", "ascending"])
        assert not required.isna().any(axis=None)
        numbers = required[["longitude", "latitude", "elevation"]].to_numpy()
        assert np.isfinite(numbers).all()

    def test_positions_are_on_earth(self, granule: Granule) -> None:
        assert granule.points["latitude"].between(-90.0, 90.0).all()
        assert granule.points["longitude"].between(-180.0, 360.0).all()
        assert (granule.points["elevation"] != 0.0).all()
        assert granule.points["elevation"].between(-500.0, 9000.0).all()

    def test_uncertainty_is_positive_or_missing(self, granule: Granule) -> None:
        assert (granule.points["uncertainty"].dropna() > 0.0).all()

    def test_classes_are_those_of_cryotile(self, granule: Granule) -> None:
        assert all(platform_code(word) > 0 for word in set(granule.points["platform"]))
        assert set(granule.points["mode"]) <= set(MODES)
        assert set(granule.points["surface_type"]) <= set(SURFACE_TYPES)

    def test_passes_follow_from_platform_and_direction(self, granule: Granule) -> None:
        passes = granule.points["pass_id"].to_numpy()
        platform = granule.points["platform"].astype(object).map(platform_code)
        assert (passes >> 32 == platform.to_numpy()).all()
        known = granule.points["ascending"].notna().to_numpy()
        ascending = granule.points["ascending"][known].to_numpy(bool)
        # The last bit is the direction, unless a reader that infers all directions leaves it out of the pass.
        assert (ascending == passes[known] & 1).all() or not (passes & 1).any()

    def test_directions_are_those_in_which_latitude_changes(self, granule: Granule) -> None:
        points = granule.points[granule.points["ascending"].notna()]
        flights = points.groupby([join_passes(points), points["ascending"].to_numpy(bool)])
        for (_, north), flight in flights:
            seconds = flight["time"].astype("datetime64[ms]").astype(np.int64).to_numpy() / 1000.0
            # A few echoes far from nadir may lie the other way round.
            if len(flight) >= FEWEST_ECHOES and np.ptp(flight["latitude"]) > 0.0:
                along = np.corrcoef(seconds, flight["latitude"])[0, 1]
                assert north == (along > 0.0) or abs(along) < STRAIGHT

    def test_times_are_utc_within_the_sensing_window(
        self, granule: Granule, sensing_window: tuple[str, str]
    ) -> None:
        # An error in leap seconds would be 18 s or more.
        start, stop = (np.datetime64(instant, "ms") for instant in sensing_window)
        second = np.timedelta64(1, "s")
        assert (granule.points["time"] >= start - second).all()
        assert (granule.points["time"] <= stop + second).all()

    def test_only_points_on_requested_surfaces_are_returned(
        self, read: Callable[..., Granule], granule: Granule
    ) -> None:
        for surface, count in granule.points["surface_type"].value_counts().items():
            alone = read(surface_types=(str(surface),)).points
            assert len(alone) == count
            assert set(alone["surface_type"]) <= {surface}
        default = read().points
        assert set(default["surface_type"]) <= {"grounded_ice"}

    def test_reading_again_gives_the_same(
        self, read: Callable[..., Granule], granule: Granule
    ) -> None:
        again = read(surface_types=SURFACE_TYPES)
        assert (again.id, again.dropped) == (granule.id, granule.dropped)
        pd.testing.assert_frame_equal(again.points, granule.points)

    def test_the_id_is_product_zone_start_and_orbit(
        self, granule: Granule, sensing_window: tuple[str, str]
    ) -> None:
        product, _, start, orbit = granule.id.split(":")
        assert product == granule.product
        assert orbit.isdecimal()
        iso = re.sub(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)", r"\1-\2-\3T\4:\5:\6", start)
        first = np.datetime64(sensing_window[0], "s")
        assert abs(np.datetime64(iso, "s") - first) <= np.timedelta64(1, "s")

    def test_the_checksum_is_that_of_the_file(self, granule_path: Path, granule: Granule) -> None:
        assert granule.checksum == hashlib.sha256(granule_path.read_bytes()).hexdigest()
        assert granule.name == granule_path.name

    def test_extra_columns_are_returned_on_request(
        self,
        read: Callable[..., Granule],
        granule_path: Path,
        mapping: ColumnMapping | None,
        granule: Granule,
    ) -> None:
        offered = mapping.extra if mapping else find_reader(granule_path).columns
        everything = tuple(extra_columns(mapping))
        points = read(surface_types=SURFACE_TYPES, columns=everything).points
        assert list(points.columns) == [*_COLUMNS, *everything]
        assert all(str(points[name].dtype) == "float64" for name in everything)
        assert all(points[name].isna().all() for name in everything if name not in offered)
        pd.testing.assert_frame_equal(points[list(_COLUMNS)], granule.points)
