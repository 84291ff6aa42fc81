"""Commands that maintain a point DB: remove, compact, verify."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from cryotile.pointdb import PointDB
from tests.support.command_line import Call
from tests.support.made_up import granule


@pytest.fixture
def db(tmp_path: Path) -> PointDB:
    db = PointDB.create(tmp_path / "ice.pdb", "EPSG:3031")
    for seed in range(3):
        db.append([granule(seed, 200)])
    return db


def test_a_granule_is_removed_by_the_name_of_its_file(db: PointDB, call: Call) -> None:
    code, out, _ = call("remove", db.path, "granules/MADE_UP_1.nc")
    assert code == 0
    assert "MADE_UP_1.nc" in out
    assert "1 granule removed, 200 points; snapshot 4" in out
    code, _, err = call("remove", db.path, "MADE_UP_1.nc")
    assert code == 2
    assert "MADE_UP_1.nc is not in point DB" in err
    assert call("remove", db.path)[0] == 2


def test_a_compaction_reports_its_changes_and_info_shows_the_history(
    db: PointDB, call: Call
) -> None:
    code, out, _ = call("compact", db.path, "--keep", 1)
    assert code == 0
    assert "fragments merged into 16" in out
    assert "snapshot 4" in out
    assert call("compact", db.path, "--keep", 1)[1].count(" 0 f") == 2
    lines = call("info", db.path)[1].splitlines()
    history = [
        line.split() for line in lines[lines.index(next(x for x in lines if "history" in x)) + 1 :]
    ]
    assert [words[0] for words in history] == ["4", "3", "2", "1"]
    assert history[0][3] == "compacted"
    assert ["ended" in words for words in history] == [False, False, True, False]
    code, _, err = call("compact", db.path, "--keep", 2)
    assert code == 2
    assert "snapshot 2" in err


def test_granules_that_verify_names_can_be_removed_and_ingested_again(
    db: PointDB, call: Call
) -> None:
    code, out, _ = call("verify", db.path)
    assert code == 0
    assert "3 granules with 600 points agree with the log" in out
    fragment = sorted(db.path.rglob("chunks/**/*.parquet"))[0]
    fragment.write_bytes(b"PAR1")
    code, out, err = call("verify", db.path)
    assert code == 1
    assert str(fragment) in out
    assert out.count("MADE_UP") == 1
    assert f"cryotile remove {db.path} --damaged" in err
    assert call("remove", db.path, "--damaged")[0] == 0
    assert call("verify", db.path)[0] == 0
    appended = PointDB(db.path).append([granule(seed, 200) for seed in range(3)])
    assert (len(appended.added), len(appended.unchanged)) == (1, 2)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_commit_is_set_aside_and_its_granules_can_be_ingested_again(
    db: PointDB, call: Call, damage: str
) -> None:
    expected = db.read()
    entry = db.path / "log" / "00000002"
    if damage == "cut":
        (entry / "commit.json").write_bytes((entry / "commit.json").read_bytes()[:100])
    else:
        shutil.rmtree(entry)
    for command in ("verify", "info"):
        code, _, complaint = call(command, db.path)
        assert code == 1
        assert "log/00000002" in complaint
        assert "'cryotile remove DB --damaged'" in complaint
    code, said, _ = call("remove", db.path, "--damaged")
    assert code == 0
    assert "MADE_UP_2.nc" in said
    assert "'cryotile run' on each directory" in said
    assert call("verify", db.path)[0] == 0
    repaired = PointDB(db.path)
    assert repaired.granules["id"].to_list() == ["made-up-0"]
    repaired.append([granule(seed, 200) for seed in range(3)])
    pd.testing.assert_frame_equal(PointDB(db.path).read(), expected, check_exact=True)
    assert call("compact", db.path)[0] == 0
    assert call("verify", db.path)[0] == 0


def test_damage_before_a_checkpoint_loses_only_history(
    db: PointDB, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryotile.pointdb.log.CHECKPOINT_INTERVAL", 4)
    for seed in range(3, 9):
        db.append([granule(seed, 60)])
    expected, log = db.read(), db.path / "log"
    (log / "00000008" / "all-fragments.parquet").write_bytes(b"torn")
    # The checkpoint before it suffices.
    pd.testing.assert_frame_equal(PointDB(db.path).read(), expected, check_exact=True)
    pd.testing.assert_frame_equal(PointDB(db.path).squares(), db.squares(), check_exact=True)
    shutil.rmtree(log / "00000002")
    pd.testing.assert_frame_equal(PointDB(db.path).read(), expected, check_exact=True)
    code, said, _ = call("verify", db.path)
    assert code == 1
    assert "00000002" in said
    assert "00000008" in said
    for seed in range(9, 12):
        PointDB(db.path).append([granule(seed, 60)])
    assert len(PointDB(db.path).granules) == 12
