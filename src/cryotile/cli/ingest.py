"""What ``cryotile ingest`` says at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import click

from cryotile.cli.describe import dropped_lines
from cryotile.cli.screen import counted, number
from cryotile.errors import CryotileError
from cryotile.pointdb import PointDB
from cryotile.runs.ingest import Ingest
from cryotile.runs.ingest_batch import Taken

__all__ = ["report"]


def report(
    frozen: Ingest, share: Collection[int], before: Collection[str], shown: Mapping[str, str]
) -> None:
    """Say what has become of batches.

    Parameters
    ----------
    frozen : Ingest
        All of them.
    share : collection of int
        Those that this process answers for.
    before : collection of str
        Ids of granules that the point DB had when this process began.
    shown : mapping of str to str
        Path → as the user wrote it.

    Raises
    ------
    CryotileError
        Some granule did not go in.
    """
    taken = {index: frozen.taken(index) for index in sorted(share)}
    done = [each for each in taken.values() if each is not None]
    problems = [
        line.replace(path, shown.get(path, path)) for t in done for path, line in t.problems
    ]
    for line in problems:
        click.echo(f"cryotile: {line}", err=True)
    _summary(frozen, done, before)
    missing = [index for index, each in taken.items() if each is None]
    if missing:
        failed = frozen.failed()
        reason = next((failed[index] for index in missing if index in failed), "")
        why = reason.strip().rpartition("\n")[2]
        remedy = f"cryotile retry {frozen.path}' puts failed ones back, and then the same command goes on"
        raise CryotileError(
            f"{number(len(missing))} of {number(len(share))} batches did not go in"
            + (f" (the first: {why}); '{remedy}" if why else "; the same command goes on")
        )
    if problems:
        total = sum(frozen.sizes[index] for index in share)
        raise CryotileError(
            f"{len(problems)} of {counted(total, 'granule')} did not go in: mend or leave out what is"
            " named above, then give the same command"
        )


def _summary(frozen: Ingest, done: Collection[Taken], before: Collection[str]) -> None:
    db = PointDB(frozen.db_path)
    ids = [id for each in done for id in each.ids]
    new = list(dict.fromkeys(id for id in ids if id not in before))
    granules = db.granules.set_index("id")
    added = granules.loc[granules.index.intersection(new)]
    notes: dict[str, list[str]] = {}
    for each in done:
        for note, names in each.notes.items():
            notes.setdefault(note, []).extend(names)
    for name, said in zip(added["name"], added["notes"], strict=True):
        for note in said:
            notes.setdefault(note, []).append(name)
    for note, names in notes.items():
        others = f" and {counted(len(names) - 1, 'other')}" if len(names) > 1 else ""
        click.echo(f"note: {names[0]}{others}: {note}", err=True)
    click.echo(
        f"{db.path}: {counted(len(new), 'granule')} added, {number(len(ids) - len(new))} there already;"
        f" {number(added['rows'].sum())} of {number(added['record_count'].sum())} points kept"
    )
    dropped: Counter[str] = Counter()
    for reasons in added["dropped"]:
        dropped.update(reasons)
    for line in dropped_lines(dropped):
        click.echo(line)
