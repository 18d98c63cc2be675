"""CellVoyager: what the real folders' records and settings state, running well numbers of CQ3K, messages of the instrument."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, Reason
from cellcount_core.domain.fields import FieldKey, Parsed, PlannedField
from cellcount_core.domain.plates import PlateFacts, Position
from cellcount_core.layouts.base import Ignored
from cellcount_core.layouts.cellvoyager import CellVoyagerSettings
from cellcount_core.layouts.metadata import Unreadable
from cellcount_core.layouts.registry import build_layout
from tests.contract.layouts.texts import MRF, mlf
from tests.data_dir import data_dir
from tests.unit.plan.listings import MemoryStore, plan_of

LAYOUT = build_layout(CellVoyagerSettings(), "root")
CV8000 = "cellvoyager_cv8000/CV8000-Minimal-DataSet-2C-3W-4S-FP2-stack_20230918_135839/CV8000-Minimal-DataSet-2C-3W-4S-FP2-stack"


def folder(name: str) -> Path:
    root = data_dir()
    if root is None or not (root / "plates" / name).is_dir():
        pytest.skip("the sample plates are not here (set CELLCOUNT_DATA)")
    return root / "plates" / name


def stated(name: str) -> PlateFacts:
    """What the metadata of a real folder states."""
    bodies = {
        f"m/{path.name}": path.read_bytes()
        for path in folder(name).iterdir()
        if path.suffix in (".mlf", ".mrf", ".mes")
    }
    (facts,) = LAYOUT.describe(bodies)
    return facts


def places(facts: PlateFacts) -> set[tuple[str, int, int]]:
    return {place for each in facts.expected for place in each.places((1,))}


def planned(objects: dict[str, bytes], run: RunConfig) -> dict[tuple[str, int, int], PlannedField]:
    with plan_of(MemoryStore(objects), run) as plan:
        fields = [field for shard in plan.shards() for field in shard.fields]
    return {(field.key.well, field.key.site, field.key.timepoint): field for field in fields}


def test_cv8000_states_three_wells_four_fields_four_planes_and_the_two_acquired_channels() -> None:
    facts = stated(CV8000)
    assert (facts.rows, facts.columns, facts.um_per_px, facts.image_shape) == (8, 12, 0.325, (2000, 2000))
    assert facts.channels == (("C01", "405"), ("C02", "488"))
    assert (facts.planes, facts.timepoints, facts.notes) == (4, 1, ())
    assert places(facts) == {(well, site, 1) for well in ("D08", "E03", "F08") for site in (1, 2, 3, 4)}
    assert facts.positions["D08", 1] == Position(-567.1, -402.9)  # y up in the file
    assert facts.positions["F08", 4] == Position(82.8, 247.0)


def test_every_image_of_cv8000_is_read_and_shading_and_dark_frames_are_left_out() -> None:
    names = [path.name for path in folder(CV8000).iterdir() if path.suffix == ".tif"]
    found = [LAYOUT.parse(name) for name in names]
    assert sum(isinstance(each, Parsed) for each in found) == 96
    assert found.count(Ignored("shading or dark frame")) == 6


def test_a_time_point_is_that_of_the_name_and_not_of_the_record() -> None:
    """CV7000: four wells, each in a timeline of its own with one channel: its `TimePoint` counts timelines."""
    facts = stated("cellvoyager_cv7000_example_meta")
    assert places(facts) == {
        (well, site, time)
        for time, well in enumerate(("C03", "D03", "E03", "F03"), 1)
        for site in range(1, 17)
    }
    assert (facts.planes, facts.um_per_px, facts.image_shape) == (31, 0.325, (2160, 2560))
    assert facts.channels == (("C01", "405"), ("C02", "488"), ("C03", "561"), ("C04", "640"))


def test_a_well_that_was_never_to_be_imaged_in_the_counted_channel_is_skipped_and_neither_missing_nor_failed() -> (
    None
):
    """CV7000: each of four wells has one channel of its own. A field whose file is gone is missing all the same."""
    bodies = {
        path.name: path.read_bytes()
        for path in folder("cellvoyager_cv7000_example_meta").iterdir()
        if path.suffix in (".mlf", ".mrf", ".mes")
    }
    name = "20250303-Illumination-QC-20x_{}F{:03d}L{:02d}A01Z01C{:02d}.tif"
    files = [name.format("C03_T0001", site, 1, 1) for site in range(2, 17)]
    files += [name.format("D03_T0002", site, 2, 2) for site in range(1, 17)]
    run = RunConfig(layout=CellVoyagerSettings(), channels={"nuclei": "405"})
    fields = planned({**dict.fromkeys(files, b"x"), **bodies}, run)
    told = Counter((well, field.reason) for (well, _, _), field in fields.items())
    assert told == {
        ("C03", None): 15,
        ("C03", Reason.ABSENT): 1,
        **{(well, Reason.NOT_ACQUIRED): 16 for well in ("D03", "E03", "F03")},
    }
    assert fields["D03", 1, 2].detail == (
        "MeasurementData.mlf has no image of channel 'C01' in this well; there are 'C02'"
    )


def test_an_action_is_no_channel_and_sites_run_as_the_stage_did() -> None:
    facts = stated("cellvoyager_cv7000_maxproj_meta")
    assert (facts.rows, facts.columns, facts.um_per_px, facts.planes) == (16, 24, 0.108333, 1)
    assert facts.plate == "AssayPlate_Cellvis_#384-1.5H-N"
    assert facts.channels == (("C01", "405"), ("C03", "561"), ("C04", "640"))
    assert places(facts) == {
        (well, site, 1) for well in ("C03", "C04", "D03", "D04", "E03") for site in range(1, 10)
    }
    assert facts.positions["C03", 1] == Position(-625.0, -625.0)
    assert facts.positions["C03", 9] == Position(625.0, 625.0)


def test_records_of_errors_become_missing_fields_with_the_instruments_own_words() -> None:
    name = "metadata_only/yokogawa/cv7000_1w1p1c1z1t_with_err"
    image = "20200812-CardiomyocyteDifferentiation14-Cycle1_B03_T0001F001L01A01Z01C01.tif"
    bodies = {path.name: path.read_bytes() for path in folder(name).iterdir()}
    fields = planned({image: b"pixels", **bodies}, RunConfig(layout=CellVoyagerSettings()))
    assert {place: field.reason for place, field in fields.items()} == {
        ("B03", 1, 1): None,
        ("C14", 1, 1): Reason.ABSENT,
        ("N09", 1, 1): Reason.ABSENT,
    }
    assert fields["C14", 1, 1].detail == (
        "no file; MeasurementData.mlf says: AF Error at C14 No. 0 (SAMPLE_PLATE_000000_000000)"
    )
    (facts,) = LAYOUT.describe(bodies)
    assert facts.notes == (
        "records are of the well C14 and others, which a plate of 8 x 12 wells does not have",
    )


def test_running_well_numbers_of_a_real_cq3k_have_the_wells_that_its_records_name() -> None:
    bodies = {
        path.name: path.read_bytes()
        for path in folder("metadata_only/yokogawa/cq3k_2w1p1c1z1t_mip").iterdir()
    }
    files = dict.fromkeys(
        ("Projection/W0029F0001T0001Z000C1.tif", "Projection/W0069F0001T0001Z000C1.tif"), b"x"
    )
    run = RunConfig(layout=CellVoyagerSettings())
    with plan_of(MemoryStore({**files, **bodies}), run) as plan:
        assert plan.summary.warnings == ()
        (plate,) = plan.summary.plates
        fields = [field for shard in plan.shards() for field in shard.fields]
    assert plate.plate == "20251020T100401_BVC_Channel_WellTestC5F9_MIP_Only"
    assert [(field.key.well, field.um_per_px, field.position) for field in fields] == [
        ("C05", 0.324222, Position(-1460.8, 1303.2)),
        ("F09", 0.324222, Position(-1460.8, 1303.2)),
    ]


def test_running_well_numbers_without_records_need_the_shape_of_the_plate() -> None:
    """A synthetic CQ3K folder, by the grammar: the well is known from `.mrf` or the setting, or the plan refuses."""
    files = dict.fromkeys(("r/Image/W0029F0001T0001Z001C1.tif", "r/Image/W0030F0001T0001Z001C1.tif"), b"x")
    run = RunConfig(layout=CellVoyagerSettings())
    with pytest.raises(ConfigFault, match="--plate-format 96"):
        planned(files, run)
    named = [("C05", 1, 1), ("C06", 1, 1)]
    assert list(planned({**files, "r/MeasurementDetail.mrf": MRF}, run)) == named
    assert list(planned(files, RunConfig(layout=CellVoyagerSettings(), plate_format=96))) == named
    assert list(planned(files, RunConfig(layout=CellVoyagerSettings(), plate_format=384))) == [
        ("B05", 1, 1),
        ("B06", 1, 1),
    ]


def test_a_projection_stands_in_for_its_stack_and_is_not_a_field_of_its_own() -> None:
    """A synthetic CQ3K folder with both."""
    stack = [f"r/Image/W0001F0001T0001Z00{plane}C1.tif" for plane in (1, 2, 3)]
    projection = "r/Projection/W0001F0001T0001Z000C1.tif"
    run = RunConfig(layout=CellVoyagerSettings(), plate_format=96)
    (field,) = planned(dict.fromkeys([*stack, projection], b"x"), run).values()
    assert [source.key for source in field.sources] == [projection]
    (field,) = planned(dict.fromkeys(stack, b"x"), run).values()
    assert [source.key for source in field.sources] == stack


def test_a_plate_name_may_hold_what_separates_its_parts() -> None:
    parsed = LAYOUT.parse("AssayPlate_B03_#384-1.5H-N_P24_T0012F013L02A03Z31C04.tif")
    assert parsed == Parsed(FieldKey("AssayPlate_B03_#384-1.5H-N", "P24", 13, 12), "C04", 31)
    assert LAYOUT.parse("p_AF48_T0001F001L01A01Z01C01.tif") == Parsed(FieldKey("p", "AF48", 1, 1), "C01", 1)
    assert LAYOUT.parse("p_Z99_T0001F001L01A01Z01C01.tif") is None


def test_a_file_of_records_that_ends_in_two_brackets_is_read() -> None:
    body = mlf(("p_A01_T0001F001L01A01Z01C01.tif", 1, 1, 1, "1"))
    (facts,) = LAYOUT.describe({"MeasurementData.mlf": body + b">\n"})
    assert places(facts) == {("A01", 1, 1)}


def test_a_message_about_a_field_that_was_imaged_is_told_and_nothing_is_missing() -> None:
    body = mlf(("p_A01_T0001F001L01A01Z01C01.tif", 1, 1, 1, "1"), ("AF Error at A01 No. 0", 1, 1, 1, ""))
    (facts,) = LAYOUT.describe({"MeasurementData.mlf": body})
    assert places(facts) == {("A01", 1, 1)}
    assert facts.notes == (
        "the instrument reports of fields that it imaged all the same: 'AF Error at A01 No. 0'",
    )


def test_a_record_that_names_a_file_of_another_well_is_told_and_the_name_is_gone_by() -> None:
    (facts,) = LAYOUT.describe(
        {"MeasurementData.mlf": mlf(("p_A02_T0001F001L01A01Z01C01.tif", 1, 1, 1, "1"))}
    )
    assert places(facts) == {("A02", 1, 1)}
    assert "of another well than their file" in facts.notes[0]


def test_a_record_whose_file_would_lie_elsewhere_is_told_and_nothing_is_opened() -> None:
    (facts,) = LAYOUT.describe(
        {
            "MeasurementData.mlf": mlf(
                ("../../etc/passwd", 1, 1, 1, "1"), ("p_A01_T0001F001L01A01Z01C01.tif", 1, 1, 1, "1")
            )
        }
    )
    assert facts.notes == (
        "of 1 record, such as '../../etc/passwd', name a file that does not follow the convention",
    )


@pytest.mark.parametrize(
    ("key", "body", "said"),
    [
        ("MeasurementData.mlf", mlf()[:-30], "not readable XML"),
        ("MeasurementData.mlf", mlf(), "no record of an image"),
        ("MeasurementData.mlf", b"<Other/>", "has no MeasurementData"),
        (
            "MeasurementData.mlf",
            mlf(("p_A01_T0001F001L01A01Z01C01.tif", 0, 1, 1, "1")),
            "Row of a MeasurementRecord is '0'",
        ),
        ("MeasurementDetail.mrf", b"<Other/>", "has no MeasurementDetail"),
        (
            "MeasurementDetail.mrf",
            MRF.replace(b'"12"', b'"many"'),
            "ColumnCount of a MeasurementDetail is 'many'",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(key: str, body: bytes, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        LAYOUT.describe({key: body})
