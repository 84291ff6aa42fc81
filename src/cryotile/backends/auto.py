"""The backend ``auto``: choose the farm that this process was started in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cryotile.backends.array import array_scheduler
from cryotile.backends.cores import count_cores
from cryotile.backends.mpi.launch import mpi_rank

__all__ = ["Choice", "choose"]


class Choice(NamedTuple):
    """The spec of a backend, and the reason for this choice in words.

    ``reason`` is empty on all ranks of an MPI program but the first, so that it is printed once.
    """

    spec: str
    reason: str


def choose(environment: Mapping[str, str]) -> Choice:
    """Choose a backend: ``mpi`` under mpirun, ``array`` in an array job, else ``local`` with a child per usable core.

    Parameters
    ----------
    environment : mapping of str to str
        Environment variables.

    Returns
    -------
    Choice
    """
    place = mpi_rank(environment)
    if place is not None:
        ranks = f"one of {place.size} ranks" if place.size else "a rank"
        return Choice("mpi", "" if place.rank else f"this is {ranks} of an MPI program")
    scheduler = array_scheduler(environment)
    if scheduler is not None:
        return Choice("array", f"this is a member of an array job of {scheduler}")
    cores = count_cores(environment=environment)
    return Choice(f"local:{cores.number}", str(cores))
