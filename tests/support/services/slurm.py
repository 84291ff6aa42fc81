"""A temporary Slurm on this machine: one controller, one node that claims more cores than exist, no accounting."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.services.ports import free_port
from tests.support.services.provide import provide, unavailable
from tests.support.waiting import wait_until

CORES = 64

CONFIGURATION = """\
ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job may start after 5 s instead of 120.
AuthInfo=socket={directory}/munge.socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
# No cgroups and no affinity, which a container does not offer.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# Use the resources of the node's line, not those of the machine.
SlurmdParameters=config_overrides
ReturnToService=2
# Arrays of up to 8 members, so that tests meet the limit that every site has.
MaxArraySize=9
# Start submitted jobs at once.
SchedulerParameters=defer=0,sched_interval=5,sched_min_interval=0,batch_sched_delay=0
KillWait=20
InactiveLimit=0
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs={cores} RealMemory=64000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=node Default=YES MaxTime=INFINITE State=UP PreemptMode=OFF
# Jobs of the partition urgent take the place of those of modest.
PartitionName=modest Nodes=node MaxTime=INFINITE State=UP PreemptMode=REQUEUE
PartitionName=urgent Nodes=node MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""


class Slurm:
    """The daemons and their directory.

    Attributes
    ----------
    directory : Path
        Directory of state and logs.
    environment : dict
        Environment for commands of Slurm on this cluster.
    """

    def __init__(self, directory: Path, programs: dict[str, str]) -> None:
        self.directory = directory
        self.environment = {**os.environ, "SLURM_CONF": str(directory / "slurm.conf")}
        self._programs = programs
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the daemons and wait until the node takes jobs."""
        self._configure()
        for name in ("state", "spool"):
            (self.directory / name).mkdir(mode=0o700)
        munge = [
            f"--{what}-file={self.directory}/munge.{what}" for what in ("key", "pid", "log", "seed")
        ]
        socket_path = self.directory / "munge.socket"
        self._daemon("munged", "--foreground", "--force", f"--socket={socket_path}", *munge)
        self.wait(socket_path.exists, "munged made no socket")
        configuration = self.environment["SLURM_CONF"]
        self._daemon("slurmctld", "-D", "-f", configuration)
        self._daemon("slurmd", "-D", "-f", configuration, "-N", "node")
        self.wait(lambda: self.call("sinfo", "-h", "-o", "%T") == "idle", "the node takes no jobs")

    def stop(self) -> None:
        """End all jobs and the daemons."""
        with suppress(subprocess.SubprocessError, OSError):
            self.call("scancel", "--full", "--signal=KILL", f"--user={getpass.getuser()}")
            self.wait(lambda: not self.call("squeue", "-h"), "jobs do not end")
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def call(self, *command: str) -> str:
        """Run a command of Slurm and return its output."""
        answer = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=240, check=False
        )
        return answer.stdout.strip()

    def wait(self, condition: Callable[[], bool], complaint: str) -> None:
        """Wait until a condition holds."""

        def said() -> str:
            logs = [p.read_text(errors="replace")[-2000:] for p in self.directory.glob("*.log")]
            return "\n".join([*logs, f"Slurm: {complaint}"])

        wait_until(condition, said)

    def _configure(self) -> None:
        key = self.directory / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        text = CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            directory=self.directory,
            controller_port=free_port(),
            node_port=free_port(),
            cores=CORES,
        )
        (self.directory / "slurm.conf").write_text(text)

    def _daemon(self, name: str, *arguments: str) -> None:
        with (self.directory / f"{name}.out").open("wb") as output:
            self._daemons.append(
                subprocess.Popen(
                    [self._programs[name], *arguments],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Run a Slurm during the tests."""
    programs = provide(
        ["munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "sinfo"],
        ["slurmctld", "slurmd", "slurm-client", "munge"],
    )
    # Not in pytest's directory, since the path of a socket must be short.
    directory = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = Slurm(directory, programs)
    try:
        try:
            cluster.start()
        except (OSError, subprocess.SubprocessError) as error:
            unavailable(f"no Slurm here: {error}")
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)
