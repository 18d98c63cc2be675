"""What is evaluated is what is counted: the same pixels, the same objects, whether a run, an evaluation or a fit asks."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.scales import ScaleSource
from cellcount_core.evaluation.assess import ImageRow, SizeCheck, check_sizes
from cellcount_core.evaluation.evaluate import (
    Diameter,
    count_image,
    count_plane,
    counting_of,
    labels_of,
    pixels_of,
)
from cellcount_core.labelled.dataset import load_folder
from cellcount_core.labelled.image import LabelledImage, plane_of, read_pixels
from cellcount_core.labelled.label_files import median_diameter
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.pipeline.field import examine, planes_kit, prepare
from cellcount_core.tasks.instances.task import label_whole
from cellcount_core.tasks.matching import ImageScore
from tests.data_dir import data_dir, needs_data
from tests.jobs import count, rows
from tests.plates import nuclear_field

Labels = NDArray[np.int32]


def evaluated(files: dict[str, Path], package: str, diameter: Diameter) -> dict[str, Labels]:
    """The label image of each file as an evaluation counts it."""
    found = find_package(package)
    engine = load_engine(found, resolve_engine(found, "auto", gpus=0), 1)
    with closing(planes_kit(found, engine, counting_of(diameter))) as kit:
        return {name: labels_of(count_image(kit, unlabelled(file))) for name, file in files.items()}


def unlabelled(file: Path) -> LabelledImage:
    pixels = read_pixels(file)
    plane = plane_of(pixels)
    nothing = np.zeros(plane.shape, np.int32)
    return LabelledImage(str(file), plane, nothing, "", "", 0.0, pixels.um_per_px, pixels.bit_max)


def counted(
    files: dict[str, Path], folder: Path, package: str, diameter: Diameter
) -> tuple[dict[str, Labels], dict[str, int]]:
    """The label image and the count of each file as a run counts it, each in a folder of its own."""
    for name, file in files.items():
        own = folder / "in" / name / file.name
        own.parent.mkdir(parents=True)
        own.write_bytes(file.read_bytes())
    run = {
        "layout": {"kind": "flat"},
        "model": {"package": package},
        "diameter": diameter,
        "labels": "tiff",
    }
    count(folder / "in", folder / "out", run=run)
    images = {
        name: tifffile.imread(folder / "out" / "labels" / name / f"{file.name}.labels.tif").astype(np.int32)
        for name, file in files.items()
    }
    table = rows(folder / "out", "fields").to_pylist()
    return images, {row["source"][0].split("/")[0]: row["count"] for row in table}


def unequal(evaluation: dict[str, Labels], run: tuple[dict[str, Labels], dict[str, int]]) -> list[str]:
    """The images that differ in a pixel or in their count."""
    images, counts = run
    return [
        name
        for name, labels in evaluation.items()
        if not np.array_equal(labels, images[name]) or labels.max(initial=0) != counts[name]
    ]


def made_up(folder: Path) -> dict[str, Path]:
    """Images that meet every way to be read and brought to scale: enlarged, shrunk, colour, 8 and 16 bits, float, odd sizes."""
    folder.mkdir()
    small = nuclear_field(9, 30, seed=1, side=131)[:117]
    large = nuclear_field(44, 12, seed=2, side=309)[:, :277]
    grey = (small / small.max() * 255).astype(np.uint8)
    colour = np.dstack([grey // 3, grey, grey // 2])
    written = {
        "enlarged": ("a.tif", lambda path: tifffile.imwrite(path, small)),
        "shrunk": ("b.png", lambda path: cv2.imwrite(str(path), large)),
        "colour": ("c.png", lambda path: cv2.imwrite(str(path), colour)),
        "clear": ("d.png", lambda path: cv2.imwrite(str(path), np.dstack([colour, grey]))),
        "dark": ("e.tif", lambda path: tifffile.imwrite(path, (60_000 - large).astype(np.uint16))),
        "float": ("f.tif", lambda path: tifffile.imwrite(path, small.astype(np.float32) / 7)),
        "stack": ("g.tif", lambda path: tifffile.imwrite(path, np.stack([small, small[::-1]]), imagej=True, metadata={"axes": "ZYX"})),
        "jpeg": ("h.jpg", lambda path: cv2.imwrite(str(path), grey)),
        "empty": ("i.png", lambda path: cv2.imwrite(str(path), np.full((90, 70), 12, np.uint8))),
    }  # fmt: skip
    files = {}
    for name, (file, write) in written.items():
        files[name] = folder / file
        write(files[name])
    return files


@pytest.mark.slow
def test_an_evaluation_counts_made_up_images_as_a_run_does(tmp_path: Path) -> None:
    files = made_up(tmp_path / "images")
    for package, diameter in (("threshold", "model"), ("nuclei", 17.3), ("nuclei", "auto")):
        chosen = {name: file for name, file in files.items() if diameter != "auto" or name != "empty"}
        folder = tmp_path / f"{package}-{diameter}"
        run = counted(chosen, folder, package, diameter)
        assert unequal(evaluated(chosen, package, diameter), run) == [], (package, diameter)
        if package == "nuclei":
            assert min(run[1][name] for name in chosen if name != "empty") > 5


@pytest.mark.slow
@needs_data("dsb2018_nuclei")
def test_an_evaluation_counts_every_validation_image_as_a_run_does(tmp_path: Path) -> None:
    root = data_dir()
    assert root is not None
    folder = root / "dsb2018_nuclei"
    names = [
        image.id for image in load_folder(folder, split="val", modality=["fluorescence"]) if image.diameter_px
    ]
    files = {name: folder / "images" / f"{name}.png" for name in names}
    assert len(files) >= 107
    run = counted(files, tmp_path, "nuclei", "auto")
    assert unequal(evaluated(files, "nuclei", "auto"), run) == []


def test_both_halves_of_counting_give_what_the_whole_gives() -> None:
    package = find_package("nuclei")
    engine = load_engine(package, resolve_engine(package, "auto", gpus=0), 1)
    plane = nuclear_field(31, 14, seed=5, side=203)[:, :188]
    image = LabelledImage("i", plane, np.zeros(plane.shape, np.int32), "", "", 0.0)
    with closing(planes_kit(package, engine, counting_of("auto"))) as kit:
        prepared = prepare(kit, pixels_of(kit, image))
        maps = prepared.maps.whole()
        apart = label_whole(kit.head.separator, maps, plane, prepared.norms[0])
        assert maps.shape[:2] != apart.shape
        np.testing.assert_array_equal(apart, labels_of(count_image(kit, image)))


@pytest.fixture(scope="module")
def package() -> Package:
    """The threshold package, told that its objects are 10 px."""
    found = find_package("threshold")
    return replace(found, input=replace(found.input, diameter_px=10.0))


class Seen:
    """The threshold package's engine, with the shapes it was given."""

    name = "smooth"
    batch = 1

    def __init__(self, package: Package) -> None:
        self._engine = load_engine(package, "smooth", 1)
        self.shapes: list[tuple[int, ...]] = []

    def run(self, tiles: np.ndarray) -> np.ndarray:
        self.shapes.append(tiles.shape[1:3])
        return self._engine.run(tiles)


