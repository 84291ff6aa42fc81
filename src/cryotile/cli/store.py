"""Commands that look after a point DB: ``remove``, ``compact``, ``verify``."""

from __future__ import annotations

from pathlib import Path

import click

from cryotile.cli.screen import counted, number, size
from cryotile.errors import DamagedFile, InvalidValue
from cryotile.pointdb import PointDB
from cryotile.pointdb.repair import set_damage_aside

__all__ = ["compact", "remove", "verify"]

DB = click.argument("db", type=click.Path(path_type=Path, readable=False))


@click.command()
@DB
@click.argument("granules", nargs=-1)
@click.option(
    "--damaged",
    is_flag=True,
    help="Remove those with points in fragments that are damaged, and name them.  A damaged commit of the log, on which"
    " the newest state rests, is set aside with all later ones; nobody may write meanwhile.",
)
def remove(db: Path, granules: tuple[str, ...], damaged: bool) -> None:
    """Remove the points of GRANULES, given by id or file name, from the point DB.

    \b
    Example:
      cryotile remove greenland.pdb ATL06_20190504213219_05500306_006_02.h5
    """
    if damaged:
        _set_aside(db)
    points = PointDB(db)
    names = [Path(granule).name for granule in granules]
    if damaged:
        names += [name for damage in points.verify() for name in damage.granules]
    elif not names:
        raise InvalidValue("no granule was named; give ids or file names, or --damaged")
    removed = points.remove(list(dict.fromkeys(names)))
    for name in removed.granules:
        click.echo(name)
    click.echo(
        f"{db}: {counted(len(removed.granules), 'granule')} removed, {number(removed.rows)} points; snapshot"
        f" {removed.snapshot}"
    )


def _set_aside(db: Path) -> None:
    """Take what is damaged of the log out of it, and say what to ingest again."""
    aside = set_damage_aside(db)
    if aside is None:
        return
    for name in aside.granules:
        click.echo(name)
    moved = ", ".join(map(str, aside.numbers))
    click.echo(
        f"{db}: commits {moved} are in {aside.directory} now; ingest what they brought again: the granules"
        f" named above, and what stands in those that cannot be read; 'cryotile run' on each directory of"
        f" {db / 'ingests'} does so"
    )


@click.command()
@DB
@click.option(
    "--keep",
    multiple=True,
    type=int,
    metavar="N",
    help="An earlier snapshot to keep; may be repeated.  All others are ended.",
)
def compact(db: Path, keep: tuple[int, ...]) -> None:
    """Merge small fragments of the point DB and delete what is no longer needed.

    Others may read and write meanwhile; no point changes, and no tile becomes stale.

    \b
    Example:
      cryotile compact antarctica.pdb --keep 12
    """
    done = PointDB(db).compact(keep=keep)
    click.echo(
        f"{db}: {number(done.merged)} fragments merged into {number(done.written)}, {number(done.deleted)} files"
        f" deleted ({size(done.freed)}); snapshot {done.snapshot}"
    )


@click.command()
@DB
def verify(db: Path) -> None:
    """Compare every file of the point DB with what its log says of it.

    Names each file that is damaged, and the granules to ingest again.

    \b
    Example:
      cryotile verify antarctica.pdb
    """
    points = PointDB(db)
    found, granules = 0, dict[str, None]()
    for damage in points.verify():
        found += 1
        granules |= dict.fromkeys(damage.granules)
        click.echo(f"{damage.path}: {damage.reason}")
    if granules:
        click.echo("granules to ingest again:")
        for name in granules:
            click.echo(f"  {name}")
    if found:
        mend = (
            f"; give 'cryotile remove {db} --damaged', then ingest the granules named above again"
        )
        raise DamagedFile(
            f"{found} files of {db} are damaged: put them back from a copy{mend if granules else ''}"
        )
    rows = points.granules["rows"].sum()
    click.echo(
        f"{db}: {number(len(points.granules))} granules with {number(rows)} points are as the log says, snapshot"
        f" {points.snapshot}"
    )
