"""Commands that check a map: ``explain``, ``validate``."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import xarray as xr

from cryotile.cli.screen import (
    BACKEND,
    FORCE,
    OUTPUT,
    RUN,
    as_json_value,
    check_free,
    check_suffix,
    counted,
    number,
    to_stderr,
)
from cryotile.errors import CryotileError
from cryotile.files import atomic_path, write_text
from cryotile.fit.agreement import SPLITS, Agreement
from cryotile.fit.diagnosis import Gate, Reason
from cryotile.fit.groups import MAPPED, Sharing
from cryotile.fit.variables import Status
from cryotile.geo.places import from_degrees
from cryotile.runs.explain import Explanation, explain_at
from cryotile.runs.run import Run, open_db
from cryotile.runs.validate import COMPARISONS, Validation, compare_tiles, spread_out

__all__ = ["explain", "validate"]

TABLES = (".csv", ".parquet")

CONTRIBUTORS = 3
"""Passes that are named where there may be many."""

LEAST_LIKELY = -7.0
"""Logarithm of the smallest relative likelihood that is shown."""


@click.command()
@RUN
@click.option(
    "--at",
    type=float,
    nargs=2,
    required=True,
    metavar="X Y",
    help="Place in metres in the CRS of RUN; the nearest post is explained.",
)
@click.option("--lonlat", is_flag=True, help="X and Y are longitude and latitude, degrees.")
@click.option(
    "--plot",
    type=OUTPUT,
    metavar="FILE",
    help="Draw the residuals: PNG, PDF or SVG.",
)
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    metavar="FILE",
    help="Write the points with the verdict on each: .csv or .parquet.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@FORCE
def explain(
    run_directory: Path,
    at: tuple[float, float],
    lonlat: bool,
    plot: Path | None,
    output: Path | None,
    as_json: bool,
    force: bool,
) -> None:
    """Explain one post of RUN: its passes and points, which are free or rejected and why, its gates and its interval.

    The post is fitted again by the same kernel, and compared with the tile of RUN.  RUN need not be finished, and
    nothing is written into it.

    \b
    Example:
      cryotile explain run/ --at -12000 -1342000
      cryotile explain run/ --lonlat --at -44.9 77.9 --plot post.png --output points.csv
    """
    check_suffix(output, TABLES, "points.csv")
    check_free(plot, force=force)
    check_free(output, force=force)
    run = Run.load(run_directory)
    x, y = np.reshape(at, (2, 1))
    if lonlat:
        x, y = from_degrees(x, y, run.settings.grid.crs)
    x, y = x.item(), y.item()
    found = explain_at(run, x, y)
    if plot is not None:
        _draw(found, plot)
    if output is not None:
        _write_points(found.points, output)
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=1))
    else:
        for line in _lines(run, found, math.hypot(found.x - x, found.y - y)):
            click.echo(line)
        for what, path in (("plot", plot), ("points", output)):
            if path is not None:
                click.echo(f"\n{what:12} {path}")
    fitted = found.stored.status not in (Status.NOT_COMPUTED, Status.OUTSIDE_MASK)
    if fitted and not found.stored.agrees(found.fit):
        raise CryotileError(
            f"tile {found.stored.tile} of {run.path} has dhdt {found.stored.dhdt:.9g} m/yr and this machine gives"
            f" {float(found.fit['dhdt']):.9g}: it was made by another kernel; remove the tile and run again"
        )


def _draw(found: Explanation, path: Path) -> None:
    from cryotile.plotting.post import plot_post

    points = found.points.assign(
        east=found.points["x"] - found.x, north=found.points["y"] - found.y
    )
    title = f"post at x {found.x:.12g} m, y {found.y:.12g} m: {_status(found)}"
    if found.fit["status"] == Status.OK:
        title += f", dh/dt {_rate(found)}"
    assert found.config.period is not None
    plot_post(
        points,
        found.passes,
        path,
        radius=found.config.radius,
        period=found.config.period,
        title=title,
    )


_WHAT_BECAME = {
    Reason.KEPT: "kept",
    Reason.FREE_PASS: "kept in passes of unknown offset",
    Reason.POINT_REJECTED: "rejected",
    Reason.OTHER_KIND: "of another kind",
}


def _status(found: Explanation) -> str:
    return Status(int(found.fit["status"])).name.lower()


def _rate(found: Explanation) -> str:
    rate, interval = (float(found.fit[name]) for name in ("dhdt", "dhdt_ci95"))
    if math.isnan(interval):
        return f"{rate:+.3f} m/yr, without an interval: one pass carries the fit alone"
    return f"{rate:+.3f} ± {interval:.3f} m/yr (95 %)"


def _write_points(points: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".csv":
            points.to_csv(temporary, index=False)
        else:
            points.to_parquet(temporary, index=False)


def _lines(run: Run, found: Explanation, away: float) -> Iterator[str]:
    fit = found.fit
    yield (
        f"post         x {found.x:.12g} m, y {found.y:.12g} m in {run.settings.grid.crs}"
        f" (longitude {found.longitude:.5f}, latitude {found.latitude:.5f}), {away:.0f} m from the given place"
    )
    yield f"tile         {found.stored.tile}: {_compared(found)}"
    yield f"status       {_status(found)}"
    if fit["status"] == Status.OK:
        known = (
            "" if math.isnan(fit["dhdt_ci95"]) else f", {int(fit['dhdt_dof'])} degrees of freedom"
        )
        yield f"dh/dt        {_rate(found)}{known}"
    tried = run.settings.fit.fallback_radii
    yield f"radius       {found.config.radius:g} m" + (
        f" (of {', '.join(f'{r:g}' for r in (run.settings.fit.radius, *tried))} m)" if tried else ""
    )
    counts = found.points["reason"].value_counts()
    yield f"points       {number(len(found.points))} within the radius: " + (
        ", ".join(f"{number(counts[r])} {_WHAT_BECAME[r]}" for r in Reason if r in counts) or "none"
    )
    if not math.isnan(found.point_limit):
        yield f"screen       rejects a point that is more than {found.point_limit:.3f} m from its pass"
    yield "\ngates"
    yield from map(_gate_line, found.gates)
    yield from _likelihood_lines(found)
    if len(found.passes):
        yield "\npasses"
        yield from _pass_lines(found.passes)
        yield from _granule_lines(found.passes)
    if "window_dhdt" in fit:
        yield "\nwindows"
        yield from _window_lines(fit)
    if "height" in fit:
        yield "\nheights"
        yield from _height_lines(fit)


def _gate_line(gate: Gate) -> str:
    what = {None: "not reached", True: "passed", False: "FAILED"}[gate.passed]
    ask = "at most" if gate.is_upper else "at least"
    asked = f"{ask} {gate.threshold:.4g} {gate.units}" if gate.threshold < math.inf else "no limit"
    # The span of a pass that crosses in a second is too short to show in days.
    least = 0.01 if gate.units == "days" else 0.0
    value = "" if math.isnan(gate.value) else f"{gate.value:.4g} {gate.units}"
    value = f"< {least} {gate.units}" if gate.value < least else value
    return f"  {gate.name:28} {value:>14}   {asked}".ljust(76) + what


def _likelihood_lines(found: Explanation) -> Iterator[str]:
    """Yield the standard deviations of pass offsets that the points leave possible, each with its likelihood."""
    if found.likelihood.empty or found.fit["status"] != Status.OK:
        return
    noise = float(found.fit["noise_sigma"])
    yield (
        f"\nspread       points {noise:.3f} m within a pass, offsets of passes"
        f" {float(found.fit['pass_offset_sigma']):.3f} m; relative likelihood of other spreads of passes:"
    )
    for ratio, loglik in found.likelihood.itertuples(index=False):
        if loglik > LEAST_LIKELY:
            bar = "#" * max(1, round(40 * math.exp(loglik)))
            yield f"  {noise * math.sqrt(ratio):9.3f} m  {math.exp(loglik):6.3f}  {bar}"


def _pass_lines(passes: pd.DataFrame) -> Iterator[str]:
    width = max(20, *map(len, passes["name"]))
    yield (
        f"  {'pass':{width}} {'time (UTC)':16} {'direction':10} {'mode':11} {'n':>5} {'out':>5}"
        f" {'offset':>9} {'t':>6} {'dh/dt without':>14} {'share':>6}"
    )
    for row in passes.to_dict("records"):
        offset, change = (
            "" if math.isnan(row[name]) else f"{row[name]:+.{digits}f}{unit}"
            for name, digits, unit in (("offset", 2, " m"), ("delta", 4, ""))
        )
        t = "" if math.isnan(row["t"]) else f"{row['t']:.1f}"
        share = "free" if row["free"] is True else ""
        share = share if math.isnan(row["share"]) else f"{row['share']:.0%}"
        yield (
            f"  {row['name']:{width}} {row['time']:%Y-%m-%d %H:%M} {row['direction']:10}"
            f" {row['mode']:11} {row['points']:>5} {row['rejected']:>5} {offset:>9} {t:>6} {change:>14}"
            f" {share:>6}".rstrip()
        )
    yield (
        "  (t: offset over its standard error; free: unknown offset, shapes the terrain and not the rate; dh/dt"
        " without: change, m/yr; share: of the variance of dh/dt)"
    )
    largest = passes.dropna(subset="share").nlargest(CONTRIBUTORS, "share")
    if len(largest):
        named = (f"{row['name']} ({row['share']:.0%})" for row in largest.to_dict("records"))
        yield f"  largest parts of the interval: {', '.join(named)}"


def _granule_lines(passes: pd.DataFrame) -> Iterator[str]:
    """Yield each granule that the point DB has of these passes, and the passes that it holds."""
    held = passes.assign(granule=passes["granule"].str.split(",")).explode("granule")
    held = held[held["granule"] != ""]
    if held.empty:
        return
    yield "\ngranules"
    for granule, of in held.groupby("granule", sort=False):
        few = len(of) <= CONTRIBUTORS
        yield f"  {granule}: {', '.join(of['name']) if few else f'{len(of)} passes'}"


def _window_lines(fit: xr.Dataset) -> Iterator[str]:
    for (start, end), rate, interval, passes, status in zip(
        fit["time_bnds"].to_numpy().astype("datetime64[D]"),
        *(
            fit[f"window_{name}"].to_numpy()
            for name in ("dhdt", "dhdt_ci95", "pass_count", "status")
        ),
        strict=True,
    ):
        said = Status(int(status)).name.lower()
        said = f"{rate:+.3f} ± {interval:.3f} m/yr" if status == Status.OK else said
        yield f"  {start} to {end} {said:>20}   passes: {passes}"


def _height_lines(fit: xr.Dataset) -> Iterator[str]:
    for start, end, height, interval, passes in zip(
        *fit["height_time_bnds"].to_numpy().astype("datetime64[D]").T,
        *(fit[name].to_numpy() for name in ("height", "height_ci95", "height_pass_count")),
        strict=True,
    ):
        if passes:
            yield f"  {start} to {end} {height:+9.3f} ± {interval:.3f} m   passes: {passes}"


def _compared(found: Explanation) -> str:
    if not found.stored.wanted:
        return "the post is outside the mask of the run, where no map is made"
    if found.stored.status == Status.NOT_COMPUTED:
        return "not fitted yet"
    same = found.stored.agrees(found.fit)
    return "its dhdt and status agree, to 1e-9 m/yr" if same else "its dhdt or status DIFFERS"


def _as_json(found: Explanation) -> dict[str, Any]:
    fit = {
        name: as_json_value(variable.item())
        if variable.ndim == 0
        else [as_json_value(value) for value in variable.to_numpy().tolist()]
        for name, variable in found.fit.data_vars.items()
    }
    passes = found.passes.astype({"time": str}).to_dict("records")
    return {
        "x": found.x,
        "y": found.y,
        "longitude": found.longitude,
        "latitude": found.latitude,
        "status": _status(found),
        "radius": found.config.radius,
        "fit": fit | {name: str(found.fit[name].values) for name in ("time_start", "time_end")},
        "stored": {
            "tile": found.stored.tile,
            "dhdt": as_json_value(found.stored.dhdt),
            "status": found.stored.status.name.lower(),
            "agrees": found.stored.agrees(found.fit),
        },
        "gates": [
            {name: as_json_value(value) for name, value in asdict(gate).items()}
            for gate in found.gates
        ],
        "likelihood": found.likelihood.to_dict("records"),
        "points": {r.value: int((found.points["reason"] == r).sum()) for r in Reason},
        "passes": [{name: as_json_value(value) for name, value in row.items()} for row in passes],
    }


@click.command()
@RUN
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(COMPARISONS),
    help="Halves to compare, or groups of passes to leave out.  [default: all]",
)
@click.option(
    "--max-tiles",
    type=click.IntRange(min=1),
    metavar="N",
    help="Compare only N tiles, from the costliest to the cheapest.",
)
@BACKEND
def validate(
    run_directory: Path, splits: tuple[str, ...], max_tiles: int | None, backend: str
) -> None:
    """Compare halves of the passes of RUN, and show errors that the passes of a season or a campaign share.

    Odd and even passes are fitted separately, then ascending and descending ones: if the sigmas are right, the
    difference of two rates divided by its sigma has a spread of about 1.  Then all passes of a season, and of a
    campaign of a platform, are left out at once: if they share no error, the change of the rate divided by its sigma
    has a spread of about 1, too.  Results are in RUN/validation: NAME.nc (values of all posts), NAME.png (a map),
    validation.json; those of earlier calls stay.  RUN need not be finished; after an interruption the same command goes
    on.

    \b
    Example:
      cryotile validate run/ --backend local:8
      cryotile validate run/ --split season --max-tiles 20
    """
    run = Run.load(run_directory)
    open_db(run)  # If it is gone, one line says so here, in place of one for each tile.
    validation = Validation.of(run, splits)
    tasks = spread_out(run.tasks, max_tiles)
    share = compare_tiles(validation, tasks, backend, progress=sys.stderr.isatty(), tell=to_stderr)
    if len(share) < len(tasks):
        if share:
            click.echo(
                f"{run.path}: this member's {number(len(share))} of {counted(len(tasks), 'tile')} are compared;"
                " when all are, give the command once more, with --backend serial"
            )
        return
    record = _earlier(validation.path / "validation.json")
    compared = False
    for name in validation.comparisons:
        path, parts = validation.assemble(name)
        tiles = len(validation.compared_tasks(name))
        click.echo(f"\n{_title(name)}: {number(tiles)} of {counted(len(run.tasks), 'tile')}")
        for line in _comparison_lines(name, parts):
            click.echo(line)
        if parts:
            _map_comparison(name, path)
        compared |= bool(parts)
        record[name] = [_as_record(part) for part in parts]
    if not compared:
        raise CryotileError(
            f"{run.path}: nothing can be compared, because hardly any post has a fit to both halves of its passes or"
            " without a group of them; plan a run with a larger radius or a longer period"
        )
    write_text(validation.path / "validation.json", json.dumps(record, indent=1))


def _earlier(path: Path) -> dict[str, Any]:
    """Return the figures of earlier calls."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        to_stderr(
            f"note: {path} is damaged and is written anew, without the figures of earlier calls"
        )
        return {}
    return found


