"""``mpirun -n N cryotile run RUN``: a real run under MPI, alone, with other programs, and killed."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.members import small_run
from tests.support.services.mpi import MPI


def start(mpi: MPI, run: Path, ranks: int = 3) -> subprocess.Popen[bytes]:
    return mpi.start(ranks, ["-m", "cryotile", "run", run, "--backend", "mpi"])


def test_tiles_are_those_of_serial_and_one_rank_says_so(openmpi: MPI, tmp_path: Path) -> None:
    small = small_run(tmp_path, "false")
    command = start(openmpi, small.run.path)
    said, complaint = command.communicate(timeout=240)
    assert (command.returncode, complaint) == (0, b"")
    assert said.count(b"\n") == 1
    assert b"tiles are there" in said
    assert small.tiles() == small.expected


def test_several_programs_share_a_run(openmpi: MPI, mpich: MPI, tmp_path: Path) -> None:
    small = small_run(tmp_path, "false")
    commands = [start(mpi, small.run.path) for mpi in (openmpi, mpich)]
    for command in commands:
        said, complaint = command.communicate(timeout=240)
        assert (command.returncode, complaint) == (0, b"")
        assert b"tiles are there" in said
    assert small.tiles() == small.expected


def test_a_run_whose_ranks_are_all_killed_can_be_continued(
    openmpi: MPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = small_run(tmp_path, "false")
    for name, value in small.hold.variables.items():
        monkeypatch.setenv(name, value)
    command = start(openmpi, small.run.path)
    # A child is in the middle of its second tile.  Without fault tolerance, all ranks end with the first.
    os.kill(small.held_member(command), signal.SIGKILL)
    command.communicate(timeout=240)
    assert command.returncode != 0
    assert 0 < len(small.tiles()) < len(small.expected)
    again = start(openmpi, small.run.path)
    again.communicate(timeout=240)
    assert again.returncode == 0
    assert small.tiles() == small.expected


def test_a_launcher_of_another_library_is_refused(openmpi: MPI, mpich: MPI, tmp_path: Path) -> None:
    small = small_run(tmp_path, "false")
    command = start(replace(openmpi, mpirun=mpich.mpirun), small.run.path, ranks=2)
    _, complaint = command.communicate(timeout=240)
    assert command.returncode == 2
    assert b"which finds no other; use the mpirun of that library" in complaint
    assert not small.tiles()
