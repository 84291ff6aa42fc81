"""Commands on the runs of a task-farm server: ``farm``; in the verbs of the seed, which its own server knows, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cryotile.cli.screen import counted
from cryotile.errors import InvalidValue

if TYPE_CHECKING:
    from cryotile.taskfarm import TaskFarm

__all__ = ["farm"]

_LOCAL = "http://localhost:5000"


class _Server:
    """A server, and as whom to ask it."""

    def __init__(self, url: str, user: str | None, password: str | None) -> None:
        from cryotile.farm.http import credentials

        place, auth = credentials(url)
        if user is not None:
            if password is None:
                password = click.prompt("Password", hide_input=True, err=True)
            auth = (user, password)
        if auth is None:
            raise InvalidValue(
                "nobody is said to ask; give --user, or a token in $CRYOTILE_TOKEN, or http://token@host:5000"
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
@click.option("-u", "--user", help="As whom to ask; $CRYOTILE_TOKEN when not given.")
@click.option("-p", "--password", help="Asked for when not given.")
@click.pass_context
def farm(context: click.Context, url: str, user: str | None, password: str | None) -> None:
    """Look after the runs of a task-farm server.

    \b
    Example:
      cryotile farm --user ann list
    """
    context.obj = _Server(url, user, password)


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
    """Say how far the run UUID is."""
    found = server.run(uuid).info("")
    click.echo(
        f"{uuid}: {found['numDone']} of {counted(found['numTasks'], 'task')} done, {found['numComputing']} computing,"
        f" {found['numWaiting']} waiting again; {found['percentDone']:.1f} %"
    )


@farm.command()
@RUN
@SERVER
def reset(server: _Server, uuid: str) -> None:
    """Put back the tasks of UUID that nobody is computing any more; what is done stays done."""
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
    """Create a run of so many TASKS, and print its uuid."""
    click.echo(server.run(tasks=tasks).uuid)
