"""Show measurements and their goals: a table and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    """A ratio and its goal."""

    what: str
    value: float
    goal: float
    sense: str


def goals(results: dict[str, dict[str, float]]) -> list[Line]:
    """Return every ratio with its goal."""
    known = {
        "bytes per point": ("size, bytes a point", 16.0, "at most"),
        "of pandas' default": ("size, of a default Parquet file by pandas", 0.55, "at most"),
        "of the bare minimum's speed": ("ingest, of the bare minimum's speed", 0.6, "at least"),
        "speed-up of two workers": ("ingest, two workers over one", 1.7, "at least"),
        "s with 1 ms added to every open": ("opening with 1 ms a file, s", 1.0, "at most"),
        "MB to count them and to write a checkpoint": (
            "checkpoint of all squares of Antarctica, MB",
            1000.0,
            "at most",
        ),
        "opens of entries": ("opening, entries read", 64.0, "at most"),
    }
    lines = [
        Line(known[what][0], value, *known[what][1:])
        for found in results.values()
        for what, value in found.items()
        if what in known
    ]
    for what, value in results.get("read a tile", {}).items():
        label, _, measure = what.partition(": ")
        if measure == "of a bare read":
            lines.append(Line(f"read of a tile, {label}, of a bare read", value, 1.3, "at most"))
        if measure == "of (bare read + kernel)":
            lines.append(Line(f"{label}, of bare read and kernel", value, 1.0, "at most"))
    return lines


def write_table(lines: list[Line], results: dict[str, dict[str, float]], path: Path) -> None:
    """Write the ratios and all measurements as Markdown."""
    text = ["| what | measured | goal |", "|---|---|---|"]
    text += [f"| {line.what} | {line.value:.3g} | {line.sense} {line.goal:g} |" for line in lines]
    for name, found in results.items():
        text += ["", f"**{name}**", "", "| what | measured |", "|---|---|"]
        text += [f"| {what} | {value:.4g} |" for what, value in found.items()]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


def draw(lines: list[Line], path: Path) -> None:
    """Draw every ratio divided by its goal."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.45 * len(lines) + 1), layout="constrained")
    labels = [f"{line.what} ({line.sense} {line.goal:g})" for line in lines]
    axes.barh(labels, [line.value / line.goal for line in lines], color="#4477aa")
    axes.axvline(1.0, color="#cc3311")
    for row, line in enumerate(lines):
        axes.text(0.02, row, f"{line.value:.3g}", va="center", color="white")
    axes.invert_yaxis()
    axes.set_xlabel("measured value divided by its goal")
    figure.savefig(path, dpi=120, bbox_inches="tight")
