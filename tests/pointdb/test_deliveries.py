"""Identity of a granule: cuts stay, newer deliveries replace what they cover, and no record counts twice or is lost."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryotile.files import read_sealed, write_sealed
from cryotile.pointdb import PointDB
from cryotile.pointdb.snapshot import EXTENT
from cryotile.points import Batch, Granule, InPieces, pass_keys
from tests.support.made_up import as_stored, granule, sorted_rows
from tests.support.point_dbs import filled

WHOLE = granule(7, 300)


def extent(points: pd.DataFrame) -> np.ndarray:
    """Return all points as records that bound a granule, as its reader gives them."""
    times = points["time"].to_numpy("datetime64[ms]").astype(np.int64)
    return np.column_stack([points["x"], points["y"], times])


def cut(name: str, which: np.ndarray, *, of: Granule = WHOLE, **changes: object) -> Granule:
    """Return a delivery of the same granule that holds some of its points."""
    points = of.points[which].reset_index(drop=True)
    checksum = hashlib.sha256(repr((name, changes)).encode()).hexdigest()
    made = dataclasses.replace(of, name=name, checksum=checksum, points=points, dropped={})
    return dataclasses.replace(made, record_count=len(points), extent=extent(points), **changes)


def by_column(column: str, *shares: float, of: Granule = WHOLE, **changes: object) -> list[Granule]:
    """Cut a granule at quantiles of a column."""
    values = of.points[column].astype("int64" if column == "time" else "float64")
    # Between two values, because points may tie.
    limits = [np.unique(values)[round(share * (values.nunique() - 1))] + 0.5 for share in shares]
    parts = np.digitize(values, limits)
    return [cut(f"{column}_{n}.nc", parts == n, of=of, **changes) for n in range(len(shares) + 1)]


def held(db: PointDB) -> pd.DataFrame:
    db = PointDB(db.path)
    assert list(db.verify()) == []
    return sorted_rows(db.read())


def same(db: PointDB, *granules: Granule) -> None:
    """Check that a point DB has the points of the granules, each once."""
    expected = as_stored(pd.concat([g.points for g in granules], ignore_index=True))
    pd.testing.assert_frame_equal(held(db), sorted_rows(expected), check_exact=True)


CUTS = [
    *by_column("time", 0.3, 0.6),
    *by_column("x", 0.5),
    *by_column("y", 0.2, 0.9),
    cut("whole.nc", np.ones(300, bool)),
    cut("middle.nc", WHOLE.points["x"].abs().to_numpy() < 60e3),
]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_cuts_in_any_order_and_batches_are_the_granule(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    # Whatever else is given, the three cuts by time are all of the granule.
    others = data.draw(st.lists(st.sampled_from(CUTS[3:]), unique_by=lambda g: g.name, max_size=4))
    files = data.draw(st.permutations([*CUTS[:3], *others]))
    ends = sorted(data.draw(st.sets(st.integers(1, len(files) - 1), max_size=3)))
    db = PointDB.create(tmp_path_factory.mktemp("cuts") / "a.pdb", "EPSG:3031")
    borders = itertools.pairwise([0, *ends, len(files)])
    for begin, end in borders:
        appended = db.append(files[begin:end])
        assert len(appended.added) == end - begin
        assert not appended.refused
    same(db, WHOLE)
    granules = db.granules
    assert granules["rows"].sum() == 300
    counts = [
        row["rows"] + row["dropped"].get("already_there", 0) for _, row in granules.iterrows()
    ]
    assert counts == granules["record_count"].tolist()
    # A repetition changes nothing.
    again = db.append(files)
    assert (again.snapshot, len(again.unchanged)) == (len(ends) + 1, len(files))


@pytest.mark.parametrize("column", ["time", "x"])
def test_disjoint_cuts_of_one_granule_all_stay(tmp_path: Path, column: str) -> None:
    first, second = by_column(column, 0.4)
    db = filled(tmp_path / "a.pdb", [first])
    appended = db.append([second])
    assert appended.added == (WHOLE.id,)
    assert not appended.replaced
    same(db, WHOLE)
    assert db.granules["overlaps"].map(len).tolist() == [0, 0]


def test_cuts_of_different_baselines_stay_side_by_side(tmp_path: Path) -> None:
    first, second = by_column("time", 0.4)
    later = dataclasses.replace(second, baseline="E")
    db = filled(tmp_path / "a.pdb", [later])
    assert db.append([first]).added == (WHOLE.id,)
    same(db, first, later)


def test_a_newer_delivery_replaces_all_cuts_that_it_covers(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", *[[part] for part in by_column("time", 0.3, 0.6)])
    points = WHOLE.points.assign(elevation=WHOLE.points["elevation"] + 1)
    newer = cut("E.nc", np.ones(300, bool), of=dataclasses.replace(WHOLE, points=points))
    newer = dataclasses.replace(newer, baseline="E")
    appended = db.append([newer])
    assert appended.added == (WHOLE.id,)
    assert sorted(appended.replaced) == ["time_0.nc", "time_1.nc", "time_2.nc"]
    same(db, newer)
    # The cuts are older now.
    appended = db.append(by_column("time", 0.3, 0.6))
    assert len(appended.older) == len(appended.refused) == 3
    assert all("older than baseline E" in line for line in appended.refused.values())
    same(db, newer)


@pytest.mark.parametrize("column", ["time", "x", "y"])
def test_a_newer_delivery_of_a_part_is_refused_and_nothing_is_lost(
    tmp_path: Path, column: str
) -> None:
    db = filled(tmp_path / "a.pdb", [CUTS[-2]])
    for part in by_column(column, 0.7, baseline="E"):
        appended = db.append([part])
        assert appended.added == appended.replaced == appended.older == ()
        (line,) = appended.refused.values()
        assert f"granule {part.name}" in line
        assert "baseline E version 1 is newer than baseline D version 1 of whole.nc" in line
        assert "covers only part of it" in line
        assert "'cryotile remove'" in line
        assert "\n" not in line
    same(db, WHOLE)


def test_records_that_move_or_are_flagged_with_a_baseline_do_not_make_a_part(
    tmp_path: Path,
) -> None:
    db = filled(tmp_path / "a.pdb", [CUTS[-2]])
    moved = WHOLE.points.assign(x=WHOLE.points["x"] + 8000.0)
    records = cut("E.nc", np.ones(300, bool), of=dataclasses.replace(WHOLE, points=moved))
    # Its flags reject all records of the second half.
    kept = moved[moved["time"] < moved["time"].median()].reset_index(drop=True)
    newer = dataclasses.replace(records, baseline="E", points=kept)
    assert db.append([newer]).replaced == ("whole.nc",)
    same(db, newer)


def test_a_delivery_without_any_record_replaces_nothing(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", [WHOLE])
    empty = cut("empty.nc", np.zeros(300, bool), baseline="E")
    assert not db.append([empty]).replaced
    same(db, WHOLE)


def test_the_same_record_of_two_granules_of_a_product_counts_once(tmp_path: Path) -> None:
    points = WHOLE.points
    early, late = points["x"] < 30e3, points["x"] > -30e3
    one = cut("one.nc", early.to_numpy(), id="one")
    other = cut("other.nc", late.to_numpy(), id="other", baseline="C")
    common = int((early & late).sum())
    assert common > 20
    for batches in ([[one], [other]], [[one, other]]):
        db = filled(tmp_path / f"{len(batches)}.pdb", *batches)
        same(db, WHOLE)
        table = db.granules.set_index("name")
        assert table["rows"].to_dict() == {
            "one.nc": int(early.sum()),
            "other.nc": 300 - int(early.sum()),
        }
        assert table["dropped"]["other.nc"] == {"already_there": common}
        assert list(table["overlaps"]["other.nc"]) == [table["number"]["one.nc"]]


def test_the_same_record_of_two_products_is_stored_twice_and_noted(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", [WHOLE])
    other = cut("other.nc", np.ones(300, bool), id="other", product="other")
    assert db.append([other]).notes
    assert len(db.read()) == 600


def test_the_same_passes_of_two_versions_are_noted_unless_their_files_only_touch(
    tmp_path: Path,
) -> None:
    changed = WHOLE.points.assign(elevation=WHOLE.points["elevation"] + 1)
    newer = dataclasses.replace(WHOLE, points=changed, baseline="E", id="other")
    west = cut("west.nc", (WHOLE.points["x"] < 0).to_numpy(), id="west")
    db = filled(tmp_path / "a.pdb", [west])
    edge = cut("edge.nc", (WHOLE.points["x"] > -5e3).to_numpy(), of=newer)
    assert db.append([edge]).notes == {}
    (note,) = db.append([cut("all.nc", np.ones(300, bool), of=newer, id="all")]).notes.items()
    assert "baseline D version 1 and baseline E version 1 of made_up" in note[0]
    assert note[1] == ["all.nc"]


def test_records_that_are_twice_in_one_file_stay(tmp_path: Path) -> None:
    twice = pd.concat([WHOLE.points, WHOLE.points[:10]], ignore_index=True)
    double = dataclasses.replace(WHOLE, points=twice)
    db = filled(tmp_path / "a.pdb", [double])
    same(db, double)


def test_a_corrected_file_of_the_same_version_is_refused_by_name(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", [WHOLE, granule(8)])
    elevation = WHOLE.points["elevation"].copy()
    elevation[:3] += 1
    other = dataclasses.replace(WHOLE, points=WHOLE.points.assign(elevation=elevation))
    corrected = cut("corrected.csv", np.ones(300, bool), of=other)
    # Even if its id is another, because its first row was deleted; in one batch, the others go in.
    for id_ in (WHOLE.id, "another"):
        appended = db.append([dataclasses.replace(corrected, id=id_), granule(9)])
        line = appended.refused[id_]
        assert "3 of its records have other elevations in MADE_UP_7.nc" in line
        assert "other content" in line
    same(db, WHOLE, granule(8), granule(9))


def test_a_granule_that_lost_records_of_another_is_ingested_again(tmp_path: Path) -> None:
    first, second = by_column("time", 0.5)
    whole = CUTS[-2]
    db = filled(tmp_path / "a.pdb", [first], [whole], [granule(8)])
    assert db.granules["rows"].tolist()[1] == len(second.points)
    removed = db.remove([first.checksum])
    assert removed.granules == (first.name,)
    assert removed.incomplete == (whole.name,)
    # It is not whole, so it does not count as there.
    assert set(db.checksums()) == {granule(8).checksum}
    assert db.granules["complete"].tolist() == [False, True]
    same(db, second, granule(8))
    appended = db.append([whole])
    assert (appended.added, appended.replaced) == ((WHOLE.id,), ())
    same(db, WHOLE, granule(8))
    assert set(db.checksums()) == {whole.checksum, granule(8).checksum}
    assert db.append([whole]).unchanged == (WHOLE.id,)


def test_deliveries_of_one_batch_that_are_refused_each_have_a_line(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", [CUTS[-2]])
    refused = db.append(by_column("time", 0.3, 0.6, baseline="E")).refused
    assert list(refused) == [WHOLE.id, f"{WHOLE.id} time_1.nc", f"{WHOLE.id} time_2.nc"]


def test_cuts_that_two_writers_append_at_once_are_the_granule(
    tmp_path: Path, rival: Callable[[PointDB, Granule], None]
) -> None:
    points = WHOLE.points
    one = cut("one.nc", (points["x"] < 30e3).to_numpy())
    other = cut("other.nc", (points["x"] > -30e3).to_numpy())
    db = filled(tmp_path / "a.pdb", [granule(1)])
    rival(db, one)
    appended = db.append([other])
    assert appended.added == (WHOLE.id,)
    assert appended.rows < len(other.points)
    same(db, WHOLE, granule(1))


def test_a_delivery_that_was_replaced_meanwhile_is_compared_again(
    tmp_path: Path, rival: Callable[[PointDB, Granule], None]
) -> None:
    db = filled(tmp_path / "a.pdb", [granule(1)])
    newer = cut("E.nc", np.ones(300, bool), baseline="E")
    rival(db, newer)
    part = by_column("time", 0.5)[0]
    appended = db.append([part, granule(2)])
    assert appended.older == (part.name,)
    assert appended.added == (granule(2).id,)
    same(db, newer, granule(1), granule(2))


def test_a_granule_that_comes_in_pieces_is_stored_without_records_that_are_there(
    tmp_path: Path,
) -> None:
    half = cut("half.nc", (WHOLE.points["x"] < 0).to_numpy())
    pieces = [cut("table.csv", np.arange(300) // 100 == n, id="table") for n in range(3)]
    table = dataclasses.replace(pieces[0], points=WHOLE.points[:0], extent=extent(WHOLE.points))

    db = filled(tmp_path / "a.pdb", [half])
    appended = db.append(InPieces(table, lambda: (Batch.of([piece]) for piece in pieces)))
    assert appended.rows == 300 - len(half.points)
    same(db, WHOLE)
    assert db.granules["dropped"][1] == {"already_there": len(half.points)}
    # Another elevation in its last piece refuses all of it, before anything is committed.
    last = pieces[2].points.assign(elevation=0.0)
    other = dataclasses.replace(table, id="other", checksum="b" * 64)
    changed = [*pieces[:2], dataclasses.replace(pieces[2], points=last)]
    appended = db.append(InPieces(other, lambda: (Batch.of([piece]) for piece in changed)))
    assert "100 of its records have other elevations" in appended.refused["other"]
    same(db, WHOLE)


def test_of_a_point_db_without_extents_nothing_is_lost(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", [WHOLE])
    (path,) = db.path.glob("log/*/commit.json")
    content = read_sealed(path)
    del content["checksum"]
    for row in content["granules"]["added"]:
        for name in (*EXTENT[:4], "overlaps"):
            del row[name]
    path.unlink()
    write_sealed(path, content)
    db = PointDB(db.path)
    assert set(db.checksums()) == {WHOLE.checksum}
    assert db.granules["x_min"].isna().all()
    assert (
        "covers only part"
        in db.append([cut("E.nc", np.ones(300, bool), baseline="E")]).refused[WHOLE.id]
    )
    assert db.append([CUTS[0]]).rows == 0
    same(db, WHOLE)


def test_the_extent_of_a_granule_is_in_the_log(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", [WHOLE])
    row, points = db.granules.iloc[0], as_stored(WHOLE.points)
    for axis in ("x", "y", "time"):
        assert row[f"{axis}_min"] == points[axis].min()
        assert row[f"{axis}_max"] == points[axis].max()


def test_passes_of_one_orbit_are_alike_and_inferred_ones_like_all_of_their_platform() -> None:
    cryosat, icesat = 1 << 32, 2 << 32
    keys = pass_keys(np.array([cryosat + 8, cryosat + 9, cryosat + 10, icesat + 8]))
    assert keys[0] == keys[1]
    assert len(set(keys.tolist())) == 3
    inferred = cryosat + 2 * (1 << 21)
    keys = pass_keys(np.array([cryosat + 8, inferred, icesat + 8]))
    assert keys[0] == keys[1] != keys[2]
