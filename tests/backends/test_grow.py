"""A farm that grows by itself on a real Slurm: jobs come and go, limits are met, growers die; no tile is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from cryotile.errors import CryotileError, InvalidValue
from cryotile.farm import place
from cryotile.runs.grow import GROWER, Grower, grow
from cryotile.runs.submit import walltime
from tests.support import command_line
from tests.support.members import SmallRun, small_run
from tests.support.services.slurm import Slurm


def start(small: SmallRun, slurm: Slurm, *words: object) -> subprocess.Popen[str]:
    """Start a grower of the run."""
    limits = ("--scheduler", "slurm", "--every", 0.5)
    return command_line.start(
        "farm", "grow", small.run.path, *limits, *words, environment=slurm.environment
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, complaint = process.communicate(timeout=240)
    assert process.returncode == 0, complaint
    return said


def queued(slurm: Slurm) -> list[str]:
    return slurm.call("squeue", "--noheader", "--array", "--format=%F").split()


def test_jobs_grow_with_the_work_and_none_is_left_when_it_is_done(slurm, tmp_path) -> None:
    small = small_run(tmp_path, "false")
    said = finish(start(small, slurm, "--workers", "2..5"))
    assert small.tiles() == small.expected
    assert said.splitlines()[0].startswith("0 workers in the queue, 2 added, each for ")
    assert said.splitlines()[-1] == f"{small.run.path}: nothing is left to do"
    jobs = json.loads((small.run.path / GROWER).read_text())["said"]["jobs"]
    assert not set(jobs) & set(queued(slurm)) or not slurm.call(
        "squeue", "--noheader", "--states=PENDING"
    )


def test_another_grower_takes_over_with_the_jobs_of_one_that_was_killed(slurm, tmp_path) -> None:
    small = small_run(tmp_path, f'mkdir "{tmp_path}/first" 2>/dev/null')
    first = start(small, slurm, "--workers", "1..1")
    small.held_member(first)
    second = start(small, slurm, "--workers", "1..1")
    assert second.stdout is not None
    assert f"process {first.pid} on " in second.stdout.readline()
    # A look from cron does not disturb either.
    assert f"process {first.pid} on " in finish(start(small, slurm, "--once"))
    first.send_signal(signal.SIGKILL)
    first.communicate()
    (job,) = json.loads((small.run.path / GROWER).read_text())["said"]["jobs"]
    assert queued(slurm) == [job]
    slurm.call("scancel", "--full", "--signal=KILL", job)
    said = finish(second)
    # It knew of the job: it added one when that was gone, not before.
    assert said.count("added") == 1
    assert small.tiles() == small.expected


def test_held_jobs_of_arrays_within_the_limit_are_not_counted_as_workers(slurm, tmp_path) -> None:
    """Slurm takes 8 members in an array here: submitit issue 1624.  Jobs that do not start: HyperQueue 861."""
    small = small_run(tmp_path, "false")
    look = ("--workers", "12..12", "--once", "--", "--time=20", "--hold")
    said = finish(start(small, slurm, *look))
    assert "0 workers in the queue, 12 added, each for 0:20:00; " in said
    before = queued(slurm)
    assert len(before) == 12
    assert max(Counter(before).values()) <= 8
    # The queue holds as many jobs as the limit allows, and none of them starts by itself.
    said = finish(start(small, slurm, *look))
    assert said.startswith("12 workers in the queue are held or in error, and are not counted: ")
    assert queued(slurm) == before
    first, *others = sorted(set(before), key=int)
    slurm.call("scancel", *others)
    slurm.call("scontrol", "release", first)
    # Those that were released do all the work; none is added, since they are enough.
    said = finish(start(small, slurm, "--workers", "1..4"))
    assert "added" not in said
    assert small.tiles() == small.expected


def test_jobs_that_end_at_once_on_a_broken_host_do_not_end_the_farm(slurm, tmp_path) -> None:
    """Jobs that are pre-empted or fail early: HyperQueue 501 and 764, dask-jobqueue 122 and 611, Parsl 1035."""
    early = [f'for n in 1 2 3 4; do mkdir "{tmp_path}/ended$n" 2>/dev/null && exit 1; done']
    small = small_run(tmp_path, "false", *early)
    # One job at a time, so that none does tiles while others end.
    said = finish(start(small, slurm, "--workers", "1..1"))
    assert "jobs ended or are stuck without a completed tile; what they printed is in " in said
    assert said.count(" added, ") == 5
    assert small.tiles() == small.expected


@pytest.fixture(scope="module")
def idle(tmp_path_factory) -> SmallRun:
    """A run of which no tile is made."""
    return small_run(tmp_path_factory.mktemp("idle"), "false")


PBS = """
server:
                                                            Req'd  Req'd   Elap
