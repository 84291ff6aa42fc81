"""``cryotile compare``: a product against a map or table that others published."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryotile.cli import with_options
from cryotile.cli.screen import FORCE, OUTPUT, PATH, as_json_value, check_free, number
from cryotile.runs import comparison

if TYPE_CHECKING:
    from cryotile.exchange.compare import Comparison

__all__ = ["compare"]


@click.command()
@click.argument("product", type=PATH)
@click.argument("reference", type=PATH, nargs=-1, required=True)
@click.option(
    "--variable", metavar="NAME", help="Rate of a grid of no known layout, or of a table."
)
@click.option("--sigma", metavar="NAME", help="Its standard error.")
@click.option(
    "--mapping", type=PATH, metavar="FILE", help="TOML or JSON that names the columns of a table."
)
@click.option("--basins", type=PATH, metavar="FILE", help="Polygons of the basins.")
@click.option("--column", metavar="NAME", help="Column of --basins that names them.")
@click.option("-o", "--output", type=OUTPUT, metavar="FILE", help="HTML report to write.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@FORCE
def compare(
    product: Path,
    reference: tuple[Path, ...],
    output: Path | None,
    as_json: bool,
    force: bool,
    **options: Any,
) -> None:
    """Compare PRODUCT, a product or a run, with REFERENCE.

    REFERENCE is a file of ICESat-2 ATL15, ESA CCI or C3S surface elevation change (Antarctica, Greenland), ITS_LIVE
    elevation change, EOLIS grids (two months or more, or their directory), another product, any CF grid, or a table of
    points in CSV.  Both are brought to one grid, sign and period; what that took is said.

    \b
    Example:
      cryotile compare dhdt.nc ATL15_AA_0329_01km_005_02.nc -o report.html
      cryotile compare dhdt.nc rates.nc --variable trend --sigma trend_error
    """
    check_free(output, force=force)
    found = comparison.compare(product, reference, report=output, **options)
    if as_json:
        click.echo(json.dumps(_as_json(found, output), indent=1))
        return
    for line in _lines(found):
        click.echo(line)
    if output is not None:
        click.echo(f"report       {output}")


def _lines(found: Comparison) -> Iterator[str]:
    from cryotile.exchange.compare import label_of

    yield f"product      {found.product}"
    yield f"reference    {found.reference}"
    yield f"layout       {found.layout}"
    for note in found.notes:
        yield f"  {with_options(note)}"
    yield "product less reference, m/yr; ratio: over the root of both variances (expected 1 and 0.95)"
    yield (
        f"  {'':18} {'posts':>10} {'bias':>9} {'median':>9} {'MAD':>8} {'rms':>8}"
        f" {'ratio MAD':>10} {'within ±1.96':>13}"
    )
    for row in found.table.to_dict("records"):
        label = label_of(row)
        yield (
            f"  {label:18} {number(row['posts']):>10} {_cell(row['bias'], '+9.4f')} {_cell(row['median'], '+9.4f')}"
            f" {_cell(row['mad'], '8.4f')} {_cell(row['rms'], '8.4f')} {_cell(row['ratio_mad'], '10.2f')}"
            f" {_cell(row['within_ci95'], '13.3f')}"
        )
    yield "not known to the product:"
    for sentence in found.unknowns:
        yield f"  {sentence}"


def _cell(value: float, form: str) -> str:
    width = int(form.lstrip("+").partition(".")[0])
    return f"{round(value, 4) + 0.0:{form}}" if math.isfinite(value) else f"{'-':>{width}}"


def _as_json(found: Comparison, output: Path | None) -> dict[str, Any]:
    rows = [
        {name: as_json_value(value) for name, value in row.items()}
        for row in found.table.to_dict("records")
    ]
    return {
        "product": found.product,
        "reference": found.reference,
        "layout": found.layout,
        "crs": found.maps.attrs["crs"],
        "posting": found.maps.attrs["posting"],
        "notes": list(found.notes),
        "unknowns": list(found.unknowns),
        "table": rows,
        "report": None if output is None else str(output),
    }
