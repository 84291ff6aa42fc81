"""Whatever happens to one file of a run, the product is the same, or one line says by which command it becomes so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.damage import worlds
from tests.damage.cases import STATES, Case, cases, damage_and_make
from tests.damage.kinds import DIRECTORIES, INERT, POINT_DB, RUN, by_kind, files_of


def test_every_file_is_of_one_kind(root: Path) -> None:
    for state in STATES:
        by_kind(files_of(root / state / "run"), RUN)
        by_kind(files_of(root / state / "ice.pdb"), POINT_DB)


@pytest.mark.parametrize(("kind", "damage"), cases(RUN, INERT))
def test_damage_to_a_run_changes_no_number(
    root: Path, product: bytes, kind: str, damage: str
) -> None:
    case = damage_and_make(root, product, "run", RUN, kind, damage)
    with worlds.small_steps():
        if kind.startswith("submission"):
            case.say("run", case.run, "--submission", 1, "--backend", "serial")
        if kind.startswith("validation"):
            assert not case.say("validate", case.run, "--backend", "serial").code
            made, before = (
                [world / "run" / "validation" / name for name in ("odd-even.nc", "validation.json")]
                for world in (case.world, case.origin)
            )
            assert [path.read_bytes() for path in made] == [path.read_bytes() for path in before]


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_file_in_place_of_a_directory_stops_nothing(
    root: Path, product: bytes, name: str
) -> None:
    with worlds.small_steps():
        case = Case(root, "complete")
        shutil.rmtree(case.run / name)
        (case.run / name).touch()
        case.look()
        assert case.product() == product