def _title(name: str) -> str:
    if name in SPLITS:
        return "{} less {} passes".format(*SPLITS[name])
    return f"rate without a {name}"


def _comparison_lines(name: str, parts: list[Agreement] | list[Sharing]) -> Iterator[str]:
    if not parts:
        yield "  hardly any post has both fits: nothing to compare"
    elif name in SPLITS:
        yield "  passes            posts   rms (expected)   robust (expected)   within ci95 (0.95)"
        for part in parts:
            assert isinstance(part, Agreement)
            yield (
                f"  {part.passes:12} {number(part.posts):>10}   {_pair(part.plain, part.plain_expected)}"
                f"   {_pair(part.robust, part.robust_expected):>17}   {part.within_ci95:18.3f}"
            )
    else:
        yield from _sharing_lines(name, [part for part in parts if isinstance(part, Sharing)])


def _sharing_lines(name: str, parts: list[Sharing]) -> Iterator[str]:
    width = max(12, *(len(part.part) for part in parts))
    yield f"  {name:{width}} {'groups':>6} {'posts':>10}   rms (at most)   shared error"
    for part in parts:
        yield (
            f"  {part.part:{width}} {part.groups:>6} {number(part.posts):>10}   {part.ratio:5.2f} ({part.limit:.2f})"
            f"   {'SHOWS' if part.shows else 'none shows'}"
        )
    yield (
        f"  beyond their 95 %: {parts[0].beyond:.0%} of the posts (expected: 5%); sigma by leaving out a {name}:"
        f" {parts[0].sigma:.2f} times dhdt_sigma (median)"
    )


def _map_comparison(name: str, product: Path) -> None:
    from cryotile.maps.product import read_product
    from cryotile.plotting.kinds import save

    picture = product.with_suffix(".png")
    save(read_product(product), picture, MAPPED[name])
    click.echo(f"  map: {picture} (and {product})")


def _as_record(part: Agreement | Sharing) -> dict[str, Any]:
    found = {name: as_json_value(value) for name, value in asdict(part).items()}
    return found | ({"shows": part.shows} if isinstance(part, Sharing) else {})


def _pair(found: float, expected: float) -> str:
    return f"{found:6.3f} ({expected:.3f})" if math.isfinite(expected) else f"{found:6.3f} (none) "
