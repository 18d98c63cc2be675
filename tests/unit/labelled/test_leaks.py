"""Images that show the same are found, whatever was done to the copy, and others are not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode
from cellcount_core.labelled.leaks import ImageLook, Pair, across, find_pairs, found_groups, look_at
from tests.shapes import shape_image


@cache
def scene(seed: int, side: int = 200) -> NDArray[np.uint16]:
    """A field of cells of many sizes and levels, with texture."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side), np.float32)
    for _ in range(side * side // 700):
        axes = (int(rng.integers(3, 14)), int(rng.integers(3, 14)))
        centre = (int(rng.integers(side)), int(rng.integers(side)))
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0.2, 1)), -1)
    image = cv2.GaussianBlur(image, (0, 0), 1.2) + 0.004 * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(300 + 5000 * image, 0, 65535).astype(np.uint16)


@cache
def others() -> list[ImageLook]:
    """Three scenes that nothing else shows."""
    return [look_at(f"other {seed}", [scene(seed)]) for seed in range(100, 103)]


def pairs(*images: NDArray[np.uint16]) -> list[Pair]:
    return find_pairs(
        [*(look_at(f"{number:02d}", [image]) for number, image in enumerate(images)), *others()]
    )


@pytest.mark.parametrize("turns", range(8))
def test_copies_are_found_in_all_eight_orientations(turns: int) -> None:
    turned = np.rot90(scene(1), turns % 4)
    turned = turned[:, ::-1] if turns >= 4 else turned
    assert pairs(scene(1), np.ascontiguousarray(turned)) == [
        Pair("00", "01", "turned" if turns else "identical")
    ]


def test_a_copy_that_was_stored_anew_is_found_by_what_it_looks_like() -> None:
    noisy = scene(1).astype(np.float32) * 0.8 + np.random.default_rng(0).normal(0, 60, (200, 200))
    turned = np.ascontiguousarray(np.rot90(np.clip(noisy, 0, 65535).astype(np.uint16)))
    assert pairs(scene(1), turned) == [Pair("00", "01", "alike")]


@pytest.mark.parametrize(
    ("angle", "scale", "mirror", "margin"),
    [(17, 1.0, 1, 50), (0, 0.6, 1, 80), (33, 1.0, -1, 50)],
    ids=["turned", "smaller", "mirrored"],
)
def test_cuts_tilts_and_other_scales_of_a_scene_are_found(
    angle: float, scale: float, mirror: int, margin: int
) -> None:
    whole = scene(1, 300)
    matrix = cv2.getRotationMatrix2D((150, 150), angle, scale)
    copy = cv2.warpAffine(whole, matrix, (300, 300), borderMode=cv2.BORDER_REFLECT_101)[
        margin:-margin, margin:-margin
    ][:, ::mirror]
    assert pairs(whole, np.ascontiguousarray(copy)) == [Pair("00", "01", "scene")]


def test_other_scenes_are_no_pairs() -> None:
    assert pairs(scene(1), scene(2)) == []


def test_patterns_that_repeat_are_no_pairs() -> None:
    looks = [look_at(str(seed), [shape_image("stripes", seed)]) for seed in range(12)]
    assert find_pairs(looks) == []


def test_only_pairs_on_two_sides_of_a_split_count() -> None:
    found = [Pair("a", "b", "scene"), Pair("a", "c", "identical"), Pair("a", "d", "alike")]
    assert across(found, {"a": "train", "b": "train", "c": "val"}) == [Pair("a", "c", "identical")]


def test_images_that_show_the_same_are_one_group_also_over_a_third() -> None:
    found = [Pair("a", "c", "scene"), Pair("c", "d", "scene")]
    assert found_groups(["a", "b", "c", "d"], found) == {"a": "a", "b": "b", "c": "a", "d": "a"}


@pytest.mark.slow
def test_the_command_names_the_pairs_and_writes_the_groups_that_mend_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, first in (("control", 1), ("knock-down", 50)):
        (tmp_path / kind).mkdir()
        for number in range(3):
            tifffile.imwrite(tmp_path / kind / f"{number}.tif", scene(first + number))
    tifffile.imwrite(tmp_path / "control" / "copy, turned.tif", np.ascontiguousarray(np.rot90(scene(1))))
    groups = tmp_path / "groups.csv"
    assert main(["check-classes", str(tmp_path)]) == ExitCode.FAILURES
    capsys.readouterr()
    assert main(["check-classes", str(tmp_path), "--write-groups", str(groups)]) == ExitCode.OK
    told = capsys.readouterr().out
    assert (
        "images that show the same: 1 pairs (1 the same pixels, turned or mirrored); 1 are in different groups"
        in told
    )
    assert "control/0.tif and control/copy, turned.tif" in told
    assert main(["check-classes", str(tmp_path)]) == ExitCode.OK
    assert "6 groups by groups.csv" in capsys.readouterr().out


def test_the_same_image_in_two_classes_is_a_fault_that_no_group_mends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, first in (("control", 1), ("knock-down", 50)):
        (tmp_path / kind).mkdir()
        for number in range(2):
            tifffile.imwrite(tmp_path / kind / f"{number}.tif", scene(first + number))
    tifffile.imwrite(tmp_path / "control" / "same.tif", np.ascontiguousarray(scene(50)[::-1]))
    groups = tmp_path / "groups.csv"
    assert main(["check-classes", str(tmp_path), "--write-groups", str(groups)]) == ExitCode.FAILURES
    assert main(["check-classes", str(tmp_path)]) == ExitCode.FAILURES
    told = capsys.readouterr().out
    assert told.count("the same image has two classes: 1 pairs") == 2
    assert "control/same.tif and knock-down/0.tif (the same pixels, turned or mirrored)" in told
