"""The demo finds the change of its world, which is known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cryotile.simulate import World
from tests.support.command_line import Call

pytest.importorskip("pyogrio")
pytest.importorskip("cmcrameri")

NUMBER = r"([-+]?\d+\.\d+)"


def test_the_demo_recovers_the_change_of_its_world_and_of_each_basin(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = World(bounds=(-20e3, -1370e3, 20e3, -1330e3))
    monkeypatch.setattr("cryotile.simulate.World", lambda: small)
    code, said, complaints = call("demo", tmp_path / "demo")
    assert code == 0, complaints
    line = rf"^(\S+) +total minus truth: {NUMBER} km3/yr, truth {NUMBER} km3/yr$"
    truth = {}
    for name, error, true in re.findall(line, said, re.MULTILINE):
        truth[name] = float(true)
        assert abs(float(error)) < 0.01
    assert list(truth) == ["north-east", "north-west", "south-west", "south-east", "all"]
    # The fastest glacier drains the north-east, so that no basin passes for another.
    assert truth["north-east"] < -0.04 < -0.02 < min(list(truth.values())[1:4])
    assert truth["all"] == pytest.approx(sum(list(truth.values())[:4]), abs=3e-4)
    line = rf"series minus truth: rms {NUMBER} km3, last bin {NUMBER} km3 of {NUMBER} km3; (\d) of 5 bins within"
    rms, last, change, within = map(float, re.findall(line, said)[0])
    # The last bin lies two and a half years after the first.
    assert change == pytest.approx(2.5 * truth["north-east"], rel=0.02)
    assert (rms < 0.02, abs(last) < 0.02, within >= 4) == (True, True, True)
    bias, rms = map(float, re.findall(rf"bias {NUMBER} m/yr, rms {NUMBER} m/yr", said)[0])
    assert (abs(bias) < 0.05, rms < 0.2) == (True, True)
    assert (tmp_path / "demo" / "series.png").is_file()
