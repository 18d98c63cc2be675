"""ImageXpress HCS.ai: what a real run's text files state, and runs with a stack, a projection and a montage, which are synthetic."""

from __future__ import annotations

import json

import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.fields import PlannedField
from cellcount_core.domain.plates import Position
from cellcount_core.layouts.hcsai import HcsAiSettings
from cellcount_core.layouts.metadata import Unreadable
from cellcount_core.layouts.registry import build_layout
from cellcount_core.plan.planner import PlanSummary
from tests.contract.layouts.texts import hcsai_csv, jdce
from tests.data_dir import data_dir
from tests.unit.plan.listings import MemoryStore, plan_of

LAYOUT = build_layout(HcsAiSettings(), "root")
RUN = RunConfig(layout=HcsAiSettings())


def planned(objects: dict[str, bytes], run: RunConfig = RUN) -> tuple[list[PlannedField], PlanSummary]:
    with plan_of(MemoryStore(objects), run) as plan:
        return [field for shard in plan.shards() for field in shard.fields], plan.summary


def test_the_real_run_states_one_field_its_size_and_its_place() -> None:
    root = data_dir()
    name = "plates/metadata_only/imagexpress_hcsai/hcs_1w1s1t1c1z_binning4x4"
    if root is None or not (root / name).is_dir():
        pytest.skip("the sample plates are not here (set CELLCOUNT_DATA)")
    bodies = {
        path.relative_to(root / name).as_posix(): path.read_bytes()
        for path in (root / name).rglob("*")
        if path.is_file()
    }
    ([field], summary) = planned({"experiment/timepoint0/test_data_t0_C05_s0_w0_z0.tif": b"x", **bodies})
    (facts,) = summary.facts.values()
    assert summary.warnings == ()
    assert (field.key.well, field.key.site, field.key.timepoint) == ("C05", 0, 0)
    assert field.key.plate == "1w1s1t1c1z_binning4x4 2026-03-02, 13:57:52"
    assert (field.um_per_px, field.position) == (1.294, Position(50027.34, 30045.34))
    assert (facts.rows, facts.columns, facts.image_shape) == (8, 12, (576, 576))
    assert facts.channels == (("w0", "DAPI"),)


def image(unit: str, well: str = "C05", plane: int = 0) -> str:
    return f"r/{unit}/timepoint0/x_t0_{well}_s0_w0_z{plane}.tif"


def test_a_projection_stands_in_for_its_stack_and_a_montage_for_nothing() -> None:
    stack = [image("experiment_z_stack", plane=plane) for plane in (0, 1, 2)]
    everything = [
        image("experiment"),
        *stack,
        image("experiment_montage"),
        "r/autofocus/x_t0_C05_s0_w0_z0.tif",
    ]
    ([field], summary) = planned(dict.fromkeys(everything, b"x"))
    assert [source.key for source in field.sources] == [image("experiment")]
    assert summary.ignored == {"montage of the same fields": 1, "image of the autofocus": 1}
    ([field], _) = planned(dict.fromkeys(stack, b"x"))
    assert [(source.key, source.plane) for source in field.sources] == list(
        zip(stack, (1, 2, 3), strict=True)
    )


def test_a_single_acquisition_given_as_the_input_is_read_too() -> None:
    objects = {
        key.removeprefix("r/experiment_z_stack/"): b"x"
        for key in (image("experiment_z_stack", plane=p) for p in (0, 1))
    }
    ([field], _) = planned(objects)
    assert [source.plane for source in field.sources] == [1, 2]


def test_a_folder_above_that_is_called_experiment_is_no_acquisition() -> None:
    objects = {f"experiment/{image('experiment_z_stack', plane=plane)}": b"x" for plane in (0, 1)}
    ([field], _) = planned(objects)
    assert [source.plane for source in field.sources] == [1, 2]
    assert field.key.plate == "r"


def test_fields_of_every_csv_are_expected_and_one_that_is_not_there_is_told() -> None:
    objects = {
        image("experiment"): b"x",
        "r/experiment/a.jdce": jdce("BC"),
        "r/experiment/image_metadata_1.csv": hcsai_csv(
            ("x_t0_C05_s0_w0_z0.tif", 3, 5, 0), ("x_t0_C06_s0_w0_z0.tif", 3, 6, 0)
        ),
    }
    fields, summary = planned(objects)
    assert [(field.key.well, field.detail) for field in fields] == [
        ("C05", ""),
        ("C06", "no file; image_metadata_1.csv has a line of this field"),
    ]
    assert summary.warnings[0] == (
        "r/experiment/a.jdce: names 'image_metadata_2.csv', which is not there, so fields that it lists are not known to be missing"
    )


def test_a_line_that_leads_out_of_the_folder_is_told_and_not_opened() -> None:
    body = hcsai_csv(("x_t0_C05_s0_w0_z0.tif", 3, 5, 0), ("../x_t0_C06_s0_w0_z0.tif", 3, 6, 0))
    (facts,) = LAYOUT.describe({"experiment/image_metadata_1.csv": body})
    assert [each.wells for each in facts.expected] == [("C05",)]
    assert "would lie outside of their folder" in facts.notes[0]


def test_acquisitions_of_two_objectives_have_no_common_pixel_size() -> None:
    other = jdce("BC").replace(b"1.294", b"0.647")
    (facts,) = LAYOUT.describe({"experiment/a.jdce": jdce("BC"), "experiment_z_stack/a.jdce": other})
    assert facts.um_per_px is None
    assert "different pixel sizes (0.647, 1.294 µm)" in facts.notes[0]


def with_protocol(**changes: object) -> bytes:
    whole = json.loads(jdce("BC").partition(b"\n")[2])
    whole["ImageStack"]["AutoLeadAcquisitionProtocol"] |= changes
    return json.dumps(whole).encode()


@pytest.mark.parametrize(
    ("key", "body", "said"),
    [
        ("experiment/a.jdce", jdce("BC")[:-9], "not readable JSON"),
        ("experiment/a.jdce", b"[1, 2]", "the file is '\\[1, 2\\]'; an object was expected"),
        ("experiment/a.jdce", b"{}", "has no ImageStack.AutoLeadAcquisitionProtocol"),
        ("experiment/a.jdce", with_protocol(Plate=[1]), "Plate is '\\[1\\]'; an object was expected"),
        (
            "experiment/a.jdce",
            with_protocol(Plate={"Rows": "8"}),
            "Plate.Rows is '8'; a whole number from 1 to 32",
        ),
        ("experiment/a.jdce", with_protocol(Wavelengths={}), "Wavelengths is '{}'; a list was expected"),
        ("experiment/a.jdce", with_protocol(Wavelengths=[{}]), "Wavelengths\\[0\\] has no Index"),
        (
            "experiment/a.jdce",
            with_protocol(ObjectiveCalibration={"PixelWidth": float("nan")}),
            "a number was expected",
        ),
        ("experiment/image_metadata_1.csv", b"Well,Row\nA,1\n", "has no column Column"),
        (
            "experiment/image_metadata_1.csv",
            hcsai_csv(("x_t0_C05_s0_w0_z0.tif", 0, 5, 0)),
            "Row of line 2 is '0'",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(key: str, body: bytes, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        LAYOUT.describe({key: body})
