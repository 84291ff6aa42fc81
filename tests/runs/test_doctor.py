"""``doctor``: what is missing for which feature, and whether a directory can hold runs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import time
from pathlib import Path

import pyproj
import pytest
from pyproj.exceptions import ProjError

from cryotile.backends.cores import memory_limits
from cryotile.runs import doctor
from cryotile.runs.doctor import examine
from tests.support.command_line import run

EXTRAS = {"plot", "http", "geo", "dask", "database", "server"}


def found(directory: Path, subject: str, **options) -> list[doctor.Finding]:
    return [f for f in examine(directory, environment={}, **options) if f.subject == subject]


def program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


def test_a_complete_installation_has_every_feature_and_leaves_nothing_behind(tmp_path):
    findings = list(examine(tmp_path, environment={}))
    assert {f.subject: f.state for f in findings if f.subject in EXTRAS} == dict.fromkeys(
        EXTRAS, "ok"
    )
    texts = [f.text for f in findings if f.subject == str(tmp_path)]
    assert any("rename and exclusive creation are atomic" in text for text in texts)
    assert any("hard links work" in text for text in texts)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_distribution_names_its_feature_and_the_command(tmp_path, monkeypatch):
    known = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("rasterio", "SQLAlchemy"):
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    (geo,) = found(tmp_path, "geo")
    assert (geo.state, geo.remedy) == ("missing", "pip install 'cryotile[geo]'")
    assert geo.text.startswith("rasterio is not installed, for masks")
    # An extra that includes another one needs what that needs.
    assert [f.state for f in found(tmp_path, "server")] == ["missing"]
    assert [f.state for f in found(tmp_path, "plot")] == ["ok"]


def test_a_directory_that_takes_no_file_is_a_problem():
    (finding,) = found(Path("/proc"), "/proc")
    assert finding.state == "problem"
    assert finding.remedy == "choose another directory"


def test_a_file_server_whose_clock_is_wrong_is_a_problem(tmp_path, monkeypatch):
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    problems = [f.text for f in found(tmp_path, str(tmp_path)) if f.state == "problem"]
    assert len(problems) == 1
    assert problems[0].startswith("its clock is 3600 s behind this host's")


def test_a_quota_that_is_nearly_used_is_a_problem(tmp_path, monkeypatch):
    answer = "Disk quotas for user ann (uid 1000):\\n/home 96000000* 100000000 110000000 0 12 0 0 0"
    program(tmp_path / "bin", "quota", f"printf '{answer}\\n'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    problems = [f for f in found(tmp_path, str(tmp_path)) if f.state == "problem"]
    assert [f.text for f in problems] == ["quota of /home: 96 of 100 GB used"]


@pytest.mark.parametrize(("name", "shown"), [("sbatch", "Slurm"), ("pbsnodes", "PBS")])
def test_schedulers_are_those_on_the_path(tmp_path, monkeypatch, name, shown):
    program(tmp_path / "bin", name, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (finding,) = found(tmp_path, "scheduler")
    assert finding.text == f"{shown} ({tmp_path / 'bin' / name})"


def test_no_scheduler_is_no_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    (finding,) = found(tmp_path, "scheduler")
    assert finding.state == "missing"


def test_a_database_that_does_not_answer_is_a_problem_and_its_password_is_not_shown(tmp_path):
    for port in (1, "none"):
        asked = {"CRYOTILE_DATABASE_URL": f"postgresql://ann:secret@127.0.0.1:{port}/farm"}
        finding = [f for f in examine(tmp_path, environment=asked) if f.subject == "database"][1]
        assert finding.state == "problem"
        assert "secret" not in finding.text
    asked = {"CRYOTILE_DATABASE_URL": f"sqlite:///{tmp_path}/farm.sqlite"}
    (finding,) = [f for f in examine(tmp_path, environment=asked) if f.subject == "database"][1:]
    assert finding.state == "ok"


def test_projection_data_that_cannot_be_used_are_a_problem(tmp_path, monkeypatch):
    # PROJ of a wheel finds its own data whatever the environment says, so that its error is made up here.
    def fail(*args, **options):
        raise ProjError("no database context specified")

    monkeypatch.setattr(pyproj.Transformer, "from_crs", fail)
    (finding,) = found(tmp_path, "PROJ")
    assert finding.state == "problem"
    assert "no database context specified" in finding.text


def test_memory_is_that_of_the_machine_its_control_groups_and_its_job(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       16000000 kB\nMemFree: 1 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/job/step\n")
    (tmp_path / "sys/fs/cgroup/job/step").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/job/step/memory.max").write_text("max\n")
    (tmp_path / "sys/fs/cgroup/job/memory.max").write_text("4000000000\n")
    job = {"SLURM_MEM_PER_CPU": "1000", "SLURM_CPUS_ON_NODE": "2"}
    assert memory_limits(environment=job, root=tmp_path) == {
        "machine": 16_384_000_000.0,
        "cgroup": 4e9,
        "SLURM_MEM_PER_CPU": 2000 * 2**20,
    }
    # The first version of control groups says "no limit" by a huge number.
    (tmp_path / "proc/self/cgroup").write_text("9:memory:/job\n")
    (tmp_path / "sys/fs/cgroup/memory/job").mkdir(parents=True)
    limit = tmp_path / "sys/fs/cgroup/memory/job/memory.limit_in_bytes"
    limit.write_text("9223372036854771712\n")
    assert set(memory_limits(environment={}, root=tmp_path)) == {"machine"}
    limit.write_text("500000000\n")
    (finding,) = found(tmp_path, "memory", root=tmp_path)
    assert finding.state == "problem"
    assert "cgroup 0.5 GB" in finding.text


def test_the_command_prints_a_line_for_each_finding_and_fails_on_a_problem(tmp_path):
    shown = run("doctor", tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert all(line.split()[0] in ("ok", "missing") for line in shown.stdout.splitlines())
    shown = run("doctor", "/proc", "--json")
    assert shown.returncode == 1
    last = json.loads(shown.stdout)[-1]
    assert (last["subject"], last["state"]) == ("/proc", "problem")
