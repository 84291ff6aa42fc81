"""An unreadable granule gives an error of one line: value, rule, remedy."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import MappingProxyType

import h5py
import netCDF4
import numpy as np
import pandas as pd
import pytest

from cryotile import readers
from cryotile.errors import GranuleError, InvalidValue
from cryotile.points import Granule, empty_points
from cryotile.readers import find_reader, read_granule
from tests.support.real_granules import (
    ANTARCTICA,
    APRIL,
    LRM,
    REPEATED,
    SAR,
    SARIN,
    WINDOWS,
)


def line_about(path) -> str:
    """The only line of the error that reading ``path`` raises; it names the file."""
    with pytest.raises(GranuleError) as error:
        read_granule(path)
    line = str(error.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def test_a_missing_file_is_named(tmp_path):
    assert "No such file" in line_about(tmp_path / "none.nc")


def test_a_directory_is_not_a_granule(tmp_path):
    assert "Is a directory; give the files in it" in line_about(tmp_path)


def test_an_empty_file_is_reported_as_empty(tmp_path):
    path = tmp_path / "empty.nc"
    path.touch()
    assert "is empty" in line_about(path)


@pytest.mark.parametrize("name", list(WINDOWS))
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_reported_as_truncated(granules, tmp_path, name, share):
    path = tmp_path / "cut.nc"
    whole = (granules / name).read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "truncated" in line_about(path)


def test_a_file_with_altered_bytes_is_reported_as_damaged(granules, tmp_path):
    path = tmp_path / "broken.h5"
    whole = bytearray((granules / APRIL).read_bytes())
    with h5py.File(granules / APRIL) as file:
        chunk = file["gt1l/land_ice_segments/h_li"].id.get_chunk_info(0)
    whole[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(whole)
    line = line_about(path)
    assert "damaged" in line
    assert "h_li" in line


@pytest.mark.parametrize("name", [REPEATED, LRM])
def test_a_file_with_a_single_flipped_bit_is_read_or_reported_in_one_line(granules, tmp_path, name):
    whole = (granules / name).read_bytes()
    random = np.random.default_rng(5)
    path, lines = tmp_path / "flipped.h5", []
    for place in random.integers(0, 6000, 60):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        try:
            read_granule(path)
        except GranuleError as error:
            lines.append(str(error))
    assert lines
    assert not any("\n" in line for line in lines)


def test_a_text_file_is_neither_netcdf_nor_hdf5(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("x,y\n1,2\n")
    line = line_about(path)
    assert "neither NetCDF-4 nor HDF5" in line
    assert "cryotempo_land_ice" in line, "the remedy says what can be read"


def test_a_netcdf_file_of_another_product_is_unknown(tmp_path):
    path = tmp_path / "other.nc"
    with netCDF4.Dataset(path, "w") as dataset:
        dataset.title = "Cryo-TEMPO Sea Ice Thematic Product"
    assert "unknown product" in line_about(path)


def test_another_cryosat_product_is_unknown(granules, tmp_path):
    path = tmp_path / "l1b.nc"
    shutil.copyfile(granules / SAR, path)
    with h5py.File(path, "r+") as file:
        file.attrs["product_name"] = np.bytes_(
            "CS_LTA__SIR_SAR_1B_20191005T151255_20191005T151621_E001"
        )
    line = line_about(path)
    assert "unknown product" in line
    assert "SIR_SAR_1B" in line, "the refusal says which product it is"


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("short_name", "ATL03"),
        ("identifier_product_type", "ATL08"),
        ("product_name", "S3A_SR_2_WAT____20190504T112546_20190504T121546.SEN3"),
        ("title", "Sentinel-6 Level 2"),
    ],
)
def test_the_refusal_of_another_product_names_it(tmp_path, attribute, value):
    path = tmp_path / "other.nc"
    with h5py.File(path, "w") as file:
        file.attrs[attribute] = value
    line = line_about(path)
    assert value in line
    assert "icesat2_atl06" in line, "the remedy says what can be read"


ATL03, L1B, S3 = "ICESat-2 ATL03", "CryoSat-2 Level 1B (L1B", "Sentinel-3"


@pytest.mark.parametrize(
    ("name", "attributes", "variable", "product"),
    [
        ("a.h5", {"short_name": "ATL03"}, "gt1l/heights/h_ph", ATL03),
        ("a.h5", {}, "gt3r/heights/h_ph", ATL03),
        ("processed_ATL03_20190416093911_02770303_006_01.h5", {}, "x", ATL03),
        ("a.h5", {"identifier_product_type": "ATL08"}, "x", "ICESat-2 ATL08"),
        ("a.h5", {}, "gt2l/land_segments/latitude", "ICESat-2 ATL08"),
        ("a.h5", {"ShortName": "GLAH14"}, "Data_40HZ/Elevation_Surfaces/d_elev", "ICESat GLAH14"),
        ("a.nc", {"product_name": "CS_OFFL_SIR_SIN_1B_20190504T122546_D001"}, "x", L1B),
        ("a.nc", {}, "pwr_waveform_20_ku", L1B),
        ("a.nc", {"product_name": "CS_OFFL_SIR_SARIFR_20190504T122546_D001"}, "x", "FBR"),
        ("a.nc", {"product_name": "S3A_SR_2_LAN_HY_20190504T112546.SEN3"}, "x", S3),
        ("EN1_F4A_ALT_TDP_OC_1.nc", {"title": "Ocean and Coastal"}, "x", "FDR4ALT"),
    ],
)
def test_the_refusal_says_in_words_what_the_product_is(
    tmp_path, name, attributes, variable, product
):
    path = tmp_path / name
    with h5py.File(path, "w") as file:
        file[variable] = np.zeros(3)
        file.attrs.update(attributes)
    line = line_about(path)
    assert f"is of an unknown product, {product}" in line or product in line.split(";")[0]
    assert all(str(value) in line for value in attributes.values())


def test_the_refusal_of_an_icesat2_subset_takes_the_name_from_its_metadata(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("METADATA/DatasetIdentification").attrs["shortName"] = b"ATL10"
    assert "ICESat-2 ATL10 (shortName 'ATL10')" in line_about(tmp_path / "a.h5")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_refusal_of_a_table_lists_its_columns(tmp_path, suffix):
    frame = pd.DataFrame({"lon": [1.0], "h_li": [2.0]})
    path = tmp_path / f"t.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    line = line_about(path)
    assert "with the columns lon, h_li;" in line
    assert "or a table with" in line


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (b"CDF\x01rest", "NetCDF-3"),
        (b"II*\0rest", "TIFF"),
        (b"PK\3\4rest", "a zip archive"),
        (b'PRODUCT="CS_OFFL_SIR_LRM_2_', "an ESA product of the time before NetCDF"),
        (b"<!DOCTYPE html>", "XML or HTML"),
    ],
)
def test_the_refusal_of_another_format_names_it(tmp_path, head, form):
    path = tmp_path / "other.h5"
    path.write_bytes(head)
    assert f"but {form}" in line_about(path)


def test_other_files_in_a_folder_are_reported_by_name(tmp_path):
    names = ["b.nc", "sub/a.h5", "c.csv", "._b.nc", ".DS_Store", "b.nc.md5", "b.xml", ".git/x.nc"]
    names += ["._c.h5", "d.h5.tmp", "e.nc.part", "_SUCCESS", "sub/_metadata", "Thumbs.db"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    granules, strays = readers.granules_under(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in granules] == ["b.nc", "c.csv", "sub/a.h5"]
    assert {path.name for path in strays} == {Path(name).name for name in names} - {
        "b.nc",
        "a.h5",
        "c.csv",
        "x.nc",
    }


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        (ANTARCTICA, "elevation"),
        (ANTARCTICA, "time"),
        (LRM, "height_3_20_ku"),
        (LRM, "flag_quality_20_ku"),
        (LRM, "time_20_ku"),
        (SARIN, "height_1_20_ku"),
        (SARIN, "lon_poca_20_ku"),
        (SAR, "flag_prod_status_20_ku"),
        (APRIL, "gt2l/land_ice_segments/h_li"),
        (APRIL, "gt2l/land_ice_segments/latitude"),
        (APRIL, "gt2l/land_ice_segments/sigma_geo_h"),
        (REPEATED, "pt2/corrected_h/h_corr"),
        (REPEATED, "pt2/corrected_h/cycle_number"),
    ],
)
def test_a_missing_variable_is_named(granules, tmp_path, name, variable):
    path = tmp_path / "lacking.nc"
    shutil.copyfile(granules / name, path)
    with h5py.File(path, "r+") as file:
        del file[variable]
    assert f"lacks the variable {variable} " in line_about(path)


@pytest.mark.parametrize(
    ("name", "variable", "values"),
    [
        (ANTARCTICA, "elevation", np.zeros(3)),
        (LRM, "flag_quality_20_ku", np.zeros((2, 2), "i4")),
        (APRIL, "gt2l/land_ice_segments/h_li", np.zeros(7)),
        (REPEATED, "pt2/corrected_h/h_corr", np.zeros(1404)),
        (ANTARCTICA, "longitude", np.full(1765, b"east")),
    ],
)
def test_a_variable_of_the_wrong_kind_is_named(granules, tmp_path, name, variable, values):
    path = tmp_path / "odd.nc"
    shutil.copyfile(granules / name, path)
    with h5py.File(path, "r+") as file:
        del file[variable]
        file[variable] = values
    assert variable in line_about(path)


def test_a_sensing_start_that_is_not_a_date_is_quoted(granules, tmp_path):
    path = tmp_path / "odd.nc"
    shutil.copyfile(granules / ANTARCTICA, path)
    with h5py.File(path, "r+") as file:
        file.attrs["time_coverage_start"] = np.bytes_("yesterday evening")
    assert "yesterday evening" in line_about(path)


def test_a_surface_that_does_not_exist_is_refused(granules):
    with pytest.raises(InvalidValue, match="'sea_ice' does not exist; choose from ocean"):
        read_granule(granules / LRM, surface_types=("sea_ice",))


def test_a_column_that_no_reader_offers_is_refused(granules):
    with pytest.raises(InvalidValue, match="'powr' does not exist; choose from power"):
        read_granule(granules / LRM, columns=("powr",))


class TableReader:
    """A reader as a third party would write it, of a format that is not HDF5."""

    product = "my_table"
    columns = MappingProxyType({"colour": "1"})

    def recognises(self, source):
        return source.path.read_bytes().startswith(b"my table")

    def read(self, source, *, surface_types, columns):
        points = empty_points(projected=False)
        return Granule(
            "my:id", self.product, "", 0, source.path.name, source.checksum(), 0, {}, points
        )


class EntryPoint:
    def load(self):
        return TableReader()


def test_third_parties_add_readers_of_their_own_formats(tmp_path, monkeypatch):
    path = tmp_path / "table.txt"
    path.write_text("my table\n")
    assert "neither NetCDF-4 nor HDF5" in line_about(path)
    monkeypatch.setattr(
        readers, "entry_points", lambda group: [EntryPoint()] if group == readers.GROUP else []
    )
    assert find_reader(path).product == "my_table"
    assert read_granule(path, columns=("colour",)).id == "my:id"
