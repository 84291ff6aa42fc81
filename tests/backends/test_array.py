"""Members of an array job do the shares of one list, and learn from their scheduler which member they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryotile.backends import Context, open_backend, share_of
from cryotile.backends.array import ArrayBackend, ArrayMember, IndexBackend, array_member, partition
from cryotile.backends.base import STALL
from cryotile.errors import InvalidValue
from cryotile.farm.task import Pending, Task
from cryotile.testing.backends import BackendContract, MakeBackend, RecordingWork, make_tasks
from tests.support import PROJECT


class TestIndex(BackendContract):
    """Without the tests of supervised children, which are the same as those of the backend ``local``."""

    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        return lambda workers=2, stall=STALL: IndexBackend(
            "0/1", Context(stall=stall), children=workers
        )


def run_members(
    members: range,
    of: int,
    tasks: list[Task],
    work: RecordingWork,
    choose: Callable[[Sequence[Task]], list[Task]] = list,
) -> None:
    for member in members:
        backend = IndexBackend(f"{member}/{of}", children=1)
        list(backend.run(Pending(share_of(backend, tasks), choose), work))


def test_members_do_each_task_once_together(tmp_path: Path) -> None:
    tasks, work = make_tasks(50), RecordingWork(tmp_path)
    run_members(range(4), 4, tasks, work)
    assert sorted(work.started) == [task.index for task in tasks]


def test_members_that_start_late_deal_the_same_list_and_skip_what_is_done(tmp_path: Path) -> None:
    tasks, work = make_tasks(50), RecordingWork(tmp_path)

    def choose(some: Sequence[Task]) -> list[Task]:
        # Half of the list was done before; a member that starts now also finds done what others did meanwhile.
        return [t for t in some if t.index % 2 == 1 and t.index not in work.ended]

    run_members(range(4), 4, tasks, work, choose)
    assert sorted(work.started) == [task.index for task in tasks if task.index % 2 == 1]


def test_a_member_looks_at_its_own_tasks_only() -> None:
    tasks, looked_at = make_tasks(40), list[Task]()

    def choose(some: Sequence[Task]) -> list[Task]:
        looked_at.extend(some)
        return []

    run_members(range(1, 2), 4, tasks, RecordingWork(Path()), choose)
    assert looked_at == IndexBackend("1/4").share(tasks)
    assert len(looked_at) == 10


DYING = """
import os, signal, sys
from pathlib import Path
from cryotile.backends.array import IndexBackend, partition
from cryotile.testing.backends import RecordingWork, make_tasks

if __name__ == "__main__":
    tasks = make_tasks(20)
    first, second, *_ = partition(tasks, 2)[1]
    work = RecordingWork(Path(sys.argv[1]), {second.index: ("hang", 1)})
    backend = IndexBackend("1/2", children=1)
    outcomes = backend.run(backend.share(tasks), work)
    assert next(outcomes).task == first
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_member_that_dies_leaves_its_share_to_the_next_submission(tmp_path: Path) -> None:
    tasks, work = make_tasks(20), RecordingWork(tmp_path)
    # It gets no further than its second task.
    script = [sys.executable, "-c", DYING, str(tmp_path)]
    dead = subprocess.run(script, check=False)
    assert dead.returncode == -signal.SIGKILL
    run_members(range(1), 2, tasks, work)
    missing = [task for task in tasks if task.index not in work.ended]
    assert missing
    run_members(range(2), 2, missing, work)
    assert sorted(set(work.ended)) == [task.index for task in tasks]


def test_there_may_be_more_members_than_tasks(tmp_path: Path) -> None:
    tasks, work = make_tasks(2), RecordingWork(tmp_path)
    run_members(range(5), 5, tasks, work)
    assert sorted(work.started) == [task.index for task in tasks]


@pytest.mark.parametrize(
    "argument", ["", "3", "3/", "/3", "3/3", "-1/3", "0/0", "a/b", "1.0/2", "1/2/3", "²/3"]
)
def test_a_spec_that_names_no_share_is_refused(argument: str) -> None:
    with pytest.raises(InvalidValue, match=r"write index:K/N with K from 0 to N-1"):
        open_backend(f"index:{argument}", home=None, key="k")


# --- partition by cost -------------------------------------------------------------------------------------------


def lognormal(count: int, seed: int) -> list[Task]:
    costs = np.random.default_rng(seed).lognormal(sigma=1.0, size=count)
    return [Task(index, float(cost)) for index, cost in enumerate(sorted(costs, reverse=True))]


@given(st.lists(st.floats(0.0, 1e12), max_size=60), st.integers(1, 12))
def test_shares_are_a_partition_in_the_order_of_the_list(costs: list[float], members: int) -> None:
    tasks = [Task(index, cost) for index, cost in enumerate(costs)]
    shares = partition(tasks, members)
    assert len(shares) == members
    assert sorted(task.index for share in shares for task in share) == list(range(len(tasks)))
    assert all(share == sorted(share, key=lambda task: task.index) for share in shares)
    assert shares == partition(tasks, members)


def test_no_member_of_sixteen_is_two_percent_behind_the_ideal() -> None:
    for seed in range(20):
        tasks = lognormal(2000, seed)
        loads = [sum(task.cost for task in share) for share in partition(tasks, 16)]
        assert max(loads) <= 1.02 * max(sum(loads) / 16, tasks[0].cost)


def test_costs_known_within_a_fifth_still_give_five_percent() -> None:
    excess = []
    for seed in range(20):
        tasks = lognormal(2000, seed)
        true = np.random.default_rng(seed).uniform(0.8, 1.2, len(tasks))
        loads = [
            sum(task.cost * true[task.index] for task in share) for share in partition(tasks, 16)
        ]
        excess.append(max(loads) / (sum(loads) / 16))
    assert np.mean(excess) <= 1.05


