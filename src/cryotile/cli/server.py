"""Commands of a task-farm server: ``serve``, ``user`` and ``farm``.

``farm`` uses the verbs of the first task farm, so it works with its server, too.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from cryotile.cli.grow import grow
from cryotile.cli.screen import counted
from cryotile.errors import CryotileError, InvalidValue

if TYPE_CHECKING:
    from cryotile.taskfarm import TaskFarm
    from cryotile.taskfarm.server import ServerSettings

__all__ = ["farm", "serve", "user"]

# Shorter passwords are guessed.
_SHORT = 10

# Seconds for which a port that is in use is tried again.
_PATIENCE = 5.0

DATABASE = click.option(
    "--database-url",
    metavar="URL",
    help="sqlite:///path or postgresql://user@host/name; default: $CRYOTILE_DATABASE_URL, else a file of your own.",
)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port."
)
@DATABASE
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Number of serving processes.",
)
def serve(host: str, port: int, database_url: str | None, processes: int) -> None:
    """Serve a task farm to workers on any hosts, until it is interrupted.

    The only setup is a user: cryotile user add NAME.  In production, behind nginx:
    gunicorn 'cryotile.taskfarm.server:create_app()'

    \b
    Example:
      cryotile serve --port 5000 --database-url postgresql://farm@db.example/farm
    """
    from cryotile.taskfarm.server import accounts, create_app
    from cryotile.taskfarm.server import serve as serve_until_signal

    settings, bind = _settings(database_url), _listening_place(host, port)
    # An error is printed once here, not by every process.
    app = create_app(settings)
    database = app.extensions["cryotile"].database
    with app.app_context():
        nobody = not accounts.users()
    database.engine.dispose()
    click.echo(f"task farm at http://{host}:{port}/ with {database.name}")
    if nobody:
        click.echo("it has no users yet: cryotile user add NAME")
    serve_until_signal(settings, bind, processes=processes)


@click.group()
def user() -> None:
    """Add, remove and list the users of a task-farm server."""


@user.command()
@click.argument("name")
@click.option("--password", metavar="PW", help="Default: a prompt, which keeps it off the screen.")
@click.option(
    "--role",
    type=click.Choice(["user", "admin"]),
    help="Role of a new user (default: user); an admin sees and changes every run.",
)
@DATABASE
def add(name: str, password: str | None, role: str | None, database_url: str | None) -> None:
    """Add the user NAME, or give NAME another password; tokens made with the old one are revoked.

    \b
    Example:
      cryotile user add ann --role admin
    """
    from cryotile.taskfarm.server import accounts

    if password is None:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    if 0 < len(password) < _SHORT:
        click.echo(
            f"cryotile: a password of under {_SHORT} characters is easy to guess; choose a longer one",
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
    """Remove the user NAME; runs stay, for admins and other owners.

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
    """List the users, with their roles and dates of creation.

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


def _listening_place(host: str, port: int) -> str:
    """Return where to listen as gunicorn takes it; refuse a place that cannot be used, in one line."""
    if not host:
        raise InvalidValue(
            "host is empty; give --host an address of this machine, or 0.0.0.0 for all"
        )
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            socket.create_server((host, port), family=family).close()
        except (OSError, UnicodeError) as error:
            # A server that was killed a moment ago may still hold it.
            if getattr(error, "errno", 0) == errno.EADDRINUSE and time.monotonic() < end:
                time.sleep(0.2)
                continue
            reason = str(getattr(error, "strerror", None) or error).partition(" (")[0]
            raise CryotileError(
                f"host {host!r}, port {port} cannot be listened at ({reason}); give --host an address of this machine,"
                " or another --port"
            ) from error
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _settings(database_url: str | None) -> ServerSettings:
    from cryotile.taskfarm.server import ServerSettings

    return ServerSettings() if database_url is None else ServerSettings(database_url=database_url)


@contextmanager
def _application(database_url: str | None) -> Iterator[None]:
    """Enter the context of the server application, without serving."""
    from cryotile.taskfarm.server import create_app

    app = create_app(_settings(database_url))
    with app.app_context():
        yield
    app.extensions["cryotile"].database.engine.dispose()


# --- farm: runs on a server ---

_LOCAL = "http://localhost:5000"


class _Server:
    """A server, and the credentials for it."""

    def __init__(self, url: str, user: str | None, password: str | None) -> None:
        from cryotile.farm.http import credentials

        place, auth = credentials(url)
        if user is not None:
            if password is None:
                password = click.prompt("Password", hide_input=True, err=True)
            auth = (user, password)
        if auth is None:
            raise InvalidValue(
                "no credentials: give --user, or a token in $CRYOTILE_TOKEN, or http://token@host:5000"
            )
        self.auth = auth
        base = place.geturl().rstrip("/")
        self.base = base + "/" if base.endswith("/api") else base + "/api/"

    def run(self, uuid: str | None = None, tasks: int | None = None) -> TaskFarm:
        """Open a run, or create one."""
        from cryotile.taskfarm import TaskFarm

        return TaskFarm(*self.auth, uuid=uuid, numTasks=tasks, url_base=self.base)

    def runs(self) -> list[dict[str, Any]]:
        """List the runs."""
        from cryotile.taskfarm import tfRuns

        return tfRuns(*self.auth, url_base=self.base)


SERVER = click.make_pass_decorator(_Server)
RUN = click.argument("uuid", metavar="UUID")


@click.group()
@click.option(
    "-b", "--url", envvar="CRYOTILE_SERVER", default=_LOCAL, show_default=True, help="The server."
)
@click.option("-u", "--user", help="User name; default: the token in $CRYOTILE_TOKEN.")
@click.option("-p", "--password", help="Default: a prompt.")
@click.pass_context
def farm(context: click.Context, url: str, user: str | None, password: str | None) -> None:
    """Manage the runs of a task-farm server, or let the jobs of a run grow with its work.

    \b
    Example:
      cryotile farm --user ann list
      cryotile farm grow run/ --scheduler slurm --workers 2..200
    """
    # A farm that grows needs no server.
    if context.invoked_subcommand != "grow":
        context.obj = _Server(url, user, password)


farm.add_command(grow)


@farm.command("list")
@SERVER
def list_runs(server: _Server) -> None:
    """List the runs, with their number of tasks, in the order of their creation."""
    for run in server.runs():
        click.echo(f"{run['uuid']}\t{run['numTasks']}")


@farm.command()
@RUN
@SERVER
def info(server: _Server, uuid: str) -> None:
    """Show the status of the run UUID."""
    found = server.run(uuid).info("")
    click.echo(
        f"{uuid}: {found['numDone']} of {counted(found['numTasks'], 'task')} done, {found['numComputing']} computing,"
        f" {found['numWaiting']} waiting again; {found['percentDone']:.1f} %"
    )


@farm.command()
@RUN
@SERVER
def reset(server: _Server, uuid: str) -> None:
    """Put back the tasks of UUID whose workers are lost; done tasks stay done."""
    server.run(uuid).restart()
    click.echo(f"{uuid}: tasks without a worker wait again")


@farm.command("reset-all")
@RUN
@SERVER
def reset_all(server: _Server, uuid: str) -> None:
    """Put back all tasks of UUID, done or not."""
    server.run(uuid).restart(everything=True)
    click.echo(f"{uuid}: all tasks wait again")


@farm.command()
@RUN
@SERVER
def delete(server: _Server, uuid: str) -> None:
    """Remove the run UUID with its tasks."""
    server.run(uuid).delete()
    click.echo(f"{uuid}: removed")


@farm.command()
@click.argument("tasks", type=click.IntRange(min=1))
@SERVER
def create(server: _Server, tasks: int) -> None:
    """Create a run with this number of TASKS, and print its uuid."""
    click.echo(server.run(tasks=tasks).uuid)
