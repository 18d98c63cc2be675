"""scanR: what real files state, and what synthetic descriptors by the grammar do; wells by name and by number."""

from __future__ import annotations

import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, Reason
from cellcount_core.domain.fields import FieldKey, Parsed, PlannedField
from cellcount_core.domain.plates import PlateFacts, Position
from cellcount_core.layouts.metadata import Unreadable
from cellcount_core.layouts.registry import build_layout
from cellcount_core.layouts.scanr import ScanrSettings
from tests.contract.layouts.texts import scanr_descriptor, scanr_ome
from tests.data_dir import data_dir
from tests.unit.plan.listings import MemoryStore, plan_of

LAYOUT = build_layout(ScanrSettings(), "root")
RUN = RunConfig(layout=ScanrSettings())


def described(**bodies: bytes) -> PlateFacts:
    names = {"descriptor": "r/experiment_descriptor.xml", "ome": "r/data/metadata.ome.xml"}
    (facts,) = LAYOUT.describe({names[name]: body for name, body in bodies.items()})
    return facts


def name(number: int, site: int = 1, well: str = "", channel: str = "DAPI", plane: int = 0) -> str:
    return f"{well}--W{number:05d}--P{site:05d}--Z{plane:05d}--T00000--{channel}.tif"


def planned(objects: dict[str, bytes], run: RunConfig = RUN) -> dict[tuple[str, int], PlannedField]:
    with plan_of(MemoryStore(objects), run) as plan:
        assert not [warning for warning in plan.summary.warnings if "z plane" in warning]
        fields = [field for shard in plan.shards() for field in shard.fields]
    return {(field.key.well, field.key.site): field for field in fields}


def test_the_real_metadata_names_the_well_and_gives_size_and_position() -> None:
    root = data_dir()
    path = None if root is None else root / "plates/metadata_only/scanr/1w1p1c1z1t/data/metadata.ome.xml"
    if path is None or not path.is_file():
        pytest.skip("the sample plates are not here (set CELLCOUNT_DATA)")
    image = "data/B2--W00014--P00001--Z00000--T00000--405 nm #1.tif"
    with plan_of(MemoryStore({image: b"x", "data/metadata.ome.xml": path.read_bytes()}), RUN) as plan:
        (field,) = [field for shard in plan.shards() for field in shard.fields]
        (facts,) = plan.summary.facts.values()
        assert plan.summary.warnings == ()
    assert field.key == FieldKey("input", "B02", 1, 0)
    assert (field.um_per_px, field.position) == (0.325, Position(100090.0, -61827.0))
    assert (facts.rows, facts.columns, facts.image_shape) == (8, 12, (2048, 2048))


def test_a_name_without_its_well_is_found_by_the_shape_or_refused() -> None:
    objects = {name(14): b"x", name(26): b"x"}
    with pytest.raises(ConfigFault, match="--plate-format"):
        planned(objects)
    assert set(planned(objects, RunConfig(layout=ScanrSettings(), plate_format=96))) == {
        ("B02", 1),
        ("C02", 1),
    }
    stated = {f"data/{key}": body for key, body in objects.items()}
    descriptor = scanr_descriptor({14: "", 26: ""}, 1)
    assert set(planned({**stated, "experiment_descriptor.xml": descriptor})) == {("B02", 1), ("C02", 1)}


def test_the_real_file_without_a_well_is_refused_without_a_shape() -> None:
    key = "--W00001--P00001--Z00000--T00000--cherry.tif"
    assert LAYOUT.parse(key) == Parsed(FieldKey("root", "W00001", 1, 0), "cherry", 0, "", 1)
    with pytest.raises(ConfigFault, match="plate 'input': its files only number their wells, such as 1,"):
        planned({key: b"x"})


def test_a_missing_well_is_not_shown_as_its_neighbour() -> None:
    ome = scanr_ome((name(14), 14, 1, "B2"), (name(15), 15, 1, "B3"), (name(16), 16, 1, "B4"))
    found = planned({f"data/{name(14)}": b"x", f"data/{name(16)}": b"x", "data/metadata.ome.xml": ome})
    assert {place: field.reason for place, field in found.items()} == {
        ("B02", 1): None,
        ("B03", 1): Reason.ABSENT,
        ("B04", 1): None,
    }
    assert found["B03", 1].detail == "no file; metadata.ome.xml has an image of this field"


def test_a_selected_well_that_was_never_imaged_is_missing_at_each_of_its_positions() -> None:
    descriptor = scanr_descriptor({1: "A1", 2: "A2"}, 3)
    found = planned(
        {f"data/{name(1, site, 'A1')}": b"x" for site in (1, 2, 3)}
        | {"experiment_descriptor.xml": descriptor}
    )
    assert {place for place, field in found.items() if field.reason} == {("A02", 1), ("A02", 2), ("A02", 3)}
    assert "among those selected, with 3 positions" in found["A02", 2].detail


def test_the_descriptor_states_shape_size_and_the_channels_that_were_not_idle() -> None:
    facts = described(descriptor=scanr_descriptor({1: "A1"}, 1))
    assert (facts.rows, facts.columns, facts.um_per_px, facts.name, facts.planes) == (
        8,
        12,
        0.325,
        "Exp 7",
        1,
    )
    assert facts.channels == (("405 nm #1", ""), ("640 nm", ""))


def test_a_stack_counts_from_0_and_is_whole() -> None:
    ome = scanr_ome(*((name(14, plane=plane), 14, 1, "B2") for plane in (0, 1, 2)))
    objects = {f"data/{name(14, plane=plane)}": b"x" for plane in (0, 1, 2)}
    (field,) = planned({**objects, "data/metadata.ome.xml": ome}).values()
    assert [source.plane for source in field.sources] == [0, 1, 2]


def test_two_pixel_sizes_are_told() -> None:
    descriptor = scanr_descriptor({1: "A1"}, 1).replace(b"<Val>0.325", b"<Val>0.65")
    facts = described(descriptor=descriptor, ome=scanr_ome((name(1, well="A1"), 1, 1, "A1")))
    assert facts.um_per_px == 0.325
    assert facts.notes == (
        "states 0.325 µm/px and experiment_descriptor.xml states 0.65; the former is taken",
    )


def test_a_shape_is_concluded_only_from_wells_below_the_first_row() -> None:
    """Well 2 is A02 on every plate; well 14 is B02 on one of twelve columns alone."""
    assert described(ome=scanr_ome((name(2), 2, 1, "A2"))).rows is None
    assert described(ome=scanr_ome((name(26), 26, 1, "B2"))).rows == 16


@pytest.mark.parametrize(
    ("key", "body", "said"),
    [
        ("data/metadata.ome.xml", scanr_ome((name(1), 1, 1, ""))[:-20], "not readable XML"),
        ("data/metadata.ome.xml", b"<OME/>", "has no image"),
        (
            "data/metadata.ome.xml",
            scanr_ome((name(1), 1, 1, "")).replace(b"2048", b"-1"),
            "SizeX of a Pixels is '-1'",
        ),
        ("experiment_descriptor.xml", b"<LVData/>", "has no Val"),
        (
            "experiment_descriptor.xml",
            scanr_descriptor({1: "A1"}, 1).replace(b"<Val>8<", b"<Val>800<"),
            "Rows of the experiment is '800'",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(key: str, body: bytes, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        LAYOUT.describe({key: body})