Job ID          Username Queue    Jobname    SessID NDS TSK Memory Time  S Time
--------------- -------- -------- ---------- ------ --- --- ------ ----- - -----
31[].server     me       workq    cryotile      --    1   1  600mb 00:15 B   --
31[0].server    me       workq    cryotile      --    1   1  600mb 00:15 X 00:01
31[1].server    me       workq    cryotile    12345   1   1  600mb 00:15 R 00:01
31[2].server    me       workq    cryotile      --    1   1  600mb 00:15 Q   --
310.server      me       workq    other         --    1   1  600mb 00:15 Q   --
"""


def test_an_array_of_pbs_counts_by_its_members_that_have_not_ended(tmp_path, monkeypatch) -> None:
    calls = made_up(
        tmp_path,
        monkeypatch,
        submit="echo '31[].server'",
        listing=f"cat <<'END'{PBS}END",
        names=("qsub", "qstat"),
    )
    cancelled = tmp_path / "cancelled"
    qdel = tmp_path / "bin" / "qdel"
    qdel.write_text(f'#!/bin/bash\necho "$@" > {cancelled}\n')
    qdel.chmod(0o755)
    small = small_run(tmp_path, "false")
    told: list[str] = []
    grower = Grower(small.run, "pbs", 3, 3, tell=told.append)
    looks(grower, 2)
    assert told[1].startswith("2 workers in the queue, 1 added")
    assert len(calls.read_text().splitlines()) == 2
    finish_run(small)
    assert not grower.look()
    # PBS refuses the number of an array without its brackets.
    assert cancelled.read_text() == "31[]\n"


def test_an_array_grows_again_after_a_refusal_that_passes(idle, tmp_path, monkeypatch) -> None:
    # Two refusals, as of a scheduler that restarts: then any size is accepted.
    refuse = f"n=$(wc -l < {tmp_path}/calls); [ $n -le 2 ] && exit 1; echo $n"
    calls = made_up(tmp_path, monkeypatch, submit=refuse, listing="exit 0")
    grower = Grower(idle.run, "slurm", 8, 8, tell=lambda line: None)
    looks(grower, 1)
    first = len(calls.read_text().splitlines())
    assert set(grower.jobs.values()) == {2}
    grower.jobs.clear()
    looks(grower, 1)
    assert max(grower.jobs.values()) == 4
    assert len(calls.read_text().splitlines()) - first < first


def held_elsewhere(small: SmallRun, age: float) -> None:
    """Say that a process of another host grows the run, and was last seen some seconds ago."""
    file = small.run.path / GROWER
    holder = {
        "process": "other-host:1:1",
        "host": "other",
        "pid": 1,
        "every": 1.0,
        "said": {"jobs": {}},
    }
    file.write_text(json.dumps(holder))
    then = file.stat().st_mtime - age
    os.utime(file, (then, then))


def test_a_look_from_cron_takes_over_from_a_host_that_is_gone(idle, tmp_path, monkeypatch) -> None:
    calls = made_up(tmp_path, monkeypatch, submit="echo 1", listing="exit 0")
    monkeypatch.setattr(place, "SETTLED", 0.0)
    held_elsewhere(idle, 1.0)
    told: list[str] = []
    grower = Grower(idle.run, "slurm", 1, 1, tell=told.append)
    assert not grow(grower, every=1.0, once=True)
    assert told == [f"process 1 on other grows {idle.run.path}"]
    held_elsewhere(idle, 10.0)
    assert grow(grower, every=1.0, once=True)
    assert len(calls.read_text().splitlines()) == 1
    assert json.loads((idle.run.path / GROWER).read_text())["process"] == ""


def test_a_process_that_lost_the_run_says_so(idle, tmp_path, monkeypatch) -> None:
    made_up(tmp_path, monkeypatch, submit="echo 1", listing="exit 0")
    monkeypatch.setattr(place, "SETTLED", 0.0)
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        held_elsewhere(idle, 0.0)

    assert not grow(Grower(idle.run, "slurm", 1, 1, tell=tell), every=0.1)
    assert "another process has taken over" in told[-1]


def test_a_host_without_the_scheduler_is_refused_at_once(idle, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CryotileError, match="qstat is not on the PATH; run cryotile farm grow on"):
        grow(Grower(idle.run, "pbs", 1, 2))
    for every in (0.0, float("nan"), float("inf")):
        with pytest.raises(InvalidValue, match="must be above 0 and at most"):
            grow(Grower(idle.run, "pbs", 1, 2), every=every)


def made_up(
    tmp_path: Path,
    monkeypatch,
    *,
    submit: str,
    listing: str,
    names: tuple[str, str] = ("sbatch", "squeue"),
) -> Path:
    """Put commands of a scheduler on the path; return the file that counts the calls of the one that submits."""
    folder = tmp_path / "bin"
    folder.mkdir()
    calls = tmp_path / "calls"
    bodies = (f'echo "$@" >> {calls}\n{submit}', listing)
    for name, body in zip(names, bodies, strict=True):
        file = folder / name
        file.write_text(f"#!/bin/bash\n{body}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return calls


def finish_run(small: SmallRun) -> None:
    for name, content in small.expected.items():
        (small.run.path / "tiles" / name).write_bytes(content)


def looks(grower: Grower, count: int) -> None:
    for _ in range(count):
        assert grower.look()


def test_an_array_that_is_too_large_is_halved(tmp_path, monkeypatch) -> None:
    # At most three members at once, and six in all: limits of a site that Slurm states by refusing.
    size = "size=$(grep -o 'array=0-[0-9]*' job.sh | cut -d- -f2); size=$((size + 1))"
    count = f"used=$(cat {tmp_path}/used 2>/dev/null || echo 0)"
    refuse = '[ $size -gt 3 ] || [ $((used + size)) -gt 6 ] && { echo "sbatch: error: MaxArraySize" >&2; exit 1; }'
    accept = f"echo $((used + size)) > {tmp_path}/used; echo $((used + 100))"
    made_up(tmp_path, monkeypatch, submit=f"{size}; {count}; {refuse}; {accept}", listing="exit 0")
    small = small_run(tmp_path, "false")
    told: list[str] = []
    grower = Grower(small.run, "slurm", 20, 20, tell=told.append)
    assert grower.look()
    assert sum(grower.jobs.values()) == 6
    assert told[0].startswith("0 workers in the queue, 6 added")


def test_jobs_that_end_without_a_tile_are_not_submitted_without_end(tmp_path, monkeypatch) -> None:
    number = f"n=$(wc -l < {tmp_path}/calls); echo $n"
    calls = made_up(tmp_path, monkeypatch, submit=number, listing="exit 0")
    small = small_run(tmp_path, "false")
    told: list[str] = []
    grower = Grower(small.run, "slurm", 1, 4, tell=told.append)
    looks(grower, 40)
    assert len(calls.read_text().splitlines()) < 20
    assert any("jobs ended or are stuck without a completed tile" in line for line in told)


def test_a_scheduler_that_does_not_answer_gets_no_more_jobs(tmp_path, monkeypatch) -> None:
    calls = made_up(
        tmp_path,
        monkeypatch,
        submit="echo 1",
        listing="echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
    )
    small = small_run(tmp_path, "false")
    told: list[str] = []
    looks(Grower(small.run, "slurm", 1, 4, tell=told.append), 10)
    assert not calls.exists()
    assert "Unable to contact slurm controller" in told[0]
    # It goes on trying: after ten looks it has asked four times.
    assert 2 <= len(told) <= 10


SGE = """
job-ID  prior   name       user         state submit/start at     queue    slots ja-task-ID
--------------------------------------------------------------------------------------------
     31 0.55500 ice-run    me           Eqw   11/29/2026 02:00:00              1 1
     31 0.55500 ice-run    me           hqw   11/29/2026 02:00:00              1 2
     31 0.55500 ice-run    me           qw    11/29/2026 02:00:00              1 3
     31 0.55500 ice-run    me           hr    11/29/2026 02:00:00 all.q@a      1 4
    310 0.55500 other      me           Eqw   11/29/2026 02:00:00              1 1
