"""Whatever happens to one file of a point DB, the product is the same, or one line says how it becomes so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damage import worlds
from tests.damage.cases import cases, damage_and_make
from tests.damage.kinds import INERT, POINT_DB


@pytest.mark.parametrize(("kind", "damage"), cases(POINT_DB, INERT))
def test_damage_to_a_point_db_changes_no_number(
    root: Path, product: bytes, kind: str, damage: str
) -> None:
    case = damage_and_make(root, product, "ice.pdb", POINT_DB, kind, damage)
    with worlds.small_steps():
        if kind.startswith("ingest"):
            for frozen in sorted((case.db / "ingests").glob("*")):
                for command in ("status", "retry", "run"):
                    case.say(command, frozen)
            case.ingest()
        case.succeed("compact", case.db)
        assert case.product() == product
