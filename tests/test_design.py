"""The layout in docs/design.md, compared with the tree; and limits that keep the package readable."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

import cryotile
from tests.support import PROJECT

ROOT = Path(cryotile.__file__).parent


def drawn() -> dict[str, set[str]]:
    """Return the files that the layout names, by package; ``""`` is the top level."""
    page = (PROJECT / "docs" / "design.md").read_text()
    drawing = page.partition("\nsrc/cryotile/\n")[2].partition("```")[0]
    folders: dict[str, set[str]] = {"": set()}
    folder = ""
    for line in drawing.splitlines():
        if opening := re.match(r"  ([\w/]+)/  ", line):
            folder = opening[1]
            folders[folder] = set()
        elif re.match(r" {6}\S", line):
            folders[folder] |= set(line.split())
        elif file := re.match(r"  (\w+\.pyx?)  ", line):
            folders[""].add(file[1])
    return folders


def standing() -> dict[str, set[str]]:
    """Return the files of the checkout's package, by folder."""
    source = PROJECT / "src" / "cryotile"
    folders: dict[str, set[str]] = {}
    for file in source.rglob("*"):
        folder = file.parent.relative_to(source).as_posix().removeprefix(".")
        if file.suffix in (".py", ".pyx") and file.name != "__init__.py":
            folders.setdefault(folder, set()).add(file.stem if folder else file.name)
        elif file.suffix in (".c", ".css", ".h", ".js") and folder:
            folders.setdefault(folder, set()).add(file.name)
    folders[""] |= {"__init__.py"}
    return folders


def test_the_layout_names_every_file_in_its_folder():
    assert drawn() == standing()


def test_the_package_has_few_top_level_names():
    packages = [path for path in ROOT.iterdir() if (path / "__init__.py").exists()]
    modules = [path for path in ROOT.iterdir() if path.suffix in (".py", ".so")]
    assert len(packages) <= 18
    assert len(modules) <= 9


def test_imports_have_no_cycle_and_no_long_chain():
    graph = grimp.build_graph("cryotile", exclude_type_checking_imports=True)
    imported = {
        module: graph.find_modules_directly_imported_by(module) - {module}
        for module in graph.modules
    }
    depth: dict[str, int] = {}
    # A cycle raises.
    for module in TopologicalSorter(imported).static_order():
        depth[module] = 1 + max((depth[other] for other in imported[module]), default=0)
    assert max(depth.values()) <= 12


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda file: file.name)
def test_a_file_holds_one_concept_of_at_most_600_lines(file: Path):
    assert len(file.read_text().splitlines()) <= 600
