"""The number of cores a process may use is the minimum of the limits of system, container and scheduler."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cryotile.backends.cores import count_cores, usable_cores


@pytest.fixture
def files(tmp_path):
    """Return a function that creates /proc and /sys below a directory, and returns the directory."""

    def materialize(contents: dict[str, str]) -> Path:
        for name, content in contents.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return tmp_path

    return materialize


def count(root: Path, environment: dict[str, str] | None = None, *, affinity: int = 64) -> int:
    return count_cores(affinity=affinity, environment=environment or {}, root=root).number


def test_this_process_may_use_at_least_one_core_and_no_more_than_there_are():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no processes")
def test_a_process_bound_to_one_core_uses_one():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_without_any_limit_the_affinity_mask_decides(tmp_path):
    assert count(tmp_path, affinity=7) == 7


@pytest.mark.parametrize(
    ("quota", "cores"), [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 64)]
)
def test_a_container_is_held_to_whole_cores_of_its_quota_and_always_has_one(files, quota, cores):
    assert (
        count(files({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": quota + "\n"})) == cores
    )


def test_the_tightest_quota_of_all_cgroups_above_holds(files):
    root = files(
        {
            "proc/self/cgroup": "0::/user.slice/job_7/step_0\n",
            "sys/fs/cgroup/user.slice/cpu.max": "1600000 100000\n",
            "sys/fs/cgroup/user.slice/job_7/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/user.slice/job_7/step_0/cpu.max": "max 100000\n",
        }
    )
    assert count(root) == 4


def test_a_cgroup_whose_path_is_the_hosts_is_read_where_it_is_mounted(files):
    root = files(
        {
            "proc/self/cgroup": "0::/../../kubepods/pod1\n",
            "sys/fs/cgroup/cpu.max": "300000 100000\n",
        }
    )
    assert count(root) == 3


def test_cgroup_version_one_has_its_quota_in_two_files_and_minus_one_means_unlimited(files):
    group = "sys/fs/cgroup/cpu,cpuacct/slurm/job_7"
    root = files(
        {
            "proc/self/cgroup": "5:cpuset:/\n4:cpu,cpuacct:/slurm/job_7\n1:name=systemd:/\n0::/\n",
            f"{group}/cpu.cfs_quota_us": "600000\n",
            f"{group}/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        }
    )
    assert count(root) == 6


SLURM = {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "8"}


@pytest.mark.parametrize(
    ("environment", "cores"),
    [
        # A job script may use all cores of its tasks on this node ...
        ({**SLURM, "SLURM_TASKS_PER_NODE": "8"}, 8),
        ({**SLURM, "SLURM_TASKS_PER_NODE": "2(x3),1", "SLURM_CPUS_PER_TASK": "4"}, 8),
        # ... but not those added because cores have two threads each,
        ({**SLURM, "SLURM_TASKS_PER_NODE": "1", "SLURM_CPUS_PER_TASK": "7"}, 7),
        # and a process of srun has only its own.
        ({**SLURM, "SLURM_TASKS_PER_NODE": "4", "SLURM_STEP_ID": "0"}, 2),
        (
            {
                **SLURM,
                "SLURM_TASKS_PER_NODE": "4",
                "SLURM_STEP_ID": "0",
                "SLURM_CPUS_PER_TASK": "1",
            },
            1,
        ),
        ({"PBS_JOBID": "7.pbs", "NCPUS": "5"}, 5),
        ({"PBS_JOBID": "7.torque", "PBS_NUM_PPN": "6"}, 6),
        ({"JOB_ID": "7", "SGE_TASK_ID": "undefined", "NSLOTS": "3"}, 3),
        ({"LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "9"}, 9),
    ],
)
def test_a_job_keeps_to_what_its_scheduler_gave_it(tmp_path, environment, cores):
    assert count(tmp_path, environment) == cores


@pytest.mark.parametrize(
    "environment",
    [
        {"NCPUS": "3", "NSLOTS": "3", "SLURM_CPUS_PER_TASK": "3", "LSB_DJOB_NUMPROC": "3"},
        {"SLURM_JOB_ID": "7"},
        {"PBS_JOBID": "7.pbs", "NCPUS": ""},
    ],
)
def test_variables_outside_a_job_set_no_limit(tmp_path, environment):
    assert count(tmp_path, environment) == 64


def test_a_count_names_all_limits_whose_minimum_it_is(files):
    root = files({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"})
    found = count_cores(affinity=4, environment={"PBS_JOBID": "7", "NCPUS": "16"}, root=root)
    assert str(found) == "2 usable cores: affinity 4, cgroup quota 2.5, NCPUS 16"
    assert (
        str(count_cores(affinity=1, environment={}, root=root / "none"))
        == "1 usable core: affinity 1"
    )
