"""``cryotile totals`` as users see it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

from cryotile.maps.netcdf import is_map
from cryotile.maps.product import write_product
from cryotile.totalling.table import COLUMNS
from tests.support.command_line import Call
from tests.support.mapped_world import CONFIG, GRID, NAMES, eight_basins, world


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("totals")
    basins = eight_basins(home / "basins.gpkg")
    product = world(basins, 2).product
    product.to_netcdf(home / "dhdt.nc")
    product.drop_vars(["region_rate", "region_delta", "region"]).to_netcdf(home / "plain.nc")
    return home


def words(home: Path, product: str = "dhdt.nc") -> tuple[object, ...]:
    return "totals", home / product, "--basins", home / "basins.gpkg", "--column", "NAME"


def test_the_table_has_a_line_for_each_basin_with_its_error(home: Path, call: Call) -> None:
    code, said, notes = call(*words(home), "--density", "917")
    assert code == 0
    lines = said.splitlines()
    assert [line.split()[0] for line in lines] == ["basin", *NAMES, "all"]
    assert all(line.count("±") == 3 for line in lines[1:])
    assert len({len(line) for line in lines}) == 1
    assert "note: density 917 kg m-3 everywhere" in notes


def test_without_errors_a_note_names_the_command(home: Path, call: Call) -> None:
    code, said, notes = call(*words(home, "plain.nc"))
    assert code == 0
    assert "± -" in said
    assert (
        "plan a run with them: cryotile plan RUN --db DB --basins basins.gpkg --column NAME"
        in notes
    )


def test_the_table_is_written_as_csv_and_json_and_not_overwritten(
    home: Path, call: Call, tmp_path: Path
) -> None:
    csv, text = tmp_path / "totals.csv", tmp_path / "totals.json"
    for path in (csv, text):
        assert call(*words(home), "-o", path)[0] == 0
        assert "give --force" in call(*words(home), "-o", path)[2]
    table = pd.read_csv(csv)
    assert list(table.columns) == list(COLUMNS)
    found = json.loads(text.read_text())
    assert [row["region"] for row in found["rows"]] == [*NAMES, "all"]
    assert found["rows"][0]["mass_gt_yr"] is None
    assert any("left out" in note for note in found["notes"])
    assert found["rows"][3]["volume_km3_yr"] == pytest.approx(table["volume_km3_yr"][3])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--fill", "hypsometric"], "give an elevation model: --dem"),
        (["--imbie", "i.csv", "--imbie-year", "2024"], "(--imbie-year"),
        (["--imbie", "i.csv"], "give --imbie-contributor"),
        (["-o", "totals.txt"], "ends in none of .csv, .json"),
        (["--column", "name"], "has no column 'name'; choose one of NAME"),
        (["--density", "0.9"], "density 0.9 is not between"),
        (["--gia", "absent.nc"], "gia absent.nc does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    home: Path, call: Call, more: list[str], says: str
) -> None:
    code, said, complaint = call(*words(home), *more)
    assert (code, said) == (2, "")
    assert len(complaint.splitlines()) == 1
    assert says in complaint


def test_a_store_has_the_totals_of_its_file_and_a_geotiff_is_refused(
    home: Path, call: Call, tmp_path: Path
) -> None:
    made = {name: tmp_path / f"dhdt.{name}" for name in ("nc", "zarr", "tif")}
    product = xr.load_dataset(home / "dhdt.nc")
    names = [str(name) for name, variable in product.data_vars.items() if is_map(variable)]
    sums = product[["region_rate", "region_delta"]].drop_vars("period", errors="ignore")
    sums = sums.assign_coords({"pass": [f"p{k}" for k in range(sums.sizes["pass"])]})
    for path in made.values():
        write_product(
            product[names].drop_vars(["region", "period"], errors="ignore"),
            path,
            grid=GRID,
            config=CONFIG,
            about={"regions_digest": product.attrs["regions_digest"]},
            sums=None if path == made["tif"] else sums,
            with_area=False,
        )
    basins = words(home)[2:]
    code, said, notes = call("totals", made["zarr"], *basins)
    assert (code, said, notes) == call("totals", made["nc"], *basins)
    assert (code, said) == (0, call(*words(home))[1])
    assert all(line.count("±") == 2 for line in said.splitlines()[1:])
    code, said, complaint = call("totals", made["tif"], *basins)
    assert (code, said, complaint.count("\n")) == (2, "", 1)
    assert "dhdt.tif is not a product of cryotile in NetCDF or Zarr; make a product" in complaint


def test_what_is_no_product_is_refused(home: Path, call: Call, tmp_path: Path) -> None:
    (tmp_path / "text.nc").write_text("x")
    for path in (tmp_path / "absent.nc", tmp_path / "text.nc"):
        code, _, complaint = call(
            "totals", path, "--basins", home / "basins.gpkg", "--column", "NAME"
        )
        assert code == 2
        assert len(complaint.splitlines()) == 1
