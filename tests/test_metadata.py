"""Files that repeat what pyproject.toml says: they say the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib

import yaml

from tests.support import PROJECT

RECIPE = yaml.safe_load((PROJECT / "conda/recipe.yaml").read_text(encoding="utf-8"))
ABOUT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

CONDA_NAMES = {"matplotlib": "matplotlib-base"}
"""Distributions that conda calls otherwise."""


def requirements(lines: list[str]) -> dict[str, str]:
    """Return name, in lower case, and version of each requirement."""
    found = (re.match(r"([\w.-]+)(?:\[\w+\])?\s*(\S*)", line) for line in lines)
    return {match[1].lower(): match[2] for match in found if match}


def recipe(section: str) -> dict[str, str]:
    """Return the requirements of a section of the conda recipe."""
    return requirements([line.replace(" >", ">") for line in RECIPE["requirements"][section]])


def test_the_conda_recipe_requires_what_the_project_requires():
    run = recipe("run")
    assert run.pop("python") == ""
    assert run == requirements(ABOUT["dependencies"])
    extras = [each for some in ABOUT["optional-dependencies"].values() for each in some]
    known = {CONDA_NAMES.get(name, name): v for name, v in requirements(extras).items()}
    assert {name: known[name] for name in recipe("run_constraints")} == recipe("run_constraints")


def test_all_files_have_the_version():
    assert RECIPE["context"]["version"] == ABOUT["version"]
    assert RECIPE["about"]["summary"] == ABOUT["description"]
    meta = json.loads((PROJECT / "codemeta.json").read_text(encoding="utf-8"))
    assert meta["version"] == ABOUT["version"]
    assert meta["description"] == ABOUT["description"]
    assert {name.lower() for name in meta["softwareRequirements"]} == set(
        requirements(ABOUT["dependencies"])
    )


def test_the_paper_cites_what_its_bibliography_has():
    paper = (PROJECT / "paper/paper.md").read_text(encoding="utf-8")
    entries = re.findall(r"^@\w+\{(\w+),", (PROJECT / "paper/paper.bib").read_text("utf-8"), re.M)
    assert set(re.findall(r"@(\w+\d{4})", paper)) == set(entries)
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", paper):
        assert (PROJECT / "paper" / picture).exists()


def test_bash_completes_commands_by_the_documented_line():
    shown = subprocess.run(
        [sys.executable, "-m", "cryotile"],
        env={**os.environ, "_CRYOTILE_COMPLETE": "bash_complete", "COMP_WORDS": "cryotile do", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert shown.stdout.splitlines() == ["plain,doctor"]
