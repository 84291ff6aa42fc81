"""Whatever a newcomer types, one line says what is wrong and which command goes on; nothing is overwritten unasked."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
from pathlib import Path

import pytest

import cryotile as ct
from cryotile.cli import demo
from cryotile.simulate import World, simulate
from tests.support import PROJECT
from tests.support.command_line import Call
from tests.support.errors import only_line
from tests.support.small_run import make_run

WORLD = World(bounds=(-30e3, -1380e3, 30e3, -1320e3))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory whose name needs quotes, with one thing of each kind."""
    home = tmp_path_factory.mktemp("home") / "my ice"
    home.mkdir()
    run = ct.run(make_run(home), backend="serial")
    ct.assemble(run, home / "dhdt.nc")
    ct.assemble(run, home / "dhdt.tif")
    (run.path / "validation").mkdir()
    shutil.copy(home / "dhdt.nc", run.path / "validation" / "odd-even.nc")
    granules = simulate(home / "granules", years=0.1, world=WORLD)
    ct.ingest(home / "sim.pdb", granules, crs=WORLD.crs)
    (home / "notes.txt").write_text("nothing that cryotile knows\n")
    return home


def first(home: Path, name: str) -> Path:
    """Return the first path of a pattern, or the path of that name."""
    return min(home.glob(name)) if "*" in name else home / name


# --- from anything to the command that reads it -----------------------------------------------------------------

THINGS = {
    "ice.pdb": "is a point DB, not a product; plan a run over it with: cryotile plan RUN --db",
    "sim.pdb/ingests/*": "is an ingest, not a product; see what it holds with: cryotile info",
    "run/validation": "holds the maps of a validation; see which with: cryotile info",
    "granules": "is a directory, not a product; see what it holds with: cryotile info",
    "granules/*.nc": "is a granule (cryotempo_land_ice), not a product; describe it with: cryotile info",
    "dhdt.tif": "is a GeoTIFF, which map programs draw; make the product in NetCDF, too: cryotile assemble",
    "notes.txt": "is not a product of cryotile; make one with: cryotile assemble RUN",
    "nothing": "does not exist; give a product in NetCDF, or make one with: cryotile assemble RUN",
}


@pytest.mark.parametrize("name", THINGS)
def test_plot_says_what_cannot_be_drawn_and_the_command_that_goes_on(
    home: Path, call: Call, tmp_path: Path, name: str
) -> None:
    thing = first(home, name)
    code, _, complaint = call("plot", thing, "-o", tmp_path / "x.png")
    line = only_line(complaint)
    assert (code, line.startswith(f"{thing} {THINGS[name]}")) == (2, True), line
    words = shlex.split(line.rpartition(": cryotile ")[2])
    if "RUN" not in words:
        # The command that it names does what it says, on a path with a blank.
        here = [str(tmp_path / word) if word == "dhdt.nc" else word for word in words]
        assert call(*here)[0] == 0


