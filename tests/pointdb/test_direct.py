"""The examples of docs/pointdb.md for reading points, with and without cryotile, work."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest

from cryotile import PointDB
from tests.support import PROJECT
from tests.support.made_up import granule, points, with_points

PAGE = PROJECT / "docs" / "pointdb.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PointDB:
    db = PointDB.create(tmp_path / "antarctica.pdb", "EPSG:3031")
    for seed in range(3):
        frame = points(seed, 4000, extent=120e3)
        frame = frame.assign(x=frame["x"] - 1.5e6, y=frame["y"] - 4e5)
        db.append([with_points(granule(seed), frame)])
    monkeypatch.chdir(tmp_path)
    return db


def test_the_example_with_cryotile_runs(db: PointDB) -> None:
    names: dict[str, object] = {}
    exec(BLOCKS[0], names)
    found = names["points"]
    assert isinstance(found, pd.DataFrame)
    assert list(found.columns) == ["x", "y", "time", "elevation"]
    assert len(found) > 100


@pytest.mark.parametrize("block", BLOCKS[1:], ids=lambda block: block.splitlines()[0][2:])
def test_another_library_finds_the_same_mean(db: PointDB, block: str) -> None:
    names: dict[str, object] = {"fragments": db.fragments()}
    exec(block, names)
    assert names["mean"] == pytest.approx(db.read()["elevation"].mean(), abs=1e-9)


def test_four_libraries_are_shown() -> None:
    assert [block.splitlines()[0] for block in BLOCKS[1:]] == [
        "# pandas",
        "# polars",
        "# DuckDB",
        "# pyarrow",
    ]


def test_after_a_compaction_a_pattern_finds_the_fragments_that_the_log_names(db: PointDB) -> None:
    assert len(db.fragments((-1.49e6, -3.9e5, -1.48e6, -3.8e5))) == 3 < len(db.fragments())
    db.compact()
    pattern = str(db.path / "chunks" / "**" / "*.parquet")
    assert sorted(db.path.glob("chunks/**/*.parquet")) == sorted(db.fragments())
    assert pl.scan_parquet(pattern).select(pl.len()).collect().item() == 12_000


def test_all_columns_have_the_same_values_without_cryotile(db: PointDB) -> None:
    ours = db.read()
    theirs = ds.dataset(db.fragments()).to_table().to_pandas()
    for name, scale in {"x_cm": 100, "y_cm": 100, "elevation_mm": 1000}.items():
        mine = np.sort(ours[name.partition("_")[0]].to_numpy())
        np.testing.assert_array_equal(mine, np.sort(theirs[name].to_numpy() / scale))
    for name in ("platform", "mode", "surface_type"):
        pd.testing.assert_series_equal(
            ours[name].astype(str).value_counts().sort_index(),
            theirs[name].astype(str).value_counts().sort_index(),
        )
    assert theirs["ascending"].isna().sum() == ours["ascending"].isna().sum()
    assert theirs["time"].dt.tz_localize(None).max() == ours["time"].max()
