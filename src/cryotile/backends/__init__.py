"""Ways to hand tasks to workers, each behind one method and chosen by one string.

Nothing here knows what a task does, so any embarrassingly parallel work can use these farms.  Third parties add a
backend through the entry-point group ``cryotile.backends`` and prove it with
:class:`cryotile.testing.backends.BackendContract`.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import cast

from cryotile.backends.base import Backend
from cryotile.errors import InvalidValue, MissingDependency

__all__ = ["Backend", "installed_backends", "open_backend"]

# Scheme → class, imported only when chosen: a cluster without MPI never imports mpi4py.
_BUILT_IN = {
    "array": "cryotile.backends.array:ArrayBackend",
    "auto": "cryotile.backends.auto:AutoBackend",
    "dask": "cryotile.backends.dask:DaskBackend",
    "dir": "cryotile.backends.pull:DirBackend",
    "http": "cryotile.backends.pull:HTTPBackend",
    "https": "cryotile.backends.pull:HTTPBackend",
    "index": "cryotile.backends.array:IndexBackend",
    "local": "cryotile.backends.local:LocalBackend",
    "mpi": "cryotile.backends.mpi:MPIBackend",
    "postgresql": "cryotile.backends.pull:SQLBackend",
    "serial": "cryotile.backends.serial:SerialBackend",
    "sqlite": "cryotile.backends.pull:SQLBackend",
    "taskfarm+http": "cryotile.backends.legacy:SeedBackend",
    "taskfarm+https": "cryotile.backends.legacy:SeedBackend",
}


def open_backend(
    spec: str,
    *,
    home: Path | None,
    key: str,
    stall: float | None = None,
    lease: float | None = None,
) -> Backend:
    """Build the backend that a user named.

    Parameters
    ----------
    spec : str
        ``scheme`` or ``scheme:argument``, e.g. ``serial`` or ``local:8``.  Of an address (``scheme://…``) the whole is
        the argument.
    home : Path or None
        A directory that all members of the farm see.
    key : str
        Name of the task list; another list has another key.
    stall : float, optional
        Seconds without progress after which an attempt counts as hung; the backend's own limit when not given.
    lease : float, optional
        Seconds without a sign of life after which others take over a worker's tasks; the backend's own when not given.

    Returns
    -------
    Backend

    Raises
    ------
    InvalidValue
        No such backend is installed, its argument is wrong, or it has no leases.
    MissingDependency
        It is not there, or something that it needs.
    """
    scheme, _, argument = spec.partition(":")
    backends = installed_backends()
    if scheme not in backends:
        raise InvalidValue(
            f"backend {spec!r} is unknown; installed are {', '.join(sorted(backends))}"
        )
    module, _, name = backends[scheme].partition(":")
    try:
        make = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise MissingDependency(
            f"backend {scheme!r} cannot be loaded from {backends[scheme]} ({reason}); install again what brings it, "
            "with all that it needs, or choose another backend"
        ) from error
    limits = {} if stall is None else {"stall": stall}
    # The scheme alone: an address may hold a password.
    if lease is not None:
        if "lease" not in signature(make).parameters:
            raise InvalidValue(
                f"backend {scheme!r} has no leases to last {lease:g} s; leave --lease out, or choose a backend whose "
                "workers come and go: dir, mpi, sqlite, postgresql, http"
            )
        limits["lease"] = lease
    return cast(
        "Backend", make(spec if argument.startswith("//") else argument, home, key, **limits)
    )


def installed_backends() -> dict[str, str]:
    """List the backends by scheme, each as ``module:Class``: third parties' first, then cryotile's, which prevail."""
    # Imported here: a child process imports this package, and needs to look up nothing.
    from importlib.metadata import entry_points

    return {
        entry.name: entry.value for entry in entry_points(group="cryotile.backends")
    } | _BUILT_IN
