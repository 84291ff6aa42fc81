"""The README, the first page and the tutorials: what a reader types does what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DOCS, Block, blocks, matches, steps
from tests.exchange import published
from tests.support import PROJECT
from tests.support.command_line import Call
from tests.support.services.farm import FarmServer
from tests.support.services.slurm import Slurm

TUTORIALS = DOCS / "tutorials"
OWN = ["ATL11_*.h5", "processed_ATL06_20190[46]*.h5"]


class Reader:
    """Types what a page says, in a directory of their own.

    Parameters
    ----------
    call : callable
        Runs a command of cryotile in this process.
    replaced : dict
        What the reader writes in place of words of the page, such as an address.
    """

    def __init__(self, call: Call, replaced: dict[str, str] | None = None) -> None:
        self.call, self.replaced = call, replaced or {}

    def follow(self, page: Path) -> None:
        """Do all blocks of a page in their order."""
        for block in blocks(page):
            self._do(block)

    def _do(self, block: Block) -> None:
        named = re.match(r"# ([\w-]+\.\w+)\n", block.text)
        if named:
            Path(named[1]).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(block.text, {"__name__": "__main__"})
        elif block.language == "console":
            for command, shown in steps(block.text):
                printed = self.type(command)
                lost = [s for s in shown if not any(matches(s, p) for p in printed.splitlines())]
                assert not lost, f"{command}\nshown and not printed: {lost}\n{printed}"

    def type(self, command: str) -> str:
        """Run a command and return what it prints; it must succeed."""
        for words, others in self.replaced.items():
            command = command.replace(words, others)
        if command.startswith("cryotile ") and not re.search(r"[|&;<>$]", command):
            given = shlex.split(command, comments=True)[1:]
            words = [
                name
                for word in given
                for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
            ]
            code, output, errors = self.call(*words)
            assert code == 0, f"{command}\n{output}{errors}"
            return output + errors
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty directory, which is the current one; ``python`` is the one of the tests."""
    programs = tmp_path / "programs"
    programs.mkdir()
    # A link would not be taken for the Python of its virtual environment.
    (programs / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (programs / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    desk = tmp_path / "desk"
    desk.mkdir()
    monkeypatch.chdir(desk)
    return desk


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[FarmServer]:
    with FarmServer(tmp_path) as server:
        yield server


SMALL = {"granules/  ": "granules/ --years 0.5 ", "posting 1000": "posting 4000"}
"""A mission of half a year and few posts: every command has something to do."""


def typed(page: Path) -> list[str]:
    """Return the commands of cryotile in the shell blocks of a page."""
    shell = "".join(block.text for block in blocks(page) if block.language == "sh")
    return re.findall(r"^cryotile .*$", shell, re.MULTILINE)


def called(page: Path) -> str:
    """Return the Python of a page, with few posts and without the time that children take to start."""
    text = "\n".join(block.text for block in blocks(page) if block.language == "python")
    for words, others in {"posting=1000": "posting=4000", "local:2": "serial"}.items():
        assert words in text
        text = text.replace(words, others)
    return text


def test_the_readme_the_quickstart_and_the_first_map(
    desk: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(call, SMALL)
    readme, quickstart = PROJECT / "README.md", DOCS / "quickstart.md"
    for line in typed(readme):
        reader.type(line)
    assert Path("dhdt.png").exists()
    names: dict[str, Any] = {}
    exec(called(readme), names)
    assert not list(names["run"].pending())

    (desk / "quick").mkdir()
    monkeypatch.chdir(desk / "quick")
    Path("granules").symlink_to(desk / "granules")
    simulate, *others = typed(quickstart)
    assert simulate.startswith("cryotile simulate granules/ ")
    for line in others:
        reader.type(line)
    exec(called(quickstart), names)
    assert names["fitted"].dhdt.shape == (2, 3)

    # The first page has commands of the quickstart, with names of its own.
    first = {"ice.pdb": "greenland.pdb", "posting 2000": "posting 1000"}
    for line in typed(DOCS / "index.md"):
        for word, other in first.items():
            line = line.replace(word, other)
        assert any(each.startswith(line) for each in typed(quickstart)), line


def test_the_tutorials_of_real_granules_and_of_a_cluster(
    desk: Path, granules: Path, call: Call, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    (desk / "granules").mkdir()
    for pattern in OWN:
        for file in granules.glob(pattern):
            shutil.copy(file, desk / "granules")
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    reader = Reader(call)
    reader.follow(TUTORIALS / "own-granules.md")
    reader.follow(TUTORIALS / "slurm.md")


def test_the_tutorials_of_a_growing_data_set_of_totals_and_of_comparison(
    desk: Path, call: Call
) -> None:
    reader = Reader(call)
    reader.follow(TUTORIALS / "growing.md")
    reader.follow(TUTORIALS / "totals.md")
    published.atl15(desk / "ATL15_GL_0329_01km_005_02.nc")
    reader.follow(TUTORIALS / "comparing.md")


def test_the_tutorial_of_a_farm(desk: Path, call: Call, farm: FarmServer) -> None:
    Reader(call, {"http://ann:secret@localhost:5000": farm.url}).follow(TUTORIALS / "farm.md")


def test_every_tutorial_is_followed() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    names = [page.name for page in TUTORIALS.glob("*.md") if page.name != "index.md"]
    assert [name for name in names if f'"{name}"' not in here] == []
