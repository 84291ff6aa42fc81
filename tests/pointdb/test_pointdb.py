"""What a point DB is given is what it returns, counts and shows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryotile.errors import InvalidValue, UnwritablePath
from cryotile.files import read_sealed, write_sealed
from cryotile.geo.projection import project_granule
from cryotile.pointdb import SQUARE_SIZE, PointDB
from cryotile.pointdb.encoding import decode, encode, from_table, schema, text_of, to_table
from cryotile.pointdb.sort_order import chunk_directory, in_total_order, places
from cryotile.pointdb.squares import add_up, count_squares, describe_squares
from cryotile.pointdb.write import MIXED
from cryotile.points import CATEGORIES, CORE_COLUMNS, Batch, Granule, InPieces, empty_points
from cryotile.readers import read_granule
from tests.support.made_up import START, as_stored, granule, points, sorted_rows, with_points
from tests.support.point_dbs import filled

GRANULES = [granule(seed) for seed in range(6)]
EVERYTHING = as_stored(pd.concat([g.points for g in GRANULES], ignore_index=True))


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> PointDB:
    return filled(tmp_path_factory.mktemp("db") / "made-up.pdb", GRANULES[:4], GRANULES[4:])


def test_points_are_read_back_to_the_centimetre_and_millimetre(db: PointDB) -> None:
    read = db.read()
    assert {name: str(dtype) for name, dtype in read.dtypes.items()} == dict(CORE_COLUMNS)
    assert read.attrs["crs"] == "EPSG:3031"
    pd.testing.assert_frame_equal(sorted_rows(read), sorted_rows(EVERYTHING), check_exact=True)


def test_storing_what_was_stored_changes_nothing(db: PointDB, tmp_path: Path) -> None:
    again = filled(tmp_path / "again.pdb", [with_points(GRANULES[0], db.read())])
    pd.testing.assert_frame_equal(again.read(), db.read(), check_exact=True)


@pytest.mark.parametrize(
    "batches",
    [
        [GRANULES],
        [GRANULES[::-1], GRANULES],
        [[g] for g in GRANULES],
        [GRANULES[3:], GRANULES[2:5], GRANULES[:4]],
    ],
)
def test_points_and_squares_do_not_depend_on_the_order_of_granules_and_commits(
    db: PointDB, tmp_path: Path, batches: list[list[Granule]]
) -> None:
    other = filled(tmp_path / "other.pdb", *batches)
    pd.testing.assert_frame_equal(other.read(), db.read(), check_exact=True)
    pd.testing.assert_frame_equal(other.squares(), db.squares(), check_exact=True)
    restricted = ["elevation", "mode"]
    pd.testing.assert_frame_equal(other.read(columns=restricted), db.read(columns=restricted))


def test_the_same_granule_again_makes_no_commit(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES[:2])
    appended = db.append([GRANULES[1], GRANULES[2], GRANULES[2]])
    assert appended.added == ("made-up-2",)
    assert appended.unchanged == ("made-up-1", "made-up-2")
    assert appended.rows == 300
    assert db.append(GRANULES[:3]).snapshot == db.snapshot == 2
    assert len(list((tmp_path / "a.pdb" / "log").glob("0*"))) == 2


def test_an_older_delivery_of_a_granule_is_refused_by_name(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", [dataclasses.replace(GRANULES[0], baseline="9", version=2)])
    for baseline, version, reason in [
        ("8", 7, "older"),
        ("9", 1, "older"),
        ("07", 9, "older"),
    ]:
        other = dataclasses.replace(GRANULES[0], baseline=baseline, version=version)
        refused = db.append([other, GRANULES[1]]).refused
        assert list(refused) == [other.id]
        assert reason in refused[other.id]
        assert other.name in refused[other.id]
        assert "\n" not in refused[other.id]
    higher = GRANULES[0].points.assign(elevation=GRANULES[0].points["elevation"] + 1)
    same = dataclasses.replace(GRANULES[0], baseline="9", version=2, checksum="f" * 64)
    assert "other content" in db.append([with_points(same, higher)]).refused[same.id]
    assert len(db.read()) == 600


def test_granules_say_where_points_came_from(db: PointDB) -> None:
    table = db.granules
    assert table["id"].tolist() == [g.id for g in GRANULES]
    assert table["snapshot"].tolist() == [1] * 4 + [2] * 2
    assert table["dropped"].tolist() == [{"no_height": 2}] * 6
    assert table["rows"].tolist() == [300] * 6
    assert (table["record_count"] == 302).all()
    assert list(table["notes"][3]) == ["note of 3"]
    assert list(table["platforms"][0]) == ["cryosat2", "icesat2"]
    assert table["time_min"][0] == GRANULES[0].points["time"].min()
    assert table["number"].is_unique


def test_the_log_says_which_granules_are_simulated(tmp_path: Path) -> None:
    db = PointDB.create(tmp_path / "ice.pdb", "EPSG:3413")
    db.append([granule(1, 300)])
    assert db.simulated() == 0.0
    made_up = [dataclasses.replace(granule(seed, 50), simulated=True) for seed in (2, 3)]
    notes = db.append(made_up).notes
    assert list(notes) == [MIXED]
    assert notes[MIXED] == [each.name for each in made_up]
    again = PointDB(db.path)
    assert again.granules.set_index("name")["simulated"].to_dict() == {
        granule(1).name: False,
        granule(2).name: True,
        granule(3).name: True,
    }
    assert again.simulated() == 0.25
    assert again.simulated(1) == 0.0
    again.remove([granule(1).name])
    assert again.simulated() == 1.0
    assert again.append([dataclasses.replace(granule(4), simulated=True)]).notes == {}


def test_granules_of_a_point_db_that_keeps_no_such_mark_count_as_real(tmp_path: Path) -> None:
    db = filled(tmp_path / "ice.pdb", [granule(1)], [granule(2)])
    for path in db.path.glob("log/*/commit.json"):
        content = read_sealed(path)
        del content["checksum"]
        for row in content["granules"]["added"]:
            del row["simulated"]
        path.unlink()
        write_sealed(path, content)
    old = PointDB(db.path)
    assert old.granules["simulated"].tolist() == [False, False]
    assert old.simulated() == 0.0


def test_a_granule_without_points_is_recorded(tmp_path: Path) -> None:
    empty = with_points(GRANULES[0], empty_points(projected=True))
    db = filled(tmp_path / "a.pdb", [empty])
    assert db.granules["rows"].tolist() == [0]
    assert db.granules["time_min"].isna().all()
    assert len(db.read()) == len(db.squares()) == 0
    assert {name: str(dtype) for name, dtype in db.read().dtypes.items()} == dict(CORE_COLUMNS)
    assert db.append([empty]).unchanged == (empty.id,)


def test_bounds_are_inside_and_found_by_brute_force(db: PointDB) -> None:
    edge = db.read().iloc[7]
    everything = db.read()
    far_x, far_y = everything["x"].max(), everything["y"].min()
    boxes = [
        (far_x, -np.inf, np.inf, np.inf),
        (-np.inf, -np.inf, np.inf, far_y),
        (-50e3, -20e3, 70e3, 110e3),
        (edge["x"], -1e9, edge["x"], np.inf),
        (-np.inf, edge["y"], 0.0, edge["y"]),
        (1e6, 1e6, 2e6, 2e6),
        (0.005, 0.005, 149e3, 1e5),
    ]
    for x_min, y_min, x_max, y_max in boxes:
        x, y = everything["x"], everything["y"]
        inside = (x >= x_min) & (x <= x_max) & (y >= y_min) & (y <= y_max)
        expected = everything[inside].reset_index(drop=True)
        assert len(expected) > 0 or x_min == 1e6
        pd.testing.assert_frame_equal(db.read((x_min, y_min, x_max, y_max)), expected)
    assert len(db.read((edge["x"], edge["y"], edge["x"], edge["y"]))) >= 1


def test_times_are_half_open_and_of_any_type_of_time(db: PointDB) -> None:
    everything = db.read()
    first, last = everything["time"].iloc[3], everything["time"].max()
    inside = (everything["time"] >= first) & (everything["time"] < last)
    expected = everything[inside].reset_index(drop=True)
    assert 0 < len(expected) < len(everything) - 1
    pd.testing.assert_frame_equal(db.read(time=(first, last)), expected)
    pd.testing.assert_frame_equal(
        db.read(time=(first.isoformat(), f"{last.isoformat()}Z")), expected
    )
    pd.testing.assert_frame_equal(
        db.read(time=(first.to_datetime64(), last.tz_localize("UTC"))), expected
    )
    assert db.read(time=(first, first)).empty


def test_where_selects_points_and_columns_are_the_requested_ones(db: PointDB) -> None:
    everything = db.read()
    text = "platform == 'cryosat2' and uncertainty < 0.5 and x > -1e5"
    mask = (everything["platform"] == "cryosat2") & (everything["uncertainty"] < 0.5)
    expected = everything[mask & (everything["x"] > -1e5)].reset_index(drop=True)
    pd.testing.assert_frame_equal(db.read(where=text), expected)
    pd.testing.assert_frame_equal(
        sorted_rows(db.read(where=text, columns=["elevation", "x"])),
        sorted_rows(expected[["elevation", "x"]]),
    )
    bounds = (-1e5, -1e5, 1e5, 1e5)
    near = everything[
        mask & everything["x"].between(-1e5, 1e5) & everything["y"].between(-1e5, 1e5)
    ]
    assert len(db.read(bounds, where=text.removesuffix(" and x > -1e5"))) == len(near)


def test_squares_count_what_can_be_read(db: PointDB) -> None:
    squares, everything = db.squares(), db.read()
    index = [
        np.floor(everything["x"] / SQUARE_SIZE) * SQUARE_SIZE,
        np.floor(everything["y"] / SQUARE_SIZE) * SQUARE_SIZE,
    ]
    keys = [*index, everything["platform"].astype(str), everything["mode"].astype(str)]
    expected = everything.groupby(keys)["time"].agg(["size", "min", "max"])
    found = squares.set_index(
        ["x_min", "y_min", squares["platform"].astype(str), squares["mode"].astype(str)]
    )
    found = found.sort_index()
    assert found.index.tolist() == expected.index.tolist()
    for ours, theirs in {"count": "size", "time_min": "min", "time_max": "max"}.items():
        assert (found[ours].to_numpy() == expected[theirs].to_numpy()).all()


def test_squares_are_pruned_but_never_lose_a_point(db: PointDB) -> None:
    bounds = (-42e3, -7e3, 33e3, 12e3)
    text = "mode == 'laser' and time < '2015-01-05'"
    squares = db.squares(bounds, where=text)
    assert set(squares["mode"].astype(str)) == {"laser"}
    assert (squares["time_min"] < "2015-01-05").all()
    corners = set(zip(squares["x_min"], squares["y_min"], strict=True))
    found = db.read(bounds, where=text)
    assert len(found) > 0
    assert {
        (x // SQUARE_SIZE * SQUARE_SIZE, y // SQUARE_SIZE * SQUARE_SIZE)
        for x, y in zip(found["x"], found["y"], strict=True)
    } <= corners


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("x", 12.35),
        ("y", 12.35),
        ("time", START + np.timedelta64(1, "ms")),
        ("elevation", 12.346),
        ("uncertainty", np.nan),
        ("pass_id", 7),
        ("ascending", pd.NA),
        ("platform", "ers1"),
        ("mode", "sar"),
        ("surface_type", "ocean"),
        ("power", np.nan),
    ],
)
def test_a_digest_changes_with_every_column(column: str, value: object) -> None:
    one = {
        "x": 12.34,
        "y": 12.34,
        "time": START,
        "elevation": 12.345,
        "uncertainty": 0.0,
        "pass_id": 6,
    }
    one |= {
        "ascending": False,
        "platform": "ers2",
        "mode": "lrm",
        "surface_type": "lake",
        "power": 0.0,
    }
    frame = pd.DataFrame([one, one | {column: value}]).astype({"ascending": "boolean"})
    digests = [count_squares(encode(frame[i : i + 1], ["power"]))["digest"][0] for i in (0, 1)]
    assert digests[0] != digests[1]


def test_two_equal_points_do_not_cancel_and_taking_away_undoes_adding() -> None:
    frame = points(1, 40)
    once, twice = (count_squares(encode(pd.concat([frame] * n), [])) for n in (1, 2))
    assert once["digest"].to_pylist() != twice["digest"].to_pylist()
    assert add_up([once, once]) == add_up([twice])
    negative = once.set_column(4, once.schema.field("count"), pa.array(-once["count"].to_numpy()))
    digest = pa.array(np.negative(once["digest"].to_numpy()))
    negative = negative.set_column(5, once.schema.field("digest"), digest)
    assert add_up([twice, negative]) == add_up([once])
    assert len(add_up([once, negative])) == 0
    assert describe_squares(add_up([]))["digest"].dtype == np.uint64


def test_the_digest_of_the_format_is_a_few_lines_of_any_language() -> None:
    frame = as_stored(points(7, 40)).assign(power=np.float32([1.5, np.nan, -3, 0.0] * 10))
    stored = encode(frame, ["power"])

    def text_hash(text: str) -> int:
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

    def word(name: str, value: float) -> int:
        if name in CATEGORIES:
            return text_hash(text_of(name, int(value)))
        return int(value.view("u4")) if name == "power" else int(value)

    def point_hash(row: int) -> int:
        total = text_hash("point")
        for name, values in stored.items():
            total += word(name, values[row]) * (text_hash(name) | 1)
        total %= 2**64
        total = (total ^ total >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        total = (total ^ total >> 27) * 0x94D049BB133111EB % 2**64
        return total ^ total >> 31

    digests = count_squares(stored)["digest"].to_pylist()
    assert sum(digests) % 2**64 == sum(map(point_hash, range(len(frame)))) % 2**64


def test_a_snapshot_keeps_the_points_of_its_commit(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", *[[g] for g in GRANULES])
    for snapshot in (0, 1, 4, 6):
        expected = as_stored(pd.concat([EVERYTHING[:0], *(g.points for g in GRANULES[:snapshot])]))
        read = db.read(snapshot=snapshot)
        pd.testing.assert_frame_equal(sorted_rows(read), sorted_rows(expected))
        assert db.squares(snapshot=snapshot)["count"].sum() == len(expected)
    for snapshot in (7, -1):
        with pytest.raises(InvalidValue, match="0 to 6"):
            db.read(snapshot=snapshot)


def test_an_open_db_reads_its_snapshot_until_it_appends(tmp_path: Path) -> None:
    one = filled(tmp_path / "a.pdb", GRANULES[:1])
    other = PointDB(one.path)
    one.append(GRANULES[1:2])
    assert (other.snapshot, len(other.read())) == (1, 300)
    assert other.append(GRANULES[:2]).snapshot == 2
    assert len(other.read()) == 600


def test_a_checkpoint_replaces_all_commits_before_it(tmp_path: Path) -> None:
    small = [with_points(granule(s), points(s, 3)) for s in range(70)]
    db = filled(tmp_path / "a.pdb", *[[g] for g in small])
    whole = filled(tmp_path / "b.pdb", small)
    for number in range(1, 64):
        (db.path / "log" / f"{number:08d}" / "commit.json").write_text("overwritten")
    opened = PointDB(db.path)
    assert opened.snapshot == 70
    pd.testing.assert_frame_equal(opened.read(), whole.read())
    pd.testing.assert_frame_equal(opened.squares(), whole.squares())
    pd.testing.assert_frame_equal(opened.squares(), db.squares())
    assert opened.granules["id"].tolist() == [g.id for g in small]
    assert opened.granules["snapshot"].tolist() == list(range(1, 71))
    assert opened.append(small).unchanged == tuple(g.id for g in small)


def test_extra_columns_are_kept_by_name(tmp_path: Path) -> None:
    db = PointDB.create(tmp_path / "a.pdb", "EPSG:3031", columns={"power": "dB", "coherence": "1"})
    frame = points(1, 30).assign(power=np.where(np.arange(30) < 5, np.nan, -160.25), other=1.0)
    db.append([with_points(GRANULES[1], frame), GRANULES[0]])
    assert db.columns == ("power", "coherence")
    assert list(db.read().columns) == list(CORE_COLUMNS)
    read = db.read(columns=["power", "coherence"], where="power < -160")
    assert read.dtypes.astype(str).tolist() == ["float32", "float32"]
    assert read["power"].tolist() == [-160.25] * 25
    assert read["coherence"].isna().all()
    assert PointDB(db.path).columns == db.columns


def test_the_description_on_disk_keeps_its_keys(tmp_path: Path) -> None:
    db = PointDB.create(tmp_path / "a.pdb", "EPSG:3031", columns={"power": "dB"})
    content = json.loads((db.path / "cryotile.json").read_text(encoding="utf-8"))
    assert list(content) == [
        *("checksum", "format", "format_version", "crs", "crs_wkt", "chunk_size", "square_size"),
        *("further_columns", "columns"),
    ]
    assert (content["format_version"], content["further_columns"]) == (1, {"power": "dB"})


def test_one_fragment_per_chunk_and_commit_in_a_path_of_hex(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb", GRANULES[:3], GRANULES[3:])
    files = sorted((db.path / "chunks").rglob("*"))
    fragments = [f for f in files if f.suffix == ".parquet"]
    assert len(fragments) == 2 * 16  # 300 km square, from -150 km: 4 by 4 chunks
    where = {f.parent.relative_to(db.path / "chunks").as_posix() for f in fragments}
    # Chunk (-2, -2) is 0x7ffe7ffe, chunk (1, 1) is 0x80018001.
    assert {"7f/fe/7f/fe", "80/01/80/01"} <= where
    assert len(where) == 16
    assert chunk_directory(0x0001A3F4) == "chunks/00/01/a3/f4"


def test_fragments_describe_themselves_without_cryotile(tmp_path: Path) -> None:
    db = PointDB.create(tmp_path / "a.pdb", "EPSG:3031", columns={"power": "dB"})
    db.append([with_points(GRANULES[0], points(0, 3000).assign(power=1.0))])
    for path in (db.path / "chunks").rglob("*.parquet"):
        file = pq.ParquetFile(path)
        assert file.schema_arrow.names == [
            *("x_cm", "y_cm", "time", "elevation_mm", "uncertainty_mm", "pass_id", "ascending"),
            *("platform", "mode", "surface_type", "power", "granule"),
        ]
        assert file.schema_arrow.field("x_cm").metadata == {b"scale": b"0.01", b"unit": b"m"}
        assert file.schema_arrow.field("elevation_mm").metadata == {
            b"scale": b"0.001",
            b"unit": b"m",
        }
        assert file.schema_arrow.field("power").metadata == {b"unit": b"dB"}
        assert file.schema_arrow.field("time").type == pa.timestamp("ms", "UTC")
        assert file.schema_arrow.metadata[b"crs"] == b"EPSG:3031"
        frame = pd.read_parquet(path)
        assert set(frame["granule"]) == set(db.granules["number"])
        in_db = db.read(tuple(frame[["x_cm", "y_cm"]].agg(["min", "max"]).to_numpy().ravel() / 100))
        assert len(in_db) == len(frame)
        assert frame["uncertainty_mm"].isna().sum() == in_db["uncertainty"].isna().sum()
        assert frame["elevation_mm"].to_numpy() == pytest.approx(in_db["elevation"] * 1000)
        assert frame["mode"].tolist() == in_db["mode"].tolist()


def test_swath_points_take_less_than_16_bytes(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    waveforms = np.arange(1000).repeat(60)
    count = len(waveforms)
    frame = pd.DataFrame(
        {
            "x": np.sort(random.uniform(0, 15e3, (1000, 60)), axis=1).ravel(),
            "y": waveforms * 50.0 + random.normal(0, 40, count),
            "time": START + (waveforms * 7).astype("timedelta64[ms]"),
            "elevation": 2000 + random.normal(0, 5, count),
            "uncertainty": np.abs(random.normal(1, 0.4, count)),
            "pass_id": (1 << 32) + 50_000,
            "ascending": pd.array([True] * count, "boolean"),
            "platform": "cryosat2",
            "mode": "sarin_swath",
            "surface_type": "grounded_ice",
        }
    )
    db = filled(tmp_path / "a.pdb", [with_points(GRANULES[0], frame)])
    sizes = [f.stat().st_size for f in (db.path / "chunks").rglob("*.parquet")]
    assert sum(sizes) / count < 16


@settings(max_examples=60)
@given(
    st.integers(0, 2**32), st.integers(0, 60), st.integers(1, 5), st.sampled_from([5e3, 35e3, 1e6])
)
def test_the_order_follows_from_the_points_alone(
    seed: int, count: int, parts: int, chunk: float
) -> None:
    random = np.random.default_rng(seed)
    frame = points(seed % 1000, count, extent=12e3).round({"x": -4, "elevation": -2})
    frame = pd.concat([frame, frame.sample(frac=0.3, random_state=1)], ignore_index=True)
    frame["time"] = START + random.integers(0, 3, len(frame))
    stored = encode(frame, [])
    shuffled = random.permutation(len(frame))
    pieces = [
        in_total_order({n: v[rows] for n, v in stored.items()}, chunk)
        for rows in np.array_split(shuffled, parts)
    ]
    merged = {name: np.concatenate([piece[name] for piece in pieces]) for name in stored}
    one, other = in_total_order(stored, chunk), in_total_order(merged, chunk)
    for name in stored:
        np.testing.assert_array_equal(one[name], other[name])
    place = places(one["x_cm"], one["y_cm"], chunk)
    assert (np.diff(place) >= 0).all()
    assert (np.diff(one["time"])[np.diff(place) == 0] >= 0).all()
    table = to_table({**one, "granule": np.zeros(len(frame), np.int32)}, schema({}, "EPSG:3031"))
    back = decode(from_table(table), list(CORE_COLUMNS))
    pd.testing.assert_frame_equal(sorted_rows(back), sorted_rows(as_stored(frame)))


def test_halves_are_rounded_to_even() -> None:
    frame = points(1, 4).assign(
        x=[0.125, 0.375, -0.125, -0.375], elevation=[0.0625, 1.5, -1e-9, 0.0005]
    )
    stored = encode(frame, [])
    assert stored["x_cm"].tolist() == [12, 38, -12, -38]
    assert stored["elevation_mm"].tolist() == [62, 1500, 0, 0]


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("x", 2.2e7, "x 22000000.0 m"),
        ("x", np.nan, "x nan m"),
        ("y", -np.inf, "y -inf m"),
        ("elevation", np.nan, "elevation nan m"),
        ("elevation", 2147484.0, "at most 2147483 m"),
        ("uncertainty", np.inf, "uncertainty inf m"),
        ("time", np.datetime64("NaT"), "without time"),
        ("platform", "Sputnik 1", "lower-case word"),
        ("mode", None, "is unknown"),
    ],
)
def test_a_point_that_cannot_be_stored_keeps_only_its_granule_out(
    tmp_path: Path, column: str, value: object, rule: str
) -> None:
    frame = points(9, 5).astype(dict.fromkeys(CATEGORIES, object))
    frame.loc[3, column] = value
    db = filled(tmp_path / "a.pdb")
    appended = db.append([GRANULES[0], with_points(granule(9), frame)])
    assert appended.added == (GRANULES[0].id,)
    assert rule in appended.refused["made-up-9"]
    assert "MADE_UP_9.nc" in appended.refused["made-up-9"]


def test_a_granule_without_a_core_column_is_refused(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb")
    frame = GRANULES[0].points.drop(columns="x")
    assert "no column 'x'" in db.append([with_points(GRANULES[0], frame)]).refused[GRANULES[0].id]


def unprojected(original: Granule) -> Granule:
    frame = original.points.rename(columns={"x": "longitude", "y": "latitude"})
    return with_points(original, frame)


def test_appending_a_granule_that_is_not_projected_raises_and_adds_nothing(tmp_path: Path) -> None:
    db = filled(tmp_path / "a.pdb")
    bad = unprojected(GRANULES[1])
    whole = InPieces(bad, lambda: iter([Batch.of([bad])]))
    for granules in ([GRANULES[0], bad], [bad], Batch.of([bad]), whole):
        with pytest.raises(InvalidValue, match="project_granule") as caught:
            db.append(granules)
        assert "MADE_UP_1.nc has longitude and latitude" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert PointDB(db.path).snapshot == 0
    assert not list(db.path.glob("chunks/**/*.parquet"))


def test_a_point_db_is_shown_in_a_few_lines_that_the_log_alone_gives(tmp_path: Path) -> None:
    db = filled(tmp_path / "a&b.pdb", GRANULES[:2], GRANULES[2:3])
    shutil.rmtree(db.path / "chunks")
    lines = repr(PointDB(db.path)).splitlines()
    assert lines[0] == "<cryotile.PointDB>"
    shown = {name: " ".join(rest) for name, *rest in map(str.split, lines[1:])}
    points = EVERYTHING[:900]
    assert shown["path"] == str(db.path)
    assert shown["crs"] == "EPSG:3031 (WGS 84 / Antarctic Polar Stereographic)"
    assert (shown["granules"], shown["points"], shown["snapshot"]) == ("3", "900", "2")
    assert shown["chunks"] == "16 of 100 km, 32 fragments"
    corners = [*points[["x", "y"]].min(), *points[["x", "y"]].max()]
    assert shown["extent"].startswith(" ".join(f"{corner:.0f}" for corner in corners) + " m")
    assert shown["time"] == (
        f"{points['time'].min():%Y-%m-%d %H:%M} to {points['time'].max():%Y-%m-%d %H:%M} UTC"
    )
    page = db._repr_html_()
    assert "a&amp;b.pdb</td>" in page
    assert page.count("<tr>") == len(lines) - 1
    assert len(ElementTree.fromstring(page).findall("tr")) == len(lines) - 1


def test_an_empty_point_db_is_shown_without_extent_and_time(tmp_path: Path) -> None:
    lines = repr(filled(tmp_path / "a.pdb")).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        *("path", "crs", "granules", "points", "chunks", "snapshot")
    ]


def test_a_granule_and_reports_are_shown_in_a_few_lines(tmp_path: Path) -> None:
    first = GRANULES[0]
    lines = repr(first).splitlines()
    assert lines[0] == "<cryotile.Granule>"
    shown = {name: " ".join(rest) for name, *rest in map(str.split, lines[1:])}
    assert shown["product"] == "made_up, baseline D, version 1"
    assert shown["points"] == "300 of 302 in the file"
    assert shown["dropped"] == "no_height 2"
    assert shown["time"] == f"{first.points['time'].min()} to {first.points['time'].max()}"
    assert f'<td style="text-align: left">{first.name}</td>' in first._repr_html_()
    assert "time" not in repr(Batch.of([first]).granules[0])
    db = filled(tmp_path / "a.pdb")
    appended = db.append(GRANULES[:5])
    assert repr(appended).splitlines()[:4] == [
        "<cryotile.Appended>",
        "  snapshot   1",
        "  added      5 (made-up-0, made-up-1, made-up-2, …)",
        "  unchanged  none",
    ]
    assert "rows       1,500" in repr(appended)
    assert repr(db.remove(["made-up-0"])).splitlines()[0] == "<cryotile.Removed>"
    assert repr(db.compact()).splitlines()[0] == "<cryotile.Compacted>"


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"bounds": (1.0, 0.0, 0.0, 1.0)}, "reversed"),
        ({"bounds": (0.0, 0.0, np.nan, 1.0)}, "NaN"),
        ({"columns": ["elevaton"]}, "elevaton.*surface_type"),
        ({"where": "coherence > 0.6"}, "coherence.*surface_type"),
        ({"where": "__import__('os')"}, "neither true nor false"),
        ({"time": ("2020-01-01", "2019-01-01")}, "reversed"),
        ({"time": ("soon", "2019-01-01")}, "ISO 8601"),
    ],
)
def test_an_invalid_argument_of_read_is_refused(
    db: PointDB, arguments: dict[str, object], rule: str
) -> None:
    with pytest.raises(InvalidValue, match=rule):
        db.read(**arguments)  # type: ignore[arg-type]


def test_creating_again_opens_the_same_db_and_refuses_a_different_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down.pdb"
    PointDB.create(path, "EPSG:3031").append(GRANULES[:1])
    assert PointDB.create(path, "EPSG:3031").snapshot == 1
    with pytest.raises(InvalidValue, match="EPSG:3413"):
        PointDB.create(path, "EPSG:3413")
    with pytest.raises(InvalidValue, match="chunk size"):
        PointDB.create(path, "EPSG:3031", chunk_size=50e3)
    with pytest.raises(InvalidValue, match="power"):
        PointDB.create(path, "EPSG:3031", columns=["power"])
    assert sorted(p.name for p in path.parent.iterdir()) == ["down.pdb"]


@pytest.mark.parametrize("size", [0.0, -5e3, 1234.0, 2e6, np.nan, np.inf])
def test_a_chunk_size_must_hold_whole_squares(tmp_path: Path, size: float) -> None:
    with pytest.raises(InvalidValue, match="multiple of 5000 m"):
        PointDB.create(tmp_path / "a.pdb", "EPSG:3031", chunk_size=size)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x", "x_cm", "granule", "longitude", "leading edge", "1st"])
def test_an_extra_column_needs_a_name_of_its_own(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidValue, match="extra column"):
        PointDB.create(tmp_path / "a.pdb", "EPSG:3031", columns=[name])


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UnwritablePath, match="not a point DB"):
        PointDB.create(tmp_path, "EPSG:3031")
    with pytest.raises(UnwritablePath):
        PointDB.create(tmp_path / "thesis.tex" / "a.pdb", "EPSG:3031")
    with pytest.raises(UnwritablePath, match="not a point DB"):
        PointDB.create(tmp_path / "thesis.tex", "EPSG:3031")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    assert PointDB.create(tmp_path / "empty", "EPSG:3031").snapshot == 0


def test_a_crs_of_the_users_own_is_kept(tmp_path: Path) -> None:
    text = "+proj=stere +lat_0=-90 +lon_0=10 +k=0.97 +ellps=WGS84 +type=crs"
    db = PointDB.create(tmp_path / "a.pdb", text)
    again = PointDB(db.path)
    assert again.crs == db.crs
    again.check_matches(crs=text)
    assert "PROJCRS" in again.read().attrs["crs"]


@pytest.mark.granules
@pytest.mark.parametrize(
    ("pattern", "crs"),
    [
        ("*_ANTARC_*", "EPSG:3031"),
        ("*SINI2*", "EPSG:3031"),
        ("*ATL06*", "EPSG:3413"),
        ("ATL11_*", "EPSG:3413"),
    ],
)
def test_points_of_real_granules_are_read_back(
    granules: Path, tmp_path: Path, pattern: str, crs: str
) -> None:
    files = sorted(path for path in granules.glob(pattern) if path.suffix != ".csv")
    db = PointDB.create(tmp_path / "real.pdb", crs)
    read = [project_granule(read_granule(path), db.crs) for path in files]
    assert db.append(read).added == tuple(g.id for g in read)
    expected = as_stored(pd.concat([g.points for g in read], ignore_index=True))
    assert len(expected) > 1000
    pd.testing.assert_frame_equal(sorted_rows(db.read()), sorted_rows(expected))
    again = [project_granule(read_granule(path), db.crs) for path in files[::-1]]
    assert set(db.append(again).unchanged) == {g.id for g in read}
    assert db.squares()["count"].sum() == len(expected)
