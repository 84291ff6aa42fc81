"""Layouts that others publish are told by their content, and all give the same truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryotile.errors import DamagedFile, InvalidValue
from cryotile.exchange.layouts import read_reference
from cryotile.exchange.reference import Field, Reference
from tests.exchange import published
from tests.exchange.published import NORTH, SIGMA, SOUTH, truth
from tests.support.errors import one_line

LAYOUTS = {
    "ATL15": (published.atl15, ("2019-01-01", "2020-01-01")),
    "ESA CCI+ Antarctica SEC": (published.cci_antarctica, ("2010-07-01", "2020-12-01")),
    "C3S Antarctica SEC": (published.c3s_antarctica, ("2009-05-28", "2014-05-28")),
    "C3S Greenland SEC": (published.c3s_greenland, ("2011-11-27", "2016-11-26")),
    "ESA CCI Greenland SEC": (published.cci_greenland, ("2011-11-27", "2016-11-26")),
    "ITS_LIVE elevation change": (published.its_live, ("2014-01-01", "2019-01-01")),
}


def close_to_truth(reference: Reference, field: Field, crs: str, *, rate: float = 1.0) -> None:
    """Check that a field is the plane, y and x ascending."""
    assert (np.diff(reference.x) > 0).all()
    assert (np.diff(reference.y) > 0).all()
    expected = rate * truth(*np.meshgrid(reference.x, reference.y), crs)
    known = np.isfinite(field.value)
    assert known.sum() >= expected.size - 1
    np.testing.assert_allclose(field.value[known], expected[known], atol=2e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_told_by_its_content_and_gives_the_truth(layout: str, tmp_path: Path) -> None:
    make, period = LAYOUTS[layout]
    # The name of a file tells nothing but, of CCI+ Antarctica, the period.
    path = tmp_path / "x-20100701-20201201.nc"
    crs = make(path)
    reference = read_reference([path])
    assert reference.layout == layout
    assert reference.crs.to_epsg() == int(crs.removeprefix("EPSG:"))
    wanted = tuple(np.datetime64(day, "ms") for day in period)
    rates = reference.rates_for(wanted)
    periods = [tuple(str(end)[:10] for end in rate.period or ()) for rate in rates]
    assert period in periods
    close_to_truth(reference, rates[periods.index(period)].read(), crs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_has_sigmas(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "x-20100701-20201201.nc"
    LAYOUTS[layout][0](path)
    reference = read_reference([path])
    period = (np.datetime64("2014-01-01", "ms"), np.datetime64("2019-01-01", "ms"))
    sigma = reference.rates_for(period)[0].read().sigma
    assert sigma is not None
    # Of a difference of two epochs that are five years apart.
    expected = SIGMA * np.sqrt(2) / 5 if "ITS_LIVE" in layout else SIGMA
    assert np.nanmedian(sigma) == pytest.approx(expected, rel=1e-3)


def test_averages_of_atl15_have_a_suffix(tmp_path: Path) -> None:
    published.atl15(tmp_path / "a.nc", posting=10e3)
    reference = read_reference([tmp_path / "a.nc"])
    (annual,) = [rate for rate in reference.rates if rate.label.startswith("dhdt_lag4")]
    close_to_truth(reference, annual.read(), NORTH)
    assert len(reference.epochs) == 3


def test_quadrants_of_atl15_are_joined(tmp_path: Path) -> None:
    published.atl15(tmp_path / "a1.nc", columns=slice(0, 8))
    published.atl15(tmp_path / "a2.nc", columns=slice(6, 13))
    reference = read_reference([tmp_path])
    (annual,) = [rate for rate in reference.rates if rate.label.startswith("dhdt_lag4")]
    assert annual.read().value.shape == (14, 13)
    close_to_truth(reference, annual.read(), NORTH)
    assert len(reference.epochs) == 3
    published.atl15(tmp_path / "a3.nc", posting=2000.0)
    with pytest.raises(InvalidValue, match="have different grids") as error:
        read_reference([tmp_path])
    one_line(error)


def test_lags_of_the_monthly_atl15_are_months(tmp_path: Path) -> None:
    published.atl15(tmp_path / "a.nc", monthly=True)
    periods = [rate.period for rate in read_reference([tmp_path / "a.nc"]).rates]
    assert [round(float((end - start) / np.timedelta64(1, "D"))) for start, end in periods] == [
        91,
        91,
        365,
    ]


def test_the_axis_of_atl15_is_in_kilometres_where_there_is_no_wkt(tmp_path: Path) -> None:
    published.atl15(tmp_path / "a.nc", cf_alone=True)
    reference = read_reference([tmp_path / "a.nc"])
    x, y = reference.crs.to_cf(), published.pyproj.CRS(NORTH).to_cf()
    assert x["semi_major_axis"] == y["semi_major_axis"]
    assert any("in km: converted" in note for note in reference.notes)


def test_the_geotransform_of_atl15_contradicts_its_coordinates(tmp_path: Path) -> None:
    published.atl15(tmp_path / "a.nc")
    notes = read_reference([tmp_path / "a.nc"]).notes
    assert "its GeoTransform contradicts x and y: the coordinates are used" in notes


def test_version_1_of_cci_greenland_says_its_period_in_words(tmp_path: Path) -> None:
    crs = published.cci_greenland_old(tmp_path / "a.nc")
    reference = read_reference([tmp_path / "a.nc"])
    (rate,) = reference.rates
    assert rate.period == (np.datetime64("2011-01-01"), np.datetime64("2016-01-01"))
    field = rate.read()
    close_to_truth(reference, field, crs)
    assert "SEC states no unit: m yr-1 assumed" in field.notes


def test_a_cumulative_grid_is_divided_by_its_period(tmp_path: Path) -> None:
    crs = published.cci_cumulative(tmp_path / "a.nc")
    reference = read_reference([tmp_path / "a.nc"])
    (rate,) = reference.rates
    assert rate.period == (np.datetime64("2010-01-01"), np.datetime64("2020-01-01"))
    # Ten calendar years from 2010 on have two leap days.
    close_to_truth(reference, rate.read(), crs, rate=10 / (3652 / 365.25))


def test_starts_and_ends_that_are_not_one_for_each_map_are_refused(tmp_path: Path) -> None:
    published.cci_cumulative(tmp_path / "a.nc", ends=(2015.0, 2020.0))
    with pytest.raises(InvalidValue, match="1 values of start_time, 2 of end_time and 1") as error:
        read_reference([tmp_path / "a.nc"])
    one_line(error)


@pytest.mark.parametrize("make", [published.c3s_antarctica, published.c3s_greenland])
def test_values_that_are_flagged_as_bad_are_dropped(
    make: Callable[[Path], str], tmp_path: Path
) -> None:
    make(tmp_path / "a.nc")
    field = read_reference([tmp_path / "a.nc"]).rates[0].read()
    assert np.isnan(field.value).sum() == 1
    assert any("is not 1: dropped" in note for note in field.notes)


def test_the_pole_hole_of_its_live_is_no_measurement(tmp_path: Path) -> None:
    published.its_live(tmp_path / "a.nc")
    reference = read_reference([tmp_path / "a.nc"])
    field = reference.epochs[3].read()
    assert np.isnan(field.value[-1, 0])
    assert np.isfinite(field.value).sum() == field.value.size - 1


def test_months_of_eolis_are_read_together(tmp_path: Path) -> None:
    for month in ("2015-01-16", "2016-01-16", "2018-01-16"):
        published.eolis(tmp_path / f"{month}.nc", month=month)
    reference = read_reference([tmp_path])
    assert reference.layout == "CryoTEMPO EOLIS gridded"
    period = (np.datetime64("2015-01-01", "ms"), np.datetime64("2018-02-01", "ms"))
    (rate,) = reference.rates_for(period)
    assert rate.period == (np.datetime64("2015-01-16"), np.datetime64("2018-01-16"))
    close_to_truth(reference, rate.read(), SOUTH)


def test_files_of_two_layouts_are_refused(tmp_path: Path) -> None:
    published.eolis(tmp_path / "a.nc")
    published.its_live(tmp_path / "b.nc")
    with pytest.raises(InvalidValue, match="compare with one at a time") as error:
        read_reference([tmp_path])
    one_line(error)


# --- any grid ----------------------------------------------------------------------------------------------------


def cf(path: Path, **options: object) -> tuple[Reference, Field]:
    published.cf_grid(path, **options)  # type: ignore[arg-type]
    reference = read_reference([path], variable="trend", sigma="trend_error")
    return reference, reference.rates[0].read()


@pytest.mark.parametrize(
    ("units", "factor"),
    [
        ("m yr-1", 1.0),
        ("m/a", 1.0),
        ("meters years^-1", 1.0),
        ("mm/yr", 1e3),
        ("cm a-1", 1e2),
        ("ft/yr", 1 / 0.3048),
        ("m day-1", 1 / 365.25),
        ("mm per month", 1e3 / 12),
        ("m s-1", 1 / 31_557_600),
    ],
)
def test_units_of_a_rate_are_converted_and_said(units: str, factor: float, tmp_path: Path) -> None:
    told = {"rate": {"units": units}, "sigma": {"units": units}}
    reference, field = cf(tmp_path / "a.nc", factor=factor, sigma_value=SIGMA * factor, **told)
    close_to_truth(reference, field, SOUTH)
    assert np.allclose(field.sigma, SIGMA)
    assert any("converted from" in note for note in field.notes) == (abs(factor - 1) > 1e-9)


@pytest.mark.parametrize("units", ["kg m-2 yr-1", "m w.e. yr-1", "m", "K", "m2 yr-1", "Gt/yr"])
def test_a_unit_that_is_none_of_a_rate_is_refused(units: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="not that of a rate") as error:
        cf(tmp_path / "a.nc", rate={"units": units})
    assert repr(units) in one_line(error)


@pytest.mark.parametrize("units", ["m2 yr-2", "(m/yr)^2", "m^2 a^-2", "m**2 yr**-2"])
def test_a_variance_is_told_by_its_unit(units: str, tmp_path: Path) -> None:
    _, field = cf(tmp_path / "a.nc", sigma={"units": units}, sigma_value=SIGMA**2)
    assert np.allclose(field.sigma, SIGMA)
    assert any("is a variance" in note for note in field.notes)


def test_a_variance_by_name_alone_is_refused(tmp_path: Path) -> None:
    told = {"units": "m yr-1", "long_name": "variance of the trend"}
    with pytest.raises(InvalidValue, match="variance by its name, but its unit is m yr-1") as error:
        cf(tmp_path / "a.nc", sigma=told)
    one_line(error)


def test_an_uncertainty_that_is_not_used_is_named(tmp_path: Path) -> None:
    told = {"units": "m2 yr-2", "long_name": "variance of the trend"}
    published.cf_grid(tmp_path / "a.nc", sigma=told)
    reference = read_reference([tmp_path / "a.nc"], variable="trend")
    assert reference.rates[0].read().sigma is None
    (note,) = reference.notes
    assert note == (
        'not used, uncertain by name: trend_error (a variance); to use one: sigma="trend_error"'
    )
    lon, lat, rate = places()
    rows = np.column_stack([lon, lat, rate, 0 * rate + SIGMA, 0 * rate, 0 * rate])
    path = table(tmp_path / "a.csv", "lon,lat,dhdt,sigma,dhdt_variance,flag", rows)
    reference = read_reference([path])
    assert np.allclose(reference.rates[0].read().sigma, SIGMA)
    assert any("name: dhdt_variance (a variance); to use" in note for note in reference.notes)
    path = table(tmp_path / "b.csv", "lon,lat,dhdt,sigma,north,weight", rows)
    assert not any("not used" in note for note in read_reference([path]).notes)


def test_a_rate_of_thinning_changes_its_sign(tmp_path: Path) -> None:
    told = {"units": "m yr-1", "long_name": "rate of thinning"}
    reference, field = cf(tmp_path / "a.nc", factor=-1.0, rate=told)
    close_to_truth(reference, field, SOUTH)
    assert any("its sign is changed" in note for note in field.notes)


def test_a_fill_value_that_is_not_declared_is_no_rate(tmp_path: Path) -> None:
    def spoil(values: np.ndarray) -> None:
        values[3, 4:7] = -9999.0

    _, field = cf(tmp_path / "a.nc", edit=spoil)
    assert np.isnan(field.value).sum() == 3
    assert any(note.startswith("3 values of trend beyond") for note in field.notes)


def test_the_variable_must_be_named_where_the_layout_is_unknown(tmp_path: Path) -> None:
    published.cf_grid(tmp_path / "a.nc")
    with pytest.raises(InvalidValue, match='variable="NAME", one of trend, trend_error') as error:
        read_reference([tmp_path / "a.nc"])
    one_line(error)


def test_a_grid_without_a_crs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="names no CRS"):
        cf(tmp_path / "a.nc", mapping={})


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x89HDF\r\n\x1a\nbroken", b"CDF\x01brk"])
def test_a_file_that_is_not_netcdf_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_bytes(content)
    with pytest.raises((InvalidValue, DamagedFile)) as error:
        read_reference([tmp_path / "a.nc"])
    assert str(tmp_path / "a.nc") in one_line(error)


# --- tables ------------------------------------------------------------------------------------------------------


def table(path: Path, head: str, rows: np.ndarray, before: str = "") -> Path:
    lines = [",".join(f"{number:.10g}" for number in row) for row in rows]
    path.write_text(before + "\n".join([head, *lines]) + "\n")
    return path


def places() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = (at.ravel() for at in np.meshgrid(*published.axes(NORTH, 500.0, 20)))
    lon, lat = published.pyproj.Transformer.from_crs(NORTH, "EPSG:4326", always_xy=True).transform(
        x, y
    )
    return lon, lat, truth(x, y, NORTH)


@pytest.mark.parametrize(
    "head",
    [
        "longitude,latitude,dhdt,sigma,start,end",
        "Lon [deg], Lat [deg], dh/dt [cm/yr], error [cm/yr], T1, T2",
        "# lon, lat, dhdt (m/yr), sigma (m/yr), t1, t2",
    ],
)
def test_columns_of_a_table_are_known_by_name(head: str, tmp_path: Path) -> None:
    lon, lat, rate = places()
    factor = 100.0 if "cm" in head else 1.0
    some = np.column_stack(
        [
            lon,
            lat,
            factor * rate,
            np.full_like(rate, factor * SIGMA),
            0 * rate + 2011,
            0 * rate + 2016,
        ]
    )
    path = table(tmp_path / "a.csv", head, some, before="# airborne laser\n")
    reference = read_reference([path])
    (one,) = reference.rates
    field = one.read()
    assert one.period == (np.datetime64("2011-01-01"), np.datetime64("2016-01-01"))
    np.testing.assert_allclose(field.value, truth(reference.x, reference.y, NORTH), atol=1e-6)
    assert np.allclose(field.sigma, SIGMA)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lon,lat,dhdt\n", "none of its 0 rows has a place and a rate"),
        ("lon,lat,dhdt\n-45,178,0.1\n", "none of its 1 rows has a place and a rate"),
        (
            "lon,lat,dhdt,start,end\n-45,78,0.1,2020-01-01,2012-01-01\n",
            "the period of dhdt ends before its start",
        ),
    ],
)
def test_a_table_without_a_rate_or_with_reversed_dates_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InvalidValue, match=message) as error:
        read_reference([tmp_path / "a.csv"])
    one_line(error)


def test_columns_that_mean_the_same_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("lon,lat,rate,dhdt\n-45,78,0.1,0.2\n")
    reference = read_reference([tmp_path / "a.csv"])
    assert reference.notes[-1] == "columns rate, dhdt are all a rate by name: rate is used"


def test_a_mapping_names_columns_and_the_crs(tmp_path: Path) -> None:
    x, y = (at.ravel() for at in np.meshgrid(*published.axes(NORTH, 500.0, 20)))
    rows = np.column_stack([x, y, 1e3 * truth(x, y, NORTH)])
    path = table(tmp_path / "a.csv", "E,N,change", rows)
    mapping = tmp_path / "m.toml"
    named = {"x": "E", "y": "N", "rate": "change", "unit": "mm/yr", "crs": "EPSG:3413"}
    for text in (
        "".join(f'{what} = "{name}"\n' for what, name in named.items()),
        json.dumps(named),
    ):
        mapping.write_text(text)
        reference = read_reference([path], mapping=mapping)
        np.testing.assert_allclose(reference.rates[0].read().value, truth(x, y, NORTH), atol=1e-6)
    for text, message in {
        'x = "E"\ny = "N"\nrate = "change"\n': "unknown CRS",
        'x = "E"\ny = "N"\nrate = "loss"\n': "no column 'loss'",
        'nonsense = "E"\n': "a key 'nonsense'",
        "x = ": "neither TOML nor JSON",
    }.items():
        mapping.write_text(text)
        with pytest.raises(InvalidValue, match=message) as error:
            read_reference([path], mapping=mapping)
        one_line(error)
