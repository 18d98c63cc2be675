"""Masks, outlines and flow fields that other programs left beside the images are left out and named; images never are."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellcount_core.cli.counting import plan_lines
from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.images.quality import is_label_map
from cellcount_core.plan.planner import make_plan
from tests.unit.plan.listings import LIMITS, MODEL, MemoryStore

LABELS = np.zeros((96, 96), np.uint16)
for number in range(9):
    cv2.circle(LABELS, (16 + 32 * (number % 3), 16 + 32 * (number // 3)), 9, number + 1, -1)
IMAGE = np.clip(
    300 + 20.0 * cv2.GaussianBlur((LABELS > 0) * 100.0, (0, 0), 1.5)
    + np.random.default_rng(0).normal(0, 12, LABELS.shape), 0, 65535,
).astype(np.uint16)  # fmt: skip
COLOURS = np.random.default_rng(1).integers(0, 255, (10, 3)).astype(np.uint8)[LABELS]


def tiff(pixels: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels)
    return file.getvalue()


def png(pixels: NDArray[np.generic]) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def planned(files: dict[str, bytes], **run: object) -> tuple[set[str], str]:
    """The files that would be counted, and what `plan` prints."""
    with make_plan(MemoryStore(files), RunConfig.model_validate(run), MODEL, LIMITS) as plan:
        keys = {one.key for shard in plan.shards() for field in shard.fields for one in field.sources}
        return keys, "\n".join(plan_lines(plan.summary))


@pytest.mark.parametrize("order", [1, -1])
def test_what_other_programs_drew_of_an_image_is_left_out_and_named(order: int) -> None:
    mask = png((LABELS > 0).astype(np.uint8) * 255)
    for name, body in {
        "a_cp_masks.png": png(LABELS), "a_cp_masks_1.tif": tiff(LABELS), "a_seg.npy": b"\x93NUMPY...", "a_flows.tif": tiff(IMAGE),
        "a_labels.tif": tiff(LABELS), "a_label.tif": tiff(LABELS), "a_mask.png": mask, "a_Masks2.png": mask, "a_outlines_1.png": png(COLOURS),
        "a_cp_outlines.png": mask, "a_result.tif": tiff(LABELS.astype(np.float32)), "a-nuc.png": png(COLOURS), "a.png": png(LABELS),
        "masks/1.png": mask, "image_labels_A01.tif": tiff(LABELS), "P1-mask-a.png": mask, "truth/a.tif": tiff(LABELS),
        "OutputLabels/a.tif": tiff(LABELS),
        "ground truth/x.tif": tiff(LABELS), "segmented/a.png": png(COLOURS), "seg_a.tif": tiff(LABELS), "Mask of a.tif": mask, "a.ome_instanseg_prediction.tiff": tiff(LABELS),
    }.items():  # fmt: skip
        files = dict([("a.tif", tiff(IMAGE)), ("b.tif", tiff(IMAGE)), (name, body)][::order])
        keys, told = planned(files)
        assert keys == {"a.tif", "b.tif"}, name
        assert f"left out: 1 file, masks, outlines or flows of another program ({name!r}"[:40] in told
        assert name in told
        assert "--set run.masks=count" in told
        assert name in planned(files, masks="count")[0]


def test_images_are_never_taken_for_masks_by_what_their_names_add() -> None:
    files = {name: tiff(IMAGE) for name in ("a.tif", "a_1.tif", "a_nuc.tif", "label.tif", "edu_label.tif")}
    files |= {f"masks/{number}.tif": tiff(IMAGE) for number in range(3)}
    # Images that all say the same: an extended name of theirs adds nothing.
    files |= {
        f"{name}{end}.tif": tiff(IMAGE)
        for name in ("Mask_plate1_A01", "edu_labels/A01", "p_label_dapi_A01", "GT/A01")
        for end in ("", "_2")
    }
    keys, told = planned(files)
    assert keys == set(files)
    assert "left out" not in told


def test_a_second_mask_of_an_image_is_one_too() -> None:
    mask = png((LABELS > 0).astype(np.uint8) * 255)
    files = {"a.tif": tiff(IMAGE), "a_mask.png": mask, "a_mask_1.png": mask, "a_labels_b.tif": tiff(LABELS)}
    assert planned(files)[0] == {"a.tif"}


def test_another_size_an_image_drawn_like_a_mask_and_an_empty_one_are_counted() -> None:
    for files in (
        {"a.tif": tiff(IMAGE), "a_1.tif": tiff(np.kron(LABELS, np.ones((2, 2), np.uint16)))},
        {"a.tif": tiff(LABELS), "a_1.tif": tiff(LABELS)},
        {"a.tif": tiff(IMAGE), "a_1.tif": tiff(np.zeros_like(IMAGE))},
        {"a.tif": tiff(IMAGE), "a_1.tif": b"not an image"},
    ):
        assert planned(files)[0] == set(files)


def test_of_a_kind_that_holds_both_each_is_looked_at() -> None:
    files = {f"i{number}.tif": tiff(IMAGE) for number in range(8)}
    files |= {f"i{number}_b.tif": tiff(LABELS if number % 2 else IMAGE) for number in range(8)}
    assert planned(files)[0] == {key for key in files if "_b" not in key or int(key[1]) % 2 == 0}


@pytest.mark.parametrize(
    ("name", "said", "way"),
    [
        ("IMG_0001.HEIC", "of a photo format that is not read (.heic)", "save them as PNG or TIFF first"),
        ("x.avif", "of a photo format that is not read (.avif)", "save them as PNG or TIFF first"),
        ("x.dng", "of a photo format that is not read (.dng)", "save them as PNG or TIFF first"),
        ("x.CR2", "of a photo format that is not read (.cr2)", "save them as PNG or TIFF first"),
        ("x.czi", "of an image format that is not read (.czi)", "save them as TIFF first (Fiji, bfconvert)"),
        ("IMG_0001", "without an extension", "names that end as images do"),
    ],
)
def test_what_may_be_an_image_and_is_not_read_is_told_by_plan_and_count(
    name: str, said: str, way: str
) -> None:
    files = {"a.tif": tiff(IMAGE), name: b"\xff\xd8\xff", "README": b"text", "notes.txt": b"text"}
    with make_plan(MemoryStore(files), RunConfig(), MODEL, LIMITS) as plan:
        [warning] = [line for line in plan.summary.warnings if "left out" in line]
    assert f"left out: 1 file, {said}" in warning
    assert repr(name) in warning
    assert way in warning
    with pytest.raises(ConfigFault, match=way.partition(" (")[0]):
        planned({name: b"\xff\xd8\xff"})


def test_a_jpeg_by_the_name_that_windows_gives_it_is_counted() -> None:
    assert planned({"a.tif": tiff(IMAGE), "b.jfif": cv2.imencode(".jpg", COLOURS)[1].tobytes()})[0] == {
        "a.tif",
        "b.jfif",
    }


def test_a_folder_of_masks_alone_is_refused_with_the_way_to_count_them() -> None:
    files = {f"{number}_cp_masks.png": png(LABELS) for number in range(3)}
    with pytest.raises(
        ConfigFault, match=r"no image to count among 3 files: 3 masks.*\(cp_masks\).*run\.masks=count"
    ):
        planned(files)
    assert planned(files, masks="count")[0] == set(files)


def test_a_mask_beside_images_of_an_instrument_does_not_stop_the_plan() -> None:
    files = {
        "P_A01_s1_w1.tif": tiff(IMAGE),
        "P_A01_s1_w1_labels.tif": tiff(LABELS),
        "P_A01_s1_w1_cp_masks.png": png(LABELS),
    }
    keys, told = planned(files, layout={"kind": "imagexpress"})
    assert keys == {"P_A01_s1_w1.tif"}
    assert "_labels" in told and "cp_masks" in told


def test_a_channel_that_a_pattern_reads_is_no_mask_whatever_it_is_called() -> None:
    pattern = r"(?P<well>[A-H]\d\d)_(?P<channel>dapi|label)\.tif"
    files = {"B02_dapi.tif": tiff(IMAGE), "B02_label.tif": tiff(IMAGE)}
    keys, _ = planned(
        files, layout={"kind": "pattern", "pattern": pattern}, channels={"nuclei": "dapi"}, measure=["label"]
    )
    assert keys == set(files)


def test_a_label_map_is_told_from_a_dark_and_an_overexposed_image() -> None:
    blurred = cv2.GaussianBlur((LABELS > 0) * 255.0, (0, 0), 1.0)
    outlines = (cv2.dilate(LABELS, np.ones((3, 3))) != LABELS).astype(np.uint8)
    assert [is_label_map(each) for each in (LABELS, COLOURS, outlines, (LABELS > 0).astype(np.uint8))] == [
        True
    ] * 4
    photographs = (IMAGE, (blurred / 50).astype(np.uint8), np.clip(blurred * 3, 0, 255).astype(np.uint8))
    assert [is_label_map(each) for each in photographs] == [False] * 3
    assert is_label_map(np.zeros((8, 8))) is None


class WithMarkers(MemoryStore):
    """A store whose objects of 0 bytes are markers: nothing can be read there."""

    def size_of(self, key: str) -> int | None:
        return super().size_of(key) or None


def test_keys_that_are_no_paths_and_markers_of_folders_are_left_out_and_named() -> None:
    odd = {"x//c.tif": b"x", "/d.tif": b"x", "y/../e.tif": b"x"}
    store = WithMarkers({"a.tif": tiff(IMAGE), "sub.tif": b"", "sub.tif/b.tif": tiff(IMAGE), **odd})
    for layout in ({"kind": "flat"}, {"kind": "pattern", "pattern": "(?P<well>[a-e])[.]tif"}):
        with make_plan(store, RunConfig.model_validate({"layout": layout}), MODEL, LIMITS) as plan:
            assert {field.sources[0].key for shard in plan.shards() for field in shard.fields} == {
                "a.tif",
                "sub.tif/b.tif",
            }
            told = "\n".join(plan_lines(plan.summary))
        assert "left out: 3 files, key with an empty" in told
        assert "left out: 1 file, marker of a folder, such as 'sub.tif'" in told
