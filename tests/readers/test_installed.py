"""A reader of a third party: what the page on formats shows to copy, installed by pip as its own distribution."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import PROJECT
from tests.support.command_line import run_python

PAGE = PROJECT / "docs" / "formats.md"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the example, each under the name in its first line."""
    root = tmp_path_factory.mktemp("project")
    blocks = re.findall(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```", PAGE.read_text(), re.S | re.M)
    for name, text in blocks:
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def site(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has installed the example."""
    site = tmp_path_factory.mktemp("site")
    words = ["install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = run_python("-m", "pip", *words, "--target", site, project)
    assert done.returncode == 0, done.stderr
    return site


def test_the_example_of_a_reader_passes_the_suite_it_is_given(project: Path, site: Path) -> None:
    tests = project / "test_envisat_text.py"
    done = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", tests, directory=site)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d\d passed", done.stdout, re.MULTILINE)


def test_the_command_line_finds_an_installed_reader_and_says_so_when_it_is_not(
    project: Path, site: Path, tmp_path: Path
) -> None:
    text = (project / "test_envisat_text.py").read_text()
    granule, db = tmp_path / "granule.txt", tmp_path / "ice.pdb"
    granule.write_text(text.split('"""')[1])
    words = ["-m", "cryotile", "ingest", db, granule, "--crs", "EPSG:3413", "--columns", "power"]
    assert "install a reader" in run_python(*words[:-2]).stderr
    done = run_python(*words, directory=site)
    assert done.returncode == 0, done.stderr
    assert "1 granule added, 0 there already; 2 of 4 points kept" in done.stdout
    assert "retracker_failed: says its reader" in done.stdout
