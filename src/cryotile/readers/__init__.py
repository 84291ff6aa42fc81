"""Read granules as points: :func:`read_granule` chooses the reader by content, never by file name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from stat import S_ISDIR
from typing import NamedTuple

from cryotile.errors import GranuleError, InvalidValue, path_of
from cryotile.points import SURFACE_TYPES, Granule
from cryotile.readers.base import REASONS, Reader
from cryotile.readers.source import Source, open_source
from cryotile.readers.tables.columns import open_columns
from cryotile.readers.tables.mapping import ColumnMapping, TextLayout
from cryotile.readers.tables.reader import TABLE, TableReader

__all__ = [
    "REASONS",
    "ColumnMapping",
    "Reader",
    "all_readers",
    "extra_columns",
    "find_granules",
    "find_reader",
    "granules_under",
    "is_simulated",
    "is_table",
    "read_granule",
    "table_reader",
]

GROUP = "cryotile.readers"
"""Entry-point group under which third parties offer a :class:`Reader`."""

_BUILT_IN = (
    "cryotile.readers.cryosat_l2:L2",
    "cryotile.readers.cryosat_l2:L2I",
    "cryotile.readers.cryotempo:LAND_ICE",
    "cryotile.readers.atl06:ATL06",
    "cryotile.readers.atl11:ATL11",
    "cryotile.readers.radar:FDR4ALT",
    "cryotile.readers.radar:REAPER",
    "cryotile.readers.radar:SENTINEL3",
    "cryotile.readers.glas:GLAH06",
    "cryotile.readers.glas:GLAH12",
    "cryotile.readers.atm:ILATM2",
    "cryotile.readers.atm:ILATM1B",
    "cryotile.readers.lvis:LVIS",
    "cryotile.readers.eolis:EOLIS",
    "cryotile.readers.tables.reader:TABLE",
)


def read_granule(
    path: str | os.PathLike[str],
    *,
    surface_types: Sequence[str] = ("grounded_ice",),
    columns: Sequence[str] = (),
    mapping: ColumnMapping | None = None,
) -> Granule:
    """Read the valid points of a granule of any known product, or of a table.

    Parameters
    ----------
    path : path
        The granule.
    surface_types : sequence of str
        Surfaces to keep, of :data:`cryotile.points.SURFACE_TYPES`.  ESA Level 2, L2I and ICESat-2 do not distinguish
        floating from grounded ice: all their land ice counts as grounded.
    columns : sequence of str
        Extra columns, of :func:`extra_columns`; NaN if the product does not have one.
    mapping : ColumnMapping, optional
        Columns of the granule if it is a table; otherwise the reader that recognises its content reads it.

    Returns
    -------
    Granule
        Its points have ``longitude, latitude`` in degrees, as in the file.  A granule without a valid point has no
        rows, and its ``dropped`` gives the reasons.

    Raises
    ------
    GranuleError
        The file does not exist, is empty or truncated, is of an unknown product, or lacks a part of its product.
    InvalidValue
        A surface type or column does not exist.
    """
    _require(surface_types, SURFACE_TYPES, "surface type")
    if columns:
        _require(columns, tuple(extra_columns(mapping)), "extra column")
    with open_source(path_of("path", path)) as source:
        reader = _reader_of(source) if mapping is None else table_reader(mapping)
        return reader.read(source, surface_types=surface_types, columns=columns)


def find_reader(path: str | os.PathLike[str]) -> Reader:
    """Return the reader that recognises the content of a file.

    Parameters
    ----------
    path : path
        The granule.

    Returns
    -------
    Reader
        The first that recognises it: built-in readers, then those of third parties.

    Raises
    ------
    GranuleError
        The file does not exist, is empty or truncated, or is of an unknown product.
    """
    with open_source(Path(path)) as source:
        return _reader_of(source)


def table_reader(mapping: ColumnMapping | None = None) -> TableReader:
    """Return the reader of tables with a mapping; None: tables under cryotile's own names."""
    return TABLE if mapping is None else TableReader(mapping)


