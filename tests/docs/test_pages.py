"""Pages name commands, options and pages that exist; pages from the source are complete."""

from __future__ import annotations

import doctest
import importlib
import re
import sys
import tomllib
from pathlib import Path

import click
import pytest

import cryotile
from cryotile.cli import cli
from tests.docs.pages import DOCS, blocks, matches, pages, steps
from tests.support import PROJECT

sys.path.insert(0, str(DOCS / "_ext"))

import from_source

ROOT = Path(cryotile.__file__).parent
SHOWN = re.compile(r"`(cryotile [^`]+)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
SHELL = ("sh", "bash", "console", "shell")
# The history names what a release had.
NOW = [page for page in pages() if page.name not in ("changelog.md", "design.md")]


def commands(page: Path) -> list[str]:
    """Return every command line of cryotile that a page shows."""
    text = page.read_text(encoding="utf-8")
    shell = [block.text.replace("\\\n", " ") for block in blocks(page) if block.language in SHELL]
    lines = [line for text in shell for line in text.splitlines()]
    typed = [
        found[0]
        for line in lines
        if (found := re.search(r"(?<![-\w./=])(?<!-u )cryotile (?!cryotile).*", line))
    ]
    return [*typed, *(" ".join(each.split()) for each in SHOWN.findall(text))]


def unknown(line: str) -> str | None:
    """Return the first word of a command line that cryotile does not know."""
    # Comments and what a shell does with the output; what follows -- is for a scheduler.
    words = re.split(r" # |  #|[|;&<>\"]| -- ", line)[0].split()[1:]
    found: click.Command = cli
    context = click.Context(cli)
    while words and isinstance(found, click.Group) and not words[0].startswith("-"):
        name = words.pop(0).rstrip(".,:")
        inner = found.get_command(context, name)
        if inner is None:
            return None if name.isupper() or "…" in name else name
        found, context = inner, click.Context(inner)
    options = {option for each in found.get_params(context) for option in each.opts}
    options |= {option for each in cli.get_params(click.Context(cli)) for option in each.opts}
    used = (word.split("=")[0].rstrip(".,`)") for word in words)
    return next((word for word in used if word.startswith("--") and word not in options), None)


@pytest.mark.parametrize("page", NOW, ids=lambda page: page.stem)
def test_commands_and_options_that_a_page_shows_exist(page: Path) -> None:
    lines = commands(page)
    assert [line for line in lines if unknown(line)] == []


def test_a_command_or_option_that_does_not_exist_is_seen() -> None:
    assert unknown("cryotile check DB") == "check"
    assert unknown("cryotile plan run/ --postings 500") == "--postings"
    assert unknown("cryotile submit run/ --members 2 -- --partition=x") is None


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as myst-parser makes them."""
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    named = re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE)
    return {*named, *(title.strip().replace(" ", "-") for title in plain)}


@pytest.mark.parametrize(
    "page", [*pages(), PROJECT / "CONTRIBUTING.md"], ids=lambda page: page.stem
)
def test_links_within_the_documentation_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lost = []
    for link in LINK.findall(text):
        name, _, anchor = link.partition("#")
        if re.match(r"\w+:", link) or page.stem in from_source.WRITTEN:
            continue
        target = (page.parent / name) if name else page
        written = target.stem in from_source.WRITTEN or target.name == "reference.md"
        if not target.exists() or (anchor and not written and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def test_every_page_has_a_place_in_a_list_of_contents() -> None:
    listed = {DOCS / "index.md"}
    for page in DOCS.rglob("*.md"):
        for block in blocks(page):
            for line in block.text.splitlines() if block.language == "toctree" else ():
                name = re.sub(r".*<(.*)>", r"\1", line).strip()
                listed.add(page.parent / f"{name}.md")
    assert set(pages()[1:]) - listed == set()


def test_every_message_of_an_error_is_listed_with_a_remedy() -> None:
    found = list(from_source.messages())
    assert len(found) > 400
    page = from_source.error_page()
    assert "invalid user name …" in page
    # Put together by a function, from the package of another one.
    assert "has no heights over time, because its run was planned without them" in page
    # A remedy follows a semicolon, or a colon where the rule is short.
    bare = [each.text for each in found if not re.search(r"[;:] \S|must be one of", each.text)]
    assert bare == []


def test_the_page_of_the_http_api_lists_every_operation() -> None:
    from cryotile.taskfarm.server.api import operations

    page = from_source.http_page()
    for path, item in operations.document["paths"].items():
        for method in set(item) - {"parameters"}:
            assert f"`{method.upper()} {path}`" in page


def test_examples_in_docstrings_hold() -> None:
    tried = 0
    for file in ROOT.rglob("*.py"):
        if ">>>" in file.read_text(encoding="utf-8"):
            name = ".".join(file.relative_to(ROOT.parent).with_suffix("").parts)
            outcome = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
            assert outcome.failed == 0
            tried += outcome.attempted
    assert tried > 0


def test_python_of_the_pages_compiles() -> None:
    for page in pages():
        for block in blocks(page):
            if block.language == "python":
                compile(block.text, str(page), "exec")


def test_read_the_docs_installs_extras_that_exist() -> None:
    settings = (PROJECT / ".readthedocs.yaml").read_text(encoding="utf-8")
    extras = re.search(r"extra_requirements: \[(.*)\]", settings)
    configuration = re.search(r"configuration: (\S+)", settings)
    assert extras is not None
    assert configuration is not None
    assert (PROJECT / configuration[1]).exists()
    about = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(extras[1].split(", ")) <= set(about["project"]["optional-dependencies"])


def test_shown_lines_are_compared_loosely() -> None:
    assert matches("a 1,000 of … points", "a   1,050 of 12 thousand points")
    assert not matches("a 1,000 points", "a 1,200 points")
    assert not matches("a 1,000 points", "b 1,000 points")
    text = "$ one \\\n  two\nseen\n…\n$ three  # why\n"
    assert steps(text) == [("one    two", ["seen"]), ("three", [])]
