"""A product says what it cannot know, by its own selection."""

from __future__ import annotations

import pytest
import xarray as xr

from cryotile.maps.unknown import instruments, unknowns


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
    assert "floating ice" not in of("laser", selection="surface_type == 'floating_ice'")
