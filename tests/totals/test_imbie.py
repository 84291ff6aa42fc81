"""The tables of IMBIE, against the rules of the public validator, stated here once more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import cryotile as ct
from cryotile.errors import InvalidValue
from cryotile.totalling.imbie import decimal_year, imbie_ids
from tests.support.mapped_world import World, eight_basins, world

# --- the rules, independent of the package ---------------------------------------------------------------------------

RATES = [
    "contributor", "experiment_group", "basin_group", "basin_id", "area_basin", "area_observed",
    "date_0", "date_1", "dmdt", "dmdt_sd",
]  # fmt: skip
SERIES = [*RATES[:6], "date", "dm", "dm_sd"]
ZWALLY = {str(k) for k in range(1, 28)} | {
    f"{a}.{b}"
    for a, bs in {1: "1234", 2: "12", 3: "123", 4: "123", 5: "0", 6: "12", 7: "12", 8: "12"}.items()
    for b in bs
}
RIGNOT = {
    "I-IPP", "IPP-J", "HP-I", "H-HP", "G-H", "J-JPP", "EP-F", "F-G", "K-A", "A-AP", "AP-B", "JPP-K",
    "B-C", "E-EP", "CP-D", "C-CP", "DP-E", "D-DP", "NO", "NE", "SE", "SW", "CW", "NW",
}  # fmt: skip
SHEETS = {"AIS", "EAIS", "WAIS", "APIS", "GRIS"}


def valid(path: Path, columns: list[str]) -> pd.DataFrame:
    """Check a table by the rules and return it."""
    text = path.read_bytes().decode("utf-8")
    assert "\r" not in text
    assert text.endswith("\n")
    lines = [line.split(",") for line in text.splitlines()]
    assert {len(line) for line in lines} == {len(columns)}
    table = pd.DataFrame(lines, columns=columns)
    assert len(set(table["contributor"])) == 1
    assert set(table["experiment_group"]) <= {"RA", "LA"}
    assert len(set(table["experiment_group"])) == 1
    assert set(table["basin_group"]) <= {"Rignot", "Zwally"}
    known = {"Rignot": RIGNOT, "Zwally": ZWALLY}
    for basin_set, name in zip(table["basin_group"], table["basin_id"], strict=True):
        assert name.upper() in known[basin_set] | SHEETS
    numbers = table[columns[4:]].astype(float)
    assert np.isfinite(numbers).all(axis=None)
    assert (numbers["area_observed"] <= numbers["area_basin"] + 1e-3).all()
    assert (numbers["area_basin"] > 0).all()
    assert (numbers[columns[-1]] >= 0).all()
    table[columns[4:]] = numbers
    for _, own in table.groupby(["basin_group", "basin_id"]):
        if "date_0" in columns:
            assert (own["date_0"] < own["date_1"]).all()
            assert (own["date_0"].to_numpy()[1:] >= own["date_1"].to_numpy()[:-1] - 1e-9).all()
            assert (np.abs(np.diff(own["date_0"]) - 1 / 12) < 1e-4).all()
        else:
            assert (np.abs(np.diff(own["date"]) - 1.0) < 1e-4).all()
    return table


# --- the tests -------------------------------------------------------------------------------------------------------

ANTARCTIC = ["A-Ap", "ap-b", "B-C", "C-Cp", "Cp-D", "D-Dp", "Dp-E", "E-Ep"]


@pytest.fixture(scope="module")
def rignot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    path = eight_basins(tmp_path_factory.mktemp("rignot") / "basins.gpkg", ANTARCTIC)
    drawn = world(path, 5)
    return path, World(
        drawn.truth, drawn.height, drawn.product.assign_attrs(source_modes="lrm, sarin_poca")
    )


def write(path: Path, rignot: tuple[Path, World], product: xr.Dataset | None = None, **options):
    basins, drawn = rignot
    given = {"density": 917, "imbie_contributor": "Rossi"} | options
    return ct.totals(product or drawn.product, basins, "NAME", imbie=path, **given)


def with_heights(product: xr.Dataset, months: int) -> xr.Dataset:
    """Return the product with heights of basins in bins, as runs planned with basins and heights have them."""
    starts = pd.date_range("2011-01-01", "2021-01-01", freq=pd.DateOffset(months=months))
    bounds = np.column_stack([starts[:-1], starts[1:]]).astype("datetime64[ns]")
    bins, regions = len(bounds), product.sizes["region"]
    heights = -1e9 * np.arange(1, regions + 1)[:, None] * np.linspace(0, 1, bins)
    covariance = np.broadcast_to(1e16 * (np.eye(bins) + 1.0), (regions, bins, bins))
    middle = bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) / 2
    over = ("region", "height_time")
    return product.assign(
        region_height=(over, heights),
        region_height_covariance=((*over, "height_time_2"), covariance),
    ).assign_coords(height_time=middle, height_time_bnds=(("height_time", "bnds"), bounds))


def test_the_table_of_rates_keeps_the_rules_and_has_the_totals(rignot, tmp_path):
    table = write(tmp_path / "imbie.csv", rignot)
    found = valid(tmp_path / "imbie.csv", RATES).set_index("basin_id")
    assert list(found.index) == ["A-Ap", "Ap-B", *ANTARCTIC[2:]]
    totals = table.set_index("region")
    np.testing.assert_allclose(found["dmdt"], totals.mass_gt_yr[ANTARCTIC], atol=1e-6)
    np.testing.assert_allclose(found["dmdt_sd"], totals.mass_sigma[ANTARCTIC], atol=1e-6)
    np.testing.assert_allclose(found["area_observed"], totals.fitted_km2[ANTARCTIC], atol=1e-3)
    assert set(found["date_0"]) == {2011.0}
    assert set(found["date_1"]) == {2021.0}
    assert set(found["experiment_group"]) == {"RA"}
    assert any("not those of a whole ice sheet" in note for note in table.attrs["notes"])
    assert any("no series" in note for note in table.attrs["notes"])


@pytest.mark.parametrize("months", [1, 3, 12])
def test_the_table_of_series_has_a_bin_a_year_relative_to_the_first(rignot, tmp_path, months):
    product = with_heights(rignot[1].product, months)
    write(tmp_path / "imbie.csv", rignot, product)
    found = valid(tmp_path / "imbie-series.csv", SERIES)
    for k, name in enumerate(["A-Ap", "Ap-B"]):
        own = found[found["basin_id"] == name]
        assert len(own) == 10
        bins = 120 // months
        steps = np.arange(10) * (12 // months) / (bins - 1)
        np.testing.assert_allclose(own["dm"], -0.917 * (k + 1) * steps, atol=1e-6)
        np.testing.assert_allclose(
            own["dm_sd"], 0.917 * np.where(steps > 0, 0.1 * 2**0.5, 0), atol=1e-6
        )
        assert own["date"].iloc[0] == pytest.approx(2011 + months / 24, abs=1e-6)


def test_months_are_twelfths_of_a_year():
    dates = [decimal_year(f"2012-{month:02d}-01") for month in range(1, 13)]
    np.testing.assert_allclose(np.diff(dates), 1 / 12, atol=1e-12)
    assert decimal_year("2012-02-15T12:00") == pytest.approx(2012 + 1.5 / 12)


@pytest.mark.parametrize(
    ("names", "basin_set", "whole"),
    [
        ([str(k) for k in range(1, 28)], "Zwally", "AIS"),
        (sorted(ZWALLY - {str(k) for k in range(1, 28)}), "Zwally", "GRIS"),
        (["no", "NE", "SE", "SW", "CW", "NW"], "Rignot", "GRIS"),
        (["NO", "NE"], "Rignot", None),
        (["EAIS", "WAIS", "APIS"], "Rignot", None),
        (["1", "2", "EAIS"], "Zwally", None),
    ],
)
def test_ids_tell_the_basin_set_and_a_whole_ice_sheet(names, basin_set, whole):
    ids, found, _ = imbie_ids(names)
    assert found == basin_set
    assert ids.get("all") == whole
    assert {i.upper() for i in ids.values()} <= ZWALLY | RIGNOT | SHEETS


def refused(rignot, path: Path, **options) -> str:
    with pytest.raises(InvalidValue) as caught:
        write(path, rignot, **options)
    assert not path.exists()
    return str(caught.value)


def test_what_the_exercise_does_not_take_is_refused_with_the_reason(
    rignot, tmp_path, basins, drawn
):
    path = tmp_path / "imbie.csv"
    for year in (2024, 2025):
        assert "one column more" in refused(rignot, path, imbie_year=year)
    assert "give a density" in refused(rignot, path, density=None)
    for name in (None, "", "a,b"):
        assert "imbie_contributor" in refused(rignot, path, imbie_contributor=name)
    mixed = rignot[1].product.assign_attrs(source_modes="laser, lrm")
    assert "modes laser, lrm: a table" in refused(rignot, path, product=mixed)
    bare = rignot[1].product.drop_vars(["region_rate", "region_delta", "region"])
    assert "need the standard error" in refused(rignot, path, product=bare)
    assert ".csv" in refused(rignot, tmp_path / "imbie.txt")
    with pytest.raises(InvalidValue, match="knows no basin 'b0'"):
        ct.totals(
            drawn.product,
            basins,
            "NAME",
            density=917,
            imbie=path,
            imbie_contributor="A",
            imbie_group="RA",
        )
    write(path, rignot, product=mixed, imbie_group="LA", imbie_year=2022)
    assert set(valid(path, RATES)["experiment_group"]) == {"LA"}
