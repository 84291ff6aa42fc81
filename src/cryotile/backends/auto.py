"""The backend ``auto``: the farm that this process was started in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cryotile.backends import open_backend
from cryotile.backends.array import array_scheduler
from cryotile.backends.base import STALL
from cryotile.backends.cores import count_cores
from cryotile.backends.mpi.launch import place_in_mpi
from cryotile.errors import InvalidValue
from cryotile.farm.task import Outcome, Task, Work

__all__ = ["AutoBackend", "Choice", "choose"]


class Choice(NamedTuple):
    """The spec of a backend, and in words why it is this one.

    Of the ranks of an MPI program the first speaks for all: for the others ``reason`` is empty.
    """

    spec: str
    reason: str


class AutoBackend:
    """Chooses a backend by :func:`choose` and works as that.

    Parameters
    ----------
    argument : str
        Must be empty.
    home, key, stall, lease
        As the chosen backend takes them.

    Attributes
    ----------
    choice : Choice
        Which backend it is, and why.

    Raises
    ------
    InvalidValue
        There is an argument, or the chosen backend finds something wrong.
    """

    def __init__(
        self,
        argument: str = "",
        home: Path | None = None,
        key: str = "",
        *,
        stall: float = STALL,
        lease: float | None = None,
    ) -> None:
        if argument:
            raise InvalidValue(
                f"backend 'auto:{argument}': auto takes no argument; write auto, or local:{argument} for children"
            )
        self.choice = choose(os.environ)
        self._backend = open_backend(self.choice.spec, home=home, key=key, stall=stall, lease=lease)

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[Outcome]:
        """Do the tasks as the chosen backend does; see :meth:`cryotile.backends.Backend.run`."""
        return self._backend.run(tasks, work)


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
    place = place_in_mpi(environment)
    if place is not None:
        ranks = f"one of {place.size} ranks" if place.size else "a rank"
        return Choice("mpi", "" if place.rank else f"this is {ranks} of an MPI program")
    scheduler = array_scheduler(environment)
    if scheduler is not None:
        return Choice("array", f"this is a member of an array job of {scheduler}")
    cores = count_cores(environment=environment)
    return Choice(f"local:{cores.number}", str(cores))
