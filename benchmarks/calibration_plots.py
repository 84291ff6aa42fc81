"""The plots of `calibration.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cryotile.plotting.picture import STYLE

COLOURS = (
    *("#3b6fb6", "#c8553d", "#6a9a3c", "#e0a458", "#8f6bb0", "#4aa7a0", "#333333", "#b07d3c"),
    *("#d98cb3", "#7fb2e5", "#9c9c9c"),
)
REQUIRED = (93, 97.5)  # coverage, %
STRATA_SHOWN = ("6–8", "13–20")  # of the recipes of others: all worlds have posts of these


def plot_coverage(coverage: pd.DataFrame, path: Path) -> None:
    """Plot the coverage of the interval, and the rms error, by world and number of passes."""
    with style.context(STYLE):
        figure = Figure(figsize=(9.5, 5.0), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
        _worlds(left, coverage)
        _errors(right, coverage)
        figure.legend(
            *left.get_legend_handles_labels(),
            frameon=False,
            fontsize=8,
            ncols=4,
            loc="outside lower left",
        )
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _worlds(axes: Axes, coverage: pd.DataFrame) -> None:
    strata = list(dict.fromkeys(coverage["passes"]))
    worlds = list(dict.fromkeys(coverage["world"]))
    for k, world in enumerate(worlds):
        some = coverage[coverage["world"] == world]
        place = np.array([strata.index(name) for name in some["passes"]]) + 0.075 * (
            k - (len(worlds) - 1) / 2
        )
        share = some["coverage"]
        error = 1.96 * np.sqrt(share * (1 - share) / some["posts"])
        colour = COLOURS[k % len(COLOURS)]
        axes.errorbar(
            place, 100 * share, 100 * error, fmt="o", ms=4, lw=1, color=colour, label=world
        )
        axes.plot(
            place,
            100 * some["coverage, formal"],
            "x",
            ms=4,
            color=colour,
            label="± 1.96 formal sigma" if k == len(worlds) - 1 else None,
        )
    _target(axes)
    axes.set_xticks(range(len(strata)), strata)
    axes.set_xlabel("passes of the post")
    axes.set_ylabel("truth within the interval (%)")
    axes.set_title("± dhdt_ci95 of the recipe passes", loc="left", fontsize=10)
    axes.set_ylim(None, 101)


def _errors(axes: Axes, coverage: pd.DataFrame) -> None:
    for k, (_, some) in enumerate(coverage.groupby("world", sort=False)):
        colour = COLOURS[k % len(COLOURS)]
        axes.plot(some["passes"], some["rms"], "o-", ms=4, lw=1, color=colour)
    axes.set_yscale("log")
    axes.set_xlabel("passes of the post")
    axes.set_title("rms error of passes (m/yr)", loc="left", fontsize=10)


def plot_peers(peers: pd.DataFrame, path: Path) -> None:
    """Plot the coverage and the rms error of each recipe by world, for few and for more passes."""
    recipes = [name.removeprefix("rms, ") for name in peers if name.startswith("rms, ")]
    strata = [s for s in dict.fromkeys(peers["passes"]) if s in STRATA_SHOWN]
    with style.context(STYLE):
        figure = Figure(figsize=(9.5, 3.2 * len(strata)), layout="constrained")
        for row, stratum in zip(
            figure.subplots(len(strata), 2, squeeze=False), strata, strict=True
        ):
            some = peers[peers["passes"] == stratum]
            for axes, name, unit in zip(row, ("coverage", "rms"), (100, 1), strict=True):
                for k, recipe in enumerate(recipes):
                    values = unit * some[f"{name}, {recipe}"]
                    marker = "o" if recipe == "passes" else "x"
                    axes.plot(
                        values, range(len(some)), marker, ms=6, color=COLOURS[k], label=recipe
                    )
                axes.set_yticks(range(len(some)), list(some["world"]) if name == "coverage" else [])
                axes.invert_yaxis()
                axes.grid(axis="y", lw=0.3)
            row[0].axvspan(*REQUIRED, color="0.92", zorder=0)
            row[0].set_title(f"{stratum} passes", loc="left", fontsize=10)
            row[0].set_xlabel("truth within the interval (%)")
            row[1].set_xscale("log")
            row[1].set_xlabel("rms error of dh/dt (m/yr)")
        figure.legend(
            *row[0].get_legend_handles_labels(),
            frameon=False,
            fontsize=8,
            ncols=5,
            loc="outside lower center",
        )
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _target(axes: Axes) -> None:
    axes.axhspan(*REQUIRED, color="0.92", zorder=0)
    axes.axhline(95, color="0.6", lw=0.8, zorder=0)


def plot_rms(rms: pd.DataFrame, path: Path) -> None:
    """Plot the rms errors of cryotile beside those of other programs."""
    with style.context(STYLE):
        figure = Figure(figsize=(9.5, 3.6), layout="constrained")
        for axes, name in zip(
            figure.subplots(1, rms.shape[1], sharey=True), rms.columns, strict=True
        ):
            colours = [COLOURS[1] if "cryotile" in row else "0.65" for row in rms.index]
            bars = axes.barh(range(len(rms)), 1000 * rms[name], color=colours, height=0.7)
            axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=8)
            axes.set_yticks(range(len(rms)), list(rms.index))
            axes.set_title(name, loc="left", fontsize=10)
            axes.set_xlabel("rms error of dh/dt (mm/yr)")
            axes.margins(x=0.15)
        axes.invert_yaxis()
        figure.savefig(path, metadata={"Date": None, "Creator": None})
