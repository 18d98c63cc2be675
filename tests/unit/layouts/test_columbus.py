"""Columbus and the variants of Harmony's index. The folders of Columbus are synthetic: by the grammar, with real pixels in every page."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from cellcount_core.cli.main import main
from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, ExitCode, Reason
from cellcount_core.domain.plates import Position
from cellcount_core.layouts.base import Entry
from cellcount_core.layouts.columbus import Columbus, ColumbusSettings
from cellcount_core.layouts.harmony import HarmonySettings
from cellcount_core.layouts.registry import build_layout
from cellcount_core.stores.base import StorageOptions
from tests.contract.layouts.test_layout_contract import mutated
from tests.contract.layouts.texts import columbus
from tests.unit.plan.listings import MemoryStore, plan_of

RUN = RunConfig(layout=ColumbusSettings(), channels={"nuclei": "1"})
INDEX = "m/ImageIndex.ColumbusIDX.xml"


def test_each_page_of_a_file_is_the_image_that_the_index_says(tmp_path: Path) -> None:
    """Two fields and two channels in one file, in no order: the page of each is counted, and no other."""
    pages = np.zeros((4, 64, 64), np.uint16)
    discs = {0: 0, 1: 3, 2: 1, 3: 2}
    for page, number in discs.items():
        for disc in range(number):
            y, x = np.ogrid[:64, :64]
            pages[page][(y - 32) ** 2 + (x - 12 - 20 * disc) ** 2 <= 36] = 20_000
    folder = tmp_path / "export"
    folder.mkdir()
    tifffile.imwrite(folder / "001002.tif", pages, photometric="minisblack")
    index = columbus(
        *(
            ("001002.tif", page, 1, 2, site, channel)
            for page, site, channel in ((3, 1, 1), (1, 2, 1), (0, 1, 2), (2, 2, 2))
        )
    )
    (folder / "ImageIndex.ColumbusIDX.xml").write_bytes(index)
    command = [
        "count",
        str(folder),
        str(tmp_path / "out"),
        "--layout",
        "columbus",
        "--model",
        "threshold",
        "--channel",
        "ch 1",
    ]
    assert main([*command, "--set", "execution.runner=serial"]) == ExitCode.OK
    rows = sorted(
        pq.read_table(tmp_path / "out" / "fields").to_pylist(), key=lambda row: row["Metadata_Site"]
    )
    assert [
        (row["Metadata_Plate"], row["Metadata_Well"], row["Metadata_Site"], row["count"]) for row in rows
    ] == [
        ("Plate 6", "A02", 1, discs[3]),
        ("Plate 6", "A02", 2, discs[1]),
    ]
    assert {row["um_per_px"] for row in rows} == {0.65}


def test_a_page_that_the_index_gives_to_two_fields_is_counted_for_none() -> None:
    objects = {
        "m/a.tif": b"x",
        INDEX: columbus(("a.tif", 0, 1, 1, 1, 1), ("a.tif", 0, 1, 1, 2, 1), ("a.tif", 1, 1, 1, 3, 1)),
    }
    with plan_of(MemoryStore(objects), RUN) as plan:
        reasons = {field.key.site: field.reason for shard in plan.shards() for field in shard.fields}
    assert reasons == {1: Reason.AMBIGUOUS_FILE, 2: Reason.AMBIGUOUS_FILE, 3: None}


def test_the_shape_size_place_and_names_of_the_index_are_used() -> None:
    objects = {"m/a.tif": b"x", INDEX: columbus(("a.tif", 0, 2, 3, 1, 1))}
    with plan_of(MemoryStore(objects), RUN) as plan:
        (field,) = [field for shard in plan.shards() for field in shard.fields]
        facts = plan.summary.facts["Plate 6"]
    assert (facts.rows, facts.columns, facts.image_shape, facts.channels) == (
        2,
        3,
        (48, 64),
        (("1", "ch 1"),),
    )
    assert (field.um_per_px, field.position, field.sources[0].index) == (0.65, Position(100.0, -200.0), 0)


def test_an_image_without_a_file_and_one_that_leads_elsewhere_are_missing() -> None:
    body = columbus(
        ("a.tif", 0, 1, 1, 1, 1),
        ("", None, 1, 1, 2, 1),
        ("http://host/b.tif", 0, 1, 1, 3, 1),
        ("../b.tif", 0, 1, 1, 4, 1),
    )
    with plan_of(MemoryStore({"m/a.tif": b"x", "b.tif": b"x", INDEX: body}), RUN) as plan:
        fields = [field for shard in plan.shards() for field in shard.fields]
        told = [warning for warning in plan.summary.warnings if "leads out of the folder" in warning]
    assert [field.reason for field in fields] == [None, Reason.ABSENT, Reason.ABSENT, Reason.ABSENT]
    assert len(told) == 1


def test_two_indexes_with_plates_of_one_name_are_two_plates() -> None:
    objects = {
        f"{folder}/{name}": body
        for folder in "ab"
        for name, body in (
            ("a.tif", b"x"),
            ("ImageIndex.ColumbusIDX.xml", columbus(("a.tif", 0, 1, 1, 1, 1))),
        )
    }
    with plan_of(MemoryStore(objects), RUN) as plan:
        assert [plate.plate for plate in plan.summary.plates] == ["Plate 6@a", "Plate 6@b"]
        assert plan.summary.reasons == {}


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ({"m/a.tif": b"x"}, "has no ImageIndex.ColumbusIDX.xml"),
        ({INDEX: columbus(("a.tif", 0, 1, 1, 1, 1))[:-9]}, "not readable XML"),
        ({INDEX: columbus()}, "lists no image"),
        ({INDEX: columbus(("a.tif", -1, 1, 1, 1, 1))}, "BufferNo of an Image is '-1'"),
    ],
)
def test_an_index_that_cannot_be_used_is_refused_in_one_sentence(
    objects: dict[str, bytes], said: str
) -> None:
    with pytest.raises(ConfigFault, match=said), plan_of(MemoryStore(objects), RUN):
        pass


@pytest.mark.parametrize("seed", range(100))
def test_a_hostile_index_is_read_or_refused_in_words(seed: int) -> None:
    body = columbus(
        ("a.tif", 0, 1, 1, 1, 1), ("a.tif", 1, 1, 1, 2, 1), ("b.tif", None, 2, 3, 1, 1), wells=("001001",)
    )
    store = MemoryStore({"m/a.tif": b"x", "m/b.tif": b"x", INDEX: mutated(body, random.Random(seed))})
    try:
        entries = [each for each in Columbus("x").entries(store, StorageOptions()) if isinstance(each, Entry)]
    except ConfigFault as fault:
        assert INDEX in str(fault)
    else:
        assert all(entry.key.startswith("m/") and ".." not in entry.key.split("/") for entry in entries)


MAPS = b"""<E xmlns="http://www.perkinelmer.com/PEHH/HarmonyV6"><Plates><Plate><Name>P</Name><PlateRows>8</PlateRows><PlateColumns>12</PlateColumns>
<Well id="0101"/></Plate></Plates><Maps><Map><Entry ChannelID="1"><FlatfieldProfile>{}</FlatfieldProfile></Entry></Map><Map><Entry ChannelID="1">
<ChannelName>HOECHST</ChannelName><ImageResolutionX Unit="m">3E-07</ImageResolutionX><ImageSizeX>1080</ImageSizeX><ImageSizeY>1081</ImageSizeY>
</Entry></Map></Maps><Images><Image><Row>1</Row><Col>1</Col><FieldID>1</FieldID><PlaneID>1</PlaneID><TimepointID>0</TimepointID>
<ChannelID>1</ChannelID><URL>r01c01f01p01-ch1sk1fk1fl1.tiff</URL></Image></Images></E>"""


@pytest.mark.parametrize("index", ["m/Index.xml", "m/Images/Index.xml", "m/images/Index.ref.xml"])
def test_an_index_of_harmony_6_lies_above_or_beside_its_images_and_tells_channels_once(index: str) -> None:
    run = RunConfig(layout=HarmonySettings(), channels={"nuclei": "HOECHST"})
    with plan_of(MemoryStore({"m/Images/r01c01f01p01-ch1sk1fk1fl1.tiff": b"x", index: MAPS}), run) as plan:
        (field,) = [field for shard in plan.shards() for field in shard.fields]
        (facts,) = plan.summary.facts.values()
    assert (field.key.plate, field.key.well, field.um_per_px) == ("P", "A01", 0.3)
    assert (facts.channels, facts.image_shape) == ((("1", "HOECHST"),), (1081, 1080))


def test_wells_of_six_digits_are_read_too() -> None:
    (facts,) = build_layout(HarmonySettings(), "x").describe(
        {"m/Index.xml": MAPS.replace(b'"0101"', b'"001002"')}
    )
    assert [each.wells for each in facts.expected] == [("A01",), ("A02",)]
