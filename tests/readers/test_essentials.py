"""A reader needs place, time, height and quality; all else may be absent from a granule.

What a reader asks for is recorded while it reads a granule with all extra columns.  Then each of these variables,
groups and attributes is deleted in turn, so that a new need of a reader is tried without a change here.
"""

from __future__ import annotations

import re
import shutil

import h5py
import numpy as np
import pytest

from cryotile.errors import GranuleError
from cryotile.points import SURFACE_TYPES
from cryotile.readers import extra_columns, find_reader, read_granule
from cryotile.readers.source import Source
from cryotile.simulate import World, simulate
from tests.support.foreign import CASES
from tests.support.real_granules import (
    ANTARCTICA,
    APRIL,
    GREENLAND,
    LRM,
    NOVEMBER,
    REPEATED,
    SAR,
    SARIN,
)

EOLIS = "eolis"
WORLD = World(bounds=(-20e3, -1410e3, 20e3, -1370e3))
ATL06_BEAM = "atl06_quality_summary delta_time h_li latitude longitude sigma_geo_h"
ESSENTIAL = {
    LRM: "time_20_ku lat_poca_20_ku lon_poca_20_ku height_3_20_ku flag_quality_20_ku flag_mcd_20_ku",
    SARIN: "time_20_ku lat_poca_20_ku lon_poca_20_ku height_1_20_ku flag_quality_20_ku flag_mcd_20_ku"
    " flag_sarin_ambiguity_warning_20_ku",
    SAR: "time_20_ku lat_poca_20_ku lon_poca_20_ku height_1_20_ku flag_prod_status_20_ku",
    ANTARCTICA: "time latitude longitude elevation",
    GREENLAND: "time latitude longitude elevation",
    APRIL: ATL06_BEAM,
    NOVEMBER: ATL06_BEAM,
    REPEATED: "delta_time h_corr latitude longitude quality_summary cycle_number",
    EOLIS: "time x y elevation",
    "fdr4alt": "time ice_sheet_lon_poca ice_sheet_lat_poca ice_sheet_elevation_ice1_roemer retracking_ice1_qual"
    " ice_sheet_qual_relocation",
    "reaper": "time_20hz offset_lon_20hz offset_lat_20hz offset_elevation_20hz ice1_qual_flag_20hz",
    "sentinel3": "time_20_ku lon_cor_20_ku lat_cor_20_ku elevation_ice_sheet_20_ku waveform_qual_ice_20_ku",
    "glah12": "DS_UTCTime_40 d_lon d_lat d_elev d_satElevCorr elev_use_flg sigma_att_flg sat_corr_flg i_numPk",
    "ilatm1b": "time_hhmmss longitude latitude elevation",
}
"""Granule → its variables of place, time, height and quality."""

# A granule must tell these once: in a variable, in an attribute or in its name.
MODES = {
    LRM: "flag_instr_mode_op_20_ku",
    SARIN: "flag_instr_mode_op_20_ku",
    SAR: "flag_instr_mode_op_20_ku",
}
MODES |= {ANTARCTICA: "instrument_mode", GREENLAND: "instrument_mode", EOLIS: "isSwath"}

STATED = {
    EOLIS: ("/", "geospatial_projection"),  # of x and y
    "fdr4alt": ("expert/time", "units"),
}
"""Granule → the attribute without which its variables say nothing."""

PLATFORMS = {"fdr4alt": "mission_name", "sentinel3": "mission_name"}
"""Granule → an attribute that tells its platform; its name does so, too."""

BEAMS = {APRIL: "gt1l", NOVEMBER: "gt3r", REPEATED: "pt2"}
"""Granule → the beam that its small copy has."""

CERTAIN = ["longitude", "latitude", "time", "elevation", "mode"]


@pytest.fixture(scope="module")
def eolis(tmp_path_factory):
    directory = tmp_path_factory.mktemp("eolis")
    made = simulate(directory, product="eolis", start="2019-03-01", years=0.08, seed=3, world=WORLD)
    return max(made, key=lambda path: path.stat().st_size)


