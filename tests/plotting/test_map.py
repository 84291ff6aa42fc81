"""A map draws and describes its variable, and is the same picture every time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import cryotile as ct
from cryotile.errors import InvalidValue, MissingDependency, UnwritablePath
from cryotile.fit.variables import Status
from cryotile.geo.grid import Grid
from cryotile.geo.projection import projected_crs
from cryotile.maps.product import read_product, write_product
from cryotile.plotting.caption import caption
from cryotile.plotting.colours import round_up
from cryotile.plotting.graticule import draw_graticule
from cryotile.plotting.kinds import draw, save
from cryotile.plotting.view import MapView
from tests.support.maps import CONFIG, GRID, made_up

mpl_image = pytest.importorskip("matplotlib.image")
pytest.importorskip("cmcrameri")
Figure = pytest.importorskip("matplotlib.figure").Figure


def product_of(
    path: Path,
    status: npt.NDArray[np.int_],
    dhdt: float = -1.0,
    *,
    grid: Grid = GRID,
    days: int = 1000,
) -> Path:
    """Write a product with these statuses, one rate, and points from 1 May 2019 on."""
    whole = made_up(grid)
    has_points = ~np.isin(status, [Status.NO_POINTS, Status.NOT_COMPUTED])
    start = np.datetime64("2019-05-01", "ns")
    whole["status"].values[...] = status
    whole["dhdt"].values[...] = np.where(status == Status.OK, dhdt, np.nan)
    for name, instant in (("time_start", start), ("time_end", start + np.timedelta64(days, "D"))):
        whole[name].values[...] = np.where(has_points, instant, np.datetime64("NaT"))
    write_product(whole, path, grid=grid, config=CONFIG)
    return path


def fitted_everywhere(grid: Grid = GRID) -> npt.NDArray[np.int_]:
    return np.full(grid.shape, Status.OK)


def plot_product(path: Path, out: Path, *, variable: str = "dhdt") -> None:
    save(ct.open(path), out, variable)


def figure_of(data: xr.DataArray | xr.Dataset, variable: str | None = None, **look: Any) -> Figure:
    axes = draw(data, variable, **look)
    assert not isinstance(axes, np.ndarray)
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure


def colours_of(picture: Path) -> npt.NDArray[np.float64]:
    return np.asarray(mpl_image.imread(picture), dtype=np.float64)[..., :3]


def caption_of(path: Path, variable: str = "dhdt") -> str:
    product = read_product(path)
    return caption(product, variable, MapView.of(product, variable))


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_map_is_the_same_picture_every_time(tmp_path: Path, suffix: str) -> None:
    product = product_of(tmp_path / "dhdt.nc", fitted_everywhere())
    for name in ("first", "second"):
        plot_product(product, tmp_path / f"{name}.{suffix}")
    first = (tmp_path / f"first.{suffix}").read_bytes()
    assert first == (tmp_path / f"second.{suffix}").read_bytes()
    assert len(first) > 1000


@pytest.mark.parametrize(("rate", "stronger", "weaker"), [(-1.0, 0, 2), (1.0, 2, 0)])
def test_loss_is_red_and_gain_is_blue(
    tmp_path: Path, rate: float, stronger: int, weaker: int
) -> None:
    product = product_of(tmp_path / "dhdt.nc", fitted_everywhere(), rate)
    plot_product(product, tmp_path / "dhdt.png")
    picture = colours_of(tmp_path / "dhdt.png")
    middle = picture[picture.shape[0] // 2, picture.shape[1] // 2]
    assert middle[stronger] > 2 * middle[weaker]


@pytest.mark.parametrize(
    "variable",
    ["dhdt_sigma", "elevation", "data_count", "time_end", "terms", "status", "cell_area"],
)
def test_every_kind_of_variable_can_be_drawn(tmp_path: Path, variable: str) -> None:
    write_product(made_up(GRID), tmp_path / "dhdt.nc", grid=GRID, config=CONFIG)
    plot_product(tmp_path / "dhdt.nc", tmp_path / "map.png", variable=variable)
    assert colours_of(tmp_path / "map.png").std() > 0.01


@pytest.mark.parametrize(
    "bounds", [(0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 90e3, 0.0), (0.0, -2e6, 0.0, -1.9e6)]
)
def test_a_map_of_a_single_row_or_post_can_be_drawn(
    tmp_path: Path, bounds: tuple[float, float, float, float]
) -> None:
    grid = Grid("EPSG:3413", bounds, 1000.0)
    product = product_of(tmp_path / "dhdt.nc", fitted_everywhere(grid), grid=grid)
    plot_product(product, tmp_path / "dhdt.png")
    assert colours_of(tmp_path / "dhdt.png").std() > 0.01


@pytest.mark.parametrize("crs", ["EPSG:3031", "EPSG:3413"])
def test_a_map_around_the_pole_can_be_drawn(tmp_path: Path, crs: str) -> None:
    grid = Grid(crs, (-2e6, -2e6, 2e6, 2e6), 100_000.0)
    product = product_of(tmp_path / "dhdt.nc", fitted_everywhere(grid), grid=grid)
    plot_product(product, tmp_path / "dhdt.png")
    assert colours_of(tmp_path / "dhdt.png").std() > 0.01


@pytest.mark.parametrize(
    ("crs", "extent"),
    [
        ("EPSG:3413", (-212.0, -123.0, -2170.0, -1949.0)),
        ("EPSG:3413", (-900.0, -100.0, -1450.0, -1300.0)),
        ("EPSG:3031", (-2000.0, 2000.0, -2000.0, 2000.0)),
        ("EPSG:32719", (600.0, 700.0, 5400.0, 5500.0)),
    ],
    ids=["slim", "low", "pole", "square"],
)
def test_labels_of_meridians_and_parallels_overlap_neither_each_other_nor_the_frame(
    crs: str, extent: tuple[float, float, float, float]
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across, up = extent[1] - extent[0], extent[3] - extent[2]
    figure = Figure(figsize=(6 * across / max(across, up), 6 * up / max(across, up)))
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=extent[:2], ylim=extent[2:])
    draw_graticule(axes, projected_crs(crs), extent)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts]
    assert len(boxes) >= 4
    frame = axes.get_window_extent()
    for number, box in enumerate(boxes):
        assert frame.x0 < box.x0 < box.x1 < frame.x1
        assert frame.y0 < box.y0 < box.y1 < frame.y1
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_the_name_of_every_status_fits_in_the_picture(tmp_path: Path) -> None:
    statuses = fitted_everywhere()
    statuses[0, : len(Status)] = list(Status)
    out = tmp_path / "status.png"
    plot_product(product_of(tmp_path / "all.nc", statuses), out, variable="status")
    assert (colours_of(out)[:, -8:] == 1.0).all()


def test_a_long_title_has_two_lines_and_fits_in_the_picture(tmp_path: Path) -> None:
    slim = Grid(GRID.crs, (0, 0, 4e3, 40e3), 1000.0)
    product = product_of(tmp_path / "slim.nc", fitted_everywhere(slim), grid=slim)
    for name in ("dhdt", "dhdt_sigma_formal"):
        plot_product(product, tmp_path / f"{name}.png", variable=name)
    short, long = (colours_of(tmp_path / f"{n}.png") for n in ("dhdt", "dhdt_sigma_formal"))
    assert (long[:, -4:] == 1).all()
    assert short.shape[1] == long.shape[1]
    assert len(long) > len(short)


def test_the_map_of_a_product_without_a_fit_says_so(tmp_path: Path) -> None:
    product = product_of(tmp_path / "dhdt.nc", np.full(GRID.shape, Status.NO_POINTS))
    plot_product(product, tmp_path / "dhdt.png")
    assert caption_of(product).startswith("No post with a fit")


def test_a_single_fitted_post_among_a_million_is_visible() -> None:
    grid = Grid("EPSG:3031", (0.0, 0.0, 1_499_000.0, 999_000.0), 1000.0)
    status = np.full(grid.shape, Status.NO_POINTS)
    status[0, 0] = status[-1, -1] = Status.SINGULAR
    status[500, 700] = Status.OK
    dhdt = np.where(status == Status.OK, -2.5, np.nan)
    product = xr.Dataset(
        {"status": (("y", "x"), status), "dhdt": (("y", "x"), dhdt)},
        coords={"y": grid.y, "x": grid.x},
        attrs={"posting": 1000.0},
    )
    view = MapView.of(product, "dhdt")
    assert max(view.values.shape) <= 240
    assert np.nanmin(view.values) == np.nanmax(view.values) == -2.5
    assert view.has_points.sum() == 3


def test_a_map_is_cropped_to_the_posts_with_points(tmp_path: Path) -> None:
    status = np.full(GRID.shape, Status.NO_POINTS)
    status[30:35, 40:50] = Status.OK
    view = MapView.of(read_product(product_of(tmp_path / "dhdt.nc", status)), "dhdt")
    left, right, bottom, top = view.extent
    assert left < GRID.x[40] / 1e3 < GRID.x[49] / 1e3 < right < left + 13
    assert bottom < GRID.y[30] / 1e3 < GRID.y[34] / 1e3 < top < bottom + 8


def test_merged_squares_show_the_mean_of_the_fitted_posts() -> None:
    grid = Grid("EPSG:3031", (0.0, 0.0, 2_999.0, 9.0), 1.0)
    status = np.zeros(grid.shape, int)
    status[:, 1::2] = Status.SINGULAR
    values = np.where(status == Status.OK, np.broadcast_to(grid.x, grid.shape), np.nan)
    product = xr.Dataset(
        {"status": (("y", "x"), status), "dhdt": (("y", "x"), values)},
        coords={"y": grid.y, "x": grid.x},
        attrs={"posting": 1.0},
    )
    view = MapView.of(product, "dhdt")
    assert view.merged == 3
    np.testing.assert_array_equal(view.values[0, :4], [1.0, 4.0, 7.0, 10.0])


@pytest.mark.parametrize(
    ("days", "sentence"),
    [
        (91, "Three summer months scaled to a year, not an annual rate."),
        (20, "One spring month scaled to a year, not an annual rate."),
        (245, "Eight months scaled to a year, not an annual rate."),
    ],
)
def test_a_rate_from_part_of_a_year_is_not_called_annual(
    tmp_path: Path, days: int, sentence: str
) -> None:
    grid = Grid("EPSG:3413", (0.0, -2e6, 9e3, -1.99e6), 1000.0)
    product = product_of(tmp_path / "dhdt.nc", fitted_everywhere(grid), grid=grid, days=days)
    assert sentence in caption_of(product)
    assert sentence in caption_of(product, "dhdt_sigma")
    assert "annual" not in caption_of(product, "elevation")


def test_a_northern_summer_is_a_southern_winter(tmp_path: Path) -> None:
    assert "Three winter months" in caption_of(
        product_of(tmp_path / "dhdt.nc", fitted_everywhere(), days=91)
    )


def test_a_rate_over_years_has_no_warning_about_seasons(tmp_path: Path) -> None:
    assert "annual" not in caption_of(
        product_of(tmp_path / "dhdt.nc", fitted_everywhere(), days=900)
    )


def test_a_caption_describes_the_fit_and_the_colours_without_a_value(
    tmp_path: Path,
) -> None:
    status = fitted_everywhere()
    status[:10], status[10:20], status[20:30] = (
        Status.NO_POINTS,
        Status.NOT_COMPUTED,
        Status.SINGULAR,
    )
    text = caption_of(product_of(tmp_path / "dhdt.nc", status))
    assert "3,526 posts with a fit, every 1 km, to points within 2 km; recipe plane" in text
    assert "2015-01-01 to 2018-01-01" in text
    for meaning in (
        "Dark grey: points but no fit",
        "beige: not computed",
        "light grey: no points",
    ):
        assert meaning in text


@pytest.mark.parametrize(
    ("share", "points"), [("100 %", "simulated points"), ("12.5 %", "partly simulated points")]
)
def test_a_caption_says_that_points_are_simulated(tmp_path: Path, share: str, points: str) -> None:
    path = product_of(tmp_path / "dhdt.nc", fitted_everywhere())
    with netCDF4.Dataset(path, "a") as product:
        product.simulated = f"{share} of the points of the granules"
    assert f"every 1 km, to {points} within 2 km" in caption_of(path)


@given(st.floats(1e-9, 1e9))
def test_limits_are_round_numbers_and_include_the_value(value: float) -> None:
    limit = round_up(value)
    assert value <= limit * (1 + 1e-8)
    assert limit < 1.51 * value
    assert float(f"{limit:.1e}") == pytest.approx(limit, rel=1e-12)


def test_the_error_names_a_map_that_cannot_be_drawn(tmp_path: Path) -> None:
    product = product_of(tmp_path / "dhdt.nc", fitted_everywhere())
    with pytest.raises(
        InvalidValue, match=r"map.bmp has no suffix of a picture; choose one of .png, .pdf, .svg"
    ):
        plot_product(product, tmp_path / "map.bmp")
    with pytest.raises(
        InvalidValue, match=r"no variable 'polar_stereographic' over .*choose one of dhdt"
    ):
        plot_product(product, tmp_path / "map.png", variable="polar_stereographic")
    with pytest.raises(UnwritablePath, match=r"gone/map.png cannot be written"):
        plot_product(product, tmp_path / "gone" / "map.png")


def test_a_missing_library_is_named_with_the_extra_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = product_of(tmp_path / "dhdt.nc", fitted_everywhere())
    monkeypatch.setitem(sys.modules, "cmcrameri", None)
    with pytest.raises(
        MissingDependency, match=r"cmcrameri is missing.*pip install 'cryotile\[plot\]'"
    ):
        plot_product(product, tmp_path / "map.png")


def test_a_variable_of_a_product_is_drawn_without_a_file(tmp_path: Path) -> None:
    write_product(made_up(GRID), tmp_path / "dhdt.nc", grid=GRID, config=CONFIG)
    plot_product(tmp_path / "dhdt.nc", tmp_path / "command.png")
    product = xr.load_dataset(tmp_path / "dhdt.nc", decode_coords="all")
    figure_of(product).savefig(tmp_path / "dataset.png", dpi=200)
    np.testing.assert_array_equal(
        colours_of(tmp_path / "dataset.png"), colours_of(tmp_path / "command.png")
    )
    alone = figure_of(product.dhdt)
    axes, bar = alone.axes
    assert axes.get_xlabel() == "x (km), EPSG:3031"
    assert axes.get_title("left") == "Elevation change rate"
    assert bar.get_ylabel() == "dh/dt (m yr⁻¹)"
    assert any("°W" in text.get_text() for text in axes.texts)
    assert alone._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_a_map_without_a_crs_has_axes_in_kilometres_and_no_meridians() -> None:
    values = xr.DataArray(
        [[1.0, 2.0], [3.0, np.nan]], {"y": [2e3, 1e3], "x": [0.0, 1e3]}, ("y", "x"), "rain"
    )
    figure = figure_of(values, limits=(0.0, 3.0), title="Rain")
    axes = figure.axes[0]
    assert axes.get_title("left") == "Rain"
    assert axes.get_xlabel() == "x (km)"
    assert [text.get_text() for text in axes.texts] == ["500 m"]
    # The first row of the data is the northern one.
    np.testing.assert_array_equal(axes.images[1].get_array(), [[3.0, np.nan], [1.0, 2.0]])
    assert axes.images[1].get_clim() == (0.0, 3.0)


@pytest.mark.parametrize(
    ("name", "units", "low", "colour_map", "limits"),
    [
        ("dhdt", "m yr-1", -0.9, "cmc.vik_r", (-1.0, 1.0)),
        ("slope_x", "1", -0.9, "cmc.vik", (-1.0, 1.0)),
        ("elevation", "m", -0.9, "cmc.batlow", (-0.9, 1.0)),
        ("annual_phase", "rad", 0.1, "cmc.romaO", (0.0, 2 * np.pi)),
    ],
)
def test_the_colour_map_suits_the_kind_of_variable(
    name: str, units: str, low: float, colour_map: str, limits: tuple[float, float]
) -> None:
    import matplotlib as mpl

    values = np.linspace(low, 1.0, 600).reshape(20, 30)
    data = xr.DataArray(
        values, {"y": np.arange(20.0), "x": np.arange(30.0)}, ("y", "x"), name, {"units": units}
    )
    image = figure_of(data).axes[0].images[1]
    assert image.get_clim() == pytest.approx(limits)
    zero = image.cmap(image.norm(0.0))
    share = 0.0 if colour_map == "cmc.romaO" else float(image.norm(0.0))
    np.testing.assert_allclose(zero, mpl.colormaps[colour_map](share), atol=0.05)


def test_an_array_that_is_not_a_map_is_refused_in_one_line() -> None:
    cube = xr.DataArray(np.zeros((2, 3, 4)), dims=("time", "y", "x"), name="dhdt")
    with pytest.raises(InvalidValue, match=r"no variable 'dhdt' over \(y, x\).*select the other"):
        figure_of(cube.rename(time="place", x="time"))
    with pytest.raises(InvalidValue, match="no coordinate 'x'"):
        figure_of(cube[0])
    with pytest.raises(InvalidValue, match="no variable 'height' over"):
        figure_of(xr.Dataset({"dhdt": cube[0]}), "height")


# --- options of a map, and names in its legend ------------------------------------------------------------------


def masked() -> xr.Dataset:
    """Return a fit of a disc inside a mask; its western half has uncertain rates and other terms."""
    fitted = made_up(GRID).assign_attrs(crs="EPSG:3031")
    x, y = np.meshgrid(GRID.x, GRID.y)
    outside = np.hypot(x + 1_467_500.0, y + 445_000.0) > 20e3
    west = x < -1_467_500.0
    fitted["status"].values[...] = np.where(outside, Status.OUTSIDE_MASK, Status.OK)
    fitted["dhdt"].values[...] = np.where(outside, np.nan, 0.2)
    fitted["dhdt_ci95"].values[...] = np.where(outside, np.nan, np.where(west, 0.3, 0.1))
    fitted["terms"].values[...] = np.where(west, 1, 3)
    return fitted


def test_a_masked_map_is_cropped_and_its_outline_drawn() -> None:
    figure = figure_of(masked())
    axes = figure.axes[0]
    assert np.ptp(axes.get_xlim()) < 50.0
    assert len(axes.collections) == 1
    assert "outside the mask" in " ".join(text.get_text() for text in figure.texts).replace(
        "\n", " "
    )


def test_uncertain_rates_are_hatched_on_request() -> None:
    figure = figure_of(masked(), hatch=True)
    _, hatched = figure.axes[0].collections
    edges = hatched.get_paths()[0].get_extents()
    assert edges.x1 == pytest.approx(-1467.5, abs=1.5)
    assert edges.x0 == pytest.approx(-1487.5, abs=1.5)


def test_sets_of_terms_have_names() -> None:
    bar = figure_of(masked(), "terms").axes[1]
    names = [" ".join(label.get_text().split("\n")[:-1]) for label in bar.get_yticklabels()]
    assert all(label.get_text().endswith("50.0 %") for label in bar.get_yticklabels())
    meanings = str(made_up(GRID)["terms"].attrs["flag_meanings"]).split()
    first, second = (meaning.replace("_", " ") for meaning in meanings[:2])
    assert sorted(names) == sorted([first, f"{first} {second}"])


def test_times_are_dates_and_counts_have_whole_ticks() -> None:
    figure = figure_of(made_up(GRID), "time_start")
    figure.canvas.draw()
    for label in figure.axes[1].get_yticklabels():
        np.datetime64(label.get_text(), "D")
    counts = made_up(GRID)
    counts["pass_count"].values[...] %= 3
    figure = figure_of(counts, "pass_count")
    ticks = figure.axes[1].get_yticks()
    np.testing.assert_array_equal(ticks, np.round(ticks))


def test_bounds_size_and_colours_can_be_chosen() -> None:
    bounds = (-1_480_000.0, -460_000.0, -1_460_000.0, -440_000.0)
    figure = figure_of(made_up(GRID), bounds=bounds, size=3.0, colour_map="viridis")
    axes = figure.axes[0]
    assert axes.get_xlim() == (-1480.5, -1459.5)
    assert axes.get_position().width * figure.get_figwidth() == pytest.approx(3.0)
    assert axes.images[1].get_cmap().name == "viridis"
    for options, words in (
        ({"bounds": (0.0, 0.0, 1e3, 1e3)}, "contain no post; the posts are within"),
        ({"size": 0.0}, "not between 1 and 40 inches"),
        ({"colour_map": "rainbows"}, "colour map 'rainbows' is unknown"),
    ):
        with pytest.raises(InvalidValue, match=words):
            figure_of(made_up(GRID), **options)
