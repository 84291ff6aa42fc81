"""Ways to hand tasks to workers, each behind one method and chosen by one string.

Backends do not depend on what a task does, so any embarrassingly parallel work can use them.  Third parties add
a backend through the entry-point group ``cryotile.backends`` and test it with
:class:`cryotile.testing.backends.BackendContract`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from cryotile.backends.base import Backend, Context
from cryotile.errors import InvalidValue, MissingDependency
from cryotile.farm.task import Task

__all__ = ["Backend", "Context", "installed_backends", "open_backend", "resolved", "share_of"]

# Scheme → class, imported only when chosen: a cluster without MPI never imports mpi4py.
_BUILT_IN = {
    "array": "cryotile.backends.array:ArrayBackend",
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
    "taskfarm+http": "cryotile.backends.legacy:LegacyBackend",
    "taskfarm+https": "cryotile.backends.legacy:LegacyBackend",
}


def open_backend(
    spec: str,
    *,
    home: Path | None,
    key: str,
    stall: float | None = None,
    lease: float | None = None,
    task_map: Callable[[], Mapping[str, Any]] | None = None,
) -> Backend:
    """Build the backend that a user named.

    Parameters
    ----------
    spec : str
        ``scheme`` or ``scheme:argument``, e.g. ``serial`` or ``local:8``.  An address (``scheme://…``) is passed
        whole as the argument.  ``auto`` builds the backend that :func:`cryotile.backends.auto.choose` names.
    home : Path or None
        A directory that all members of the farm see.
    key : str
        Name of the task list; another list has another key.
    stall : float, optional
        Seconds without progress after which an attempt counts as hung; 900 if not given.
    lease : float, optional
        Seconds without a sign of life after which others take over a worker's tasks; 300 if not given.
    task_map : callable, optional
        Returns where the tasks lie, for a server that shows them.

    Returns
    -------
    Backend

    Raises
    ------
    InvalidValue
        No such backend is installed, its argument or a limit is invalid, or a lease is given and it has no leases.
    MissingDependency
        The backend or something that it needs is not installed.
    """
    spec = resolved(spec)
    scheme, _, argument = spec.partition(":")
    if scheme == "auto":
        raise InvalidValue(
            f"backend {spec!r}: auto takes no argument; write auto, or local:{argument} for children"
        )
    make = _load(scheme, spec)
    # The scheme alone: an address may hold a password.
    if lease is not None and not getattr(make, "has_leases", False):
        raise InvalidValue(
            f"backend {scheme!r} has no leases to last {lease} s; leave the lease out, or choose a backend whose "
            "workers come and go: dir, mpi, sqlite, postgresql, http"
        )
    limits = {"stall": stall, "lease": lease}
    given = {name: seconds for name, seconds in limits.items() if seconds is not None}
    context = Context(home, key, task_map=task_map, **given)
    return make(spec if argument.startswith("//") else argument, context)


def resolved(spec: str) -> str:
    """Return the spec of a backend; in place of ``auto``, what :func:`cryotile.backends.auto.choose` names here.

    Raises
    ------
    InvalidValue
        The spec is not a text.
    """
    if not isinstance(spec, str):
        raise InvalidValue(f"backend {spec!r} is not a text; give one such as 'auto' or 'local:8'")
    if spec != "auto":
        return spec
    # Imported here: a process whose user named a backend does not look for MPI, schedulers and cores.
    from cryotile.backends.auto import choose

    return choose(os.environ).spec


def share_of(backend: Backend, tasks: Sequence[Task]) -> Sequence[Task]:
    """Return the tasks of a frozen list that this process answers for: all, unless the backend takes a share."""
    share = getattr(backend, "share", None)
    return tasks if share is None else cast("Sequence[Task]", share(tasks))


def installed_backends() -> dict[str, str]:
    """List the backends by scheme, each as ``module:Class``; cryotile's own take precedence over third parties'."""
    # Imported here: a child process imports this package, and needs to look up nothing.
    from importlib.metadata import entry_points

    return {
        entry.name: entry.value for entry in entry_points(group="cryotile.backends")
    } | _BUILT_IN


def _load(scheme: str, spec: str) -> Callable[[str, Context], Backend]:
    """Import the class of a scheme."""
    backends = installed_backends()
    if scheme not in backends:
        raise InvalidValue(
            f"backend {spec!r} is unknown; installed are {', '.join(sorted({'auto', *backends}))}"
        )
    module, _, name = backends[scheme].partition(":")
    try:
        return cast("Callable[[str, Context], Backend]", getattr(import_module(module), name))
    except (ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise MissingDependency(
            f"backend {scheme!r} cannot be loaded from {backends[scheme]} ({reason}); install its package again with "
            "everything it needs, or choose another backend"
        ) from error
