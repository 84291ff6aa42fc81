"""A farm that grows by itself on a real Slurm: jobs come and go, limits are met, growers die; no tile is lost."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cryotile.errors import CryotileError, InvalidValue
from cryotile.farm import place
from cryotile.runs.grow import GROWER, Grower, grow
from cryotile.runs.submit import walltime
from tests.support import command_line
from tests.support.members import SmallRun, small_run
from tests.support.services.slurm import CORES, Slurm
from tests.support.waiting import wait_until

SLURM = ("--scheduler", "slurm", "--every", "0.5")
# One of several growers of a run must not be slow for three looks, or it loses its place.
SEVERAL = ("--workers", "1..1", "--every", "4")

QUICK = "export CRYOTILE_GRACE=0.1"
"""Line of a job script: a tile that is held does not end, and need not be waited for."""


SUBMIT = 'job=$(sbatch --parsable "$@") && while [ "$(squeue --noheader --jobs="$job")" ]; do sleep 0.2; done'
"""Submit a job and wait for its end, of which ``sbatch --wait`` hears up to half a minute later."""


def start(small: SmallRun, slurm: Slurm, *words: object) -> subprocess.Popen[str]:
    """Start a grower of the run."""
    return command_line.start(
        "farm", "grow", small.run.path, *SLURM, *words, environment=slurm.environment
    )


def start_in_job(small: SmallRun, slurm: Slurm, output: Path) -> subprocess.Popen[str]:
    """Submit a job that grows the run, named as its output; the process ends with it."""
    words = ("farm", "grow", str(small.run.path), *SLURM, *SEVERAL)
    script = f"#!/bin/bash\nexec {sys.executable} -m cryotile {shlex.join(words)}\n"
    options = (f"--job-name={output.name}", f"--output={output}", "--time=5")
    job = output.with_suffix(".sh")
    job.write_text(script)
    return subprocess.Popen(
        ["bash", "-c", SUBMIT, "bash", *options, job],
        env=slurm.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, complaint = process.communicate(timeout=240)
    assert process.returncode == 0, complaint
    return said


def queued(slurm: Slurm) -> list[str]:
    return slurm.call("squeue", "--noheader", "--array", "--format=%F").split()


def said_of(small: SmallRun) -> dict[str, Any]:
    """Return what the file says about the process that grows the run."""
    return dict(json.loads((small.run.path / GROWER).read_text()))


def jobs(small: SmallRun, but: str = "") -> list[str]:
    """Wait until the grower says that it has a job, and not the one of before; return the ids of all."""

    def known() -> list[str]:
        return list(said_of(small)["said"]["jobs"])

    wait_until(lambda: known() not in ([], [but]), lambda: "the grower has no new job")
    return known()


def test_a_grower_in_a_second_job_takes_over_when_the_job_of_the_first_is_gone(
    slurm, tmp_path
) -> None:
    small = small_run(tmp_path, f'mkdir "{tmp_path}/first" 2>/dev/null')
    outputs = [tmp_path / name for name in ("grower1.out", "grower2.out")]
    first = start_in_job(small, slurm, outputs[0])
    small.held_member(first)
    (job,) = jobs(small)
    second = start_in_job(small, slurm, outputs[1])
    # A look from cron does not disturb either.
    assert " grows " in finish(start(small, slurm, *SEVERAL, "--once"))
    slurm.wait(
        lambda: outputs[1].exists() and " grows " in outputs[1].read_text(),
        "the second grower does not start",
    )
    holder = said_of(small)["process"]
    slurm.call("scancel", "--full", "--signal=KILL", f"--name={outputs[0].name}")
    finish(first)
    assert "nothing is left" not in outputs[0].read_text()
    slurm.wait(lambda: said_of(small)["process"] != holder, "no grower takes over")
    assert jobs(small) == [job]
    assert job in queued(slurm)
    slurm.call("scancel", "--full", "--signal=KILL", job)
    finish(second)
    assert "0 workers in the queue, 1 added" in outputs[0].read_text()
    # The second knew of the job: it added one when that was gone, not before.
    said = outputs[1].read_text()
    assert said.count(" added, ") == 1
    assert said.endswith(f"{small.run.path}: nothing is left to do\n")
    assert small.tiles() == small.expected


def held_again(small: SmallRun, grower: subprocess.Popen[str]) -> str:
    """Wait until a job is held in the middle of its second tile; the next one will be held, too."""
    small.held_member(grower)
    os.mkfifo(small.hold.pipe)
    (job,) = jobs(small)
    return job


def pre_empt(slurm: Slurm, cores: int) -> None:
    """Run a job of the partition urgent, for which there is room if those of the partition modest end."""
    words = (f"--cpus-per-task={cores}", "--output=/dev/null", "--wrap=true")
    slurm.call("sbatch", "--partition=urgent", *words)
    slurm.wait(lambda: not slurm.call("squeue", "-h", "--partition=urgent"), "no job is pre-empted")


def test_no_way_in_which_slurm_ends_a_job_loses_a_tile_or_makes_it_twice(slurm, tmp_path) -> None:
    """Pre-emption: HyperQueue 501.  The end of the time: dask-jobqueue 122 and 611, submitit 1628."""
    directories = [tmp_path / name for name in ("small", "timed")]
    for directory in directories:
        directory.mkdir()
    small, timed = (small_run(directory, "true", QUICK) for directory in directories)
    grower = start(small, slurm, "--workers", "1..1", "--", "--partition=modest")
    # Without the signal that asks to end in time.
    limited = start(timed, slurm, "--workers", "1..1", "--", "--signal=B:CONT@1")
    timed.held_member(limited)
    job = held_again(small, grower)
    pre_empt(slurm, CORES - 1)
    # Slurm compares times every half minute: the job of the other run goes on meanwhile.
    slurm.call("scontrol", "update", f"JobId={jobs(timed)[0]}", "TimeLimit=0")
    assert held_again(small, grower) == job
    slurm.call("scontrol", "requeue", job)
    assert held_again(small, grower) == job
    ended = finish(limited)
    # One that may not be requeued is cancelled.
    slurm.call("scontrol", "update", f"JobId={job}", "Requeue=0")
    pre_empt(slurm, CORES)
    small.held_member(grower)
    slurm.call("scancel", "--full", *jobs(small, but=job))

    for run, said, added in ((small, finish(grower), 3), (timed, ended, 2)):
        assert said.count(" added, ") == added
        assert run.tiles() == run.expected
        assert sorted(map(int, run.made())) == [task.index for task in run.run.tasks]
    assert "DUE TO TIME LIMIT" in timed.printed()
    assert "DUE TO PREEMPTION" in small.printed()


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
    """Nothing is submitted after jobs that fail early: HyperQueue 764 and 861; silence: Parsl 578 and 1035."""
    early = [f'for n in 1 2 3; do mkdir "{tmp_path}/ended$n" 2>/dev/null && exit 1; done']
    small = small_run(tmp_path, "false", *early)
    # One job at a time, so that none does tiles while others end.
    said = finish(start(small, slurm, "--workers", "1..1"))
    assert "jobs ended or are stuck without a completed tile; what they printed is in " in said
    assert said.count("0 workers in the queue, 1 added, each for ") == 4
    assert said.splitlines()[-1] == f"{small.run.path}: nothing is left to do"
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


def test_an_array_that_is_too_large_is_halved(idle, tmp_path, monkeypatch) -> None:
    # At most three members at once, and six in all: limits of a site that Slurm states by refusing.
    size = "size=$(grep -o 'array=0-[0-9]*' job.sh | cut -d- -f2); size=$((size + 1))"
    count = f"used=$(cat {tmp_path}/used 2>/dev/null || echo 0)"
    refuse = '[ $size -gt 3 ] || [ $((used + size)) -gt 6 ] && { echo "sbatch: error: MaxArraySize" >&2; exit 1; }'
    accept = f"echo $((used + size)) > {tmp_path}/used; echo $((used + 100))"
    made_up(tmp_path, monkeypatch, submit=f"{size}; {count}; {refuse}; {accept}", listing="exit 0")
    told: list[str] = []
    grower = Grower(idle.run, "slurm", 20, 20, tell=told.append)
    assert grower.look()
    assert sum(grower.jobs.values()) == 6
    assert told[0].startswith("0 workers in the queue, 6 added")


def test_jobs_that_end_without_a_tile_are_not_submitted_without_end(
    idle, tmp_path, monkeypatch
) -> None:
    number = f"n=$(wc -l < {tmp_path}/calls); echo $n"
    calls = made_up(tmp_path, monkeypatch, submit=number, listing="exit 0")
    told: list[str] = []
    grower = Grower(idle.run, "slurm", 1, 4, tell=told.append)
    looks(grower, 40)
    assert len(calls.read_text().splitlines()) < 20
    assert any("jobs ended or are stuck without a completed tile" in line for line in told)


def test_a_scheduler_that_does_not_answer_gets_no_more_jobs(idle, tmp_path, monkeypatch) -> None:
    calls = made_up(
        tmp_path,
        monkeypatch,
        submit="echo 1",
        # The last character is not UTF-8, as on a site with another locale.
        listing="printf 'slurm_load_jobs error: Unable to contact slurm controller \\374' >&2; exit 1",
    )
    told: list[str] = []
    looks(Grower(idle.run, "slurm", 1, 4, tell=told.append), 10)
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


def test_a_requeued_job_counts_as_one_of_ours(idle, tmp_path, monkeypatch) -> None:
    calls = made_up(tmp_path, monkeypatch, submit="echo 7", listing="echo '7 PD'; echo '12 R'")
    looks(Grower(idle.run, "slurm", 1, 1, tell=lambda line: None), 5)
    assert len(calls.read_text().splitlines()) == 1


@pytest.mark.parametrize(("least", "most"), [(3, 2), (0, 0), (-1, 4)])
def test_a_range_of_workers_that_is_none_is_refused(idle, least, most) -> None:
    with pytest.raises(InvalidValue, match=r"--workers .* must be a range"):
        Grower(idle.run, "slurm", least, most)
    with pytest.raises(InvalidValue, match="is unknown"):
        Grower(idle.run, "lsf", 1, 2)


def test_words_that_are_no_range_of_workers_are_refused(idle, cryotile) -> None:
    words = ("farm", "grow", idle.run.path, "--scheduler", "slurm", "--workers", "5")
    assert "--workers 5 must be a range of integers; give e.g. 2..200" in cryotile(*words, status=2)


def test_a_finished_run_needs_no_grower(tmp_path, monkeypatch) -> None:
    calls = made_up(tmp_path, monkeypatch, submit="echo 1", listing="exit 0")
    monkeypatch.setattr(place, "SETTLED", 0.0)
    small = small_run(tmp_path, "false")
    finish_run(small)
    assert grow(Grower(small.run, "slurm", 1, 2), every=0.1)
    assert not calls.exists()
