"""The command ``validate``: whether the halves of a user's own data agree."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from cryotile.backends import open_backend, share_of
from cryotile.cli.screen import bar, counted, number
from cryotile.errors import CryotileError
from cryotile.farm.task import Pending, Task
from cryotile.files import write_text
from cryotile.fit.agreement import SPLITS, Agreement
from cryotile.runs.run import Run, open_db
from cryotile.runs.validate import ValidateTile, Validation

__all__ = ["validate"]


@click.command()
@click.argument("run_directory", metavar="RUN", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(list(SPLITS)),
    help="Which halves to compare.  [default: both splits]",
)
@click.option(
    "--max-tiles",
    type=click.IntRange(min=1),
    metavar="N",
    help="Look at N tiles only, spread over the dear and the cheap ones.",
)
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    metavar="SPEC",
    help="Who works; as for 'cryotile run'.",
)
def validate(
    run_directory: Path, splits: tuple[str, ...], max_tiles: int | None, backend: str
) -> None:
    """Fit odd and even passes of RUN's data apart, and ascending and descending ones, and compare their rates.

    Where the sigmas are right, the difference of two rates over its own sigma is spread by about 1.  The figures go to
    RUN/validation: SPLIT.nc (differences of all posts), SPLIT.png (a map of where they are large), validation.json.
    RUN need not have been worked on; interrupted, the same command goes on.

    \b
    Example:
      cryotile validate run/ --backend local:8
    """
    run = Run.load(run_directory)
    open_db(run)
    chosen = tuple(dict.fromkeys(splits)) or tuple(SPLITS)
    validation = Validation(run)
    validation.make_directories(chosen)
    tasks = _spread_out(run.tasks, max_tiles)
    share = _work(run, validation, chosen, tasks, backend)
    if len(share) < len(tasks):
        if share:
            click.echo(
                f"{run.path}: this member's {number(len(share))} of {counted(len(tasks), 'tile')} are compared;"
                " when all are, give the command once more, with --backend serial"
            )
        return
    click.echo(
        f"run          {run.path}: {number(len(tasks))} of {counted(len(run.tasks), 'tile')}"
    )
    found = {split: _report(validation, split, tasks) for split in chosen}
    if not any(found.values()):
        raise CryotileError(
            f"{run.path}: no two halves can be compared, because hardly a post has a fit to both halves of its passes;"
            " plan a run with a larger radius or a longer period"
        )
    record = {split: [_as_json(part) for part in parts] for split, parts in found.items()}
    write_text(validation.path / "validation.json", json.dumps(record, indent=1))


def _spread_out(tasks: Sequence[Task], most: int | None) -> list[Task]:
    """Take every so many of the list, which is ordered by cost."""
    count = len(tasks) if most is None else min(most, len(tasks))
    return [tasks[k * len(tasks) // count] for k in range(count)]


def _work(
    run: Run, validation: Validation, splits: tuple[str, ...], tasks: Sequence[Task], spec: str
) -> Sequence[Task]:
    """Compare what is not compared yet; return the tasks that this process answers for."""
    farm = open_backend(spec, home=validation.path, key=f"{run.key}/{'+'.join(splits)}")
    share = share_of(farm, tasks)
    pending = Pending(share, lambda some: validation.missing(splits, some))
    work = ValidateTile(run.path.resolve(), run.generation, splits)
    errors = []
    with bar() as progress:
        shown = progress.add_task("validate", total=len(pending), note="")
        for outcome in farm.run(pending, work):
            errors += [outcome] if outcome.error else []
            progress.update(shown, advance=1, note=f"{len(errors)} failed" if errors else "")
    if errors:
        reason = str(errors[0].error).strip().rpartition("\n")[2]
        raise CryotileError(
            f"{counted(len(errors), 'tile')} failed (the first, {run.names[errors[0].task.index]}: {reason}); mend it,"
            f" then go on with: cryotile validate {run.path}"
        )
    missing = validation.missing(splits, share)
    if missing:
        raise CryotileError(
            f"{number(len(missing))} of {counted(len(share), 'tile')} are not compared; go on with:"
            f" cryotile validate {run.path}"
        )
    return share


def _report(validation: Validation, split: str, tasks: Sequence[Task]) -> list[Agreement]:
    from cryotile.plotting.map import plot_product

    one, other = SPLITS[split]
    product, parts = validation.assemble(split, tasks)
    click.echo(f"\n{one} less {other} passes")
    if not parts:
        click.echo("  hardly a post has a fit to both halves: nothing to compare")
        return parts
    click.echo(
        "  passes            posts   rms (expected)   robust (expected)   within ci95 (0.95)"
    )
    for part in parts:
        click.echo(
            f"  {part.passes:12} {number(part.posts):>10}   {_pair(part.plain, part.plain_expected)}"
            f"   {_pair(part.robust, part.robust_expected):>17}   {part.within_ci95:18.3f}"
        )
    picture = product.with_suffix(".png")
    plot_product(product, picture, variable="dhdt_difference_ratio")
    click.echo(f"  map: {picture} (and {product})")
    return parts


def _as_json(part: Agreement) -> dict[str, str | int | float | None]:
    # JSON knows no infinity.
    return {
        name: None if isinstance(value, float) and math.isinf(value) else value
        for name, value in asdict(part).items()
    }


def _pair(found: float, expected: float) -> str:
    return f"{found:6.3f} ({expected:.3f})" if math.isfinite(expected) else f"{found:6.3f} (none) "