def is_table(path: Path, mapping: ColumnMapping | None = None) -> bool:
    """Return whether a file is read as a table: it has a mapping, or no other reader recognises its content.

    Raises
    ------
    GranuleError
        As :func:`find_reader`.
    """
    return mapping is not None or find_reader(path) is TABLE


def is_simulated(path: Path) -> bool:
    """Return whether a file says that its points are simulated; False if it cannot be read."""
    try:
        with open_source(path) as source:
            return source.simulated or open_columns(source, TextLayout()).simulated
    except GranuleError:
        return False


def extra_columns(mapping: ColumnMapping | None = None) -> dict[str, str]:
    """Return extra column → unit, of all readers and of a table with that mapping."""
    readers = [*all_readers(), *([] if mapping is None else [TableReader(mapping)])]
    return {name: unit for reader in readers for name, unit in reader.columns.items()}


def all_readers() -> Iterator[Reader]:
    """Yield the readers in the order in which they are tried; each is imported when it is tried."""
    for path in _BUILT_IN:
        module, name = path.split(":")
        yield getattr(import_module(module), name)
    for entry_point in entry_points(group=GROUP):
        yield entry_point.load()


def _reader_of(source: Source) -> Reader:
    for reader in all_readers():
        if reader.recognises(source):
            return reader
    known = ", ".join(reader.product for reader in all_readers())
    raise GranuleError(
        f"granule {source.path} {_described(source)}; cryotile reads {known}: give one of these, or a table with"
        ' mapping="columns.toml" in which its columns are named, or install a reader'
    )


# Attributes in which the agencies name their products, and the object that has them.
_PRODUCT_NAMES = (
    ("short_name", "/"),
    ("ShortName", "/"),
    ("shortName", "METADATA/DatasetIdentification"),
    ("identifier_product_type", "/"),
    ("product_name", "/"),
    ("title", "/"),
    ("id", "/"),
)

_PRODUCTS = {
    r"ATL(?!06|11)\d\d": "ICESat-2 {}",
    r"GLAH?\d\d": "ICESat {}",
    r"SIR\w*_1B": "CryoSat-2 Level 1B (L1B, waveforms)",
    r"SIR_\w*FR": "CryoSat-2 Full Bit Rate (FBR, echoes)",
    r"S3[AB]_": "Sentinel-3",
    r"S6\w_": "Sentinel-6",
    r"F4A_ALT": "FDR4ALT (Envisat, ERS)",
}
"""Pattern in the name of a product or of its file → what it is; ``{}`` stands for what the pattern found."""

_CONTENTS = {
    "gt{}/heights/h_ph": "ICESat-2 ATL03",
    "gt{}/land_segments": "ICESat-2 ATL08",
    "gt{}/sea_ice_segments": "ICESat-2 ATL07",
    "pwr_waveform_20_ku": "CryoSat-2 Level 1B (L1B, waveforms)",
}
"""Object → the product that has it, where no name tells; ``{}`` stands for a beam of ICESat-2."""

_FORMATS = {
    b"CDF": "NetCDF-3",
    b"PAR1": "Parquet",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"PK\3\4": "a zip archive",
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\x89PNG": "a PNG image",
    b"%PDF": "a PDF document",
    b"<": "XML or HTML",
    b"PRODUCT=": "an ESA product of the time before NetCDF (.DBL, .N1)",
}


def _described(source: Source) -> str:
    """Return what a file of an unknown product is, as far as it tells."""
    if source.file is None:
        return "is neither NetCDF-4 nor HDF5" + _form(source)
    stated = [(name, source.attribute(name, of=of)) for name, of in _PRODUCT_NAMES if of in source]
    told = " ".join(str(text) for _, text in stated if text)
    named = next(
        (f"{name} {_short(text)!r}" for name, text in stated if text), "it does not name it"
    )
    product = _product(f"{told} {source.path.name}") or next(
        (
            words
            for name, words in _CONTENTS.items()
            if any(name.format(beam) in source for beam in ("1l", "1r", "2l", "2r", "3l", "3r"))
        ),
        "",
    )
    return f"is of an unknown product{product and ', '}{product} ({named})"


def _product(text: str) -> str:
    found = ((re.search(pattern, text), words) for pattern, words in _PRODUCTS.items())
    return next((words.format(match[0]) for match, words in found if match), "")


