"""A click group that imports a command when it is called, so that ``cryotile --help`` is quick."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

__all__ = ["LazyGroup", "log_level"]


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


class LazyGroup(click.Group):
    """A group whose commands are named as ``module:attribute``.

    Parameters
    ----------
    *args, **kwargs
        As for :class:`click.Group`.
    commands_at : mapping of str to str
        Command name → where it is; help lists the commands in this order.
    """

    def __init__(self, *args: Any, commands_at: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order given."""
        return list(self.commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import and return one command."""
        if cmd_name not in self.commands_at:
            return None
        module, _, attribute = self.commands_at[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        # After the command is where one adds it to a command that went wrong.
        if VERBOSE not in command.params:
            command.params.append(VERBOSE)
        return command
