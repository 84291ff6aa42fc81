"""The basins of the demo are those that its truth is added up over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import cryotile
from cryotile.cli import demo
from cryotile.geo.grid import Grid
from cryotile.geo.regions import Regions
from cryotile.maps.metadata import cell_area
from cryotile.simulate import World

pytest.importorskip("pyogrio")


def test_the_true_rates_over_the_basins_of_the_demo_add_up_to_its_true_totals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    grid = Grid(world.crs, (-90e3, -1440e3, 90e3, -1260e3), 1000.0)
    demo._write_basins(tmp_path / "basins.geojson", world)
    regions = Regions.read(tmp_path / "basins.geojson", "basin", grid)
    area = cell_area(grid)
    maps = xr.Dataset({"cell_area": (("y", "x"), area)}, coords={"y": grid.y, "x": grid.x})
    maps.to_netcdf(tmp_path / "dhdt.nc")
    volume = area * world.dhdt(*np.meshgrid(grid.x, grid.y)) / 1e9
    found = {name: volume[regions.number == k].sum() for k, name in enumerate(regions.names)}
    found["all"] = volume[regions.number >= 0].sum()
    table = pd.DataFrame({"region": list(found), "volume_km3_yr": list(found.values())})
    table.assign(term="none").to_csv(tmp_path / "totals.csv")
    demo._compare_totals(tmp_path / "totals.csv", tmp_path / "dhdt.nc", world)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*demo.BASINS, "all"]
    for line in lines:
        error, truth = (float(part.split()[-2]) for part in line.split(", truth "))
        # Chords of the polygons leave out a few posts at the rim.
        assert abs(error) < 0.002 < abs(truth)


def test_the_series_of_a_basin_is_compared_with_its_true_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    grid = Grid(world.crs, (-90e3, -1440e3, 90e3, -1260e3), 1000.0)
    demo._write_basins(tmp_path / "basins.geojson", world)
    regions = Regions.read(tmp_path / "basins.geojson", "basin", grid)
    area, rate = cell_area(grid), world.dhdt(*np.meshgrid(grid.x, grid.y))
    volume = float((area * rate)[regions.number == regions.names.index(demo.BASINS[0])].sum())
    bins = np.array(["2011-01-01", "2012-01-01", "2013-01-01"], "datetime64[ns]")
    years = (bins - bins[0]) / np.timedelta64(1, "D") / 365.25
    change = np.array([[0.0, 0.1, -0.1]]) + volume * years / 1e9
    maps = xr.Dataset(
        {"dhdt": (("y", "x"), rate), "cell_area": (("y", "x"), area)},
        coords={"y": grid.y, "x": grid.x},
    )
    series = xr.Dataset(
        {
            "volume": (("region", "height_time"), change),
            "volume_upper": (("region", "height_time"), change + 0.2),
        },
        coords={"height_time": bins},
    )
    monkeypatch.setattr(cryotile, "series", lambda *_, **__: series)
    monkeypatch.setattr(cryotile, "open", lambda _: maps)
    demo._compare_series(tmp_path / "dhdt.nc", world)
    said = capsys.readouterr().out
    # Chords of the polygons leave out a few posts at the rim.
    assert 0.097 < float(said.split("rms ")[1].split()[0]) < 0.103
    assert f"of {2 * volume / 1e9:+.2f}" in said
    assert "2 of 2 bins within the 95 % interval" in said
