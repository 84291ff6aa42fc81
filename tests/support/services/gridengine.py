"""A Grid Engine of one host on this machine, from Debian's packages, with the paths and ports of the system."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.services.provide import provide, unavailable
from tests.support.waiting import wait_until

ROOT = Path("/var/lib/gridengine")
COMMON = ROOT / "default" / "common"
QUEUE = "all.q"
SLOTS = 8

HOST = dict.fromkeys(
    ("load_scaling", "complex_values", "user_lists", "xuser_lists", "projects", "xprojects"), "NONE"
) | {"usage_scaling": "NONE", "report_variables": "NONE"}

QUEUE_LIMITS = {
    f"{kind}_{what}": "INFINITY"
    for kind in "sh"
    for what in ("rt", "cpu", "fsize", "data", "stack", "core", "rss", "vmem")
}
QUEUE_UNSET = """
    load_thresholds suspend_thresholds ckpt_list prolog epilog starter_method suspend_method resume_method
    terminate_method owner_list user_lists xuser_lists subordinate_list complex_values projects xprojects
    calendar pe_list
"""
QUEUE_SETTINGS = (
    {
        "qname": QUEUE,
        "hostlist": "@allhosts",
        "seq_no": "0",
        "nsuspend": "1",
        "suspend_interval": "00:05:00",
        "priority": "0",
        "min_cpu_interval": "00:05:00",
        "processors": "UNDEFINED",
        "qtype": "BATCH",
        "rerun": "FALSE",
        "slots": str(SLOTS),
        "tmpdir": "/tmp",
        "shell": "/bin/bash",
        "shell_start_mode": "unix_behavior",
        "notify": "00:00:60",
        "initial_state": "default",
    }
    | QUEUE_LIMITS
    | dict.fromkeys(QUEUE_UNSET.split(), "NONE")
)


class GridEngine:
    """The daemons of the one cell that a machine can have.

    Attributes
    ----------
    environment : dict
        Environment for commands of Grid Engine.
    """

    def __init__(self, programs: Mapping[str, str]) -> None:
        self.environment = {**os.environ, "SGE_ROOT": str(ROOT), "SGE_CELL": "default"}
        self._programs = programs
        self._host = socket.gethostname()

    def start(self) -> None:
        """Start the daemons unless they run, and create a queue."""
        spool = Path("/var/run/gridengine")
        spool.mkdir(exist_ok=True)
        shutil.chown(spool, "sgeadmin", "sgeadmin")
        (COMMON / "act_qmaster").write_text(f"{self._host}\n")
        # The loopback address has another name, which Grid Engine takes for another host.
        (COMMON / "host_aliases").write_text(f"{self._host} localhost\n")
        if not self._answers():
            self._daemon("sge_qmaster")
            wait_until(self._answers, lambda: "the master of Grid Engine does not answer")
        self._configure()
        if not self._reports_load():
            self._daemon("sge_execd")
            wait_until(self._reports_load, lambda: "the host of Grid Engine reports no load")

    def stop(self) -> None:
        """End all jobs and the daemons."""
        # Commands hang if the master has ended already, as that of another session may have.
        with suppress(subprocess.TimeoutExpired):
            self.call("qdel", "-f", "-u", "*")
            self.call("qconf", "-ke", "all")
            self.call("qconf", "-km")
        wait_until(lambda: not self._answers(), lambda: "the master of Grid Engine does not end")

    def call(self, *command: str) -> str:
        """Run a command of Grid Engine and return its output."""
        return self._run(*command).stdout.strip()

    def _configure(self) -> None:
        self.call("qconf", "-as", self._host)
        self.call("qconf", "-ah", self._host)
        # Let root submit, send no mail, and schedule every second and on every submission or end of a job.
        self._change("-sconf", "-Mconf", "global", min_uid="0", min_gid="0", mailer="/bin/true")
        self._change(
            "-ssconf",
            "-Msconf",
            "",
            schedule_interval="0:0:1",
            flush_submit_sec="1",
            flush_finish_sec="1",
            job_load_adjustments="NONE",
        )
        self._add("-se", "-Ae", self._host, {"hostname": self._host, **HOST})
        group = {"group_name": "@allhosts", "hostlist": self._host}
        self._add("-shgrp", "-Ahgrp", "@allhosts", group)
        self._add("-sq", "-Aq", QUEUE, QUEUE_SETTINGS)
        # Left by a killed session.
        self.call("qdel", "-f", "-u", "*")
        self.call("qmod", "-c", QUEUE)

    def _change(self, show: str, load: str, name: str, **settings: str) -> None:
        """Load a configuration with some settings changed."""
        shown = self.call("qconf", show, *([name] if name else []))
        lines = [line.split(None, 1) for line in shown.splitlines() if line[:1] not in "#"]
        before = {line[0]: line[1] if len(line) > 1 else "" for line in lines if line}
        self._load(load, name or "scheduler", before | settings)

    def _add(self, show: str, load: str, name: str, settings: Mapping[str, str]) -> None:
        """Load a configuration unless one of its name exists."""
        if self._run("qconf", show, name).returncode != 0:
            self._load(load, name, settings)

    def _load(self, load: str, name: str, settings: Mapping[str, str]) -> None:
        # Grid Engine reads some names from the file.
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, name)
            file.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
            self._run("qconf", load, str(file))

    def _answers(self) -> bool:
        return self._run("qconf", "-sh").returncode == 0

    def _reports_load(self) -> bool:
        # The resources of a host are kept from earlier sessions; its load, the seventh column, is not.
        lines = self.call("qhost", "-h", self._host).splitlines()
        return any(line.split()[0] == self._host and line.split()[6] != "-" for line in lines)

    def _daemon(self, name: str) -> None:
        subprocess.run([self._programs[name]], env=self.environment, check=True, timeout=240)

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=240, check=False
        )


@pytest.fixture(scope="session")
def grid_engine() -> Iterator[GridEngine]:
    """Run a Grid Engine during the tests."""
    if os.geteuid() != 0:
        unavailable("only root can start Grid Engine from Debian's packages")
    programs = provide(
        ["sge_qmaster", "sge_execd", "qconf", "qsub"],
        ["gridengine-master", "gridengine-exec", "gridengine-client"],
    )
    cluster = GridEngine(programs)
    try:
        cluster.start()
    except (OSError, subprocess.SubprocessError) as error:
        unavailable(f"no Grid Engine here: {error}")
    yield cluster
    cluster.stop()
