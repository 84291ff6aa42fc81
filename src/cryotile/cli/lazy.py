"""A click group that imports a command when it is called, so that ``cryotile --help`` is quick."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click

__all__ = ["LazyGroup", "Place", "log_level"]


def log_level(count: int) -> int:
    """Return the level of logging that ``-v``, given so often, asks for."""
    return [logging.WARNING, logging.INFO, logging.DEBUG][min(count, 2)]


def _set_level(ctx: click.Context, param: click.Parameter, count: int) -> None:  # noqa: ARG001 - click's signature
    if count:
        logging.getLogger().setLevel(log_level(count))


VERBOSE = click.Option(
    ["-v", "--verbose"],
    count=True,
    expose_value=False,
    callback=_set_level,
    help="Log what happens; twice for more.",
)


class Place(NamedTuple):
    """Where a command is, and what help says of it before anything of it is imported.

    Attributes
    ----------
    where : str
        ``module:attribute``.
    line : str
        What it does, in at most 55 letters.
    """

    where: str
    line: str


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called.

    Parameters
    ----------
    *args, **kwargs
        As for :class:`click.Group`.
    sections : mapping of str to mapping of str to Place
        Title → command name → where it is; help lists the commands under these titles, in this order.
    """

    def __init__(
        self, *args: Any, sections: Mapping[str, Mapping[str, Place]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._sections = sections
        self._places = {name: place for some in sections.values() for name, place in some.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order given."""
        return list(self._places)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write a line for each command."""
        for title, places in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, place.line) for name, place in places.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import and return one command."""
        if cmd_name not in self._places:
            return None
        module, _, attribute = self._places[cmd_name].where.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        # After the command is where one adds it to a command that went wrong.
        if VERBOSE not in command.params:
            command.params.append(VERBOSE)
        return command
