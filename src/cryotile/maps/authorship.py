"""What only the maker of a product knows, such as its creator and licence: the table ``[product]`` of a TOML file."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from cryotile.errors import InvalidValue

__all__ = ["FIELDS", "check_authorship", "lacking", "read_authorship"]

FIELDS = (
    *("title", "summary", "doi", "creator_name", "creator_email", "license", "id"),
    *("institution", "project", "naming_authority", "metadata_link", "product_version"),
    *("acknowledgement", "program", "references"),
    *("creator_url", "creator_type", "creator_institution"),
    *("publisher_name", "publisher_email", "publisher_url", "publisher_type"),
    *("publisher_institution", "contributor_name", "contributor_role"),
    *("date_issued", "date_modified", "date_metadata_modified"),
)
"""Global attributes of ACDD 1.3 that a user may give; ``doi`` stands for ``id``, its authority and its link."""

_OPTIONAL = ("title", "summary", "references", "doi")
"""Fields that a product has without the user."""

_TYPES = ("person", "group", "institution", "position")
_DOI = re.compile(r"(?:https?://(?:dx\.)?doi\.org/|doi:)?(10\.\d{4,9}/\S+)", re.IGNORECASE)
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?)?)?")


def read_authorship(path: Path) -> dict[str, str]:
    """Read the table ``[product]`` of a TOML file.

    Parameters
    ----------
    path : Path
        The file; its other tables are not read.

    Returns
    -------
    dict of str to str
        As of :func:`check_authorship`.

    Raises
    ------
    InvalidValue
        It cannot be read, has no such table, or a value breaks its rule.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidValue(
            f"{path} cannot be read ({error.strerror}); give a TOML file with a table [product]"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path} is not valid TOML ({error}); correct it") from error
    if not isinstance(table.get("product"), dict):
        raise InvalidValue(
            f"{path} has no table [product]; write that line above creator_name, license and so on"
        )
    return check_authorship(table["product"])


def check_authorship(given: Mapping[str, Any]) -> dict[str, str]:
    """Return global attributes of a product that a user gives.

    Parameters
    ----------
    given : mapping of str to object
        Name of :data:`FIELDS` → text; a list of texts, which are joined by commas; or a date.

    Returns
    -------
    dict of str to str
        A DOI as ``id``, ``naming_authority`` and ``metadata_link``, as far as these are not given themselves.

    Raises
    ------
    InvalidValue
        A name is unknown, or a value breaks its rule.
    """
    found = {name: _text(name, value) for name, value in given.items()}
    doi = found.pop("doi", None)
    if doi is None:
        return found
    matched = _DOI.fullmatch(doi)
    if matched is None:
        raise InvalidValue(f"doi {doi!r} is not a DOI; give one such as 10.5281/zenodo.1234567")
    link = f"https://doi.org/{matched[1]}"
    return {"id": matched[1], "naming_authority": "org.doi", "metadata_link": link} | found


def lacking(attributes: Mapping[str, Any]) -> list[str]:
    """Return which fields that only a user knows are not among the attributes of a product."""
    return [name for name in FIELDS if name not in attributes and name not in _OPTIONAL]


def _text(name: str, value: Any) -> str:
    if name not in FIELDS:
        near = difflib.get_close_matches(name, FIELDS, n=1)
        advice = f"did you mean {near[0]}?" if near else f"choose from {', '.join(FIELDS)}"
        raise InvalidValue(f"{name!r} is not a field of [product]; {advice}")
    texts = value if isinstance(value, list | tuple) else [value]
    if name.startswith("date_"):
        texts = [one.isoformat() if isinstance(one, date) else one for one in texts]
    if not texts or not all(isinstance(one, str) and one.strip() for one in texts):
        raise InvalidValue(f"{name} {value!r} must be a text that is not empty; put it in quotes")
    text = ", ".join(one.strip() for one in texts)
    if name.startswith("date_") and not _DATE.fullmatch(text):
        raise InvalidValue(
            f"{name} {text!r} is not a date of ISO 8601; give one such as 2026-11-29"
        )
    if name.endswith("_type") and text not in _TYPES:
        raise InvalidValue(f"{name} {text!r} must be one of {', '.join(_TYPES)}")
    if name == "id" and " " in text:
        raise InvalidValue(f"id {text!r} has a blank; leave it out")
    if name == "metadata_link" and not text.startswith(("http://", "https://")):
        raise InvalidValue(f"metadata_link {text!r} must be a URL; begin it with https://")
    return text
