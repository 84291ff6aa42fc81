"""A picture of one post: the residuals of its points over time, and the positions of the points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cryotile.fit.diagnosis import Reason
from cryotile.plotting.picture import new_figure, save_picture
from cryotile.times import parse_instant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_post"]

_OTHERS = {
    Reason.FREE_PASS: "#c8553d",
    Reason.POINT_REJECTED: "#e0a458",
    Reason.OTHER_KIND: "0.6",
}
_DIRECTIONS = {"ascending": "#3b6fb6", "descending": "#4aa7a0", "direction unknown": "0.35"}

_ROOM = 1.6
"""Upper end of the axis over the largest residual in the fit; points beyond it are drawn at the edge."""


NAMED = 4
"""Free passes whose names there is room for."""


def plot_post(
    points: pd.DataFrame,
    passes: pd.DataFrame,
    path: Path,
    *,
    radius: float,
    period: tuple[str, str],
    title: str,
) -> None:
    """Draw the points of a post.

    Parameters
    ----------
    points : DataFrame
        ``time``, ``residual`` (m), ``east``, ``north`` (m from the post along x and y), ``ascending``, ``reason`` (of
        :class:`cryotile.fit.diagnosis.Reason`).  If all residuals are NaN, heights about their median are drawn.
    passes : DataFrame
        ``name``, ``time``, ``offset`` (m, NaN without one), ``free``; offsets are drawn as lines, the first free passes
        are named.
    path : Path
        PNG, PDF or SVG, by its suffix.
    radius : float
        Search radius, m.
    period : (str, str)
        First instant and first instant after the last.
    title : str
        Text above the picture.

    Raises
    ------
    InvalidValue
        The suffix is unknown.
    MissingDependency
        matplotlib is not installed.
    UnwritablePath
        The file cannot be written.
    """

    def draw() -> Figure:
        figure = new_figure(10, 4.2, layout="constrained")
        over_time, around = figure.subplots(1, 2, width_ratios=(2.3, 1))
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        over_time.set_xlim(*(parse_instant(text) for text in period))
        _draw_residuals(over_time, points, passes)
        _draw_circle(around, points, radius)
        for axes in (over_time, around):
            axes.spines[["top", "right"]].set_visible(False)
        return figure

    save_picture(path, draw, dpi=150)


def _groups(points: pd.DataFrame) -> Mapping[str, tuple[pd.DataFrame, dict[str, Any]]]:
    """Return label → points and their marker style."""
    used = points[points["reason"] == Reason.KEPT]
    ways = used["ascending"].map({True: "ascending", False: "descending"}).astype(object)
    ways = ways.where(ways.notna(), "direction unknown")
    groups = {
        name: (used[ways == name], {"marker": "o", "s": 9, "color": colour, "linewidths": 0})
        for name, colour in _DIRECTIONS.items()
    }
    for reason, colour in _OTHERS.items():
        style = {"marker": "x", "s": 14, "color": colour, "linewidths": 0.8}
        groups[reason.replace("_", " ")] = (points[points["reason"] == reason], style)
    return {name: group for name, group in groups.items() if len(group[0])}


def _draw_residuals(axes: Axes, points: pd.DataFrame, passes: pd.DataFrame) -> None:
    fitted = bool(points["residual"].notna().any())
    values = "residual" if fitted else "height"
    points = points.assign(height=points["elevation"] - points["elevation"].median())
    size = points.loc[points["reason"] == Reason.KEPT, values].abs().max()
    limit = _ROOM * size if size > 0 else points[values].abs().max()
    limit = float(limit) if limit > 0 else 1.0
    beyond = 0
    for name, (some, style) in _groups(points).items():
        inside = some[values].abs() <= limit
        shown = some[inside]
        axes.scatter(shown["time"], shown[values], label=f"{name} ({len(some)})", **style)
        outside = some[some[values].abs() > limit]
        edge = 0.97 * limit * np.sign(outside[values])
        axes.scatter(outside["time"], edge, marker="D", s=12, color=style["color"], linewidths=0)
        beyond += len(outside)
    _draw_passes(axes, passes, limit)
    axes.axhline(0, color="0.3", lw=0.6, zorder=0)
    axes.set_ylim(-limit, limit)
    axes.set_ylabel("residual (m)" if fitted else "elevation about its median (m)")
    note = f"◆ {beyond} beyond the edge" if beyond else ""
    axes.set_title(note, loc="right", fontsize=8, color="0.3")
    if len(points):
        axes.legend(
            frameon=False,
            fontsize=8,
            ncols=5,
            loc="upper left",
            bbox_to_anchor=(-0.01, -0.1),
            handletextpad=0.1,
            columnspacing=0.8,
            handlelength=1.2,
        )


def _draw_passes(axes: Axes, passes: pd.DataFrame, limit: float) -> None:
    """Draw the offset of each pass, and name free ones."""
    inside = passes[passes["offset"].abs() <= limit]
    style: dict[str, Any] = {"marker": "_", "s": 60, "color": "0.1", "linewidths": 1.2}
    if len(inside):
        axes.scatter(inside["time"], inside["offset"], label="pass offset", **style)
    middle = passes["time"].min() + (passes["time"].max() - passes["time"].min()) / 2
    for k, row in enumerate(passes[passes["free"]].head(NAMED).to_dict("records")):
        late = row["time"] > middle
        # Each on a line of its own, for passes that are close in time.
        height = np.sign(row["offset"]) * (0.97 - 0.07 * k) * limit
        axes.annotate(
            f"{row['name']}, {row['offset']:+.2f} m",
            (row["time"], height),
            xytext=(-6 if late else 6, 0),
            textcoords="offset points",
            ha="right" if late else "left",
            va="center",
            fontsize=7,
            color=_OTHERS[Reason.FREE_PASS],
        )


def _draw_circle(axes: Axes, points: pd.DataFrame, radius: float) -> None:
    from matplotlib.patches import Circle

    axes.add_patch(Circle((0, 0), radius / 1e3, fill=False, lw=0.6, color="0.3"))
    for some, style in _groups(points).values():
        axes.scatter(some["east"] / 1e3, some["north"] / 1e3, **style)
    axes.plot(0, 0, "+", color="0", ms=8)
    axes.set_aspect("equal")
    axes.set_xlim(-1.05 * radius / 1e3, 1.05 * radius / 1e3)
    axes.set_ylim(-1.05 * radius / 1e3, 1.05 * radius / 1e3)
    axes.set_xlabel("x from the post (km)")
    axes.set_ylabel("y from the post (km)")