def _form(source: Source) -> str:
    """Return the format of a file that is not HDF5, and its columns if it is a table."""
    with source.path.open("rb") as stream:
        head = stream.read(512)
    form = next((name for magic, name in _FORMATS.items() if head.startswith(magic)), "")
    if not form and head.isascii() and b"\0" not in head:
        form = "text"
    columns = ""
    if form in ("text", "Parquet", "NetCDF-3"):
        with suppress(GranuleError):
            names = open_columns(source, TextLayout()).names
            columns = f" with the columns {_short(', '.join(names))}"
    return f" but {form}{columns}" if form else ""


def _short(text: object) -> str:
    return " ".join(str(text).split())[:80]


# Files that lie beside granules: previews, metadata, checksums, downloads that were cut off; 1 Hz alone of Sentinel-3.
_STRAY_SUFFIX = re.compile(
    r"\.(aux|bak|cmr|crdownload|gif|hdr|html|iso|jpe?g|json|log|md5?|met|part|pdf|png|qa|rst|sha\d+|tmp|toml|xml|ya?ml)$"
)
_STRAY_NAMES = (
    "thumbs.db",
    "desktop.ini",
    "readme",
    "readme.txt",
    "license",
    "license.txt",
    "manifest",
    "reduced_measurement.nc",
)


class FoundGranules(NamedTuple):
    """Files that a user means by some paths.

    Attributes
    ----------
    files : list of Path
        Files to read, in the order of the paths, those below a directory in theirs.
    strays : list of Path
        Files below a directory that are no granules by their names.
    missing : list of Path
        Those of ``files`` that do not exist.
    """

    files: list[Path]
    strays: list[Path]
    missing: list[Path]


def find_granules(paths: Iterable[Path]) -> FoundGranules:
    """Return the files that paths mean: a directory stands for the granules below it.

    Parameters
    ----------
    paths : iterable of Path
        Files and directories.

    Raises
    ------
    InvalidValue
        There is no path, or a directory without a file that may be a granule.
    """
    found = FoundGranules([], [], [])
    for path in paths:
        try:
            is_directory = S_ISDIR(path.stat().st_mode)
        except OSError:
            is_directory = False
            found.missing.append(path)
        if not is_directory:
            found.files.append(path)
            continue
        granules, strays = granules_under(path)
        if not granules:
            others = (
                f" ({strays[0].name} and the like are left out by their names)" if strays else ""
            )
            raise InvalidValue(
                f"{path} is a directory without a file that may be a granule{others}; give the directory that holds"
                " your granules, or the files"
            )
        found.files.extend(granules)
        found.strays.extend(strays)
    if not found.files:
        raise InvalidValue("no granule was named; give the paths of one or more, or of a directory")
    return found


# Names of files that mark the directories of cryotile's own: a point DB, a run, an ingest.
_OWN = {"cryotile.json", "run.toml", "ingest.toml"}


def granules_under(directory: Path) -> tuple[list[Path], list[Path]]:
    """Return the files below a directory that may be granules, and the strays: files that are none by their names.

    Parameters
    ----------
    directory : Path
        Searched with its subdirectories; hidden ones are left out, and point DBs and runs.

    Returns
    -------
    granules, strays : list of Path
        In order of their paths.  Strays are hidden files, among them the ``._*`` of macOS and the ``_*`` of Parquet
        directories, and files with suffixes of metadata, previews, checksums and unfinished downloads.
    """
    granules: list[Path] = []
    strays: list[Path] = []
    for folder, subfolders, names in os.walk(directory):
        if not _OWN.isdisjoint(names):
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in names:
            (strays if _is_stray(name) else granules).append(Path(folder, name))
    return sorted(granules), sorted(strays)


def _is_stray(name: str) -> bool:
    low = name.casefold()
    return low.startswith((".", "_")) or low in _STRAY_NAMES or bool(_STRAY_SUFFIX.search(low))


def _require(given: Sequence[str], known: Sequence[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise InvalidValue(f"{what} {name!r} does not exist; choose from {', '.join(known)}")
