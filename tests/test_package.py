"""The package as users get it: what importing loads, what an installation holds, what the version is."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import PurePosixPath

import pytest
from click import Context

import cryotile
from cryotile.cli import cli
from tests.support import PROJECT

HEAVY = {
    "click",
    "h5py",
    "matplotlib",
    "netCDF4",
    "pyarrow",
    "pyproj",
    "rasterio",
    "rich",
    "scipy",
    "xarray",
}


@pytest.fixture(scope="module")
def installed() -> Distribution:
    """The installation that these tests run against."""
    found = distribution("cryotile")
    assert found.files, "cryotile is not installed from a wheel: 'make test' does that"
    return found


def loaded_after(statement: str) -> set[str]:
    """Names of the top-level modules that a fresh interpreter has loaded after a statement."""
    program = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=240
    )
    return set(shown.stdout.split())


def heavy_after(statement: str) -> set[str]:
    """The modules that a statement loads and that pandas has not loaded by itself."""
    return (loaded_after(statement) - loaded_after("import numpy, pandas")) & HEAVY


def test_importing_cryotile_loads_numpy_and_pandas_at_most():
    assert heavy_after("import cryotile") == set()


def test_settings_and_errors_are_known_without_the_stores_and_the_fit():
    assert heavy_after("from cryotile import CryotileError, FitConfig") == set()


def test_help_tells_of_every_command_without_the_science():
    asked = "from cryotile.cli import cli; cli.main(['--help'], standalone_mode=False)"
    assert heavy_after(asked) == {"click"}


def test_every_command_is_where_help_believes_it_to_be():
    for name in cli.list_commands(Context(cli)):
        command = cli.get_command(Context(cli), name)
        assert command is not None
        assert command.name == name


@pytest.mark.parametrize("name", cryotile.__all__)
def test_every_public_name_resolves(name):
    assert getattr(cryotile, name) is not None
    assert name in dir(cryotile)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fit_all'"):
        _ = cryotile.fit_all


def test_the_version_is_one_and_static(installed):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == cryotile.__version__ == installed.version
    assert f"## {cryotile.__version__}" in (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {cryotile.__version__}\n" in (PROJECT / "CITATION.cff").read_text(
        encoding="utf-8"
    )


def test_an_installation_holds_the_modules_the_types_and_the_data_of_the_checkout(installed):
    source = PROJECT / "src"
    expected = {
        path.relative_to(source).as_posix()
        for pattern in ("*.py", "*.pyi", "*.json", "*.html", "*.js", "*.css", "LICENSE", "py.typed")
        for path in (source / "cryotile").rglob(pattern)
    }
    assert expected - {str(path) for path in installed.files} == set()


def test_an_installation_holds_the_kernel_compiled_but_not_its_source(installed):
    kernel = [path for path in installed.files if path.name.startswith("_fit.")]
    assert sorted(path.suffix for path in kernel) == [".pyi", ".so"]


def test_an_installation_holds_the_package_and_its_metadata_alone(installed):
    tops = {
        PurePosixPath(path).parts[0]
        for path in installed.files
        if ".." not in PurePosixPath(path).parts
    }
    assert tops == {"cryotile", f"cryotile-{installed.version}.dist-info"}
    assert any(path.name == "LICENSE" for path in installed.files)


def test_every_extra_that_is_promised_exists(installed):
    assert {"plot", "geo", "all", "test", "dev", "docs"} <= set(
        installed.metadata.get_all("Provides-Extra")
    )
