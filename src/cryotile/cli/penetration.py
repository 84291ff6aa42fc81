"""The command ``penetration``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from cryotile.cli.screen import PATH, counted

__all__ = ["penetration"]


@click.command()
@click.argument("maps", metavar="RUN|PRODUCT", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def penetration(maps: Path, as_json: bool) -> None:
    """Compare the rates of radars and lasers: their difference, and at how many posts it is not 0.

    The run must have the terms platform_offset and penetration; its map of the difference is penetration_rate.

    \b
    Example:
      cryotile plan both/ --db both.pdb --term platform_offset --term penetration
      cryotile run both/
      cryotile penetration both/
    """
    from cryotile import api
    from cryotile.maps.penetration import summarize_penetration

    found = summarize_penetration(api.open(maps))
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        low, middle, high = found.percentiles
        click.echo(f"radar less laser at {counted(found.posts, 'post')}")
        click.echo(f"  rate (m/yr)    {middle:+.3f}, from {low:+.3f} to {high:+.3f} (5 to 95 %)")
        click.echo(f"  not 0          {found.beyond:.1%} of the posts; 5 % is chance")
