"""A product says what it cannot know, by its own selection."""

from __future__ import annotations

import pytest
import xarray as xr

from cryotile.maps.metadata import described
from cryotile.maps.unknown import DROPPED_FLOATING_ICE, instruments, unknowns
from tests.support.maps import CONFIG, GRID, made_up


def of(modes: str, removed: tuple[str, ...] = (), **attrs: str) -> str:
    return "; ".join(unknowns(xr.Dataset(attrs={"source_modes": modes, **attrs}), removed))


@pytest.mark.parametrize(
    ("modes", "kinds"),
    [
        ("lrm, sarin_poca", {"radar"}),
        ("laser", {"laser"}),
        ("laser, sar", {"laser", "radar"}),
        ("", set()),
    ],
)
def test_modes_tell_the_instruments(modes: str, kinds: set[str]) -> None:
    assert instruments(xr.Dataset(attrs={"source_modes": modes})) == kinds


def test_the_sentences_follow_from_the_selection() -> None:
    assert "radar penetrates" in of("lrm")
    assert "radar penetrates" not in of("laser")
    assert "mixed" in of("laser, lrm")
    assert "mixed" not in of("lrm, sar")
    for modes in ("lrm", "laser", ""):
        assert "a drift that all passes share" in of(modes)
    assert "firn" in of("laser")
    assert "firn" not in of("laser", removed=("firn",))
    assert "bedrock" not in of("laser", removed=("gia",))
    assert "floating ice is left out" in of("laser")
    assert "left out" not in of("laser", selection="surface_type == 'floating_ice'")
    assert "12,345 points" in of("laser", **{DROPPED_FLOATING_ICE: "12345"})
    assert "no points of floating ice were left out" in of("laser", **{DROPPED_FLOATING_ICE: "0"})
    assert "3.3 +/- 6.0 cm/yr" in of("lrm")


def test_a_product_carries_its_sentences() -> None:
    product = described(made_up(GRID), grid=GRID, config=CONFIG, about={"source_modes": "lrm"})
    assert product.attrs["limitations"] == of("lrm")
