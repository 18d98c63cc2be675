"""Metadata files in a plan: what they state is planned, what cannot be read or contradicts the files is told."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, Reason
from cellcount_core.domain.fields import FieldKey, PlannedField, Shard, Source
from cellcount_core.domain.plates import PlateFacts, Position
from cellcount_core.layouts.harmony import HarmonySettings
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.output.planfile import plate_shapes, read_shards, write_plan
from cellcount_core.plan.planner import PlanSummary
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.contract.layouts.layout_contract import HARMONY, HTD
from tests.fields import tiff
from tests.plates import write_plate
from tests.unit.plan.listings import MemoryStore, plan_bytes, plan_of

IMAGES = ("run/p_B02_s1_w1.TIF", "run/p_B02_s2_w1.TIF", "run/p_B04_s2_w1.TIF")
"""Of the six fields that HTD states."""


def run_of(**settings: object) -> RunConfig:
    return RunConfig.model_validate({"layout": ImageXpressSettings(), **settings})


def without(name: str) -> bytes:
    """HTD without its line `name`."""
    lines = HTD.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(f'"{name}",'.encode()))


def planned(
    files: Mapping[str, bytes], images: tuple[str, ...] = IMAGES, **settings: object
) -> tuple[list[PlannedField], PlanSummary]:
    store = MemoryStore({**dict.fromkeys(images, b"pixels"), **files})
    with plan_of(store, run_of(**settings)) as plan:
        return [field for shard in plan.shards() for field in shard.fields], plan.summary


def missing(fields: list[PlannedField]) -> list[tuple[str, int]]:
    return [(field.key.well, field.key.site) for field in fields if field.reason is Reason.ABSENT]


def fingerprint(files: Mapping[str, bytes], images: tuple[str, ...] = IMAGES, **settings: object) -> str:
    store = MemoryStore({**dict.fromkeys(images, b"pixels"), **files})
    with plan_of(store, run_of(**settings)) as plan:
        return plan.file.fingerprint


def test_fields_that_the_instrument_states_and_did_not_write_are_missing_and_the_plan_says_so() -> None:
    fields, summary = planned({"run/p.HTD": HTD})
    assert missing(fields) == [("B03", 1), ("B03", 2), ("B04", 1)]
    assert {field.detail for field in fields if field.reason} == {
        "no file; p.HTD states that this well and site were acquired"
    }
    (told,) = (text for text in summary.warnings if "missing" in text)
    assert told.startswith("plate 'p': run/p.HTD states 3 more fields than there are files of")
    assert "--set 'run.exclude=[p.HTD]'" in told


def test_metadata_that_is_left_out_states_nothing() -> None:
    fields, summary = planned({"run/p.HTD": HTD}, exclude=["p.HTD"])
    assert missing(fields) == []
    assert summary.facts == {}


def test_a_field_that_the_instrument_does_not_state_is_counted_and_told() -> None:
    fields, summary = planned({"run/p.HTD": HTD}, (*IMAGES, "run/p_H12_s1_w1.TIF"))
    assert [field.key.well for field in fields if field.reason is None] == ["B02", "B02", "B04", "H12"]
    assert [text for text in summary.warnings if "1 field is not among those that run/p.HTD states" in text]


def test_files_that_were_set_aside_are_not_missing() -> None:
    excluded, _ = planned({"run/p.HTD": HTD}, exclude=["*_B02_s1_*"])
    assert ("B02", 1) not in missing(excluded)
    included, _ = planned({"run/p.HTD": HTD}, include=["*_B02_*"])
    assert [(field.key.well, field.key.site, field.reason) for field in included] == [
        ("B02", 1, None), ("B02", 2, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "an HTD file begins with"),
        (b"\x89PNG\r\n\x1a\n", "an HTD file begins with"),
        (HTD.replace(b"FALSE, TRUE, TRUE, TRUE", b"FALSE, TRUE"), "WellsSelection2 is"),
        (HTD.replace(b'"XWells", 12', b'"XWells", 100000'), "XWells is '100000'; a whole number up to 48"),
        (HTD[: HTD.index(b'"WellsSelection3"')], 'is cut short: an HTD file ends with "EndFile"'),
        (HTD.replace(b'"EndFile"', b""), "is cut short"),
        *(
            (without(name), f"has no line {name}")
            for name in ("XWells", "WellsSelection4", "Sites", "YSites", "SiteSelection2", "NWavelengths")
        ),
        (HTD.replace(b'"ZSteps", 0', b'"XWells", 24'), "states XWells twice, and not the same"),
        (
            b'"HTSInfoFile", Version 1.0\n' + b"#" * (4 * 2**20),
            "has 4,194,331 bytes, more than the 4,194,304 up to which metadata files are read",
        ),
    ],
)
def test_metadata_that_cannot_be_read_is_told_and_the_names_are_gone_by(body: bytes, said: str) -> None:
    fields, summary = planned({"run/p.HTD": body})
    assert missing(fields) == []
    (told,) = summary.warnings
    assert told.startswith("run/p.HTD: ")
    assert said in told
    assert told.endswith("the plate is planned from its file names alone")


def test_a_copy_of_the_metadata_that_says_otherwise_is_told() -> None:
    other = HTD.replace(b"FALSE, TRUE, TRUE, TRUE", b"FALSE, TRUE, TRUE,FALSE")
    for differing in (other, HTD + b"\r\n"):
        copies = {"run/TimePoint_1/p.HTD": HTD, "run/TimePoint_1/ZStep_1/p.HTD": differing}
        _, summary = planned({"run/p.HTD": HTD, **copies})
        [told] = [text for text in summary.warnings if "says otherwise" in text]
        assert told.startswith("run/TimePoint_1/ZStep_1/p.HTD says otherwise than run/p.HTD, which is used")
    _, summary = planned({"run/p.HTD": HTD, "run/TimePoint_1/p.HTD": HTD})
    assert not [text for text in summary.warnings if "says otherwise" in text]


def test_a_name_that_one_plate_gives_to_two_channels_is_refused_as_that() -> None:
    images = tuple(f"run/p_B02_s1_w{channel}.TIF" for channel in (1, 2))
    twice = HTD.replace(b'"FITC"', b'"DAPI"')
    with pytest.raises(ConfigFault, match="plate 'p' calls two channels 'DAPI': 'w1' and 'w2'; name the"):
        planned({"run/p.HTD": twice}, images, channels={"nuclei": "DAPI"})


def test_a_channel_that_is_not_there_is_answered_with_the_names_of_the_metadata() -> None:
    images = tuple(f"run/p_B02_s1_w{channel}.TIF" for channel in (1, 2))
    with pytest.raises(
        ConfigFault, match=r"no file of channel 'Cy7'.* there are 'w1' \(DAPI\), 'w2' \(FITC\)"
    ):
        planned({"run/p.HTD": HTD}, images, channels={"nuclei": "Cy7"})


def test_a_name_that_files_and_metadata_give_to_different_channels_is_refused() -> None:
    images = tuple(f"run/p_B02_s1_w{channel}.TIF" for channel in (1, 2))
    swapped = HTD.replace(b'"WaveName1", "DAPI"', b'"WaveName1", "w2"')
    with pytest.raises(ConfigFault, match=r"'w2' has two meanings.*ask for 'w1' or 'FITC'"):
        planned({"run/p.HTD": swapped}, images, channels={"nuclei": "w2"})
    for name in ("w1", "FITC"):
        planned({"run/p.HTD": swapped}, images, channels={"nuclei": name})


def test_metadata_of_a_plate_without_images_is_told() -> None:
    _, summary = planned({"elsewhere/q.HTD": HTD})
    assert "elsewhere/q.HTD describes the plate 'q', and there are no images of it" in summary.warnings


def test_a_folder_with_the_name_of_a_metadata_file_is_told() -> None:
    fields, summary = planned({"run/p.HTD/readme.txt": b"", "run/p.HTD/notes/more.txt": b""})
    assert [field.reason for field in fields] == [None] * 3
    told = [line for line in summary.warnings if "run/p.HTD" in line]
    assert told == [
        "run/p.HTD is a folder with the name of a metadata file, and is not read as one: put the file itself there, if there is one"
    ]
    assert not any("is a folder" in line for line in planned({"run/p.HTD": HTD})[1].warnings)


def test_each_folder_goes_by_its_own_metadata() -> None:
    other = HTD.replace(b'"DAPI"', b'"Hoechst"').replace(b'"XWells", 12', b'"XWells", 12 ')
    images = (*IMAGES, *(f"again/{key.rpartition('/')[2]}" for key in IMAGES))
    _, summary = planned({"run/p.HTD": HTD, "again/p.HTD": other}, images)
    assert {plate: dict(one.channels)["w1"] for plate, one in summary.facts.items()} == {
        "p@again": "Hoechst",
        "p@run": "DAPI",
    }


def test_a_name_that_means_another_channel_in_another_plate_is_refused() -> None:
    other = HTD.replace(b'"WaveName1", "DAPI"', b'"WaveName1", "FITC"').replace(
        b'"WaveName2", "FITC"', b'"WaveName2", "DAPI"'
    )
    images = tuple(f"{plate}/{plate}_B02_s1_w{channel}.TIF" for plate in "pq" for channel in (1, 2))
    with pytest.raises(ConfigFault, match="channel 'DAPI' is 'w1' in plate 'p' and 'w2' in plate 'q'"):
        planned({"p/p.HTD": HTD, "q/q.HTD": other}, images, channels={"nuclei": "DAPI"})
    with pytest.raises(
        ConfigFault, match=r"several channels \('w1' \(DAPI or FITC\), 'w2' \(DAPI or FITC\)\)"
    ):
        planned({"p/p.HTD": HTD, "q/q.HTD": other}, images)


def test_a_plan_without_metadata_files_is_what_it_was() -> None:
    body = plan_bytes(MemoryStore(dict.fromkeys(IMAGES, b"pixels")), run_of())
    file = pq.ParquetFile(io.BytesIO(body))
    assert file.schema_arrow.names[-2:] == ["reason", "detail"]
    assert b"cellcount.plates" not in (file.schema_arrow.metadata or {})
    assert fingerprint({}) == fingerprint({"run/notes.txt": b"x"})


def test_what_metadata_states_is_part_of_the_fingerprint() -> None:
    images = tuple(f"run/p_B0{well}_s{site}_w1.TIF" for well in (2, 3, 4) for site in (1, 2))
    names = {fingerprint({}, images), fingerprint({"run/p.HTD": HTD}, images)}
    names.add(fingerprint({"run/p.HTD": HTD.replace(b'"DAPI"', b'"Hoechst"')}, images))
    assert len(names) == 3
    assert fingerprint({"run/p.HTD": HTD}, images) == fingerprint({"run/p.HTD": HTD}, images[::-1])


def test_pixel_size_and_stage_position_are_read_back_from_the_plan(tmp_path: Path) -> None:
    field = PlannedField(
        FieldKey("p", "B02", 1, 1),
        (Source("w1", 0, "a.tif"),),
        um_per_px=0.65,
        position=Position(-120.5, 40.0),
    )
    plain = PlannedField(FieldKey("p", "B03", 1, 1), (), Reason.ABSENT, "no file")
    path = tmp_path / "plan.parquet"
    facts = {"p": PlateFacts("", "p", "p.xml", um_per_px=0.65, rows=8, columns=12)}
    write_plan(path, [Shard(0, (field, plain))], str, facts)
    (shard,) = read_shards(path)
    assert shard.fields == (field, plain)
    assert plate_shapes(path) == {"p": (8, 12)}


@pytest.mark.parametrize(("side", "told"), [(96, True), (48, False)])
def test_an_image_of_another_size_than_its_index_states_is_told(side: int, told: bool) -> None:
    size = f"<ImageSizeX>{side}</ImageSizeX><ImageSizeY>48</ImageSizeY><ChannelID>"
    files = {
        "m/Images/Index.idx.xml": HARMONY.replace(b"<ChannelID>", size.encode()),
        "m/Images/r03c04f01p01-ch1sk1fk1fl1.tiff": tiff(np.zeros((48, 48), np.uint16)),
        "m/Images/r03c04f02p01-ch1sk1fk1fl1.tiff": b"no image",
    }
    run = RunConfig.model_validate({"layout": HarmonySettings(), "channels": {"nuclei": "1"}})
    with plan_of(MemoryStore(files), run) as plan:
        warnings = [text for text in plan.summary.warnings if " px" in text]
    assert warnings == told * [
        "plate 'P7': m/Images/r03c04f01p01-ch1sk1fk1fl1.tiff has 48 x 48 px, and m/Images/Index.idx.xml states 96 x 48 px; what is there "
        "is counted, and the stated pixel size of 0.65 µm may be that of other images: give the right one with "
        "--set run.um_per_px=PIXELSIZE"
    ]


def test_a_metadata_file_that_is_a_link_to_itself_is_told(tmp_path: Path) -> None:
    write_plate(tmp_path / "plate", well_count=2)
    (tmp_path / "plate" / "P1.HTD").symlink_to("P1.HTD")
    with plan_of(open_store(tmp_path / "plate", StorageOptions()), run_of()) as plan:
        assert plan.summary.fields == 4
        assert plan.summary.warnings == (
            "P1.HTD leads nowhere: a broken link, or a file that went away while it was listed; the plate is planned from its file names "
            "alone",
        )


def test_leaving_another_channel_out_hides_no_missing_field() -> None:
    images = (*IMAGES, "run/p_B03_s1_w2.TIF")
    fields, _ = planned({"run/p.HTD": HTD}, images, exclude=["*_w2*"], channels={"nuclei": "w1"})
    assert missing(fields) == [("B03", 1), ("B03", 2), ("B04", 1)]
