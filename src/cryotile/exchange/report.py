"""One HTML page about a comparison: numbers, pictures and what was done; it needs nothing but itself."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cryotile.exchange.compare import Comparison, label_of
from cryotile.files import write_text
from cryotile.plotting.comparison import plot_comparison
from cryotile.plotting.picture import new_figure, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["write_report"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --ink: #1c2530; --soft: #56616e; --paper: #ffffff; --line: #d8dee6; --tint: #f3f6f9; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e4e9ef; --soft: #9aa7b5; --paper: #14191f; --line: #333c47; --tint: #1d242c; }}
}}
body {{ margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 1rem; }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 0; }}
dt {{ color: var(--soft); }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
.figures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem; }}
.figures div {{ background: var(--tint); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }}
.figures b {{ display: block; font-size: 1.25rem; white-space: nowrap; }}
.figures span {{ color: var(--soft); font-size: .85rem; }}
.wide {{ overflow-x: auto; }}
.strip figure {{ min-width: 46rem; }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
th {{ color: var(--soft); font-weight: 600; }}
.maps {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: .8rem; }}
figure {{ margin: 0; }}
img {{ display: block; width: 100%; height: auto; background: #fff; border-radius: .5rem;
  border: 1px solid var(--line); box-sizing: border-box; }}
li {{ margin: .25rem 0; overflow-wrap: anywhere; }}
p.soft {{ color: var(--soft); font-size: .9rem; }}
@media (max-width: 34rem) {{ dl {{ grid-template-columns: 1fr; gap: 0; }} dd {{ margin-bottom: .5rem; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<dl>{about}</dl>
<h2>All posts</h2>
<div class="figures">{figures}</div>
<h2>Maps</h2>
<div class="wide strip">{maps}</div>
<h2>Distribution</h2>
<div class="maps">{plots}</div>
<h2>By slope and region</h2>
<div class="wide">{table}</div>
<p class="soft">Differences are product less reference, in m/yr. MAD is 1.4826 times the median absolute deviation from
the median. The ratio is the difference over the root of the sum of both variances: with right sigmas and independent
errors its spread is 1, and 95 % of it lies within ±1.96. Posts weigh equally.</p>
<h2>What was done</h2>
<ul>{notes}</ul>
<h2>What is not known</h2>
<ul>{unknowns}</ul>
</body>
</html>
"""

_HEADS = {
    "posts": "posts",
    "bias": "bias",
    "median": "median",
    "mad": "MAD",
    "rms": "rms",
    "ratio_rms": "ratio rms",
    "ratio_mad": "ratio MAD",
    "within_ci95": "within ±1.96",
}


def write_report(comparison: Comparison, path: Path) -> None:
    """Write a comparison as one HTML file.

    Parameters
    ----------
    comparison : Comparison
        By :func:`cryotile.exchange.compare.compare_maps`.
    path : Path
        Overwritten, whole or not at all.

    Raises
    ------
    MissingDependency
        matplotlib or cmcrameri is not installed.
    UnwritablePath
        The file cannot be written.
    """
    title = f"Elevation change against {comparison.layout}"
    table = comparison.table
    page = _PAGE.format(
        title=html.escape(title),
        about=_about(comparison),
        figures=_figures(table.iloc[0]),
        maps=_image(
            "Maps of the product, the reference, and their difference", lambda: _maps(comparison)
        ),
        plots="".join(_plots(comparison)),
        table=_table(table),
        notes=_items(comparison.notes),
        unknowns=_items(comparison.unknowns),
    )
    write_text(path, page)


def _about(comparison: Comparison) -> str:
    lines = (
        ("Product", comparison.product),
        ("Reference", f"{comparison.reference} ({comparison.layout})"),
        ("Grid", f"{comparison.maps.attrs['crs']}, {comparison.maps.attrs['posting']:g} m"),
    )
    return "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in lines)


def _figures(row: pd.Series) -> str:
    shown = [
        (f"{row['posts']:,}", "posts compared"),
        (_signed(row["bias"]), "bias, m/yr"),
        (_signed(row["median"]), "median, m/yr"),
        (_plain(row["mad"]), "MAD, m/yr"),
        (_plain(row["rms"]), "rms, m/yr"),
    ]
    if np.isfinite(row["ratio_mad"]):
        shown.append((_plain(row["ratio_mad"], 2), "spread of the ratio (1 expected)"))
    return "".join(f"<div><b>{number}</b><span>{text}</span></div>" for number, text in shown)


