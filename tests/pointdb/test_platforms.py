"""Platforms are words: the known ones and any other, in point DBs, passes and expressions."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import cryotile.points
from cryotile.errors import InvalidValue
from cryotile.pointdb import PointDB
from cryotile.points import (
    MOST_PLATFORMS,
    PLATFORM_CODES,
    Granule,
    join_passes,
    pass_id,
    platform_code,
)
from tests.support.made_up import granule, points, with_points


def of_platform(seed: int, *words: str, orbit: int = 7) -> Granule:
    """Return a granule with points of those platforms in turn, all of one orbit."""
    frame = points(seed, 60)
    each = list(itertools.islice(itertools.cycle(words), len(frame)))
    ids = [pass_id(word, orbit, ascending=False) for word in each]
    return with_points(granule(seed), frame.assign(platform=each, pass_id=ids))


def new_db(path: Path) -> PointDB:
    return PointDB.create(path, "EPSG:3031")


def test_points_come_back_under_the_words_of_their_platforms(tmp_path: Path) -> None:
    db = new_db(tmp_path / "x.pdb")
    db.append(
        [of_platform(1, "saral", "icesat2"), of_platform(2, "airborne"), of_platform(3, "ers1")]
    )
    assert db.read()["platform"].value_counts().to_dict() == {
        **dict.fromkeys(PLATFORM_CODES, 0),
        "airborne": 60,
        "ers1": 60,
        "icesat2": 30,
        "saral": 30,
    }
    assert set(db.read(where="platform == 'saral'")["platform"]) == {"saral"}
    assert len(db.read(where="platform in ('saral', 'airborne')")) == 90
    assert len(db.read(where="platform == 'geosat'")) == 0
    assert len(db.read(where="not platform == 'geosat'")) == 180
    assert set(db.squares()["platform"].astype(str)) == {"airborne", "ers1", "icesat2", "saral"}
    assert sorted(db.granules["platforms"].explode().unique()) == [
        "airborne",
        "ers1",
        "icesat2",
        "saral",
    ]
    assert list(db.verify()) == []


def test_files_hold_the_words_so_that_others_can_read_them(tmp_path: Path) -> None:
    db = new_db(tmp_path / "x.pdb")
    db.append([of_platform(1, "saral", "jason-like")])
    words = [
        word
        for path in db.path.rglob("chunks/**/*.parquet")
        for word in pq.read_table(path)["platform"].to_pylist()
    ]
    assert set(words) == {"saral", "jason-like"}


def test_batches_and_order_of_appends_do_not_change_what_is_read(tmp_path: Path) -> None:
    granules = [
        of_platform(1, "saral"),
        of_platform(2, "airborne", "envisat"),
        of_platform(3, "geosat"),
    ]
    once, twice = new_db(tmp_path / "a.pdb"), new_db(tmp_path / "b.pdb")
    once.append(granules)
    for one in reversed(granules):
        twice.append([one])
    twice.compact()
    pd.testing.assert_frame_equal(once.read(), twice.read())
    pd.testing.assert_frame_equal(once.squares(), twice.squares())


def test_passes_of_two_platforms_with_one_orbit_number_are_two() -> None:
    frame = of_platform(1, "saral", "airborne").points.assign(time=pd.Timestamp("2019-01-01"))
    assert pd.Series(join_passes(frame)).groupby(list(frame["platform"])).nunique().to_dict() == {
        "airborne": 1,
        "saral": 1,
    }
    assert len(set(join_passes(frame))) == 2


def test_the_number_of_a_word_is_the_same_on_every_machine() -> None:
    # Written to files in pass ids: these numbers must never change.
    assert [platform_code(word) for word in ("cryosat2", "sentinel3b")] == [1, 8]
    assert [platform_code(word) for word in ("airborne", "saral", "jason-like")] == [
        1574348,
        618051,
        1878716,
    ]
    assert 2**53 > pass_id("saral", 2**31 - 1, ascending=True) > 2**32


@pytest.mark.parametrize(
    "word", ["SARAL", "", "jason 3", "3a", "a" * 33, "océan", "cryosat-2", "icesat_2", "x/y", "a\n"]
)
def test_other_words_are_refused_with_the_rule(word: str) -> None:
    with pytest.raises(InvalidValue, match=r"lower-case word|another spelling"):
        platform_code(word)


def test_two_words_of_one_number_do_not_get_into_one_db(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cryotile.points, "_WORDS", dict(cryotile.points._WORDS))
    with pytest.raises(InvalidValue, match="same number in pass ids") as refused:
        list(map(platform_code, (f"plane-{k}" for k in range(100_000))))
    second, first = re.findall(r"'(plane-\d+)'", str(refused.value))
    known = {code: word for word, code in PLATFORM_CODES.items()}
    monkeypatch.setattr(cryotile.points, "_WORDS", known.copy())
    db = new_db(tmp_path / "x.pdb")
    db.append([of_platform(1, first)])
    # Another process has not met the first word yet.
    monkeypatch.setattr(cryotile.points, "_WORDS", known.copy())
    with pytest.raises(InvalidValue, match="same number in pass ids"):
        PointDB(db.path).append([of_platform(2, second)])
    monkeypatch.setattr(cryotile.points, "_WORDS", known.copy())
    assert set(PointDB(db.path).read()["platform"]) == {first}


def test_the_number_of_platforms_has_a_limit_that_is_told_before_anything_is_stored(
    tmp_path: Path,
) -> None:
    db = new_db(tmp_path / "x.pdb")
    free = MOST_PLATFORMS - len(PLATFORM_CODES)
    db.append([of_platform(1, *(f"plane{k}" for k in range(50)))])
    db.append([of_platform(2, *(f"ship{k}" for k in range(50)))])
    with pytest.raises(InvalidValue, match="one word"):
        db.append([of_platform(3, *(f"flight{k}" for k in range(free - 99)))])
    db.append([of_platform(4, *(f"flight{k}" for k in range(free - 100)))])
    assert db.read()["platform"].nunique() == free
    assert db.squares()["platform"].nunique() == free
