"""Ingest of cuts, overlaps, newer and older deliveries: points are right, and the report says what happened."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import cryotile
from cryotile.errors import IncompleteIngest
from cryotile.pointdb import PointDB
from cryotile.runs.ingest import Ingest
from cryotile.runs.ingest_batch import Criteria, take_in
from cryotile.simulate import World, simulate
from tests.support.command_line import Call
from tests.support.point_dbs import same_points

WORLD = World(bounds=(-300e3, -1500e3, 300e3, -900e3))


@pytest.fixture(scope="module")
def mission(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return granules of some days of a satellite over Greenland."""
    return simulate(tmp_path_factory.mktemp("mission"), years=0.01, world=WORLD)


@pytest.fixture(scope="module")
def whole(mission: list[Path], tmp_path_factory: pytest.TempPathFactory) -> PointDB:
    """Return the point DB of the mission."""
    db = PointDB.create(tmp_path_factory.mktemp("whole") / "ice.pdb", WORLD.crs)
    take_in(mission, db, Criteria(), lambda fraction: None)
    return db


def cut(source: Path, target: Path, first: float, last: float, **attributes: object) -> Path:
    """Copy a part of the records of a granule, and change attributes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(source) as old, h5py.File(target, "w") as new:
        records = len(old["time"])
        rows = slice(round(first * records), round(last * records))
        new.attrs.update({**old.attrs, **attributes})
        for name, values in old.items():
            new[name] = values[rows]
            skipped = ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME", "_Netcdf4Dimid")
            new[name].attrs.update({k: v for k, v in values.attrs.items() if k not in skipped})
    return target


@pytest.mark.parametrize("backend", ["serial", "local:2"])
def test_files_of_the_same_name_cut_by_region_are_the_granules(
    call: Call, mission: list[Path], whole: PointDB, tmp_path: Path, backend: str
) -> None:
    parts = {"north": (0.0, 0.3), "middle": (0.3, 0.55), "south": (0.55, 1.0)}
    files = [
        cut(path, tmp_path / name / path.name, *ends)
        for name, ends in parts.items()
        for path in mission
    ]
    db = tmp_path / "ice.pdb"
    words = ("ingest", db, *files, "--crs", WORLD.crs, "--backend", backend)
    code, said, complaint = call(*words)
    assert (code, complaint) == (0, "")
    assert f"{len(files)} granules added, 0 there already" in said
    assert "overlapping" not in said
    same_points(PointDB(db), whole)
    code, said, complaint = call(*words)
    assert f"0 granules added, {len(files)} there already" in said
    # The files as they are hold nothing new.
    code, said, complaint = call("ingest", db, *mission, "--backend", backend)
    assert code == 0
    line = next(line for line in said.splitlines() if line.startswith("  overlapping"))
    assert line.split()[1] == str((whole.granules["rows"] > 0).sum())
    same_points(PointDB(db), whole)


def test_overlapping_cuts_count_each_record_once_and_the_report_says_so(
    mission: list[Path], whole: PointDB, tmp_path: Path
) -> None:
    files = [
        cut(path, tmp_path / name / path.name, *ends)
        for name, ends in {"north": (0.0, 0.6), "south": (0.5, 1.0)}.items()
        for path in mission
    ]
    db = cryotile.ingest(tmp_path / "ice.pdb", files, crs=WORLD.crs)
    report = db.last_ingest
    assert report is not None
    assert len(report.added) == len(files)
    assert report.overlapping == sum(len(list(n)) > 0 for n in db.granules["overlaps"])
    assert report.overlapping > len(mission) // 2
    assert report.points == whole.granules["rows"].sum()
    assert report.already_there > 0
    shown = " ".join(repr(report).split())
    assert f"overlapping {report.overlapping} {report.already_there:,} of their records" in shown
    same_points(db, whole)


def test_the_report_has_a_line_for_replaced_older_and_refused_granules(
    call: Call, mission: list[Path], whole: PointDB, tmp_path: Path
) -> None:
    db, (one, other) = tmp_path / "ice.pdb", mission[:2]
    assert call("ingest", db, one, other, "--crs", WORLD.crs)[0] == 0
    newer = cut(one, tmp_path / "D" / one.name, 0, 1, product_baseline=np.bytes_(b"D"))
    part = cut(other, tmp_path / "D" / other.name, 0, 0.5, product_baseline=np.bytes_(b"D"))
    words = ("ingest", db, newer, part)
    code, said, complaint = call(*words)
    assert code == 1
    assert "1 granule added, 0 there already" in said
    events = {line.split()[0]: line.split()[1] for line in said.splitlines()[1:]}
    assert events["replaced"] == events["refused"] == "1"
    assert "older" not in events
    assert f"granule {other.name}: its baseline D version 1 is newer" in complaint
    assert "covers only part of it" in complaint
    # Again: what happened before is not told again, what is wrong is.
    code, said, _ = call(*words)
    assert code == 1
    assert "  replaced" not in said
    assert "  refused             1  " in said
    # The older one is not put in.
    code, said, complaint = call("ingest", db, one)
    assert code == 1
    assert "0 granules added, 0 there already" in said
    assert "  older               1  than what the point DB has" in said
    assert "leave them out" in complaint.splitlines()[-1]
    with pytest.raises(IncompleteIngest) as caught:
        cryotile.ingest(db, [one])
    assert "older than what the point DB has; leave them out" in str(caught.value)
    assert sorted(PointDB(db).granules["baseline"]) == ["C", "D"]


def test_a_removed_cut_is_ingested_again_although_its_granule_has_others(
    call: Call, mission: list[Path], tmp_path: Path
) -> None:
    files = [
        cut(mission[0], tmp_path / f"{n}.nc", *ends) for n, ends in enumerate([(0, 0.5), (0.5, 1)])
    ]
    db = tmp_path / "ice.pdb"
    words = ("ingest", db, *files, "--crs", WORLD.crs)
    assert call(*words)[0] == 0
    before = PointDB(db).read()
    (frozen,) = (db / "ingests").iterdir()
    assert Ingest.load(frozen).missing() == []
    assert call("remove", db, "1.nc")[0] == 0
    assert len(Ingest.load(frozen).missing()) == 1
    assert "1 granule added, 1 there already" in call(*words)[1]
    assert PointDB(db).read().equals(before)


def test_a_file_whose_records_were_removed_with_another_is_named_and_ingested_again(
    call: Call, mission: list[Path], tmp_path: Path
) -> None:
    half = cut(mission[0], tmp_path / "half.nc", 0, 0.5)
    db = tmp_path / "ice.pdb"
    assert call("ingest", db, half, "--crs", WORLD.crs)[0] == 0
    words = ("ingest", db, mission[0])
    assert call(*words)[0] == 0
    before = PointDB(db).read()
    code, said, _ = call("remove", db, "half.nc")
    assert code == 0
    assert said.splitlines()[-1].strip() == mission[0].name
    assert "to be ingested again" in said
    assert len(PointDB(db).read()) < len(before)
    assert "1 granule added" in call(*words)[1]
    assert PointDB(db).read().equals(before)
