"""A product of known truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryotile.fit.config import FitConfig
from cryotile.fit.variables import Status
from cryotile.geo.grid import Grid
from cryotile.maps.product import write_product
from tests.exchange.published import CORNERS, SOUTH, truth
from tests.support.maps import made_up

PERIOD = ("2018-01-01", "2022-01-01")

Make = Callable[..., Path]


def grid(crs: str = SOUTH, posting: float = 1000.0, size: float = 40_000.0) -> Grid:
    """Posts from the corner of the published grids on."""
    left, bottom = CORNERS[crs]
    return Grid(crs, (left, bottom, left + size, bottom + size), posting)


@pytest.fixture
def product(tmp_path: Path) -> Make:
    """Return a function that writes a product whose rate is the plane of the published grids."""

    def make(
        name: str = "dhdt.nc",
        *,
        crs: str = SOUTH,
        posting: float = 1000.0,
        period: tuple[str, str] = PERIOD,
        windows: tuple[str, str] | None = None,
        heights: str | None = None,
        slope: float = 0.001,
        about: dict[str, str | int] | None = None,
    ) -> Path:
        config = FitConfig(
            radius=2000.0,
            recipe="passes",
            period=period,
            reference_epoch="2020-01-01",
            windows=windows,
            heights=heights,
        )
        posts = grid(crs, posting)
        fitted = made_up(posts, config)
        rate = truth(*np.meshgrid(posts.x, posts.y), crs)
        bare = np.zeros(rate.shape, bool)
        bare[1:3, 2] = True
        fitted["status"].values[...] = np.where(bare, Status.NO_POINTS, Status.OK)

        def put(variable: str, values: np.ndarray | float) -> None:
            fitted[variable].values[...] = np.where(bare, np.nan, values)

        put("dhdt", rate)
        put("dhdt_sigma", 0.03)
        put("elevation", 1000.0)
        put("elevation_sigma", 0.1)
        put("slope_x", slope)
        put("slope_y", 0.0)
        if windows:
            # The rate of a window differs from that of the whole by its number.
            number = np.arange(fitted.sizes["time"])[:, None, None]
            put("window_dhdt", rate + 0.01 * number)
            put("window_dhdt_sigma", 0.06)
        if heights:
            since = fitted["height_time"].to_numpy() - np.datetime64("2020-01-01", "ms")
            years = since / np.timedelta64(1, "D") / 365.25
            put("height", rate * years[:, None, None])
            put("height_sigma", 0.2)
        path = tmp_path / name
        write_product(fitted, path, grid=posts, config=config, about=about or {})
        return path

    return make
