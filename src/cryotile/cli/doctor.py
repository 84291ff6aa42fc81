"""The command ``doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

__all__ = ["doctor"]


@click.command()
@click.argument(
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False, readable=False),
    default=Path(),
    required=False,
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(directory: Path, as_json: bool) -> None:
    """Say what is missing for which feature, and whether DIRECTORY can hold point DBs and runs.

    Exit code 1 if there is a problem; a missing feature is not a problem.

    \b
    Example:
      cryotile doctor /scratch/me
    """
    from cryotile.runs.doctor import examine

    findings = list(examine(directory))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            click.echo(f"{finding.state:<8} {finding.subject:<{width}}  {finding.text}{remedy}")
    if any(finding.state == "problem" for finding in findings):
        raise SystemExit(1)
