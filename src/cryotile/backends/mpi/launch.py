"""The rank that a launcher of MPI programs gave this process, read without MPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cryotile.errors import InvalidValue

__all__ = ["Rank", "mpi_rank", "own_environment"]

# Variables with rank and size of Open MPI, PMI (MPICH, Intel MPI, Cray), MVAPICH, IBM's jsrun, Flux, PMIx and Slurm's
# srun.
_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"),
    ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"),
    ("PMIX_RANK", ""),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)

# Prefixes of the variables that make a process a rank.  Variables that work may need (SLURM_JOB_ID, …) are not among
# them.
_OF_A_RANK = (
    "OMPI_",
    "PMIX_",
    "PMI_",
    "PRTE_",
    "MPI_LOCAL",
    "MV2_COMM_",
    "HYDI_",
    "HYDRA_",
    "PALS_",
    "JSM_",
    "FLUX_TASK_",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_STEP",
    "SLURM_SRUN_",
    "SLURM_PMI",
)


class Rank(NamedTuple):
    """The rank of a process and the number of ranks, 0 if the launcher does not tell."""

    rank: int
    size: int


def mpi_rank(environment: Mapping[str, str]) -> Rank | None:
    """Return which rank of an MPI program this process is.

    Parameters
    ----------
    environment : mapping of str to str
        Environment variables.

    Returns
    -------
    Rank or None
        None if no launcher of MPI programs started this process.

    Raises
    ------
    InvalidValue
        One of the launcher's variables is not a number.
    """
    for rank, size in _VARIABLES:
        # Slurm tells also the only process of a batch script that it is number 0, but not of how many.
        if rank in environment and (size in environment or rank == "PMIX_RANK"):
            found = Rank(_number(environment, rank), _number(environment, size) if size else 0)
            return None if (rank, found.size) == ("SLURM_PROCID", 1) else found
    return None


def own_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables that make a process a rank.

    A child whose libraries start MPI must not act as a rank of this program.

    Parameters
    ----------
    environment : mapping of str to str
        Environment variables of a rank.

    Returns
    -------
    dict of str to str
    """
    return {name: value for name, value in environment.items() if not name.startswith(_OF_A_RANK)}


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not (text.isascii() and text.isdecimal()):
        raise InvalidValue(
            f"{name} is {text!r}, not a number, so this process does not know its rank; unset it outside MPI"
        )
    return int(text)
