"""Pages of the documentation as a reader executes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.support import PROJECT

DOCS = PROJECT / "docs"
FENCE = re.compile(r"^(`{3,})\{?([\w-]*)\}?[^\n]*\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d(?:[\d,]*\d)?(?:\.\d+)?")
TOLERANCE = 0.1
"""Largest relative difference of a number that a page shows and one that a command prints."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


class Step(NamedTuple):
    """A command and the lines that the page shows below it."""

    command: str
    shown: list[str]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(language, text) for _, language, text in found]


def pages() -> list[Path]:
    """Return the pages of the documentation, and the README."""
    own = (
        page for page in DOCS.rglob("*.md") if not page.relative_to(DOCS).parts[0].startswith("_")
    )
    return [PROJECT / "README.md", *sorted(own)]


def steps(text: str) -> list[Step]:
    """Return the commands of a ``console`` block; a line that ends in a backslash goes on."""
    found: list[Step] = []
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:].partition("  #")[0].strip(), []))
        elif line.strip() not in ("", "…"):
            found[-1].shown.append(line)
    return found


def matches(shown: str, printed: str) -> bool:
    """Whether a line of a page is what a command printed: ``…`` stands for anything, numbers may differ by 10 %."""
    gaps = re.split(r"(…|\d(?:[\d,]*\d)?(?:\.\d+)?|\s+)", shown.strip())
    kinds = (
        ".*"
        if gap == "…"
        else r"(\d(?:[\d,]*\d)?(?:\.\d+)?)"
        if gap[:1].isdigit()
        else r"\s+"
        if gap.isspace()
        else re.escape(gap)
        for gap in gaps
    )
    found = re.fullmatch("".join(kinds), printed.strip())
    if found is None:
        return False
    numbers = [NUMBER.fullmatch(gap) and float(gap.replace(",", "")) for gap in gaps]
    expected = [number for number in numbers if number is not None]
    given = [float(number.replace(",", "")) for number in found.groups()]
    return all(abs(a - b) <= TOLERANCE * abs(a) for a, b in zip(expected, given, strict=True))
