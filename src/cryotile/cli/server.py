"""Commands of the task-farm server: ``serve`` and ``user``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import click

from cryotile.errors import CryotileError

if TYPE_CHECKING:
    from cryotile.taskfarm.server import ServerSettings

__all__ = ["serve", "user"]

# Shorter ones are found by trying.
_SHORT = 10

DATABASE = click.option(
    "--database-url",
    metavar="URL",
    help="sqlite:///path or postgresql://user@host/name; $CRYOTILE_DATABASE_URL, else a file of your own.",
)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port."
)
@DATABASE
@click.option(
    "--processes", type=click.IntRange(min=1), default=2, show_default=True, help="How many serve."
)
def serve(host: str, port: int, database_url: str | None, processes: int) -> None:
    """Serve a task farm to workers on any hosts, until it is interrupted.

    Nothing needs to be set up but a user: cryotile user add NAME.  In production, behind nginx:
    gunicorn 'cryotile.taskfarm.server:create_app()'

    \b
    Example:
      cryotile serve --port 5000 --database-url postgresql://farm@db.example/farm
    """
    from cryotile.taskfarm.server import accounts, create_app
    from cryotile.taskfarm.server import serve as serve_until_signal

    settings = _settings(database_url)
    # What is wrong is said once and now, not by every process.
    app = create_app(settings)
    database = app.extensions["cryotile"].database
    with app.app_context():
        nobody = not accounts.users()
    database.engine.dispose()
    click.echo(f"task farm at http://{host}:{port}/ with {database.name}")
    if nobody:
        click.echo("nobody may use it yet: cryotile user add NAME")
    serve_until_signal(settings, host, port, processes=processes)


@click.group()
def user() -> None:
    """Add, remove and list the users of a task-farm server."""


@user.command()
@click.argument("name")
@click.option(
    "--password", metavar="PW", help="Asked for when not given, which keeps it off the screen."
)
@click.option(
    "--role",
    type=click.Choice(["user", "admin"]),
    help="What a new user is (user, when not given); an admin sees and changes every run.",
)
@DATABASE
def add(name: str, password: str | None, role: str | None, database_url: str | None) -> None:
    """Add the user NAME, or give NAME another password; tokens made with the old one fall.

    \b
    Example:
      cryotile user add ann --role admin
    """
    from cryotile.taskfarm.server import accounts

    if password is None:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    if len(password) < _SHORT:
        click.echo(
            f"cryotile: a password of under {_SHORT} characters is soon found by trying; think of a longer one",
            err=True,
        )
    with _application(database_url):
        new = accounts.add_user(name, password, role)
        kind = next(known.role for known in accounts.users() if known.name == name)
    click.echo(f"{kind} {name} {'added' if new else 'has a new password'}")


@user.command()
@click.argument("name")
@DATABASE
def remove(name: str, database_url: str | None) -> None:
    """Remove the user NAME; runs stay, for admins and their other owners.

    \b
    Example:
      cryotile user remove ann
    """
    from cryotile.taskfarm.server import accounts

    with _application(database_url):
        if not accounts.remove_user(name):
            raise CryotileError(f"there is no user {name!r}; see 'cryotile user list'")
    click.echo(f"user {name} removed")


@user.command("list")
@DATABASE
def list_users(database_url: str | None) -> None:
    """List the users, with their role and since when they are there.

    \b
    Example:
      cryotile user list
    """
    from cryotile.taskfarm.server import accounts

    with _application(database_url):
        known = [(each.name, each.role, each.created) for each in accounts.users()]
    for name, role, created in known:
        since = datetime.fromtimestamp(created).astimezone().isoformat(" ", "minutes")
        click.echo(f"{name}\t{role}\t{since}")


def _settings(database_url: str | None) -> ServerSettings:
    from cryotile.taskfarm.server import ServerSettings

    return ServerSettings() if database_url is None else ServerSettings(database_url=database_url)


@contextmanager
def _application(database_url: str | None) -> Iterator[None]:
    """Be the server for a moment, without serving."""
    from cryotile.taskfarm.server import create_app

    app = create_app(_settings(database_url))
    with app.app_context():
        yield
    app.extensions["cryotile"].database.engine.dispose()
