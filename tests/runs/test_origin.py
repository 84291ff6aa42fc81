"""A product says what it is made of; equal points and settings say the same."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cryotile
from cryotile.maps.product import read_product
from cryotile.pointdb import PointDB
from cryotile.points import Granule
from cryotile.runs.origin import about, plan_command
from cryotile.runs.run import Run, open_db, plan_run
from tests.support.command_line import output_of
from tests.support.command_line import run as run_command
from tests.support.made_up import granule, with_points
from tests.support.point_dbs import filled
from tests.support.small_run import REQUEST, fit

rasterio = pytest.importorskip("rasterio")


def one_platform(seed: int, platform: str, **changes: object) -> Granule:
    original = granule(seed, 600, extent=20e3)
    made = with_points(original, original.points.assign(platform=platform))
    return replace(made, **changes)


GRANULES = [
    one_platform(1, "icesat2"),
    one_platform(2, "icesat2", product="other", baseline=""),
    one_platform(3, "cryosat2", product="never"),
]


def finished(directory: Path, db: PointDB, request: dict[str, object] = REQUEST) -> Run:
    run = plan_run(directory / "run", request, db=db)
    fit(run, *range(len(run.tasks)))
    return run


def test_a_product_says_what_it_is_made_of(tmp_path: Path) -> None:
    db = filled(tmp_path / "ice.pdb", GRANULES[:1], GRANULES[1:])
    empty = with_points(granule(4), granule(4).points.iloc[:0])
    later = GRANULES[0].points.assign(time=np.datetime64("2021-03-04", "ms"))
    db.append([empty, with_points(one_platform(5, "icesat2", product="later"), later)])
    request = {**REQUEST, "period": ("2015-01-01", "2016-01-01")}
    cryotile.assemble(finished(tmp_path, db, request), tmp_path / "dhdt.nc")
    said = read_product(tmp_path / "dhdt.nc", ["dhdt"]).attrs
    assert said["platform"] == "icesat2"
    assert said["source_products"] == "made_up (baseline D), other"
    assert said["source"] == "satellite altimetry: made_up (baseline D), other"
    assert said["source_granules"] == 2
    # The squares tell apart platforms and times by their bounds alone.
    assert said["source_points"] == len(db.read(where="platform == 'icesat2'"))
    assert said["selection"] == "platform == 'icesat2'"
    assert said["recipe"] == "passes"
    assert said["time_coverage_end"] == "2016-01-01"
    assert said["cryotile_version"] == cryotile.__version__
    assert "simulated" not in said
    assert str(tmp_path) not in json.dumps({name: str(value) for name, value in said.items()})


def test_equal_points_and_settings_give_equal_bytes_whatever_the_commits(tmp_path: Path) -> None:
    contents = set()
    for name, batches in {"a": [GRANULES], "b": [[g] for g in reversed(GRANULES)]}.items():
        db = filled(tmp_path / f"{name}.pdb", *batches)
        if name == "b":
            db.compact()
        for suffix in (".nc", ".tif"):
            output = tmp_path / f"{name}{suffix}"
            run = plan_run(tmp_path / name, REQUEST, db=db)
            fit(run, *range(len(run.tasks)))
            cryotile.assemble(run, output)
            contents.add((suffix, output.read_bytes()))
    assert len(contents) == 2


def test_other_points_of_the_same_granules_have_another_digest(tmp_path: Path) -> None:
    raised = with_points(
        GRANULES[0], GRANULES[0].points.assign(elevation=lambda f: f["elevation"] + 1)
    )
    said = [
        about(plan_run(tmp_path / name, REQUEST, db=filled(tmp_path / f"{name}.pdb", granules)))
        for name, granules in {"a": GRANULES, "b": [raised, *GRANULES[1:]]}.items()
    ]
    assert said[0].pop("point_db_snapshot") != said[1].pop("point_db_snapshot")
    assert said[0] == said[1]


def test_a_geotiff_says_the_same(tmp_path: Path) -> None:
    run = finished(tmp_path, filled(tmp_path / "ice.pdb", GRANULES))
    for suffix in ("nc", "tif"):
        cryotile.assemble(run, tmp_path / f"dhdt.{suffix}")
    said = read_product(tmp_path / "dhdt.nc", ["dhdt"]).attrs
    with rasterio.open(tmp_path / "dhdt.tif") as file:
        tags = file.tags()
    assert {name: tags.get(name) for name in said} == {n: str(v) for n, v in said.items()}


def test_info_shows_it_of_a_run_and_of_both_products(tmp_path: Path) -> None:
    run = finished(tmp_path, filled(tmp_path / "ice.pdb", GRANULES))
    paths = [tmp_path / "dhdt.nc", tmp_path / "dhdt.tif"]
    for path in paths:
        cryotile.assemble(run, path)
    points = len(open_db(run).read(where=REQUEST["where"]))
    for path in (*paths, run.path):
        said = output_of("info", path)
        for line in (
            "platforms    icesat2",
            "products     made_up (baseline D), other",
            "granules     2 of the point DB, with points of these platforms in the period",
            f"points       {points:,} in the 5 km squares that posts see",
            f"snapshot     digest {about(run)['point_db_snapshot']} of these points",
            "selection    platform == 'icesat2'",
            f"bounds       {about(run)['bounds']} (x_min y_min x_max y_max)",
            f"fit          recipe {run.settings.fit.recipe}, search radius 2000 m",
            "period       2015-01-01 to 2016-01-01",
        ):
            assert f"\n{line}\n" in said
        assert "--where \"platform == 'icesat2'\"" in said
        found = json.loads(output_of("info", path, "--json"))
        assert found["shape"] == list(run.settings.grid.shape)
        told = {name: str(value) for name, value in found["attributes"].items()}
        assert told.items() >= {name: str(value) for name, value in about(run).items()}.items()
    assert found["commit"] == 1


def test_json_of_other_things_is_refused(tmp_path: Path) -> None:
    db = filled(tmp_path / "ice.pdb", GRANULES)
    for path, what in ((db.path, "is a point DB"), (tmp_path / "absent", "does not exist")):
        answer = run_command("info", path, "--json")
        assert answer.returncode == 2
        assert what in answer.stderr


@pytest.mark.parametrize(
    ("simulated", "title"),
    [
        ((True, True), "Ice elevation change rate from simulated satellite altimetry"),
        ((True, False), "Ice elevation change rate from partly simulated satellite altimetry"),
        ((False, False), "Ice elevation change rate from satellite altimetry"),
    ],
)
def test_the_title_says_whether_points_are_simulated(
    tmp_path: Path, simulated: tuple[bool, bool], title: str
) -> None:
    made = [replace(g, simulated=s) for g, s in zip(GRANULES, simulated, strict=False)]
    # The points of another platform are not in the product.
    unused = replace(GRANULES[2], simulated=not all(simulated))
    db = filled(tmp_path / "ice.pdb", [*made, unused])
    said = about(plan_run(tmp_path / "run", REQUEST, db=db))
    assert said["title"] == title
    assert said.get("simulated", "").startswith({1: "50 %", 2: "100 %"}.get(sum(simulated), ""))


def test_the_origin_stays_that_of_the_task_list(tmp_path: Path) -> None:
    db = filled(tmp_path / "ice.pdb", GRANULES)
    said = about(plan_run(tmp_path / "run", REQUEST, db=db))
    db.append([one_platform(6, "icesat2")])
    assert about(Run.load(tmp_path / "run")) == said
    assert about(plan_run(tmp_path / "run", {}))["source_granules"] == 3


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST,
        {"where": "platform == 'icesat2' and elevation < 2.5e3", "recipe": "plane"},
        {
            "posting": 750.5,
            "radius": 1500.0,
            "where": "platform != 'cryosat2'",
            "terms": ("acceleration", "mode_offset"),
            "priors": ("acceleration=0.1",),
            "weights": ("distance",),
            "distance_scale": 800.0,
            "fallback_radii": (2500.0, 4000.5),
            "period": ("2014-06-01T12:00:00", "2016-01-01"),
            "reference_epoch": "2015-01-06",
            "min_points": 7,
            "max_rate": 12.0,
            "max_ci95": 2.5,
            "windows": ("1y", "3m"),
            "heights": "3m",
            "bounds": (-15e3, -12e3, 9e3, 7500.25),
            "tile_size": 9,
        },
    ],
)
def test_the_command_makes_the_same_run(tmp_path: Path, request_: dict[str, object]) -> None:
    db = filled(tmp_path / "ice.pdb", GRANULES)
    run = plan_run(tmp_path / "run", request_, db=db)
    line = plan_command(run.settings, str(tmp_path / "a run"), str(db.path))
    first, *words = shlex.split(line)
    assert first == "cryotile"
    output_of(*words)
    again = Run.load(tmp_path / "a run")
    assert again.settings == run.settings
    pd.testing.assert_frame_equal(again.table, run.table)
    assert about(again) == about(run)


def test_the_mask_is_named_without_its_path(tmp_path: Path) -> None:
    path, transform = tmp_path / "my ice.tif", rasterio.Affine(1e3, 0, -9e3, 0, -1e3, 9e3)
    form = {"count": 1, "height": 18, "width": 18, "dtype": "uint8", "crs": "EPSG:3031"}
    with rasterio.open(path, "w", driver="GTiff", transform=transform, **form) as file:
        file.write(np.ones((1, 18, 18), np.uint8))
    request = {**REQUEST, "mask": str(path)}
    run = plan_run(tmp_path / "run", request, db=filled(tmp_path / "ice.pdb", GRANULES))
    said = about(run)
    assert str(said["mask"]).startswith("my ice.tif, SHA-256 of its posts ")
    assert "--mask 'my ice.tif'" in str(said["history"])
    assert str(tmp_path) not in str(said)
