"""Products follow CF-1.11 and ACDD-1.3, as compliance-checker of IOOS judges them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cryotile.errors import InvalidValue
from cryotile.fit.config import FitConfig
from cryotile.fit.height_sums import HeightSums, RegionHeights
from cryotile.fit.inputs import kernel_intervals
from cryotile.fit.region_sums import RegionSums
from cryotile.maps.authorship import FIELDS, check_authorship, lacking, read_authorship
from cryotile.maps.product import write_product
from cryotile.runs.origin import Origin
from tests.support.maps import CONFIG, GRID, OVER_TIME, made_up

pytest.importorskip("compliance_checker")

FALSE = {
    # It compares the metres of x and y, and the middles of intervals, with degrees and with ends of the period.
    "geospatial_lat_extents_match",
    "geospatial_lon_extents_match",
    "time_coverage_extents_match",
    # A surface has no vertical axis.
    "geospatial_vertical_extents_match",
    "geospatial_vertical_resolution not present",
}

ORIGIN = Origin(["cryosat2"], ["lrm"], ["cryotempo_land_ice"], 3, 1000, "0f", 0.0, 12)

PRODUCT = """
[product]
title = "Thinning of the Amundsen Sea sector"
doi = "https://doi.org/10.5281/zenodo.1234567"
creator_name = ["Ada Frost", "Ben Firn"]
creator_email = "ada@example.org"
creator_url = "https://example.org/ada"
creator_type = "person"
creator_institution = "Institute of Ice"
institution = "Institute of Ice"
license = "CC-BY-4.0"
project = "Ice Lost"
program = "Cold"
acknowledgement = "Funded by nobody"
publisher_name = "Archive"
publisher_email = "archive@example.org"
publisher_url = "https://example.org"
publisher_type = "institution"
publisher_institution = "Archive"
contributor_name = "Cy Neve"
contributor_role = "editor"
product_version = "1.0"
date_issued = 2026-11-29
date_modified = 2026-11-29T12:00:00Z
date_metadata_modified = "2026-11-29"
"""


def sums(config: FitConfig) -> xr.Dataset:
    added = RegionSums(
        *(np.arange(2), np.ones(2), np.ones(2)),
        *(np.array([2**32 + 5]), np.zeros(1, int), np.ones(1, int), np.ones((2, 1))),
    )
    found = added.variables(["Thwäites", "east"], np.ones(2))
    if "height_time" not in config.intervals:
        return found
    edges = kernel_intervals(config)[1]
    heights = RegionHeights(added, np.zeros(1, int), (edges[:-1] + edges[1:]) / 2)
    one, none = np.zeros(1, int), np.empty(0, int)
    by_bin = np.ones((1, edges.size - 1))
    own = HeightSums(by_bin, by_bin, one, one, by_bin, none, none, np.empty(0))
    heights.add(own, one, one)
    return found.merge(heights.variables())


def findings(path: Path) -> dict[str, set[str]]:
    """Return what the checker has to say, by convention: names of checks, or messages on attributes."""
    suites = ["--test=cf:1.11", "--test=acdd:1.3"]
    command = [str(Path(sys.executable).with_name("compliance-checker")), *suites]
    output = path.with_suffix(".json")
    done = subprocess.run(
        [*command, "--criteria=strict", "--format=json", f"--output={output}", str(path)],
        capture_output=True,
        check=False,
        text=True,
        timeout=600,
    )
    # What it could not check is in no report.
    assert "exception" not in done.stderr
    found: dict[str, set[str]] = {}
    for suite, report in json.loads(output.read_text()).items():
        messages = found.setdefault(suite, set())
        for priority in ("high_priorities", "medium_priorities", "low_priorities"):
            for check in report[priority]:
                if check["value"][0] == check["value"][1]:
                    continue
                if check["name"].startswith(("Global", "variable")):
                    what = check["name"].removeprefix("Global Attributes")
                    messages |= {f"{what} {text}".strip() for text in check["msgs"]}
                else:
                    messages.add(check["name"])
    return found


@pytest.mark.parametrize(
    ("config", "with_sums"), [(CONFIG, False), (CONFIG, True), (OVER_TIME, True)]
)
def test_what_remains_to_be_said_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: FitConfig, with_sums: bool
) -> None:
    table, path = tmp_path / "product.toml", tmp_path / "dhdt.nc"
    table.write_text(PRODUCT)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    given = read_authorship(table)
    assert lacking(given) == []
    about = {**ORIGIN.attributes(), **given}
    write_product(
        made_up(GRID, config),
        path,
        grid=GRID,
        config=config,
        about=about,
        sums=sums(config) if with_sums else None,
    )
    found = findings(path)
    assert found["cf:1.11"] == set()
    # The table of CF names has none for a rate of elevation and most of its companions.
    unnamed = {text for text in found["acdd:1.3"] if text.endswith("attributes: standard_name")}
    assert found["acdd:1.3"] - unnamed <= FALSE
    with xr.open_dataset(path) as product:
        if with_sums:
            assert product["region_rate"].encoding["coordinates"] == "region_name"
            assert {"region_name", "pass_name"} <= set(product["region_delta"].coords)
        for text in unnamed:
            assert "standard_name" not in product[text.split('"')[1]].attrs
        assert product.attrs["date_created"] == "2023-11-14T22:13:20Z"
        assert product.attrs["creator_name"] == "Ada Frost, Ben Firn"
        assert product.attrs["id"] == "10.5281/zenodo.1234567"


def test_without_a_user_only_their_fields_are_lacking(tmp_path: Path) -> None:
    path = tmp_path / "dhdt.nc"
    write_product(made_up(GRID), path, grid=GRID, config=CONFIG, about=ORIGIN.attributes())
    found = findings(path)
    assert found["cf:1.11"] == set()
    absent = {text for text in found["acdd:1.3"] if "standard_name" not in text} - FALSE
    named = {text.split()[0].split("/")[0].removesuffix("_is_iso") for text in absent}
    assert named <= {*FIELDS, "acknowledgment", "date_created"}
    assert {"creator_name", "license", "id"} <= named


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"creater_name": "Ada"}, "did you mean creator_name"),
        ({"doi": "zenodo"}, "is not a DOI; give one such as"),
        ({"creator_type": "dog"}, "must be one of person, group"),
        ({"license": 4}, "must be a text"),
        ({"date_issued": "yesterday"}, "is not a date"),
        ({"id": "a b"}, "has a blank"),
        ({"metadata_link": "example.org"}, "must be a URL"),
    ],
)
def test_a_field_that_breaks_its_rule_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        check_authorship(given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("[run]\n", r"no table \[product\]"),
        ("[product", "not valid TOML"),
    ],
)
def test_a_file_without_the_table_is_refused(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "product.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidValue, match=message):
        read_authorship(path)


def test_the_date_of_creation_must_be_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    with pytest.raises(InvalidValue, match="SOURCE_DATE_EPOCH 'today'"):
        write_product(made_up(GRID), tmp_path / "dhdt.nc", grid=GRID, config=CONFIG)