def test_tasks_without_a_cost_are_spread_by_number() -> None:
    shares = partition([Task(index, 0.0) for index in range(100)], 8)
    assert {len(share) for share in shares} == {12, 13}


def test_no_share_is_beyond_four_thirds_of_the_best_deal() -> None:
    # Graham's worst case for two machines: 3, 3, 2, 2, 2 gives 7 where 6 is possible.
    shares = partition(
        [Task(index, cost) for index, cost in enumerate([3.0, 3.0, 2.0, 2.0, 2.0])], 2
    )
    assert max(sum(task.cost for task in share) for share in shares) == 7.0


# --- which member a scheduler says this process is ----------------------------------------------------------------

SLURM = {
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_MIN": "1",
    "SLURM_ARRAY_TASK_MAX": "9",
    "SLURM_ARRAY_TASK_STEP": "2",
    "SLURM_ARRAY_TASK_COUNT": "5",
}
SGE = {
    "SGE_TASK_ID": "4",
    "SGE_TASK_FIRST": "1",
    "SGE_TASK_LAST": "10",
    "SGE_TASK_STEPSIZE": "3",
}


@pytest.mark.parametrize(
    ("environment", "member"),
    [
        (SLURM, ArrayMember(3, 5)),
        (SGE, ArrayMember(1, 4)),
        ({"LSB_JOBINDEX": "100", "LSB_JOBINDEX_END": "100", "LSB_JOBINDEX_STEP": "1"}, (99, 100)),
        ({"LSB_JOBINDEX": "5", "LSB_JOBINDEX_END": "9", "LSB_JOBINDEX_STEP": "2"}, (2, 5)),
        ({"PBS_ARRAY_INDEX": "3", "CRYOTILE_ARRAY": "0-99"}, (3, 100)),
        ({"PBS_ARRAYID": "12", "CRYOTILE_ARRAY": "10-20:2"}, (1, 6)),
        # Only two members are submitted again: they keep their ranks in the whole array.
        (
            SLURM | {"SLURM_ARRAY_TASK_COUNT": "2", "CRYOTILE_ARRAY": "0-9"},
            (7, 10),
        ),
        # An array of one member.
        (
            {"SGE_TASK_ID": "1", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "1"}
            | {"SGE_TASK_STEPSIZE": "undefined"},
            (0, 1),
        ),
    ],
)
def test_a_member_is_its_rank_within_the_array(
    environment: dict[str, str], member: ArrayMember
) -> None:
    assert array_member(environment) == member


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({}, "is not in one"),
        ({"SGE_TASK_ID": "undefined", "LSB_JOBINDEX": "0"}, "is not in one"),
        ({"PBS_ARRAY_INDEX": "3"}, "but not of how many; set CRYOTILE_ARRAY"),
        (SLURM | {"SLURM_ARRAY_TASK_COUNT": "3"}, r"1-9:2 has gaps"),
        (SLURM | {"SLURM_ARRAY_TASK_ID": "6"}, r"is 6, which is not in the array 1-9:2"),
        (SLURM | {"SLURM_ARRAY_TASK_MAX": "many"}, "not a number"),
        (SLURM | {"CRYOTILE_ARRAY": "0-99%10"}, "CRYOTILE_ARRAY is '0-99%10'"),
        (SLURM | {"CRYOTILE_ARRAY": "0-3"}, "not in the array 0-3:1"),
    ],
)
def test_an_unknown_member_is_one_line_with_a_remedy(
    environment: dict[str, str], complaint: str
) -> None:
    with pytest.raises(InvalidValue, match=complaint) as caught:
        array_member(environment)
    assert "\n" not in str(caught.value)
    assert any(way in str(caught.value) for way in ("index:K/N", "CRYOTILE_ARRAY"))


def test_array_reads_its_member_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    backend = open_backend("array", home=None, key="k", stall=7.0)
    assert isinstance(backend, ArrayBackend)
    assert (backend.member, backend.stall) == (ArrayMember(3, 5), 7.0)
    with pytest.raises(InvalidValue, match="array takes no argument"):
        open_backend("array:3", home=None, key="k")


STUB = """#!/bin/sh
exec "$PYTHON" -c 'import os, sys; from cryotile.backends.array import array_member
print(*sys.argv[1:], *array_member(os.environ))' "$@"
"""


@pytest.mark.parametrize(
    ("scheduler", "environment"),
    [
        (
            "slurm",
            {
                "SLURM_ARRAY_TASK_ID": "7",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_MAX": "99",
                "SLURM_ARRAY_TASK_STEP": "1",
                "SLURM_ARRAY_TASK_COUNT": "100",
            },
        ),
        ("pbs", {"PBS_ARRAY_INDEX": "7"}),
        (
            "sge",
            {
                "SGE_TASK_ID": "8",
                "SGE_TASK_FIRST": "1",
                "SGE_TASK_LAST": "100",
                "SGE_TASK_STEPSIZE": "1",
            },
        ),
    ],
)
def test_the_job_scripts_in_deploy_run_members_of_a_hundred(
    scheduler: str, environment: dict[str, str], tmp_path: Path
) -> None:
    stub = tmp_path / "cryotile"
    stub.write_text(STUB)
    stub.chmod(0o755)
    surroundings = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PYTHONPATH": os.environ["PYTHONPATH"],
        "RUN": "/data/my run",
    }
    said = subprocess.run(
        ["bash", PROJECT / "deploy" / f"{scheduler}.sh"],
        env=surroundings | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "run /data/my run --backend array 7 100\n"
