"""What a request carries: read within limits, and checked value by value, so that nothing odd reaches the database."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

from flask import request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

__all__ = [
    "members",
    "number",
    "quantity",
    "query_number",
    "read_json",
    "sequence",
    "storable",
    "text",
    "whole",
]

# Bytes of a body once it is decompressed.
_LONGEST = 16 * 2**20

# Lists within lists; all that is asked for has three.
_DEEPEST = 12

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))

# What PostgreSQL, or UTF-8, has no place for.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def read_json() -> Any:
    """Read the JSON of the request, perhaps compressed by gzip.

    Raises
    ------
    BadRequest
        It is none, or nested too deep.
    RequestEntityTooLarge, UnsupportedMediaType
        As they say.
    """
    raw = request.get_data(cache=False)
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding == "gzip":
        raw = _decompress(raw)
    elif encoding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding {encoding!r} is unknown; use gzip or none")
    if _too_deep(raw):
        raise BadRequest(f"the JSON is nested over {_DEEPEST} deep; no call asks for that")
    try:
        return json.loads(raw, parse_constant=_no_number)
    # RecursionError: what only looked like strings was none.
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON ({error})") from error


def _decompress(raw: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        whole = inflater.decompress(raw, _LONGEST)
    except zlib.error as error:
        raise BadRequest(f"the body is not what gzip writes ({error})") from error
    if inflater.unconsumed_tail:
        raise RequestEntityTooLarge(f"the body is over {_LONGEST} bytes long; send it in pieces")
    if not inflater.eof:
        raise BadRequest("the body ends before what gzip wrote does; send all of it")
    return whole


def _too_deep(raw: bytes) -> bool:
    if raw.count(b"[") + raw.count(b"{") <= _DEEPEST:
        return False
    brackets = _STRING.sub(b"", raw).translate(None, _NO_BRACKET)
    for _ in range(_DEEPEST):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return bool(brackets)


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def members(
    value: object, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> Mapping[str, Any]:
    """Check that a value is an object with these members and no others."""
    if not isinstance(value, dict):
        raise BadRequest("an object in braces is needed here")
    if missing := [name for name in required if name not in value]:
        raise BadRequest(f"member {missing[0]!r} is missing; give it")
    if unknown := [name for name in value if name not in required and name not in optional]:
        known = ", ".join((*required, *optional))
        raise BadRequest(f"member {unknown[0]!r} is unknown; known are {known}")
    return value


def sequence(value: object, longest: int) -> list[Any]:
    """Check that a value is a list of no more than so many."""
    if not isinstance(value, list):
        raise BadRequest("a list in brackets is needed here")
    if len(value) > longest:
        raise BadRequest(
            f"the list has {len(value)} members, {longest} are the most; send it in pieces"
        )
    return value


def whole(value: object, name: str, low: int, high: int) -> int:
    """Check that a value is a whole number from ``low`` to ``high``."""
    # 3.0 is a whole number to JSON.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadRequest(f"{name} is to be a whole number from {low} to {high}")
    return value


def quantity(value: object, name: str, low: float, high: float) -> float:
    """Check that a value is a number from ``low`` to ``high``."""
    # Before it becomes a float: a whole number may be too long for one.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise BadRequest(f"{name} is to be a number from {low:g} to {high:g}")
    return float(value)


def number(value: object, name: str) -> float:
    """Check that a value is a number that a double can hold, either sign."""
    found = quantity(value, name, -1.7e308, 1.7e308)
    return found if math.isfinite(found) else 0.0


def text(value: object, name: str, pattern: re.Pattern[str]) -> str:
    """Check that a value is a string of a certain look."""
    if not isinstance(value, str) or pattern.fullmatch(value) is None or _UNSTORABLE.search(value):
        raise BadRequest(f"{name} is to be a string like {pattern.pattern}")
    return value


def storable(value: str) -> str:
    """Replace what a database has no place for."""
    return _UNSTORABLE.sub("\ufffd", value)


def query_number(name: str, default: int, low: int, high: int) -> int:
    """Check a whole number in the query of the address."""
    given = request.args.get(name)
    if given is None:
        return default
    if re.fullmatch("-?[0-9]{1,19}", given, re.ASCII) is None or not low <= int(given) <= high:
        raise BadRequest(f"{name} is to be a whole number from {low} to {high}")
    return int(given)