class Asked:
    """What readers ask of files, as variables and (object, attribute)."""

    def __init__(self, monkeypatch):
        self.things = set()
        node, attribute = Source._node, Source.attribute

        def recorded_node(source, name):
            if (found := node(source, name)) is not None and name != "/":
                self.things.add((name, None))
            return found

        def recorded_attribute(source, name, *, of="/"):
            if (found := attribute(source, name, of=of)) is not None:
                self.things.add((of, name))
            return found

        monkeypatch.setattr(Source, "_node", recorded_node)
        monkeypatch.setattr(Source, "attribute", recorded_attribute)


def read(path):
    return read_granule(path, surface_types=SURFACE_TYPES, columns=tuple(extra_columns()))


@pytest.fixture(params=list(ESSENTIAL))
def small(request, granules, eolis, tmp_path, monkeypatch):
    """Copy what the reader asks for of a granule and of one of its beams; return name, path and what was asked."""
    path = eolis if request.param == EOLIS else granules / request.param
    if case := CASES.get(request.param):
        path = case.write(tmp_path / "made", case.truth)
    beam = BEAMS.get(request.param)
    with monkeypatch.context() as patch:
        asked = Asked(patch)
        whole = read(path)
    things = {
        (name, attribute)
        for name, attribute in asked.things
        if beam is None or name.startswith(beam) or not re.match(r"[gp]t\d", name)
    }
    copy = tmp_path / path.name
    with h5py.File(path) as old, h5py.File(copy, "w") as new:
        for name in sorted({name for name, _ in things}):
            if isinstance(old[name], h5py.Dataset):
                variable = new.create_dataset(name, data=old[name][()])
                shown = (
                    key
                    for key in old[name].attrs
                    if key not in ("DIMENSION_LIST", "REFERENCE_LIST")
                )
                variable.attrs.update({key: old[name].attrs[key] for key in shown})
        for name, attribute in things:
            if attribute is not None:
                holder = new[name] if name in new else new.create_group(name)
                holder.attrs[attribute] = old[name].attrs[attribute]
    if beam is None:
        assert read(copy).points.equals(whole.points)
    return request.param, copy, things


def without(path, target, name, attribute):
    shutil.copyfile(path, target)
    with h5py.File(target, "r+") as file:
        if attribute is None:
            del file[name]
        else:
            del file[name].attrs[attribute]
    return target


def test_all_but_place_time_height_and_quality_may_be_absent(small, tmp_path):
    name, path, things = small
    needed = {STATED.get(name)}
    essential = [one for one, _ in things if one.rpartition("/")[2] in ESSENTIAL[name].split()]
    needed |= {(variable, None) for variable in essential}
    whole = read(path)
    assert len(whole.points) > 10
    (tmp_path / "sub").mkdir()
    target = tmp_path / "sub" / path.name
    for variable, attribute in sorted(things, key=str):
        if attribute is None and any(one.startswith(f"{variable}/") for one in essential):
            continue
        without(path, target, variable, attribute)
        if (variable, attribute) in needed:
            with pytest.raises(GranuleError) as caught:
                read(target)
            assert "\n" not in str(caught.value)
            continue
        found = read(target)
        assert found.product == whole.product, (variable, attribute)
        assert found.dropped == whole.dropped, (variable, attribute)
        # An EOLIS file without the flag of swaths holds swaths.
        same = CERTAIN[:-1] if variable == "isSwath" else CERTAIN
        assert found.points[same].equals(whole.points[same]), (variable, attribute)


def test_place_time_height_and_quality_alone_are_a_granule(small, tmp_path):
    name, path, things = small
    whole = read(path)
    kept = {*ESSENTIAL[name].split(), MODES.get(name)}
    # The names of some tell the satellite or the day; those of others tell nothing.
    bare = tmp_path / (f"bare {path.name}" if name in ("reaper", "ilatm1b") else "bare.h5")
    with h5py.File(path) as old, h5py.File(bare, "w") as new:
        for variable, _ in things:
            if variable.rpartition("/")[2] in kept and variable not in new:
                old.copy(variable, new, name=variable)
        for attribute in {PLATFORMS.get(name), "geospatial_projection"} - {None}:
            if attribute in old.attrs:
                new.attrs[attribute] = old.attrs[attribute]
    found = read(bare)
    assert found.product == whole.product == find_reader(path).product
    assert found.dropped == whole.dropped
    assert found.points[CERTAIN].equals(whole.points[CERTAIN])
    assert np.isnan(found.points["uncertainty"]).all()
