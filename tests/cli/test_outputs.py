"""One rule for all commands: a file is written into a directory that exists, or nothing is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cryotile.cli import cli
from cryotile.cli.screen import OutputPath
from tests.support.command_line import Call
from tests.support.errors import only_line

OUTPUTS = {
    ("assemble", "--output"),
    ("compare", "--output"),
    ("explain", "--output"),
    ("explain", "--plot"),
    ("export", "--output"),
    ("plot", "--output"),
    ("series", "--output"),
    ("status", "--html"),
    ("totals", "--filled-map"),
    ("totals", "--imbie"),
    ("totals", "--output"),
}


def options() -> Iterator[tuple[str, click.Option]]:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield from ((name, one) for one in command.params if isinstance(one, click.Option))


def test_every_option_that_names_a_file_to_write_is_of_the_type_that_checks_its_directory() -> None:
    checked = {(name, one.opts[-1]) for name, one in options() if isinstance(one.type, OutputPath)}
    assert checked == OUTPUTS
    assert {
        pair for pair in ((name, one.opts[-1]) for name, one in options()) if pair[1] == "--output"
    } <= checked


@pytest.mark.parametrize(("command", "option"), sorted(OUTPUTS))
def test_a_file_in_a_directory_that_does_not_exist_is_refused_before_any_work(
    command: str, option: str, call: Call, tmp_path: Path
) -> None:
    path = tmp_path / "no" / "such" / "file.nc"
    code, said, complaint = call(command, option, path)
    assert (code, said) == (2, "")
    assert only_line(complaint).endswith(
        f"{path} cannot be written: its directory does not exist; create it or choose another one"
    )
    assert list(tmp_path.iterdir()) == []
