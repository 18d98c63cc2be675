"""Folders that programs of screening exported: what each SOURCE.txt says that a reader must find is what is planned."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.plates import Position
from cellcount_core.images.decode import open_image
from cellcount_core.layouts.almf import AlmfSettings
from cellcount_core.layouts.base import Ignored, LayoutSettings, is_derived
from cellcount_core.layouts.cytation import CytationSettings
from cellcount_core.layouts.incucyte import IncucyteSettings
from cellcount_core.layouts.leica import LeicaSettings
from cellcount_core.layouts.metadata import Unreadable
from cellcount_core.layouts.micromanager import MicroManagerSettings
from cellcount_core.layouts.registry import build_layout
from cellcount_core.layouts.sbs import SbsSettings
from cellcount_core.layouts.squid import SquidSettings
from cellcount_core.output.planfile import ShardLimits
from cellcount_core.plan.planner import make_plan
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.unit.layouts.test_real_names import MODEL, plan, plates, read

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


def test_micromanager_has_a_position_that_is_no_well_and_numbered_channels_with_names() -> None:
    found, ignored, unparsed = read("micromanager_tests/alpha_2.0_singleplane_manual", MicroManagerSettings())
    assert found == {("images", "Pos0", 1, 0, "0", 0)}
    assert (ignored, unparsed) == (["metadata metadata.txt"], [])


def test_the_hand_made_metadata_of_micromanager_is_refused_for_its_one_fault() -> None:
    """A comma is missing in it; no real file of 2.0 in one piece is here."""
    root = plates() / "micromanager_tests" / "alpha_2.0_singleplane_manual"
    told = plan(
        "micromanager_tests/alpha_2.0_singleplane_manual", RunConfig(layout=MicroManagerSettings())
    ).warnings
    assert (root / "Pos0" / "metadata.txt").is_file()
    assert len([text for text in told if text.startswith("Pos0/metadata.txt: not readable JSON")]) == 1


def test_stacks_of_micromanager_are_a_field_each_with_stage_positions_and_a_pixel_size(
    tmp_path: Path,
) -> None:
    packed = plates() / "micromanager_tests" / "VersionCompatTest"
    for path in packed.glob("*.gz"):
        (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    layout = build_layout(MicroManagerSettings(), "images")
    parsed = {path.name: layout.parse(path.name) for path in sorted(tmp_path.glob("*.tif"))}
    labels = ("1-Pos_000_000", "1-Pos_000_001", "1-Pos_001_000", "1-Pos_001_001")
    assert [(each.field.plate, each.field.well, each.field.site) for each in parsed.values()] == [
        ("1.4compatTest_3", label, 1) for label in labels
    ]
    name = "1.4compatTest_3_MMStack_1-Pos_000_000_metadata.txt"
    (facts,) = layout.describe({name: (tmp_path / name).read_bytes()})
    assert facts.positions == {
        ("1-Pos_000_000", 1): Position(-32.0, -32.0), ("1-Pos_001_000", 1): Position(32.0, -32.0),
        ("1-Pos_001_001", 1): Position(32.0, 32.0), ("1-Pos_000_001", 1): Position(-32.0, 32.0),
    }  # fmt: skip
    assert (facts.um_per_px, facts.image_shape) == (1, (64, 64))
    assert [each.wells for each in facts.expected] == [(label,) for label in labels]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("d/t_MMStack_A1-Site_3.ome.tif", ("t", "A01", 3)),
        ("d/t_MMStack_Pos2.ome.tif", ("t", "Pos2", 1)),
        ("d/MMStack_A12-Site_0.ome.tif", ("d", "A12", 0)),
        ("d/t_MMStack.ome.tif", ("t", "Pos0", 1)),
        ("d/t_MMStack_Pos2_1.ome.tif", None),
        ("d/t_MMStack_A1-Site_3_1.ome.tif", None),
        ("d/t_MMStack_1-Pos_000_001.ome.tif", ("t", "1-Pos_000_001", 1)),
    ],
)
def test_the_rest_of_a_stack_is_not_another_field(name: str, what: tuple[str, str, int] | None) -> None:
    """Names written from the grammar."""
    parsed = build_layout(MicroManagerSettings(), "images").parse(name)
    if what is None:
        assert isinstance(parsed, Ignored)
    else:
        assert (parsed.field.plate, parsed.field.well, parsed.field.site) == what


def test_a_stack_of_micromanager_with_two_time_points_is_two_fields_where_pages_are_times(
    tmp_path: Path,
) -> None:
    packed = plates() / "micromanager_tests" / "VersionCompatTest"
    for path in packed.glob("*.gz"):
        (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    run = RunConfig(layout=MicroManagerSettings(), pages="time", channels={"nuclei": "DAPI"})
    with make_plan(open_store(tmp_path, StorageOptions()), run, MODEL, ShardLimits(64, 2**40)) as made:
        fields = [field for shard in made.shards() for field in shard.fields]
    labels = ("1-Pos_000_000", "1-Pos_000_001", "1-Pos_001_000", "1-Pos_001_001")
    assert [(field.key.well, field.key.timepoint) for field in fields] == [
        (label, time) for label in labels for time in (0, 1)
    ]
    assert {field.um_per_px for field in fields} == {1.0}


def test_the_mitocheck_movie_is_one_well_at_thirty_times_whose_name_the_plates_shape_tells() -> None:
    found, _, unparsed = read("almf_mitocheck_movie", AlmfSettings())
    assert found == {("EMBO_2012_Group3", "W00002", 1, time, "", 0) for time in range(30)}
    assert unparsed == []
    with pytest.raises(ConfigFault, match="--plate-format"):
        plan("almf_mitocheck_movie", RunConfig(layout=AlmfSettings()))
    summary = plan("almf_mitocheck_movie", RunConfig(layout=AlmfSettings(), plate_format=384))
    assert (summary.fields, summary.plates[0].wells) == (30, 1)


def test_the_demo_plate_has_three_wells_at_three_times_and_doses_that_hold_dots() -> None:
    found, _, unparsed = read("zeiss_almf_fis_demoplate/03-images_renamed", AlmfSettings())
    assert found == {
        ("demoplate_01", f"W{well:05d}", 1, time, "C00", 0) for well in (1, 2, 3) for time in range(3)
    }
    assert unparsed == []
    first = build_layout(AlmfSettings(first_well=0), "x").parse("p--W0000--P000--T0000--C00.tif")
    assert (first.numbered, first.field.site) == (1, 0)
    assert build_layout(AlmfSettings(), "x").parse("p--W0000--P000--T0000--C00.tif") is None


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("e/exp_1_B3_2_01d02h30m.tif", ("exp_1", "B03", 2, 1590, "")),
        ("A172_Phase_A7_1_00d00h00m_1.tif", ("A172", "A07", 1, 0, "Phase")),
        ("A172_Phase_A7_1_00d00h00m_3.tif", ("A172", "A07", 2001, 0, "Phase")),
        ("VID1_Green_H12_1_2020y01m02d_03h04m.tif", ("VID1", "H12", 1, 26298904, "Green")),
        ("Phase_B3_1_00d04h00m.tif", ("images", "B03", 1, 240, "Phase")),
        ("x/EssenFiles/ScanData/2505/16/0930/1234/A1-1-Ph.tif", ("1234", "A01", 1, 29123130, "Ph")),
        ("2505/16/0930/1234/B12-4-C2.tif", ("1234", "B12", 4, 29123130, "C2")),
        ("2505/16/2530/1234/B12-4-C2.tif", None),
    ],
)  # fmt: skip
def test_incucyte_names_tell_minutes(key: str, what: tuple[str, str, int, int, str] | None) -> None:
    """Names written from the grammar; no real images of an IncuCyte are here."""
    parsed = build_layout(IncucyteSettings(), "images").parse(key)
    if what is None:
        assert parsed is None
    else:
        field = parsed.field
        assert (field.plate, field.well, field.site, field.timepoint, parsed.channel) == what


def test_scans_of_one_vessel_are_one_plate_and_those_of_an_archive_lie_in_one_folder() -> None:
    layout = build_layout(IncucyteSettings(), "images")
    folders = {
        layout.parse(f"a/EssenFiles/ScanData/2505/{day}/0930/1234/A1-1-Ph.tif").folder for day in ("16", "17")
    }
    assert folders == {"a"}


SQUID = b"region,fov,x (mm),y (mm)\nB2,0,14.5,20.25\nmanual0,3,1,2\n"


def test_squid_has_regions_that_are_no_wells_and_planes_of_one_field_in_several_rows() -> None:
    """Written from the grammar; no real folder is here."""
    body = SQUID + b"B2,0,14.5,20.25\n"
    (facts,) = build_layout(SquidSettings(), "s").describe({"coordinates.csv": body})
    assert facts.positions == {
        ("B02", 0): Position(14500.0, 20250.0),
        ("manual0", 3): Position(1000.0, 2000.0),
    }
    assert [(each.wells, each.sites) for each in facts.expected] == [(("B02",), (0,)), (("manual0",), (3,))]
    assert (facts.plate, facts.um_per_px) == ("s", None)


@pytest.mark.parametrize(
    ("found", "instead", "message"),
    [
        (b"region,", b"well,", "has no column 'region'"),
        (b",0,14.5", b",-1,14.5", "line 2: fov is '-1' of region 'B02'"),
        (b"14.5", b"1e400", "line 2: x (mm) is '1e400'; a number of millimetres was expected"),
        (b",20.25", b"", "line 2: has 3 values, the header has 4"),
        (b"B2,0", b'"B2,0', "not a CSV table"),
        (SQUID, b"", "has no column 'region'; there are none"),
        (SQUID, b"\xff\x00" * 90, "has no column 'region'"),
    ],
)  # fmt: skip
def test_hostile_coordinates_of_squid_are_refused_in_a_sentence(
    found: bytes, instead: bytes, message: str
) -> None:
    with pytest.raises(Unreadable) as refused:
        build_layout(SquidSettings(), "s").describe({"coordinates.csv": SQUID.replace(found, instead)})
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[1]", "is not a JSON object"),
        (b'{"Nt": "2"}', "Nt is '2'; a whole number from 1 was expected"),
        (b'{"objective": {"magnification": -4}, "sensor_pixel_size_um": 1}', "magnification is '-4'"),
        (b'{"Nt": 1', "not readable JSON"),
    ],
)
def test_hostile_parameters_of_squid_are_refused_in_a_sentence(text: bytes, message: str) -> None:
    with pytest.raises(Unreadable) as refused:
        build_layout(SquidSettings(), "s").describe({"acquisition parameters.json": text})
    assert message in str(refused.value)
