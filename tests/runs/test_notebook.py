"""The notebook of the documentation does what the command line does, byte for byte."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from cryotile.simulate import World, simulate
from tests.support import PROJECT
from tests.support.command_line import Call


def test_the_notebook_makes_the_bytes_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    pytest.importorskip("matplotlib")
    granules = simulate(tmp_path / "granules", years=0.1)
    monkeypatch.setattr(sys, "argv", ["notebook.py", str(tmp_path)])
    # Four months cannot pass the gate of a year.
    with pytest.warns(UserWarning, match=r"none of [\d,]+ posts that were tried"):
        runpy.run_path(str(PROJECT / "docs" / "notebook.py"))
    db, run, product = (tmp_path / "other" / name for name in ("ice.pdb", "run", "dhdt.nc"))
    call("ingest", db, *granules, "--crs", World().crs)
    call("plan", run, "--db", db, "--posting", 1000, "--radius", 2000, "--tile-size", 50)
    call("run", run, "--backend", "local")
    assert call("assemble", run, "-o", product)[0] == 0
    assert product.read_bytes() == (tmp_path / "dhdt.nc").read_bytes()