def test_plot_of_a_run_without_a_tile_names_the_run_command(call: Call, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    code, _, complaint = call("plot", run.path, "-o", tmp_path / "x.png")
    assert code == 2
    words = shlex.split(only_line(complaint).rpartition(": cryotile ")[2])
    assert words == ["run", str(run.path)]
    assert not (tmp_path / "x.png").exists()


INFO = {
    "run": ("^run ", r"status: cryotile status '.*/my ice/run'"),
    "ice.pdb": ("^point DB ",),
    "sim.pdb/ingests/*": ("^ingest .*, into ", r"granules are in .*with: cryotile run '"),
    "run/validation": (
        "^validation .*, of the run ",
        r"cryotile info '.*odd-even\.nc'",
        r"cryotile plot '.*odd-even\.nc' dhdt_difference_ratio",
        r"not finished; go on with: cryotile validate '.*/run'",
    ),
    "granules": (r"^  \d+ files that may be granules", r"cryotile ingest DB '.*/granules'"),
    "granules/*.nc": ("^granule ",),
    "dhdt.nc": ("^product ",),
    "dhdt.tif": ("^product .* as a GeoTIFF", "^bands .*dhdt", "Zarr: cryotile assemble RUN"),
    ".": (
        r"^  run +cryotile info '.*/run'",
        r"^  point DB +cryotile info '.*/ice\.pdb'",
        r"^  product +cryotile info '.*/dhdt\.nc'",
        r"^  cryotile ingest DB '.*/granules'",
    ),
}


@pytest.mark.parametrize("name", INFO)
def test_info_describes_all_that_cryotile_makes_or_reads(home: Path, call: Call, name: str) -> None:
    code, said, complaint = call("info", first(home, name))
    assert (code, complaint) == (0, "")
    for pattern in INFO[name]:
        assert re.search(pattern, said, re.MULTILINE), said


def test_info_of_what_cryotile_does_not_know_names_what_it_does(
    home: Path, call: Call, tmp_path: Path
) -> None:
    assert "give one of these, or a table with --mapping" in call("info", home / "notes.txt")[2]
    for nothing in (tmp_path, tmp_path / "absent"):
        code, _, complaint = call("info", nothing)
        assert code == 2
        assert "give a point DB, a run, a granule or a product" in only_line(complaint)


def test_every_hint_with_a_path_is_quoted_for_a_shell() -> None:
    # A command in a text, of which a word is filled in without quotes.
    unquoted = re.compile(r"cryotile (?:[a-z]+|-{1,2}[a-z-]+)[^'\"(]*? \{(?!command)")
    hits = [
        f"{path.name}: {line.strip()}"
        for path in (PROJECT / "src").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if (match := unquoted.search(line)) and match[0].split()[1] in COMMANDS
    ]
    assert hits == []


COMMANDS = {
    *("ingest", "plan", "run", "status", "retry", "submit", "assemble", "plot", "info", "explain"),
    *("validate", "remove", "compact", "verify"),
}


# --- nothing is overwritten unasked -----------------------------------------------------------------------------


def test_a_file_that_exists_is_overwritten_only_with_force(
    home: Path, call: Call, tmp_path: Path
) -> None:
    run, product = home / "run", home / "dhdt.nc"
    at = ("--at", 0, 0)
    for words in (
        ("assemble", run, "-o", tmp_path / "mine.nc"),
        ("assemble", run, "-o", tmp_path / "mine.tif"),
        ("plot", product, "-o", tmp_path / "mine.png"),
        ("explain", run, *at, "--output", tmp_path / "mine.csv"),
        ("explain", run, *at, "--plot", tmp_path / "mine.svg"),
    ):
        mine = words[-1]
        assert isinstance(mine, Path)
        mine.write_text("mine")
        code, _, complaint = call(*words)
        assert code == 2
        assert only_line(complaint) == (
            f"{mine} exists; give --force to overwrite it, or name another file"
        )
        assert mine.read_text() == "mine"
        assert call(*words, "--force")[0] == 0
        assert mine.read_bytes() != b"mine"


def test_the_picture_beside_a_product_is_not_overwritten_either(
    home: Path, call: Call, tmp_path: Path
) -> None:
    product = tmp_path / "dhdt.nc"
    shutil.copy(home / "dhdt.nc", product)
    assert call("plot", product)[0] == 0
    assert "dhdt.png exists; give --force" in call("plot", product)[2]
    assert call("plot", product, "--force")[0] == 0


def test_a_demo_overwrites_nothing_but_an_earlier_demo(
    home: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[object] = []

    def record(*words: object) -> None:
        steps.append(words[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_step", record)
    for name in ("thesis.tex", "dhdt.nc"):
        directory = tmp_path / name.partition(".")[0]
        directory.mkdir()
        (directory / name).write_text("mine")
        code, _, complaint = call("demo", directory)
        assert (code, steps) == (2, [])
        assert f"{directory} holds {name}, which no demo made; give an empty" in only_line(
            complaint
        )
    earlier = tmp_path / "earlier"
    shutil.copytree(home / "granules", earlier / "granules")
    shutil.copytree(home / "ice.pdb", earlier / "ice.pdb")
    assert f"{earlier} holds ice.pdb, which no demo made" in call("demo", earlier)[2]
    assert steps == []
    shutil.rmtree(earlier / "ice.pdb")
    shutil.copytree(home / "sim.pdb", earlier / "ice.pdb")
    assert call("demo", earlier)[0] == 130
    assert steps == ["simulate"]


# --- a CRS for another part of the Earth ------------------------------------------------------------------------


def test_a_crs_for_another_region_is_refused_before_a_point_db_is_made(
    home: Path, call: Call, tmp_path: Path
) -> None:
    granules = home / "granules"
    code, _, complaint = call("ingest", tmp_path / "ice.pdb", granules, "--crs", "EPSG:3031")
    assert code == 2
    assert re.fullmatch(
        r"none of the [\d,]+ points of \d+ granules lies where EPSG:3031 is meant to be used \(longitude -180 to 180,"
        r" latitude -90 to -60\): they lie at latitudes 7\d\.\d+ to 7\d\.\d+; give the CRS of their region, e\.g\."
        r" EPSG:3413",
        only_line(complaint),
    )
    assert list(tmp_path.iterdir()) == []
    assert call("ingest", tmp_path / "ice.pdb", granules, "--crs", "EPSG:3413")[0] == 0


# --- spelling and verbosity -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ingst"], "No such command 'ingst'. Did you mean ingest?"),
        (["assmble", "run/"], "No such command 'assmble'. Did you mean assemble?"),
        (["xyz"], "No such command 'xyz'."),
        (["plan", "run/", "--postin", "500"], "--posting"),
        (["demo", "--sed", "3"], "--seed"),
    ],
)
def test_a_misspelt_word_gets_a_suggestion(call: Call, words: list[str], says: str) -> None:
    code, _, complaint = call(*words)
    assert code == 2
    assert says in complaint.splitlines()[-1]


@pytest.mark.parametrize("words", [("-v", "plot"), ("plot", "-v"), ("plot", "-vv")])
def test_verbose_concerns_the_loggers_of_cryotile_alone(
    home: Path, call: Call, words: tuple[str, str], tmp_path: Path
) -> None:
    own, root = logging.getLogger("cryotile"), logging.getLogger()
    before = root.level
    assert call(*words, home / "dhdt.nc", "-o", tmp_path / "x.png")[0] == 0
    assert own.level == (logging.DEBUG if "-vv" in words else logging.INFO)
    assert root.level == before
    assert not logging.getLogger("matplotlib").isEnabledFor(logging.INFO)
    call("info", home / "ice.pdb")
    assert own.level == logging.WARNING
