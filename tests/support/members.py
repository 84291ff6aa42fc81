"""A small run whose members can be held in the middle of their work, for tests of real schedulers."""

from __future__ import annotations

import atexit
import os
import select
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import tomli_w

import cryotile
from cryotile.pointdb import PointDB
from cryotile.runs.run import Run, plan_run
from cryotile.runs.work import FitTile
from tests.support.command_line import start
from tests.support.made_up import granule

# Python imports a module of this name at every start, in members and their children.
HOLD = '''
import contextlib, os, signal
import cryotile.runs.work

pipe = os.environ.get("TEST_PIPE", "")
fit_tile, done = cryotile.runs.work.fit_tile, []

def fit_or_hold(run, db, task, progress):
    """Do one tile; then write the member's process id to the pipe, and hang."""
    if done:
        # Unlike open(), this creates no file if the pipe is gone; a file would hold the next submission, too.
        with contextlib.suppress(OSError):
            os.write(os.open(pipe, os.O_WRONLY), b"%d\\n" % os.getppid())
        while True:
            signal.pause()
    return fit_and_note(run, db, task, progress)

def fit_and_note(run, db, task, progress):
    """Do one tile and note that it was done."""
    fitted = fit_tile(run, db, task, progress)
    done.append(task)
    with open(os.environ.get("TEST_MADE", os.devnull), "a") as made:
        made.write(f"{task.index}\\n")
    return fitted

cryotile.runs.work.fit_tile = fit_or_hold if os.path.exists(pipe) else fit_and_note
'''


@dataclass(frozen=True)
class Hold:
    """Holds a worker in the middle of its second tile.

    Attributes
    ----------
    pipe : Path
        Named pipe on which it tells its process id.
    modules : Path
        Directory of modules that its Python must find first.
    """

    pipe: Path
    modules: Path

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of a command whose workers are held."""
        path = os.pathsep.join([str(self.modules), os.environ["PYTHONPATH"]])
        return {"PYTHONPATH": path, "TEST_PIPE": str(self.pipe)}

    def held(self, command: subprocess.Popen[str], said: Callable[[], str] = str) -> int:
        """Wait until a worker is held; return its process id.  If the command ends before, ``said`` tells more."""
        # Without O_NONBLOCK, open would wait for a writer, which may never come.
        reader = os.open(self.pipe, os.O_RDONLY | os.O_NONBLOCK)
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        while not poll.poll(500):
            assert command.poll() is None, (*command.communicate(), said())
        # If members have several children, each may have written it by now.
        pid = int(os.read(reader, 100).split()[0])
        os.close(reader)
        # Later members are not held.
        self.pipe.unlink()
        return pid


def make_hold(directory: Path) -> Hold:
    """Make the pipe and the modules in a directory."""
    hold = Hold(directory / "pipe", directory / "modules")
    os.mkfifo(hold.pipe)
    hold.modules.mkdir()
    (hold.modules / "sitecustomize.py").write_text(HOLD)
    return hold


@dataclass(frozen=True)
class SmallRun:
    """A run of a few dozen tiles that take milliseconds.

    Attributes
    ----------
    run : Run
        Planned, nothing done; in a directory with a space in its name.
    expected : dict of str to bytes
        Its tiles as the backend ``serial`` makes them.
    hold : Hold
        Holds a member.
    """

    run: Run
    expected: dict[str, bytes]
    hold: Hold

    def tiles(self) -> dict[str, bytes]:
        """Return the contents of all stored tiles."""
        return {file.name: file.read_bytes() for file in (self.run.path / "tiles").glob("*.arrow")}

    def cryotile(
        self, *words: object, environment: dict[str, str] | None = None, **variables: str
    ) -> subprocess.Popen[str]:
        """Start a command on the run; environment as of :func:`tests.support.command_line.start`."""
        command, *others = words
        return start(command, self.run.path, *others, environment=environment, **variables)

    def held_member(self, submitting: subprocess.Popen[str]) -> int:
        """Wait until the held member is in the middle of its share; return its process id."""
        return self.hold.held(submitting, self.printed)

    def made(self) -> list[str]:
        """Return the index of each tile that a member has fitted, once for each time."""
        return (self.hold.pipe.parent / "made").read_text().split()

    def printed(self) -> str:
        """Return the output of the members of all submissions."""
        outputs = [
            path
            for path in (self.run.path / "jobs").glob("*/*")
            if path.suffix not in {".sh", ".json"}
        ]
        return "\n".join(path.read_text(errors="replace") for path in sorted(outputs))


def small_run(directory: Path, hold: str, *setup: str) -> SmallRun:
    """Make a run.

    Parameters
    ----------
    directory : Path
        Empty.
    hold : str
        Condition of the shell under which a member is held.
    *setup : str
        Further lines of its job scripts.
    """
    db, request, expected = _world()
    run = plan_run(directory / "small run", request, db=db)
    held = make_hold(directory)
    source = Path(cryotile.__file__).parent.parent
    lines = [
        f"export PYTHONPATH={shlex.quote(f'{held.modules}:{source}')}",
        f"export TEST_MADE={shlex.quote(str(directory / 'made'))}",
        f"if {hold}; then export TEST_PIPE={shlex.quote(str(held.pipe))}; fi",
        *setup,
    ]
    with (run.path / "run.toml").open("ab") as file:
        file.write(b"\n" + tomli_w.dumps({"submit": {"setup": lines}}).encode())
    return SmallRun(run, expected, held)


@cache
def _world() -> tuple[PointDB, dict[str, Any], dict[str, bytes]]:
    """Return a point DB that the runs of this process share, their request, and their tiles."""
    directory = Path(tempfile.mkdtemp(prefix="cryotile-small-run-"))
    atexit.register(shutil.rmtree, directory)
    db = PointDB.create(directory / "ice.pdb", "EPSG:3031")
    db.append([granule(seed, 3000, extent=20e3) for seed in range(2)])
    request = {"tile_size": 7, "where": "platform == 'cryosat2'"}
    run = plan_run(directory / "reference", request, db=db)
    for task in run.tasks:
        FitTile(run.path, run.generation)(task, lambda fraction: None)
    tiles = {file.name: file.read_bytes() for file in (run.path / "tiles").glob("*.arrow")}
    assert len(tiles) == len(run.tasks) > 20
    return db, request, tiles
