"""IN Cell: the three forms of names, and what synthetic `.xdce` files by the grammar of Bio-Formats' InCellReader state."""

from __future__ import annotations

import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import PlateFacts
from cellcount_core.layouts.base import Ignored
from cellcount_core.layouts.incell import InCellSettings
from cellcount_core.layouts.metadata import Unreadable
from cellcount_core.layouts.registry import build_layout
from tests.contract.layouts.texts import xdce
from tests.unit.plan.listings import MemoryStore, plan_of

LAYOUT = build_layout(InCellSettings(), "root")


def described(body: bytes) -> PlateFacts:
    (facts,) = LAYOUT.describe({"p/p.xdce": body})
    return facts


@pytest.mark.parametrize(
    ("name", "field", "channel", "plane"),
    [
        ("A - 01(fld 1 wv 390 - Blue).tif", FieldKey("p", "A01", 1, 1), "390 - Blue", 0),
        (
            "B - 1(fld 12 wv Blue - FITC z 3 time 2 - 2636ms).tif",
            FieldKey("p", "B01", 12, 2),
            "Blue - FITC",
            3,
        ),
        ("H - 012(fld 1 wv UV - DAPI wix 0).tif", FieldKey("p", "H12", 1, 1), "UV - DAPI", 0),
        ("plate_7_A - 01(fld 1 wv UV - DAPI).tif", FieldKey("plate_7", "A01", 1, 1), "UV - DAPI", 0),
        (
            "A - 01(fld 1 wv TL-Brightfield - dsRed z 12).tif",
            FieldKey("p", "A01", 1, 1),
            "TL-Brightfield - dsRed",
            12,
        ),
        ("A_01_f2_c1_xUV_mDAPI_z3_t2.tif", FieldKey("p", "A01", 2, 2), "UV - DAPI", 3),
        ("plate_7_P_24_f2_c1_xUV_mDAPI_z3_t2.tif", FieldKey("plate_7", "P24", 2, 2), "UV - DAPI", 3),
        ("t1_D04_s1_w1_z3.tif", FieldKey("p", "D04", 1, 1), "w1", 3),
        ("t2_D04_s1_w2.tif", FieldKey("p", "D04", 1, 2), "w2", 0),
    ],
)
def test_each_form_of_names_is_read_with_its_own_numbers(
    name: str, field: FieldKey, channel: str, plane: int
) -> None:
    assert LAYOUT.parse(f"p/{name}") == Parsed(field, channel, plane, "p")


@pytest.mark.parametrize(
    "name", ["A - 49(fld 1 wv UV).tif", "BA - 01(fld 1 wv UV).tif", "A - 01(fld 0 wv UV).tif", "A - 01.tif"]
)
def test_a_well_or_field_that_no_plate_has_is_not_read(name: str) -> None:
    assert LAYOUT.parse(name) is None


def test_thumbnails_are_left_out() -> None:
    assert LAYOUT.parse("p/A - 01(fld 1 wv UV - DAPI)_thumb.tif") == Ignored("thumbnail")
    assert LAYOUT.parse("p/Thumbnails/A - 01(fld 1 wv UV - DAPI).tif") == Ignored("thumbnail")


def test_wells_with_other_fields_than_their_neighbours_lack_nothing() -> None:
    """Sparse fields: the images that are listed are expected, and no product of wells and fields."""
    names = [
        (f"A - 0{column}(fld {site} wv UV - DAPI).tif", 1, column, site - 1, 0)
        for column, site in ((1, 1), (1, 4), (2, 3))
    ]
    objects = {f"p/{name[0]}": b"x" for name in names} | {"p/p.xdce": xdce(*names)}
    with plan_of(MemoryStore(objects), RunConfig(layout=InCellSettings())) as plan:
        fields = [field for shard in plan.shards() for field in shard.fields]
        assert plan.summary.warnings == ()
    assert [(field.key.well, field.key.site, field.reason) for field in fields] == [
        ("A01", 1, None),
        ("A01", 4, None),
        ("A02", 3, None),
    ]


def test_a_fused_wavelength_and_times_that_are_switched_off_state_nothing() -> None:
    facts = described(xdce(("A - 01(fld 1 wv UV - DAPI).tif", 1, 1, 0, 0)))
    assert facts.channels == (("UV - DAPI", "DAPI"),)
    assert facts.timepoints == 1


def test_an_image_listed_for_another_well_is_told_and_its_name_is_gone_by() -> None:
    facts = described(xdce(("A - 02(fld 1 wv UV - DAPI).tif", 1, 1, 0, 0)))
    assert [each.wells for each in facts.expected] == [("A02",)]
    assert "of another well than their file" in facts.notes[0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (xdce()[:-20], "not readable XML"),
        (b"<Other/>", "has no ImageStack"),
        (b"<ImageStack/>", "has no Plate"),
        (xdce().replace(b'rows="32"', b'rows="33"'), "rows of a Plate is '33'"),
        (xdce().replace(b'"0.65"', b'"wide"'), "pixel_width of a ObjectiveCalibration is 'wide'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(body: bytes, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        described(body)


def test_a_pixel_size_that_no_microscope_has_is_told_and_not_taken() -> None:
    facts = described(xdce().replace(b'pixel_width="0.65"', b'pixel_width="650"'))
    assert facts.um_per_px is None
    assert facts.notes == ("the pixel size 650 µm is stated, which no microscope has and which is not taken",)
