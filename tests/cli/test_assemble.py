"""``cryotile assemble`` as users see it."""

from __future__ import annotations

from pathlib import Path

import pytest
import rasterio
import xarray as xr

from cryotile.runs.run import Run
from tests.support.command_line import Call
from tests.support.small_run import fit, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("assemble"))
    fit(run, *(task.index for task in run.tasks))
    return run


def test_variables_and_attributes_are_those_of_the_user(
    run: Run, tmp_path: Path, call: Call
) -> None:
    table, path = tmp_path / "product.toml", tmp_path / "dhdt.nc"
    table.write_text('[product]\nlicense = "all rights reserved"\ncreator_name = "Ada Frost"\n')
    given = "--product", table, "--attribute", "license=CC-BY-4.0"
    code, said, _ = call("assemble", run.path, "-o", path, "--variables", "dhdt", *given)
    assert code == 0
    line = next(line for line in said.splitlines() if "metadata" in line)
    assert "creator_name" not in line
    assert "give them with --product" in line
    with xr.open_dataset(path) as product:
        assert [n for n, v in product.data_vars.items() if v.ndim == 2] == ["dhdt", "status"]
        # No attribute names a variable that is left out.
        assert product["dhdt"].attrs["ancillary_variables"] == "status"
        assert "cell_measures" not in product["dhdt"].attrs
        assert product.attrs["license"] == "CC-BY-4.0"
        assert product.attrs["creator_name"] == "Ada Frost"


def test_a_geotiff_stands_beside_the_first(run: Run, tmp_path: Path, call: Call) -> None:
    path, other = tmp_path / "dhdt.tif", tmp_path / "dhdt-slope_x.tif"
    words = "assemble", run.path, "-o", path, "--variables", "slope_x, dhdt"
    assert call(*words)[0] == 0
    assert {file.name for file in tmp_path.iterdir()} == {path.name, other.name}
    with rasterio.open(path) as file, rasterio.open(other) as beside:
        assert (file.descriptions, beside.descriptions) == (("dhdt",), ("slope_x",))
    path.unlink()
    code, _, error = call(*words)
    assert code == 2
    assert "dhdt-slope_x.tif exists" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--variables", "dhdx"), "no variable 'dhdx'; choose from dhdt, dhdt_sigma"),
        (("--variables", ","), "no variable is asked for"),
        (("--attribute", "license"), 'has no "="'),
        (("--attribute", "licence=x"), "did you mean license"),
        (("--product", "absent.toml"), "cannot be read"),
    ],
)
def test_what_breaks_a_rule_is_refused(
    run: Run, tmp_path: Path, call: Call, words: tuple[str, ...], message: str
) -> None:
    code, _, error = call("assemble", run.path, "-o", tmp_path / "dhdt.nc", *words)
    assert code == 2
    assert message in error
    assert list(tmp_path.iterdir()) == []