"""


def test_jobs_of_grid_engine_in_error_are_not_counted_as_workers(
    idle, tmp_path, monkeypatch
) -> None:
    listing = f"cat <<'END'{SGE}END"
    calls = made_up(
        tmp_path, monkeypatch, submit="echo 32", listing=listing, names=("qsub", "qstat")
    )
    told: list[str] = []
    grower = Grower(idle.run, "sge", 5, 5, ["-l", "h_rt=600"], told.append, {"31": 4})
    looks(grower, 1)
    # Two are as good as gone, and yet the queue holds no more than five.
    assert told[0].startswith("2 workers in the queue are held or in error")
    assert told[0].endswith("sge job 31")
    assert told[1].startswith("2 workers in the queue, 1 added, each for 0:10:00")
    assert len(calls.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("scheduler", "options", "seconds"),
    [
        ("slurm", ["--time=90"], 5400),
        ("slurm", ["--account=ice", "-t", "2:30"], 150),
        ("slurm", ["-t1-2:30"], 95400),
        ("slurm", ["--time", "1-0"], 86400),
        ("slurm", ["--time=UNLIMITED", "--time-min=5"], None),
        ("pbs", ["-l", "select=1,walltime=2:00:00"], 7200),
        ("pbs", ["-lwalltime=60"], 60),
        ("sge", ["-l", "mem_free=1G,h_rt=3600"], 3600),
        ("sge", ["-l", "s_rt=3600"], None),
    ],
)
def test_the_time_of_a_job_is_read_as_its_scheduler_reads_it(scheduler, options, seconds) -> None:
    assert walltime(scheduler, options) == seconds


def test_short_jobs_make_a_long_queue(idle, tmp_path, monkeypatch) -> None:
    made_up(tmp_path, monkeypatch, submit="echo 1", listing="exit 0")
    counts = []
    for time in ("--time=1-0", "--time=0:01"):
        told: list[str] = []
        looks(Grower(idle.run, "slurm", 1, 8, [time], told.append), 1)
        counts.append(told[-1].split()[5])
    assert counts[0] == "1"
    assert int(counts[1]) > 1


def test_a_requeued_job_counts_as_one_of_ours(tmp_path, monkeypatch) -> None:
    calls = made_up(tmp_path, monkeypatch, submit="echo 7", listing="echo '7 PD'; echo '12 R'")
    small = small_run(tmp_path, "false")
    looks(Grower(small.run, "slurm", 1, 1, tell=lambda line: None), 5)
    assert len(calls.read_text().splitlines()) == 1


@pytest.mark.parametrize(("least", "most"), [(3, 2), (0, 0), (-1, 4)])
def test_a_range_of_workers_that_is_none_is_refused(tmp_path, least, most) -> None:
    small = small_run(tmp_path, "false")
    with pytest.raises(InvalidValue, match="must be a range"):
        Grower(small.run, "slurm", least, most)
    with pytest.raises(InvalidValue, match="is unknown"):
        Grower(small.run, "lsf", 1, 2)


def test_a_finished_run_needs_no_grower(tmp_path, monkeypatch) -> None:
    calls = made_up(tmp_path, monkeypatch, submit="echo 1", listing="exit 0")
    monkeypatch.setattr(place, "SETTLED", 0.0)
    small = small_run(tmp_path, "false")
    finish_run(small)
    assert grow(Grower(small.run, "slurm", 1, 2), every=0.1)
    assert not calls.exists()
