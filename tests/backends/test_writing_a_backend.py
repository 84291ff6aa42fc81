"""The code on the pages about backends works when it is copied."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from cryotile.pointdb import PointDB
from cryotile.runs.run import plan_run
from tests.support import PROJECT
from tests.support.command_line import run_python
from tests.support.made_up import granule

PAGES = PROJECT / "docs" / "backends"


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (PAGES / page).read_text(), re.DOTALL | re.MULTILINE
    )


@pytest.fixture
def nice_farm(tmp_path: Path) -> Path:
    """Return a directory with the example, installed."""
    for block in blocks("writing.md", "python"):
        name = block.split("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(block)
    (project,) = (tomllib.loads(block)["project"] for block in blocks("writing.md", "toml"))
    # The metadata that pip writes for a project.
    about = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    ((group, entries),) = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (about / "entry_points.txt").write_text("\n".join(lines))
    return tmp_path


def test_the_example_of_a_backend_passes_the_suite_it_is_given(nice_farm: Path) -> None:
    # Two processes: some tests wait for a stall limit, or for the end of a long task.
    done = run_python("-m", "pytest", "-q", "-n", "2", "test_nice_farm.py", directory=nice_farm)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d\d passed", done.stdout, re.MULTILINE)


def test_the_example_of_a_backend_is_found_by_its_name(nice_farm: Path) -> None:
    ask = "from cryotile.backends import open_backend; print(open_backend('nice:3', home=None, key='k'))"
    assert "nice_farm.NiceBackend" in run_python("-c", ask, directory=nice_farm).stdout


def test_the_script_with_an_executor_does_a_run(tmp_path: Path) -> None:
    db = PointDB.create(tmp_path / "ice.pdb", "EPSG:3031")
    db.append([granule(0, 3000, extent=20e3)])
    run = plan_run(tmp_path / "run", {"tile_size": 20, "where": "platform == 'cryosat2'"}, db=db)
    (script,) = blocks("executor.md", "python")
    (tmp_path / "script.py").write_text(
        script.replace("ProcessPoolExecutor(8,", "ProcessPoolExecutor(2,")
    )
    done = run_python("script.py", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" done\n") == len(run.tasks)
    assert not run.pending()
