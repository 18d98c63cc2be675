"""Folders that programs of screening exported: what each SOURCE.txt says that a reader must find is what is planned."""

from __future__ import annotations

import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.plates import Position
from cellcount_core.images.decode import open_image
from cellcount_core.layouts.base import LayoutSettings, is_derived
from cellcount_core.layouts.cytation import CytationSettings
from cellcount_core.layouts.leica import LeicaSettings
from cellcount_core.layouts.registry import build_layout
from cellcount_core.layouts.sbs import SbsSettings
from tests.unit.layouts.test_real_names import plan, plates, read

ROWS = "ABCDEFGH"


def test_bbbc013_has_96_wells_in_the_channel_of_nuclei_and_row_a_in_the_other() -> None:
    found, _, unparsed = read("bbbc013_sbs", SbsSettings())
    wells = {f"{row}{column:02d}" for row in ROWS for column in range(1, 13)}
    assert {row[1] for row in found if row[4] == "2"} == wells
    assert {row[1] for row in found if row[4] == "1"} == {well for well in wells if well.startswith("A")}
    assert {(row[0], row[2], row[3], row[5]) for row in found} == {("images", 1, 1, 0)}
    assert unparsed == []
    summary = plan("bbbc013_sbs", RunConfig(layout=SbsSettings(), channels={"nuclei": "2"}))
    assert (summary.fields, summary.reasons) == (96, {})


def test_vitra_has_a_blank_in_the_name_and_a_fifth_part_that_is_the_site_from_0() -> None:
    found, ignored, unparsed = read("vitra_bbbc014", SbsSettings())
    assert found == {("images", well, 0, 1, channel, 0) for well in ("A01", "A12") for channel in ("1", "2")}
    assert unparsed == []
    assert len(ignored) == 3


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("BBBC006_v1_images_z_16/mcf-z-stacks-03212011_k06_s2_w1b1d9a7d8-0c2e-4f5e-8f6e-2b8f9c1c5a10.tif", ("K06", 2, "1", 16)),
        ("BBBC006_v1_images_z_00/mcf-z-stacks-03212011_a01_s1_w26F8A6C0B-4C1F-44A6-9C65-5E6B5E7A7B11.tif", ("A01", 1, "2", 0)),
        ("mcf-z-stacks-03212011_a01_s1_w1.tif", ("A01", 1, "1", 0)),
    ],
)  # fmt: skip
def test_bbbc006_has_wells_in_lower_case_and_planes_in_folders(
    name: str, what: tuple[str, int, str, int]
) -> None:
    """Names written from the grammar; no real folder is here."""
    parsed = build_layout(SbsSettings(), "images").parse(name)
    assert (parsed.field.well, parsed.field.site, parsed.channel, parsed.plane) == what
    assert (parsed.field.plate, parsed.folder) == ("mcf-z-stacks-03212011", "")


def test_cytation_has_unpadded_wells_and_fields_with_gaps_and_its_masks_are_left_out() -> None:
    found, ignored, unparsed = read("cytation_nf1_more", CytationSettings())
    assert {row[1:] for row in found} == {
        ("B07", 3, 1, "DAPI", 0), ("B07", 3, 1, "GFP", 0), ("B07", 3, 1, "RFP", 0),
        ("D07", 1, 1, "DAPI", 0), ("F07", 2, 1, "DAPI", 0), ("H12", 1, 1, "DAPI", 0),
    }  # fmt: skip
    assert {row[0] for row in found} == {"Plate_2_images"}
    assert unparsed == []
    assert sum(map(is_derived, ignored)) == 4
    summary = plan("cytation_nf1_more", RunConfig(layout=CytationSettings(), channels={"nuclei": "DAPI"}))
    assert (summary.fields, summary.reasons, summary.channels_seen) == (4, {}, ("DAPI", "GFP", "RFP"))
    assert read("cytation_nf1", CytationSettings())[0] == {("Plate_2_images", "D06", 2, 1, "DAPI", 0)}


def test_the_matrix_screener_has_two_fields_one_below_the_other_and_reads_palettes_as_grey() -> None:
    found, _, unparsed = read("leica_matrix_screener", LeicaSettings())
    plate = "experiment--test"
    assert found == {
        (plate, "A01", site, 0, channel, 0) for site in (1001, 2001) for channel in ("C00", "C01")
    }
    assert unparsed == []
    root = plates() / "leica_matrix_screener"
    for path in sorted(root.rglob("*C00.ome.tif")):
        image = open_image(path.read_bytes(), path.name, max_pixels=10**8)
        assert (image.shape, image.um_per_px) == ((1024, 1024), pytest.approx(0.2405, abs=1e-4))
        assert len(image.channels) == 1


@pytest.mark.parametrize("settings", [LeicaSettings(), LeicaSettings(field_column="Y")])
def test_leicaautomator_has_twelve_fields_with_places_on_the_stage_and_the_others_of_its_template_are_missing(
    settings: LeicaSettings,
) -> None:
    found, ignored, unparsed = read("leica_leicaautomator", settings)
    turned = settings.field_column == "Y"
    sites = {
        (1000 * (y + 1) + x + 1 if not turned else 1000 * (x + 1) + y + 1) for x in (0, 1) for y in range(6)
    }
    assert found == {("experiment", "A01", site, 0, "C00", 0) for site in sites}
    assert unparsed == []
    assert ignored.count("metadata {ScanningTemplate}leicaautomator-overview.xml") == 1
    summary = plan("leica_leicaautomator", RunConfig(layout=settings))
    # 14 columns of 11 fields have a job; two columns of six were kept here.
    assert (summary.fields, summary.reasons) == (154, {"absent": 142})
    (facts,) = summary.facts.values()
    assert facts.positions["A01", 1001] == Position(58435.8, 30685.253)
    assert facts.positions["A01", 1002 if turned else 2001] == Position(58435.8, 32185.253)


def test_the_tokens_of_leica_can_be_turned_around_and_jobs_and_loops_chosen() -> None:
    name = "image--L0003--S01--U04--V02--J09--E00--O00--X01--Y05--T0000--Z02--C01.ome.tif"

    def what(settings: LayoutSettings) -> tuple[str, str, int, int, str, int]:
        parsed = build_layout(settings, "e").parse(name)
        field = parsed.field
        return field.plate, field.well, field.site, field.timepoint, parsed.channel, parsed.plane

    assert what(LeicaSettings()) == ("e-S01", "C05", 6002, 0, "C01", 2)
    assert what(LeicaSettings(well_column="V", time="L", job=9)) == ("e-S01", "E03", 6002, 3, "C01", 2)
    ignored = build_layout(LeicaSettings(job=8), "e").parse(name)
    assert ignored is not None
    assert "another job (J09)" in str(ignored)
