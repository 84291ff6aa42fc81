"""A tile is complete and exactly as it was saved, or it counts as missing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import xarray as xr

from cryotile.errors import DamagedFile, UnwritablePath
from cryotile.fit.variables import settings_attrs
from cryotile.geo.grid import Grid, Tile
from cryotile.maps.tiles import TileStore
from tests.support.maps import CONFIG, OVER_TIME, made_up

TILE, OTHER = Grid("EPSG:3031", (0.0, 0.0, 39_000.0, 9_000.0), 1000.0).tiles(20)
FINGERPRINT = "6c75b1"


def fitted(tile: Tile = TILE) -> xr.Dataset:
    """Return a tile with every kind of variable and some posts without a fit."""
    rng = np.random.default_rng(11)
    nothing = rng.random(tile.shape) < 0.3
    dhdt = np.where(nothing, np.nan, rng.normal(size=tile.shape))
    instants = np.datetime64("2019-04-01", "ms") + rng.integers(0, 10**10, tile.shape).astype(
        "timedelta64[ms]"
    )
    status = np.where(nothing, 6, 0).astype("int8")
    flags = {
        "flag_values": np.arange(9, dtype="int8"),
        "flag_meanings": "ok not_computed no_points",
    }
    return xr.Dataset(
        {
            "dhdt": (("y", "x"), dhdt, {"units": "m yr-1", "long_name": "elevation change rate"}),
            "data_count": (
                ("y", "x"),
                rng.integers(0, 99, tile.shape, dtype="int32"),
                {"units": "1"},
            ),
            "time_start": (
                ("y", "x"),
                np.where(nothing, np.datetime64("NaT"), instants),
                {"long_name": "first"},
            ),
            "status": (("y", "x"), status, flags),
        },
        coords={"y": tile.y, "x": tile.x},
        attrs={"recipe": "plane", "radius": 2000.0},
    )


@pytest.fixture
def store(tmp_path: Path) -> TileStore:
    return TileStore(tmp_path)


def test_a_tile_is_read_back_as_it_was_saved(store: TileStore) -> None:
    store.save(TILE, fitted(), FINGERPRINT)
    loaded = store.load(TILE)
    xr.testing.assert_identical(loaded, fitted())
    assert {n: v.dtype for n, v in loaded.items()} == {n: v.dtype for n, v in fitted().items()}


def test_windows_and_heights_are_read_back_as_they_were_saved(store: TileStore) -> None:
    fit = made_up(TILE, OVER_TIME)
    assert fit["window_dhdt"].shape == (3, *TILE.shape)
    store.save(TILE, fit, FINGERPRINT)
    xr.testing.assert_identical(store.load(TILE), fit)
    arrays = store.arrays(TILE, ["height", "status"])
    np.testing.assert_array_equal(arrays["height"], fit["height"])
    np.testing.assert_array_equal(arrays["status"], fit["status"])


def test_saving_again_gives_the_same_bytes_in_any_process_at_any_time(tmp_path: Path) -> None:
    save = (
        "import sys; from tests.maps.test_tiles import *; from pathlib import Path;"
        "TileStore(Path(sys.argv[1])).save(TILE, fitted(), FINGERPRINT)"
    )
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-c", save, str(tmp_path / name)], check=True)
        contents.append(TileStore(tmp_path / name).file(TILE).read_bytes())
    assert contents[0] == contents[1]


def test_a_tile_does_not_record_when_or_where_it_was_made(store: TileStore, tmp_path: Path) -> None:
    store.save(TILE, fitted(), FINGERPRINT)
    content = store.file(TILE).read_bytes()
    for trace in (str(tmp_path), time.strftime("%Y-%m-%d"), sys.prefix):
        assert trace.encode() not in content


def test_a_tile_is_current_only_with_the_fingerprint_it_was_saved_with(store: TileStore) -> None:
    assert store.fingerprint(TILE) is None
    store.save(TILE, fitted(), FINGERPRINT)
    assert store.fingerprint(TILE) == FINGERPRINT
    assert store.is_current(TILE, FINGERPRINT)
    assert not store.is_current(TILE, "other")
    assert not store.is_current(OTHER, FINGERPRINT)


def test_saving_a_tile_again_replaces_the_old_one(store: TileStore) -> None:
    store.save(TILE, fitted(), "old")
    newer = fitted()[["dhdt"]] + 1.0
    store.save(TILE, newer, "new")
    assert store.is_current(TILE, "new")
    xr.testing.assert_equal(store.load(TILE), newer)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99, 0.9999])
def test_a_truncated_tile_is_missing(store: TileStore, share: float) -> None:
    store.save(TILE, fitted(), FINGERPRINT)
    content = store.file(TILE).read_bytes()
    store.file(TILE).write_bytes(content[: int(share * len(content))])
    assert_missing(store)


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_anywhere_makes_a_tile_missing(store: TileStore, seed: int) -> None:
    store.save(TILE, fitted(), FINGERPRINT)
    content = bytearray(store.file(TILE).read_bytes())
    rng = np.random.default_rng(seed)
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    store.file(TILE).write_bytes(content)
    assert_missing(store)


def test_a_file_not_saved_by_cryotile_counts_as_a_missing_tile(store: TileStore) -> None:
    fitted().to_netcdf(store.file(TILE))
    assert_missing(store)


def test_an_unreadable_file_counts_as_a_missing_tile(store: TileStore) -> None:
    store.file(TILE).mkdir()
    assert_missing(store)


def test_a_tile_under_the_name_of_another_is_refused(store: TileStore) -> None:
    store.save(TILE, fitted(), FINGERPRINT)
    store.file(TILE).rename(store.file(OTHER))
    with pytest.raises(DamagedFile, match="holds other posts than its name says"):
        store.load(OTHER)


def test_a_failed_save_leaves_the_old_tile(store: TileStore) -> None:
    store.save(TILE, fitted(), FINGERPRINT)
    unwritable = fitted().assign_attrs(what={"no": "attribute"})
    with pytest.raises(TypeError):
        store.save(TILE, unwritable, "new")
    assert store.is_current(TILE, FINGERPRINT)
    assert list(store.path.iterdir()) == [store.file(TILE)]


def test_the_error_of_a_missing_directory_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(UnwritablePath, match=r"gone/x\+0000_y\+0000.arrow cannot be written"):
        TileStore(tmp_path / "gone").save(TILE, fitted(), FINGERPRINT)


def test_other_programs_read_a_tile_as_a_table_of_posts(store: TileStore) -> None:
    store.save(TILE, fitted(), FINGERPRINT)
    expected = fitted()
    table = pa.ipc.open_stream(store.file(TILE).read_bytes()).read_pandas()
    for seen in (table, pl.read_ipc_stream(store.file(TILE)).to_pandas()):
        assert list(seen) == list(expected)
        for name, variable in expected.items():
            np.testing.assert_array_equal(
                seen[name].to_numpy(variable.dtype), variable.values.ravel()
            )


def test_selected_variables_of_a_tile_can_be_read(store: TileStore) -> None:
    store.save(TILE, fitted(), FINGERPRINT)
    arrays = store.arrays(TILE, ["status", "dhdt"])
    assert list(arrays) == ["status", "dhdt"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, fitted()[name])
    with pytest.raises(DamagedFile, match="not a tile of this run; run again"):
        store.arrays(TILE, ["dhdt", "season"])


def test_a_small_tile_fits_in_two_disk_blocks(store: TileStore) -> None:
    tile = Grid("EPSG:3031", (0.0, 0.0, 5000.0, 5000.0), 1000.0).tiles(6)[0]
    store.save(tile, made_up(tile).assign_attrs(settings_attrs(CONFIG)), "6c75b1" * 10)
    assert store.file(tile).stat().st_size < 8192


def test_an_intact_file_with_other_content_is_a_damaged_tile(store: TileStore) -> None:
    content = b"no Arrow\n" + FINGERPRINT.encode()
    checksum = hashlib.sha256(content).hexdigest()
    store.file(TILE).write_bytes(content + f"\n{checksum}".encode())
    with pytest.raises(DamagedFile, match="run again"):
        store.load(TILE)


def assert_missing(store: TileStore) -> None:
    assert store.fingerprint(TILE) is None
    with pytest.raises(DamagedFile, match="run again"):
        store.load(TILE)
