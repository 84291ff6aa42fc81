"""The ranks of an MPI program as a farm, on Open MPI 5, MPICH and the distribution's Open MPI."""

from __future__ import annotations

import pytest

from cryotile.backends.base import STALL
from cryotile.testing.backends import MakeBackend, SupervisedContract
from mpi_farm import MPIFarm
from services.mpi import MPI, debian_openmpi, mpich, openmpi

__all__ = ["debian_openmpi", "mpich", "openmpi"]


class TestOpenMPI(SupervisedContract):
    @pytest.fixture
    def make_backend(self, openmpi: MPI) -> MakeBackend:
        return lambda workers=2, stall=STALL: MPIFarm(openmpi, workers, stall)


class TestMPICH(SupervisedContract):
    @pytest.fixture
    def make_backend(self, mpich: MPI) -> MakeBackend:
        return lambda workers=2, stall=STALL: MPIFarm(mpich, workers, stall)
