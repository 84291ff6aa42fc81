"""The plot of the benchmark: one row per contender, one panel per measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from page import figure

__all__ = ["draw"]

OURS, OTHERS, LOST = "#2166ac", "#9e9e9e", "#b2182b"


class Panel(NamedTuple):
    """The measure that a panel shows; ``low`` is where its bars begin."""

    title: str
    measure: str
    key: str
    form: str
    low: float = 0.0
    logarithmic: bool = False


PANELS = (
    Panel("empty tasks a second", "empty", "rate", ",.0f", low=100.0, logarithmic=True),
    Panel("start-up, s", "empty", "start", ".2f"),
    Panel("makespan / ideal", "makespan", "ratio", ".3f", low=1.0),
    Panel("lost to a killed worker, s", "kill", "lost", ".2f"),
    Panel("real map, s", "map", "seconds", ".1f"),
)


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw all panels that have figures."""
    contenders = results["contenders"]
    panels = [p for p in PANELS if any(p.measure in c for c in contenders.values())]
    names = list(contenders)
    with mpl.rc_context({"font.size": 9, "svg.hashsalt": "cryotile", "svg.fonttype": "path"}):
        picture = Figure(
            figsize=(2.5 * len(panels) + 1, 0.32 * len(names) + 0.7), layout="constrained"
        )
        axes = picture.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for panel, ax in zip(panels, axes, strict=True):
            _draw_panel(panel, results, names, ax)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        picture.savefig(path, metadata={"Date": None})


def _draw_panel(panel: Panel, results: dict[str, Any], names: list[str], ax: Axes) -> None:
    values = [figure(results, name, panel.measure, panel.key) for name in names]
    top = max((value for value in values if value is not None), default=1.0)
    if panel.logarithmic:
        ax.set_xscale("log")
        ax.set_xlim(panel.low, panel.low * (top / panel.low) ** 1.4)
    else:
        ax.set_xlim(panel.low, panel.low + (top - panel.low) * 1.35)
    for row, (name, value) in enumerate(zip(names, values, strict=True)):
        contender = results["contenders"][name]
        if value is not None:
            # Because of noise, a disturbed farm may end sooner than an undisturbed one.
            shown = max(value, panel.low)
            ax.barh(
                row,
                shown - panel.low,
                left=panel.low,
                height=0.7,
                color=OURS if contender["ours"] else OTHERS,
            )
            _label(ax, row, shown, format(value, panel.form))
        elif "reason" in _found(contender, panel.measure):
            _label(ax, row, panel.low, "✕ run lost", color=LOST)
    ax.set_title(panel.title, fontsize=9, loc="left")
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.tick_params(left=False, bottom=False, labelbottom=False, which="both")


def _found(contender: dict[str, Any], measure: str) -> dict[str, Any]:
    found = contender.get(measure, {})
    return found[-1] if isinstance(found, list) else found


def _label(ax: Axes, row: int, at: float, text: str, color: str = "black") -> None:
    ax.annotate(
        text, (at, row), (3, 0), textcoords="offset points", va="center", fontsize=8, color=color
    )
