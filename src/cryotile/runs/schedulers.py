"""What Slurm, PBS and Grid Engine want in a job script."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["SCHEDULERS", "Scheduler"]

Directives = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """How one scheduler is spoken to.

    In texts ``{members}``, ``{last}`` (number of the last member, counted from 0), ``{clock}``, ``{megabytes}`` and
    ``{name}`` are filled in.

    Attributes
    ----------
    command : tuple of str
        Submits a script and prints the job's id.
    prefix : str
        Begins a directive.
    common : mapping of str to tuple of str
        Directives of every job.  One is left out when an option of the user's matches one of its patterns: of two that
        differ the command line's wins anyway, but some exclude each other.
    shapes : mapping of str to mapping
        Further directives of an ``array`` job, a ``single`` process, an ``mpi`` job.
    mpirun : str
        Starts an MPI program in an ``mpi`` job.
    array_variable : str
        Line for array jobs that tells members what the scheduler does not.
    smallest_array : int
        Fewest members that the scheduler takes for an array.
    fixed : tuple of str
        Options that a user must not give, because the script has told the members already.
    """

    command: tuple[str, ...]
    prefix: str
    common: Directives
    shapes: Mapping[str, Directives]
    mpirun: str
    array_variable: str = ""
    smallest_array: int = 1
    fixed: tuple[str, ...] = ()

    def header(self, shape: str, values: Mapping[str, object], options: Sequence[str]) -> list[str]:
        """Return the directives of a job, without those that the user's options replace."""
        directives = {**self.common, **self.shapes[shape]}
        return [
            f"{self.prefix} {text.format_map(values)}"
            for text, patterns in directives.items()
            if not any(re.search(pattern, option) for pattern in patterns for option in options)
        ]

    def exports(self, shape: str, values: Mapping[str, object]) -> list[str]:
        """Return the lines of a script that tell members what the scheduler does not."""
        if shape != "array" or not self.array_variable:
            return []
        return [self.array_variable.format_map(values)]

    def launch(self, shape: str, values: Mapping[str, object]) -> str:
        """Return what stands in front of the program's command line."""
        return self.mpirun.format_map(values) + " " if shape == "mpi" else ""


_SLURM_MEMBER: Directives = {
    "--ntasks=1": (),
    # A minute before its time is over a member is told, and drains.
    "--signal=B:TERM@60": (),
}
# A resource may stand behind -l as its own word, with it, or after others.
_PBS_EXCLUSIVE = (r"(^(-l)?|[:,+\s])(select|nodes|ncpus|mem)=",)
_PBS_MEMBER: Directives = {"-l select=1:ncpus=1:mem={megabytes}mb": _PBS_EXCLUSIVE}

SCHEDULERS: Mapping[str, Scheduler] = {
    "slurm": Scheduler(
        command=("sbatch", "--parsable"),
        prefix="#SBATCH",
        common={
            "--job-name={name}": (),
            "--time={clock}": (),
            "--mem-per-cpu={megabytes}M": (r"^--mem(-per-(cpu|gpu))?(=|$)",),
        },
        shapes={
            "array": {"--array=0-{last}": (), "--output=%A_%a.out": (), **_SLURM_MEMBER},
            "single": {"--output=%j.out": (), **_SLURM_MEMBER},
            "mpi": {"--ntasks={members}": (), "--output=%j.out": ()},
        },
        mpirun='mpirun -n "$SLURM_NTASKS"',
    ),
    "pbs": Scheduler(
        command=("qsub",),
        prefix="#PBS",
        common={
            "-N {name}": (),
            "-S /bin/bash": (),
            "-j oe": (),
            "-l walltime={clock}": (r"(^(-l)?|[:,\s])walltime=",),
        },
        shapes={
            "array": {"-J 0-{last}": (), **_PBS_MEMBER},
            "single": _PBS_MEMBER,
            "mpi": {
                "-l select={members}:ncpus=1:mpiprocs=1:mem={megabytes}mb": _PBS_EXCLUSIVE,
            },
        },
        mpirun="mpirun -n {members}",
        # PBS tells a member its index alone.
        array_variable="export CRYOTILE_ARRAY=0-{last}",
        smallest_array=2,
        fixed=("-J",),
    ),
    "sge": Scheduler(
        command=("qsub", "-terse"),
        prefix="#$",
        common={
            "-N {name}": (),
            "-S /bin/bash": (),
            "-cwd": (),
            "-j y": (),
            "-l h_rt={clock}": (r"(^(-l)?|[,\s])h_rt=",),
            # A host with so much free, not a limit: h_vmem counts address space, of which Python takes a lot.
            "-l mem_free={megabytes}M": (r"(^(-l)?|[,\s])(mem_free|h_vmem)=",),
        },
        shapes={
            "array": {"-t 1-{members}": ()},
            "single": {},
            # Sites name their parallel environments as they like.
            "mpi": {"-pe mpi {members}": ("^-pe$",)},
        },
        mpirun='mpirun -n "$NSLOTS"',
    ),
}
"""Schedulers by name."""
