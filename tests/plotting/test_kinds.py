"""Each kind of picture shows what it says, and a choice that makes no picture is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.fit.variables import Status
from cryotile.maps.product import write_product
from cryotile.plotting.kinds import KINDS, draw, save
from tests.support.command_line import Call
from tests.support.maps import CONFIG, GRID, OVER_TIME, made_up

Axes = pytest.importorskip("matplotlib.axes").Axes
pytest.importorskip("cmcrameri")
from cryotile.plotting.coast import coast_lines  # noqa: E402
from cryotile.plotting.comparison import plot_comparison  # noqa: E402

MIDDLE = (-1_467_000.0, -445_000.0)
LINE = (-1_500_000.0, -445_000.0, -1_440_000.0, -445_000.0)


def flat(rate: float = -1.0) -> xr.Dataset:
    """Return a fit everywhere, of one rate and a surface that rises 1 m a km towards positive x."""
    fitted = made_up(GRID).assign_attrs(crs="EPSG:3031")
    fitted["status"].values[...] = Status.OK
    fitted["dhdt"].values[...] = rate
    fitted["dhdt_ci95"].values[...] = 0.25
    fitted["elevation"].values[...] = GRID.x / 1e3
    return fitted


def over_time() -> xr.Dataset:
    """Return three windows whose rates are 1, 2 and 3 m/yr."""
    fitted = made_up(GRID, OVER_TIME).assign_attrs(crs="EPSG:3031")
    fitted["status"].values[...] = Status.OK
    fitted["window_status"].values[...] = Status.OK
    fitted["window_dhdt"].values[...] = np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    return fitted


def test_the_uncertainty_is_drawn_beside_the_map() -> None:
    value, interval = draw(flat(), kind="uncertainty")
    assert np.unique(value.images[1].get_array().compressed()).tolist() == [-1.0]
    assert np.unique(interval.images[1].get_array().compressed()).tolist() == [0.25]
    assert value.get_xlim() == interval.get_xlim()
    with pytest.raises(InvalidValue, match="no slope_x_ci95 or slope_x_sigma"):
        draw(flat(), "slope_x", "uncertainty")


def test_a_histogram_counts_every_post_once() -> None:
    axes = draw(made_up(GRID), "dhdt", "histogram", limits=(-2.0, 2.0))
    counted = sum(bar.get_height() for bar in axes.patches)
    assert counted == np.isfinite(made_up(GRID)["dhdt"]).sum()
    counts = draw(made_up(GRID), "data_count", "histogram", limits=(0, 100))
    assert sum(bar.get_height() for bar in counts.patches) == GRID.shape[0] * GRID.shape[1]


def test_a_histogram_says_how_many_values_lie_beyond_its_axis() -> None:
    fitted = flat()
    fitted["dhdt"].values[0, :7] = 100.0
    axes = draw(fitted, kind="histogram", limits=(-2.0, 2.0))
    assert "7 beyond the axis" in axes.texts[0].get_text().replace("\n", " ")


def test_instants_have_days_on_their_axis_and_in_the_text() -> None:
    fitted = flat()
    # Half of the posts each.
    first, last = np.datetime64("2011-03-01", "ms"), np.datetime64("2018-11-30", "ms")
    fitted["time_end"].values[...] = first
    fitted["time_end"].values[: GRID.shape[0] // 2] = last
    axes = draw(fitted, "time_end", "histogram")
    assert "quartiles (dotted) 2011-03-01 and 2018-11-30" in axes.texts[0].get_text().replace(
        "\n", " "
    )
    axes.figure.canvas.draw()
    assert {text.get_text() for text in axes.get_xticklabels()} >= {"2012", "2014", "2016", "2018"}
    value = draw(fitted, "time_end", line=LINE, limits=(2011.0, 2019.0))[0]
    value.figure.canvas.draw()
    assert {text.get_text() for text in value.get_yticklabels()} >= {"2012", "2014", "2016", "2018"}


def test_a_map_without_a_tile_names_the_command_that_makes_them() -> None:
    empty = flat()
    empty["status"].values[...] = Status.NOT_COMPUTED
    for kind in KINDS:
        if kind not in ("windows", "film"):
            with pytest.raises(
                InvalidValue, match=r"no tile yet, .* make them with: cryotile run RUN"
            ):
                draw(empty, kind=kind, line=LINE if kind == "section" else None)


def test_a_section_shows_the_posts_along_its_line_over_distance_on_the_ground() -> None:
    fitted = flat()
    fitted["dhdt"] = fitted["dhdt"] * 0 + (GRID.x - LINE[0]) / 1e3
    axes = draw(fitted, line=LINE)
    value, elevation, place = axes
    distance, rates = value.lines[0].get_data()
    # The scale of EPSG:3031 is below one here, so 60 km of the map are more on the ground.
    assert 60.0 < distance[-1] < 62.0
    np.testing.assert_allclose(rates, distance * 60.0 / distance[-1], atol=0.6)
    assert np.nanmin(elevation.lines[0].get_ydata()) == pytest.approx(-1500.0, abs=1.0)
    assert [t.get_text() for t in place.texts if t.get_text() in "AB"] == ["A", "B"]


def test_the_part_of_a_line_outside_the_posts_is_said() -> None:
    axes = draw(flat(), line=(-1_600_000.0, -445_000.0, -1_440_000.0, -445_000.0))
    assert "km of it lie outside the posts" in axes[1].get_xlabel()
    inside = draw(flat(), line=LINE)
    assert "outside" not in inside[1].get_xlabel()


def test_a_line_in_degrees_is_that_in_metres() -> None:
    import pyproj

    to_degrees = pyproj.Transformer.from_crs("EPSG:3031", "EPSG:4326", always_xy=True)
    degrees = (*to_degrees.transform(*LINE[:2]), *to_degrees.transform(*LINE[2:]))
    ours, theirs = draw(flat(), line=LINE), draw(flat(), line=degrees, lonlat=True)
    assert ours[0].get_xlim() == pytest.approx(theirs[0].get_xlim(), rel=1e-6)


@pytest.mark.parametrize("kind", ["windows", "film"])
def test_windows_are_maps_in_the_same_colours_in_the_order_of_time(kind: str) -> None:
    axes = draw(over_time(), kind=kind)
    shown = [float(np.unique(one.images[1].get_array().compressed())[0]) for one in axes]
    assert shown == [1.0, 2.0, 3.0]
    assert len({one.images[1].get_clim() for one in axes}) == 1
    assert [one.get_title("left") for one in axes] == [
        "2015-01 to 2017-01",
        "2015-07 to 2017-07",
        "2016-01 to 2018-01",
    ]


def test_many_windows_are_thinned_and_the_text_says_so() -> None:
    one = over_time()[["window_dhdt", "status"]]
    many = xr.concat([one.isel(time=0)] * 30, "time", data_vars=["window_dhdt"], coords="minimal")
    many["window_dhdt"].values[...] = np.arange(30.0).reshape(30, 1, 1)
    axes = draw(many, "window_dhdt")
    shown = [float(np.unique(one.images[1].get_array().compressed())[0]) for one in axes]
    assert len(shown) == 12
    assert (shown[0], shown[-1]) == (0.0, 29.0)
    text = " ".join(text.get_text() for text in axes[0].figure.texts)
    assert "12 of 30 maps, evenly spaced" in text


def test_a_gif_has_a_frame_for_each_window(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("one.gif", "other.gif"):
        save(over_time(), tmp_path / name, dpi=40)
    with Image.open(tmp_path / "one.gif") as film:
        assert film.n_frames == 3  # type: ignore[attr-defined]
    assert (tmp_path / "one.gif").read_bytes() == (tmp_path / "other.gif").read_bytes()


def test_heights_over_time_are_drawn_as_windows_are() -> None:
    axes = draw(over_time(), "height")
    assert axes.shape == (3,)


def test_zero_is_unlike_squares_without_a_value_even_in_the_shade() -> None:
    from matplotlib.colors import to_rgb

    from cryotile.plotting.panel import DARKEST, NO_FIT, NO_POINTS

    image = draw(flat(0.0)).images[1]
    zero = np.array(image.cmap(image.norm(0.0))[:3])
    for light in (zero, zero * (1 - DARKEST)):
        for without in (NO_FIT, NO_POINTS):
            assert np.abs(light - to_rgb(without)).max() > 0.04


def test_relief_brightens_slopes_that_face_the_light() -> None:
    fitted = flat()
    x, y = np.meshgrid(GRID.x, GRID.y)
    fitted["elevation"].values[...] = 100.0 - np.hypot(x - MIDDLE[0], y - MIDDLE[1]) / 1e3
    shade = np.asarray(draw(fitted).images[2].get_array())
    ny, nx = shade.shape[:2]
    upper_left, lower_right = shade[3 * ny // 4, nx // 4], shade[ny // 4, 3 * nx // 4]
    assert upper_left[0] == 1.0
    assert lower_right[0] == 0.0
    assert min(upper_left[3], lower_right[3]) > 0.05


def test_the_scale_bar_is_a_round_length_on_the_ground() -> None:
    axes = draw(flat())
    [label] = [text.get_text() for text in axes.texts if text.get_text().endswith(" km")]
    [bar] = [line for line in axes.lines if line.get_linewidth() == 2.0]
    share = np.ptp(np.asarray(bar.get_xdata()))
    projected = share * np.ptp(axes.get_xlim())
    assert projected == pytest.approx(float(label.split()[0]), rel=0.03)
    assert projected < float(label.split()[0])


def test_a_large_map_has_the_coast_and_a_small_one_has_not() -> None:
    posts = np.arange(-2.6e6, 2.6e6, 1e5)
    values = xr.DataArray(
        np.ones((posts.size, posts.size)), {"y": posts, "x": posts}, ("y", "x"), "dhdt"
    ).assign_attrs(crs="EPSG:3031")
    assert len(draw(values).collections) == 1
    assert len(draw(flat()).collections) == 0
    latitudes = np.abs(np.concatenate(coast_lines())[:, 1])
    assert latitudes.min() > 54.9
    # Cape Morris Jesup, the northern tip of Greenland, is at 83.6° N, 33.4° W.
    points = np.concatenate(coast_lines())
    assert np.hypot((points[:, 0] + 33.4) * 0.11, points[:, 1] - 83.63).min() < 0.1


def test_a_comparison_shows_both_maps_in_the_same_colours_and_their_difference() -> None:
    fitted = flat()["dhdt"]
    reference = fitted - 0.5
    reference[:10] = np.nan
    one, other, difference = plot_comparison(fitted, reference, crs="EPSG:3031")
    assert one.images[1].get_clim() == other.images[1].get_clim()
    assert np.unique(difference.images[1].get_array().compressed()).tolist() == [0.5]
    assert other.images[1].get_array().mask[:10].all()
    with pytest.raises(InvalidValue, match=r"posts of the maps differ .*bring both to one grid"):
        plot_comparison(fitted, reference[1:], crs="EPSG:3031")


def test_what_makes_no_picture_is_refused_with_what_would() -> None:
    for words, message in (
        (({"kind": "pie"}), "kind 'pie' is unknown; choose one of map, uncertainty"),
        (({"kind": "windows"}), "the data have no windows.*plan a run with --window"),
        (({"variable": "dhdt", "kind": "film"}), "dhdt is one map, without windows"),
        (({"kind": "section"}), "a section needs a line"),
        (({"kind": "map", "line": LINE}), "a map has no line"),
        (({"line": (0.0, 0.0, 1e3, 0.0)}), "has no post; the posts are within -1510000 -480000"),
        (({"line": (*MIDDLE, *MIDDLE)}), "has no length"),
        (({"limits": (2.0, 1.0)}), "range 2 1 is not two numbers, the lower one first"),
        (({"limits": (np.nan, 1.0)}), "range nan 1 is not two numbers"),
        (({"line": (0.0, 95.0, 1.0, 80.0), "lonlat": True}), "latitude 95 are not in degrees"),
        (({"variable": "status", "kind": "histogram"}), "has flags, not numbers"),
        (({"variable": "dhdt", "kind": "status"}), "shows the variable status"),
    ):
        with pytest.raises(InvalidValue, match=message):
            draw(flat(), **words)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=r"3 maps along time, and a histogram shows one"):
        draw(over_time(), "window_dhdt", "histogram")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("windows", "film")])
def test_every_kind_can_be_drawn_where_no_post_has_a_fit(kind: str) -> None:
    empty = flat()
    empty["status"].values[...] = Status.NO_POINTS
    for name in ("dhdt", "dhdt_ci95", "elevation"):
        empty[name].values[...] = np.nan
    if kind == "histogram":
        with pytest.raises(InvalidValue, match="dhdt has no value"):
            draw(empty, kind=kind)
    else:
        draw(empty, kind=kind, line=LINE if kind == "section" else None)


def test_the_command_names_each_picture_after_its_variable_and_kind(
    call: Call, tmp_path: Path
) -> None:
    product = tmp_path / "dhdt.nc"
    write_product(made_up(GRID), product, grid=GRID, config=CONFIG)
    for words, name in (
        ((), "dhdt.png"),
        (("elevation",), "dhdt-elevation.png"),
        (("--kind", "histogram"), "dhdt-histogram.png"),
        (("--line", *map(str, LINE)), "dhdt-section.png"),
    ):
        code, said, _ = call("plot", product, *words, "--dpi", "40")
        assert (code, said.strip()) == (0, str(tmp_path / name))
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    for words, message in (
        (("--kind", "pie"), "kind 'pie' is unknown; choose one of map"),
        (("--kind", "windows"), "no windows"),
        (("nothing",), "no variable 'nothing'"),
        (("-o", tmp_path / "map.gif"), "no windows"),
        (("--lonlat",), "--lonlat is for --line, which is missing"),
        (("--kind", "histogram", "-o", tmp_path / "h.gif"), "would be an animation"),
    ):
        code, _, complaint = call("plot", product, *words)
        assert code == 2
        assert message in complaint
        assert len(complaint.strip().splitlines()) == 1
