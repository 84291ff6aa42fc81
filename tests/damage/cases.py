"""Damages to a file; a case: a damaged world, and the commands that must make the same product of it."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from tests.damage import worlds
from tests.damage.kinds import by_kind, files_of
from tests.damage.worlds import DIR, INGEST, PLAN, Said, call, succeed

LONG = bool(os.environ.get("CRYOTILE_LONG"))
FLIPS = 40 if LONG else 1

Damage = Callable[[Path, Path, random.Random], None]
"""Damages a file; the others are its neighbour of the same kind and the source of chance."""


def delete(path: Path, _neighbour: Path, _chance: random.Random) -> None:
    path.unlink()


def empty(path: Path, _neighbour: Path, _chance: random.Random) -> None:
    path.write_bytes(b"")


def halve(path: Path, _neighbour: Path, _chance: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def zero(path: Path, _neighbour: Path, _chance: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def garble(path: Path, _neighbour: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(path.stat().st_size))


def swap(path: Path, neighbour: Path, _chance: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(neighbour.read_bytes())
    neighbour.write_bytes(content)


def become_a_directory(path: Path, _neighbour: Path, _chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def flip_a_bit(path: Path, _neighbour: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)


DAMAGES: dict[str, Damage] = {
    "deleted": delete,
    "empty": empty,
    "half": halve,
    "zeros": zero,
    "garbage": garble,
    "swapped": swap,
    "directory": become_a_directory,
    **{f"bit {number}": flip_a_bit for number in range(FLIPS)},
}


class Case:
    """A copy of a world, at the path where it was made.

    Parameters
    ----------
    root : Path
        Directory of the worlds.
    state : str
        Name of the world.
    part : str
        Where something is damaged: ``run`` or ``ice.pdb``.
    """

    def __init__(self, root: Path, state: str, part: str = "run") -> None:
        self.origin, self.world = root / state, root / "world"
        shutil.rmtree(self.world, ignore_errors=True)
        shutil.copytree(self.origin, self.world)
        self.part = part
        self.db, self.run = self.world / "ice.pdb", self.world / "run"

    def look(self) -> None:
        """Look at the run and the point DB by all commands that change nothing; they may refuse, in one line."""
        self.say("status", self.run)
        self.say("info", self.run)
        if self.part == "ice.pdb":
            self.say("info", self.db)
            self.say("verify", self.db)

    def product(self) -> bytes:
        """Make the product, by the commands that messages name."""
        output = self.world / "dhdt.nc"
        self.succeed("retry")
        self.succeed("run", options=DIR)
        self.succeed("assemble", options=("-o", output, "--force"))
        return output.read_bytes()

    def succeed(
        self, command: str, place: Path | None = None, options: Sequence[object] = ()
    ) -> None:
        """Give a command until it succeeds; do what its messages say meanwhile."""
        for _ in range(6):
            said = self.say(command, self.run if place is None else place, *options)
            if not said.code:
                return
            self.follow(said.errors)
        raise AssertionError(f"{command} does not succeed: {said}")

    def ingest(self) -> None:
        """Ingest all granules, each by a command of its own."""
        for granule in sorted((self.world / "granules").iterdir()):
            self.succeed("ingest", self.db, (granule, *INGEST))

    def say(self, *command: object) -> Said:
        """Give a command, which ends well or in one line."""
        said = call(*command)
        assert "Traceback" not in said.output + said.errors, said
        assert said.code == 0 or len(said.errors.splitlines()) == 1 or command[0] == "verify", said
        for line in said.log:
            assert "\n" not in line, line
            assert "attempt" not in line or "cryotile.errors" in line, line
        return said

    def follow(self, message: str) -> None:
        """Do what a message says."""
        if "remove" in message:
            self.say("remove", self.db, "--damaged")
            self.ingest()
            self.say("plan", self.run)
            self.say("retry", self.run)
        elif "another run with 'cryotile plan'" in message:
            self.run = self.world / f"again-{len(list(self.world.iterdir()))}"
            succeed("plan", self.run, "--db", self.db, "--mask", self.world / "mask.gpkg", *PLAN)
        elif "--db DB" in message:
            self.say("plan", self.run, "--db", self.db)
        elif "cryotile plan" in message:
            self.say("plan", self.run)
        elif "cryotile retry" in message:
            (named,) = re.findall(r"cryotile retry ([^\s';]+)", message)
            self.say("retry", named)
        elif "from a copy" in message:
            (named,) = [word for word in message.split() if word.startswith(str(self.world))][:1]
            self.restore(Path(named.rstrip(":;,")))
        else:
            assert "run again" in message or "cryotile run" in message, f"no remedy: {message}"

    def restore(self, path: Path) -> None:
        """Put a file back from a copy."""
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.origin / path.relative_to(self.world), path)


STATES = ("planned", "half", "complete")


def choose(root: Path, part: str, kinds: dict[str, str], kind: str) -> list[tuple[str, list[str]]]:
    """Return the states in which there are files of a kind, and those files; not all of them in the short form."""
    found = []
    for state in STATES:
        names = by_kind(files_of(root / state / part), kinds)
        if kind in names:
            found.append((state, names[kind]))
    assert found, f"no world has a file of kind {kind!r}"
    # The point DB is the same in all of them.
    return found if LONG and part == "run" else found[:1]


def cases(kinds: dict[str, str], inert: Collection[str]) -> list[tuple[str, str]]:
    """Return kinds and damages: all in the long form, else half of them, as the black squares of a board lie."""
    few = ("garbage", "directory")
    return [
        (kind, damage)
        for row, kind in enumerate(kinds)
        for column, damage in enumerate(few if kind in inert else DAMAGES)
        if LONG or (row + column) % 2
    ]


def damage_and_make(
    root: Path, product: bytes, part: str, kinds: dict[str, str], kind: str, damage: str
) -> Case:
    with worlds.small_steps():
        for state, names in choose(root, part, kinds, kind):
            chance = random.Random(f"{state} {kind} {damage}")
            case = Case(root, state, part)
            name = chance.choice(names)
            path, neighbour = (case.world / part / n for n in (name, names[names.index(name) - 1]))
            DAMAGES[damage](path, neighbour, chance)
            case.look()
            assert case.product() == product, f"{state}: {name}"
    return case
