"""``cryotile totals``: volume and mass by basin, from a map."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pandas as pd

from cryotile import api
from cryotile.cli.screen import (
    FORCE,
    OUTPUT,
    PATH,
    as_json_value,
    check_free,
    check_suffix,
    to_stderr,
)
from cryotile.files import write_text
from cryotile.totalling.fill import FILLS
from cryotile.totalling.imbie import GROUPS

__all__ = ["totals"]

SUFFIXES = (".csv", ".json")


@click.command()
@click.argument("product", metavar="RUN|PRODUCT", type=PATH)
@click.option("--basins", type=PATH, required=True, metavar="FILE", help="Polygons of the basins.")
@click.option("--column", required=True, metavar="NAME", help="Column of --basins that names them.")
@click.option("--density", metavar="KG_M3|FILE", help="Density for the mass: a number or a grid.")
@click.option(
    "--firn-mask",
    type=PATH,
    metavar="FILE",
    help="Density 350 kg m-3 inside this mask and 917 outside.",
)
@click.option("--gia", type=PATH, metavar="FILE", help="Grid of bedrock uplift, to subtract.")
@click.option("--firn", type=PATH, metavar="FILE", help="Grid of firn air change, to subtract.")
@click.option(
    "--fill",
    type=click.Choice(FILLS),
    default="none",
    show_default=True,
    help="Rates for posts without a fit.",
)
@click.option("--dem", type=PATH, metavar="FILE", help="Heights, for --fill hypsometric.")
@click.option("-o", "--output", type=OUTPUT, metavar="FILE", help="Table: .csv or .json.")
@click.option(
    "--filled-map", type=OUTPUT, metavar="FILE", help="Map of fitted and filled rates: .nc."
)
@click.option("--imbie", type=OUTPUT, metavar="FILE", help="Tables of IMBIE: .csv.")
@click.option("--imbie-contributor", metavar="NAME", help="Contributor named in them.")
@click.option("--imbie-group", type=click.Choice(GROUPS), help="[default: by the modes]")
@click.option("--imbie-year", type=int, metavar="YEAR", help="Exercise; before 2024.")
@FORCE
def totals(
    product: Path,
    output: Path | None,
    filled_map: Path | None,
    imbie: Path | None,
    force: bool,
    **options: Any,
) -> None:
    """Add up the rates of a product or run over basins: volume (km3/yr), and mass (Gt/yr) with a density.

    Standard errors come from deleting each pass everywhere at once, for which the run must be planned with the same
    basins.  Without them the table has none, and a note says which command to run.

    \b
    Example:
      cryotile totals dhdt.nc --basins basins.gpkg --column NAME
      cryotile totals dhdt.nc --basins basins.gpkg --column NAME --density 917 --gia gia.nc --fill neighbours \\
        -o totals.csv
    """
    check_suffix(output, SUFFIXES, "totals.csv")
    for path in (output, filled_map, imbie):
        check_free(path, force=force)
    table = api.totals(product, filled_map=filled_map, imbie=imbie, **options)
    for line in _lines(table):
        click.echo(line)
    for note in table.attrs["notes"]:
        to_stderr(f"note: {note}")
    if output is not None:
        _write(table, output)
    for path in (output, filled_map, imbie):
        if path is not None:
            click.echo(f"{path}")


def _lines(table: pd.DataFrame) -> Iterator[str]:
    """Yield the table as text: values with their standard errors, to two digits of these."""
    has_terms, has_mass = len(set(table["term"])) > 1, table["mass_gt_yr"].notna().any()
    width = max(6, *map(len, table["region"]))
    terms = f" {'term':<6}" if has_terms else ""
    mass = f" {'mass Gt/yr':>17}" if has_mass else ""
    yield (
        f"{'basin':<{width}}{terms} {'area km2':>10} {'fit %':>5} {'filled %':>8} {'rate m/yr':>17}"
        f" {'volume km3/yr':>17}{mass}"
    )
    for row in table.to_dict("records"):
        area = row["area_km2"] or math.nan
        terms = f" {row['term']:<6}" if has_terms else ""
        mass = f" {_value(row['mass_gt_yr'], row['mass_sigma']):>17}" if has_mass else ""
        yield (
            f"{row['region']:<{width}}{terms} {row['area_km2']:>10,.0f} {_share(row['fitted_km2'] / area):>5}"
            f" {_share(row['filled_km2'] / area):>8} {_value(row['rate_m_yr'], row['rate_sigma']):>17}"
            f" {_value(row['volume_km3_yr'], row['volume_sigma']):>17}{mass}"
        )


def _share(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f}"


def _value(value: float, sigma: float) -> str:
    if math.isnan(value):
        return "-"
    if not (math.isfinite(sigma) and sigma > 0):
        return f"{value:.4g} ± -"
    digits = max(0, 1 - math.floor(math.log10(sigma)))
    return f"{value:,.{digits}f} ± {sigma:,.{digits}f}"


def _write(table: pd.DataFrame, path: Path) -> None:
    if path.suffix.lower() == ".csv":
        write_text(path, table.to_csv(index=False))
        return
    rows = [
        {name: as_json_value(value) for name, value in row.items()}
        for row in table.to_dict("records")
    ]
    write_text(path, json.dumps({"rows": rows, "notes": table.attrs["notes"]}, indent=1) + "\n")
