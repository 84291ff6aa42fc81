"""Read granules as points: :func:`read_granule` chooses the reader by content, never by file name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from cryotile.errors import GranuleError, InvalidValue
from cryotile.points import SURFACE_TYPES, Granule
from cryotile.readers.base import REASONS, Reader
from cryotile.readers.source import Source, open_source
from cryotile.readers.tables.mapping import ColumnMapping
from cryotile.readers.tables.reader import TABLE, TableReader

__all__ = [
    "REASONS",
    "ColumnMapping",
    "Reader",
    "all_readers",
    "extra_columns",
    "find_reader",
    "granules_under",
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
    with open_source(Path(path)) as source:
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
        f"granule {source.path} {_described(source)}; cryotile reads {known}: give one of these, or a table with a"
        " --mapping of its columns, or install a reader"
    )


# Attributes in which the agencies name their products.
_PRODUCT_NAMES = ("short_name", "identifier_product_type", "product_name", "title", "id")

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
}


def _described(source: Source) -> str:
    """Return what a file of an unknown product is, as far as it tells."""
    if source.file is None:
        with source.path.open("rb") as stream:
            head = stream.read(4)
        form = next((name for magic, name in _FORMATS.items() if head.startswith(magic)), None)
        return "is neither NetCDF-4 nor HDF5" + (f" but {form}" if form else "")
    for attribute in _PRODUCT_NAMES:
        stated = source.attribute(attribute)
        if stated:
            shown = " ".join(str(stated).split())[:80]
            return f"is of an unknown product ({attribute} {shown!r})"
    return "is of an unknown product (it does not name it)"


# Files that lie beside granules: previews, metadata, checksums, downloads that were cut off.
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
)


def granules_under(directory: Path) -> tuple[list[Path], list[Path]]:
    """Return the files below a directory that may be granules, and the strays: files that are none by their names.

    Parameters
    ----------
    directory : Path
        Searched with its subdirectories; hidden ones are left out.

    Returns
    -------
    granules, strays : list of Path
        In order of their paths.  Strays are hidden files, among them the ``._*`` of macOS and the ``_*`` of Parquet
        directories, and files with suffixes of metadata, previews, checksums and unfinished downloads.
    """
    granules: list[Path] = []
    strays: list[Path] = []
    for folder, subfolders, names in os.walk(directory):
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