def discs(radius: int = 10) -> LabelledImage:
    labels = np.zeros((120, 160), np.int32)
    for number, (x, y) in enumerate(((30, 30), (80, 40), (120, 80), (50, 90)), 1):
        cv2.circle(labels, (x, y), radius, number, -1)
    plane = np.where(labels > 0, 3000, 200) + np.random.default_rng(0).integers(0, 20, labels.shape)
    return LabelledImage("discs", plane.astype(np.uint16), labels, "", "", median_diameter(labels))


def test_a_diameter_brings_the_image_to_the_models_scale_and_labels_come_back_at_its_own(
    package: Package,
) -> None:
    engine = Seen(package)
    for diameter, canvas, counted_at in (("model", (120, 160), None), (20.0, (60, 80), 20.0)):
        engine.shapes.clear()
        with closing(planes_kit(package, engine, counting_of(diameter))) as kit:
            seen = count_image(kit, discs())
        assert engine.shapes == [canvas]
        labels = labels_of(seen)
        assert (labels.shape, int(labels.max()), seen.scale.diameter_px) == ((120, 160), 4, counted_at)


def test_an_image_is_taken_as_it_is_where_a_package_counts_at_any_scale() -> None:
    scale_free = find_package("threshold")
    with closing(planes_kit(scale_free, Seen(scale_free), counting_of("auto"))) as kit:
        seen = count_plane(kit, discs().plane)
    assert (seen.found.count, seen.scale.source, seen.scale.factor) == (4, ScaleSource.MODEL, 1.0)


def test_the_pixel_size_that_a_file_states_leads_to_the_scale_as_in_a_run(package: Package) -> None:
    calibrated = replace(package, input=replace(package.input, um_per_px=0.5))
    with closing(planes_kit(calibrated, Seen(calibrated), counting_of("auto"))) as kit:
        seen = count_image(kit, replace(discs(), um_per_px=0.25))
    assert (seen.scale.source, seen.scale.factor) == (ScaleSource.CALIBRATION, 0.5)


def test_a_size_that_is_far_too_small_is_told_and_asks_for_no_memory(package: Package) -> None:
    engine = Seen(package)
    image = replace(discs(), plane=np.zeros((2400, 2000), np.uint8))
    with (
        closing(planes_kit(package, engine, counting_of(0.7))) as kit,
        pytest.raises(ConfigFault, match=r"discs: objects of 0.7 px .* 28571 x 34286 px .* --diameter"),
    ):
        count_image(kit, image)
    assert engine.shapes == []


def test_the_measures_of_an_evaluation_are_those_of_the_row(package: Package) -> None:
    image = discs()
    with closing(planes_kit(package, Seen(package), counting_of(20.0))) as kit:
        seen = examine(kit, pixels_of(kit, image))
    assert seen.found.objects.area_px == int((labels_of(seen) > 0).sum())
    assert (seen.found.values["count"], seen.found.values["count_border"]) == (4, 0)


def row(true_px: float, counted_at: float | None) -> ImageRow:
    score = ImageScore("a", "", int(true_px > 0), 1, (), diameter_px=true_px)
    return ImageRow("a", "", score, 64, 64, counted_at)


def test_sizes_are_checked_on_images_with_objects_and_one_not_told_is_not_within() -> None:
    found = [row(20, 24.9), row(20, 16.1), row(20, 29), row(20, 60), row(20, None), row(0, 33)]
    assert check_sizes(found) == SizeCheck(images=5, within_1_25=2 / 5, within_1_5=3 / 5, not_told=1)
    assert check_sizes([row(0, 33)]) is None
