"""The backend ``auto`` is the farm in which its process was started, and says so."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cryotile.backends import open_backend
from cryotile.backends.auto import choose
from cryotile.backends.base import STALL
from cryotile.backends.cores import count_cores
from cryotile.errors import InvalidValue
from cryotile.pointdb import PointDB
from cryotile.runs.run import Run, plan_run
from cryotile.testing.backends import BackendContract, MakeBackend
from tests.support import command_line
from tests.support.command_line import Call
from tests.support.made_up import granule
from tests.support.services.mpi import MPI

ARRAY = {
    "SLURM_JOB_ID": "8",
    "SLURM_ARRAY_JOB_ID": "7",
    "SLURM_ARRAY_TASK_ID": "1",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_MAX": "1",
    "SLURM_ARRAY_TASK_COUNT": "2",
    "SLURM_ARRAY_TASK_STEP": "1",
    "CRYOTILE_JOB_END": "4e9",
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run of a few tiles, none of them done."""
    db = PointDB.create(tmp_path / "ice.pdb", "EPSG:3031")
    db.append([granule(0, 3000, extent=20e3)])
    return plan_run(tmp_path / "run", {"tile_size": 20, "where": "platform == 'cryosat2'"}, db=db)


def plain_environment() -> dict[str, str]:
    """Return the environment that this process would have in a terminal."""
    foreign = ("SLURM_", "PBS_", "SGE_", "LSB_", "OMPI_", "PMI", "CRYOTILE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def cryotile(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    return command_line.run(*words, environment=plain_environment(), **more)


class TestAuto(BackendContract):
    """Here ``auto`` is ``local`` with a child per usable core, without the tests of supervised children."""

    @pytest.fixture
    def make_backend(self, monkeypatch) -> MakeBackend:
        def make(workers=2, stall=STALL):
            # A scheduler that gave the job this number of cores.
            monkeypatch.setenv("LSB_JOBID", "7")
            monkeypatch.setenv("LSB_DJOB_NUMPROC", str(workers))
            monkeypatch.setenv("CRYOTILE_JOB_END", "4e9")
            return open_backend("auto", home=None, key="", stall=stall)

        return make


def test_a_process_on_its_own_is_local_with_a_child_per_usable_core():
    choice = choose({})
    assert choice.spec == f"local:{count_cores(environment={}).number}"
    assert choice.reason == str(count_cores(environment={}))


def test_a_member_of_an_array_job_takes_its_share():
    assert choose(ARRAY) == ("array", "this is a member of an array job of Slurm")
    assert choose({"PBS_ARRAY_INDEX": "3"}).spec == "array"


def test_a_job_that_is_not_an_array_works_alone():
    assert choose({"JOB_ID": "7", "SGE_TASK_ID": "undefined"}).spec.startswith("local:")
    # The variables of the one process of a batch script of Slurm.
    alone = {
        "SLURM_JOB_ID": "7",
        "SLURM_PROCID": "0",
        "SLURM_NTASKS": "1",
        "SLURM_CPUS_ON_NODE": "1",
    }
    assert choose(alone).spec == "local:1"


def test_under_mpirun_it_is_mpi_even_in_an_array_job_and_one_rank_speaks_for_all():
    rank = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"}
    assert choose({**ARRAY, **rank}) == ("mpi", "this is one of 4 ranks of an MPI program")
    assert choose({**rank, "OMPI_COMM_WORLD_RANK": "3"}) == ("mpi", "")
    assert choose({"PMI_RANK": "1", "PMI_SIZE": "2"}).spec == "mpi"
    assert choose({"PMIX_RANK": "0"}) == ("mpi", "this is a rank of an MPI program")


def test_it_takes_no_argument():
    with pytest.raises(InvalidValue, match="write auto, or local:8"):
        open_backend("auto:8", home=None, key="k")


def test_the_command_says_which_backend_it_chose_and_why(run: Run, call: Call):
    done = cryotile("run", run.path)
    assert done.returncode == 0, done.stderr
    cores = count_cores(environment=plain_environment())
    assert f"backend local:{cores.number} ({cores})\n" in done.stderr
    assert not list(run.pending())
    # A user who chose the backend is not told.
    assert call("run", run.path, "--backend", "serial")[::2] == (0, "")


def test_a_member_of_an_array_job_needs_no_option(run: Run):
    done = cryotile("run", run.path, **ARRAY)
    assert done.returncode == 0, done.stderr
    assert "backend array (this is a member of an array job of Slurm)\n" in done.stderr
    assert 0 < len(list(run.pending())) < len(run.tasks)


def test_under_mpirun_the_command_needs_no_option(openmpi: MPI, run: Run):
    words = ("-m", "cryotile", "run", run.path)
    process = openmpi.start(3, words)
    said, complaint = process.communicate(timeout=240)
    assert process.returncode == 0, complaint
    assert complaint.count(b"backend mpi (this is one of 3 ranks of an MPI program)\n") == 1
    assert said.count(b"tiles are there") == 1
    assert not list(run.pending())
