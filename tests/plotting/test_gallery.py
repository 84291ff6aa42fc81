"""The scripts of the gallery run unchanged and draw the pictures of the gallery page."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from tests.support import PROJECT

SCRIPTS = sorted((PROJECT / "docs" / "gallery").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_of_the_gallery_draws_its_picture(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "picture.png"
    monkeypatch.setattr(sys, "argv", [str(script), str(picture)])
    with mpl.rc_context({"backend": "agg"}):
        runpy.run_path(str(script))
        plt.close("all")
    shown = PROJECT / "docs" / "_static" / f"gallery-{script.stem}.png"
    assert plt.imread(picture).shape == plt.imread(shown).shape


def test_the_page_shows_every_script_of_the_gallery() -> None:
    page = (PROJECT / "docs" / "gallery.md").read_text(encoding="utf-8")
    assert [script.stem for script in SCRIPTS if f"gallery/{script.name}" not in page] == []
