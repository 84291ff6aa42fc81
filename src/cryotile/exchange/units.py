"""Units of rates, heights and their sigmas, and the factors to metres and metres per year."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryotile.errors import InvalidValue
from cryotile.geo.dem import METRES
from cryotile.times import SECONDS_PER_YEAR, duration

__all__ = ["Unit", "height_unit", "rate_unit", "sigma_unit", "unused_sigmas"]

_YEARS = ("year", "yr", "a", "y", "annum")
_UNSTATED = ("", "1", "-", "none", "[none]", "unknown", "n/a")
_SQUARE = re.compile(r"\((.+)\)\s*(?:\^|\*\*)?\s*2")
_VARIANCE = re.compile(r"variance|(^|[_ ])var($|[_ ])")
_UNCERTAINTY = re.compile(
    rf"{_VARIANCE.pattern}|sigma|error|uncert|std|rmse|ci95|(^|[_ ])(err|unc|sd)($|[_ ])"
)
_WORD = re.compile(r"\s*(/|\*|·)?\s*([a-z]+)\s*(?:\^|\*\*)?\s*([-+]?\d+)?\s*")

_POINTS = ("w.e", "we", "kg", "gt")


@dataclass(frozen=True)
class Unit:
    """What a number of a file is multiplied by.

    Attributes
    ----------
    factor : float
        To metres or metres per year, after ``power``.
    power : float
        1; 0.5 for a variance, of which the square root is taken first.
    text : str
        As the file states it.
    note : str
        What is converted or assumed; empty if nothing.
    """

    factor: float
    power: float
    text: str
    note: str


def rate_unit(text: str, name: str, path: object) -> Unit:
    """Return the unit of a rate of elevation change.

    Parameters
    ----------
    text : str
        Attribute ``units``, e.g. ``mm/yr``, ``m a-1``, ``meters years^-1``; empty: metres per year are assumed.
    name : str
        Name of the variable, for messages.
    path : path
        The file, for messages.

    Raises
    ------
    InvalidValue
        It is not a length over a time.
    """
    return _unit(text, name, path, (1, -1), "m yr-1")


def height_unit(text: str, name: str, path: object) -> Unit:
    """Return the unit of a height or of a difference of heights; see :func:`rate_unit`."""
    return _unit(text, name, path, (1, 0), "m")


def sigma_unit(
    text: str, name: str, path: object, *, of: Unit, rate: bool, described: str = ""
) -> Unit:
    """Return the unit of a standard error; a variance is told by its unit, never by its values.

    Parameters
    ----------
    text, name, path
        As for :func:`rate_unit`.  Without a unit, that of the value is assumed.
    of : Unit
        Unit of the value whose error it is.
    rate : bool
        Whether the value is a rate, not a height.
    described : str
        Long name of the variable.

    Raises
    ------
    InvalidValue
        The unit is neither that of a value nor its square, or the name says variance and the unit does not.
    """
    plain, named = ((1, -1), "m yr-1") if rate else ((1, 0), "m")
    stated = _parsed(text)
    is_variance = _VARIANCE.search(f"{name} {described}".lower()) is not None
    if stated is not None and stated[1] == (2 * plain[0], 2 * plain[1]):
        note = f"{name} is a variance ({text}): its square root is the sigma"
        return Unit(stated[0] ** 0.5, 0.5, text, note)
    if is_variance:
        raise InvalidValue(
            f"{path}: {name} is a variance by its name, but its unit is {text.strip() or 'not stated'}; give a file"
            f" whose unit says which it is, such as {named.replace('m', 'm2', 1).replace('-1', '-2')}, or another sigma"
        )
    if text.strip().lower() in _UNSTATED:
        note = f"{name} states no unit: {of.text} assumed, as for the value"
        return Unit(of.factor, 1.0, of.text, note)
    unit = _unit(text, name, path, plain, named)
    interval = re.search(r"\b95\s*%|ci95|confidence", f"{name} {described}".lower())
    if interval:
        note = f"{name} is a 95 % interval by its name: divided by 1.96 to give a sigma"
        return Unit(unit.factor / 1.959964, 1.0, text, note)
    return unit


def unused_sigmas(described: Mapping[str, str]) -> list[str]:
    """Return a note on columns or variables that are uncertainties by their names; no note without any.

    Parameters
    ----------
    described : mapping of str to str
        Name of each that is not used → its name and long name.
    """
    names = [name for name, text in described.items() if _UNCERTAINTY.search(text.lower())]
    if not names:
        return []
    said = [
        f"{name} (a variance)" if _VARIANCE.search(described[name].lower()) else name
        for name in names
    ]
    return [f'not used, uncertain by name: {", ".join(said)}; to use one: sigma="{names[0]}"']


def _unit(text: str, name: str, path: object, powers: tuple[int, int], named: str) -> Unit:
    if text.strip().lower() in _UNSTATED:
        return Unit(1.0, 1.0, named, f"{name} states no unit: {named} assumed")
    stated = _parsed(text)
    if stated is None or stated[1] != powers:
        what = "rate of elevation change" if powers[1] else "height"
        raise InvalidValue(
            f"{path}: unit {text!r} of {name} is not that of a {what}; convert it to {named} first, or name another"
            " variable"
        )
    factor = stated[0]
    note = "" if abs(factor - 1.0) < 1e-12 else f"{name} converted from {text} to {named}"
    return Unit(factor, 1.0, text, note)


def _parsed(text: str) -> tuple[float, tuple[int, int]] | None:
    """Return the factor to metres and years, and the powers of length and time; None if it is not of these."""
    plain = text.strip().lower().replace(" per ", "/").replace("⁻¹", "-1").replace("²", "2")
    if any(re.search(rf"\b{re.escape(word)}\b", plain) for word in _POINTS):
        return None
    if square := _SQUARE.fullmatch(plain):
        inner = _parsed(square[1])
        return None if inner is None else (inner[0] ** 2, (2 * inner[1][0], 2 * inner[1][1]))
    factor, powers, place = 1.0, [0, 0], 0
    while place < len(plain):
        word = _WORD.match(plain, place)
        kind = None if word is None else _kind(word[2])
        if word is None or kind is None:
            return None
        power = int(word[3] or 1) * (-1 if word[1] == "/" else 1)
        factor *= kind[0] ** power
        powers[kind[1]] += power
        place = word.end()
    return factor, (powers[0], powers[1])


def _kind(word: str) -> tuple[float, int] | None:
    """Return a word's factor to metres (0) or years (1)."""
    if word in METRES:
        return METRES[word], 0
    if word in _YEARS or word.removesuffix("s") in _YEARS:
        return 1.0, 1
    seconds = duration(word)
    if seconds is None:
        return (1 / 12, 1) if word in ("month", "months") else None
    return seconds / SECONDS_PER_YEAR, 1