def _table(table: pd.DataFrame) -> str:
    columns = [name for name in _HEADS if table[name].notna().any()]
    head = "".join(f"<th>{_HEADS[name]}</th>" for name in columns)
    rows = []
    for row in table.to_dict("records"):
        cells = "".join(f"<td>{_cell(name, row[name])}</td>" for name in columns)
        rows.append(f"<tr><td>{html.escape(label_of(row))}</td>{cells}</tr>")
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(name: str, value: float) -> str:
    if name == "posts":
        return f"{value:,.0f}"
    if not np.isfinite(value):
        return "–"
    if name in ("bias", "median"):
        return _signed(value)
    return _plain(value, 2 if name.startswith(("ratio", "within")) else 4)


def _signed(value: float) -> str:
    # A difference of zero has no sign.
    return f"{value + 0.0:+.4f}".replace("-", "−") if abs(value) >= 5e-5 else "0.0000"


def _plain(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}"


def _items(lines: Iterable[str]) -> str:
    return "".join(f"<li>{html.escape(line)}</li>" for line in lines)


# --- pictures ----------------------------------------------------------------------------------------------------


def _image(about: str, draw: Callable[[], Figure]) -> str:
    data = base64.b64encode(render(draw, ".png", dpi=110)).decode()
    return f'<figure><img alt="{html.escape(about)}" src="data:image/png;base64,{data}"></figure>'


def _maps(comparison: Comparison) -> Figure:
    # The bars are of rates, whichever map they stand beside.
    product, reference = (
        comparison.maps[f"dhdt_{name}"].rename("dhdt") for name in ("product", "reference")
    )
    axes = plot_comparison(product, reference, crs=comparison.maps.attrs["crs"])
    figure: Figure = axes[0].figure
    return figure


def _limit(values: np.ndarray) -> float:
    known = np.abs(values[np.isfinite(values)])
    return max(float(np.percentile(known, 98)), 1e-3) if known.size else 1.0


def _plots(comparison: Comparison) -> Iterator[str]:
    yield _image("Histogram of differences", lambda: _histogram(comparison))
    yield _image("Reference against product", lambda: _scatter(comparison))
    if "dhdt_difference_ratio" in comparison.maps:
        yield _image("Histogram of the ratio", lambda: _ratios(comparison))


def _axes() -> tuple[Figure, Axes]:
    figure = new_figure(4.4, 3.4, "constrained")
    axes = figure.add_subplot()
    return figure, axes


def _histogram(comparison: Comparison) -> Figure:
    figure, axes = _axes()
    values = _known(comparison, "dhdt_difference")
    edge = 1.5 * _limit(values)
    axes.hist(
        np.clip(values, -edge, edge), bins=np.linspace(-edge, edge, 61).tolist(), color="#3b6fb6"
    )
    axes.axvline(0.0, color="0.3", linewidth=0.8)
    median = float(comparison.overall["median"])
    axes.axvline(median, color="#c8553d", linewidth=1.2, label=f"median {median:+.3f}")
    axes.set_xlabel("product less reference (m/yr)")
    axes.set_ylabel("posts")
    axes.legend()
    return figure


def _scatter(comparison: Comparison) -> Figure:
    figure, axes = _axes()
    one, two = (_known(comparison, f"dhdt_{name}") for name in ("product", "reference"))
    edge = 1.1 * _limit(np.concatenate([one, two]))
    axes.hexbin(
        two,
        one,
        gridsize=50,
        bins="log",
        mincnt=1,
        cmap="cmc.batlow_r",
        extent=(-edge, edge, -edge, edge),
    )
    axes.plot((-edge, edge), (-edge, edge), color="0.3", linewidth=0.8)
    axes.set_xlim(-edge, edge)
    axes.set_ylim(-edge, edge)
    axes.set_aspect("equal")
    axes.set_xlabel("reference (m/yr)")
    axes.set_ylabel("product (m/yr)")
    return figure


def _ratios(comparison: Comparison) -> Figure:
    figure, axes = _axes()
    values = np.clip(_known(comparison, "dhdt_difference_ratio"), -5.0, 5.0)
    bins = np.linspace(-5.0, 5.0, 51)
    axes.hist(values, bins=bins.tolist(), density=True, color="#4aa7a0")
    axes.plot(bins, np.exp(-(bins**2) / 2) / np.sqrt(2 * np.pi), color="#333333", label="expected")
    axes.set_xlabel("difference over its sigma")
    axes.set_ylabel("density")
    axes.legend()
    return figure


def _known(comparison: Comparison, name: str) -> np.ndarray:
    values = comparison.maps[name].to_numpy()
    known: np.ndarray = values[np.isfinite(values)]
    return known
