"""The shipped `nuclei` package, on a few real images and on made-up ones of known content."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellcount_core.evaluation.evaluate import Score, count_plane, counting_of, evaluate, package_scorer
from cellcount_core.labelled.dataset import load_folder
from cellcount_core.models.engines import check_golden, load_engine
from cellcount_core.models.package import Package, load_package
from cellcount_core.pipeline.field import PlanesKit, planes_kit
from tests.data_dir import data_dir, needs_data

FOLDER = Path(__file__).resolve().parents[3] / "models" / "nuclei"


@pytest.fixture(scope="module")
def package() -> Package:
    return load_package(FOLDER)


@pytest.fixture(scope="module")
def score(package: Package) -> Iterator[Score]:
    with package_scorer(package, load_engine(package, "onnxruntime", 1)) as scorer:
        yield scorer


@pytest.fixture(scope="module")
def kit(package: Package) -> Iterator[PlanesKit]:
    with closing(planes_kit(package, load_engine(package, "onnxruntime", 1), counting_of("model"))) as opened:
        yield opened


def count(kit: PlanesKit, plane: np.ndarray) -> int:
    return count_plane(kit, plane).found.count


def test_it_gives_its_golden_tensors(package: Package) -> None:
    assert check_golden(package, load_engine(package, "onnxruntime", 1)) < 1e-4


def test_it_is_small_and_states_at_least_the_accuracy_that_was_asked_for(package: Package) -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 10 * 2**20
    assert package.accuracy["images"] == 108
    assert float(str(package.accuracy["f1_50"])) >= 0.85


@needs_data("dsb2018_nuclei")
@pytest.mark.slow
def test_it_finds_the_nuclei_of_real_images_as_they_are(score: Score) -> None:
    root = data_dir()
    assert root is not None
    images = load_folder(root / "dsb2018_nuclei", split="val", modality=["fluorescence"])[::5]
    report = evaluate(score, images)
    assert len(images) == 22
    assert report.f1() >= 0.85


@pytest.mark.parametrize("sigma", [2.0, 30.0, 300.0])
def test_noise_holds_no_nuclei(kit: PlanesKit, sigma: float) -> None:
    noise = np.random.default_rng(0).normal(2000, sigma, (256, 256))
    assert count(kit, noise.astype(np.uint16)) == 0


@pytest.mark.parametrize("value", [0, 300, 65535])
def test_a_constant_image_holds_no_nuclei(kit: PlanesKit, value: int) -> None:
    assert count(kit, np.full((256, 256), value, np.uint16)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("height", [200, 3000, 30000])
def test_three_nuclei_in_a_large_field_are_three_however_bright(kit: PlanesKit, height: int) -> None:
    plane = np.random.default_rng(1).normal(500, 12, (768, 768))
    yy, xx = np.mgrid[:768, :768]
    for y, x in ((200, 180), (500, 610), (640, 90)):
        plane += height * ((yy - y) ** 2 + (xx - x) ** 2 / 1.5 < 100)
    assert count(kit, cv2.GaussianBlur(plane, (0, 0), 1.2).clip(0, 65535).astype(np.uint16)) == 3


def test_the_unit_of_the_camera_does_not_change_the_count(kit: PlanesKit) -> None:
    plane = np.random.default_rng(2).normal(40, 2, (256, 256))
    yy, xx = np.mgrid[:256, :256]
    for y in range(30, 250, 45):
        for x in range(30, 250, 45):
            plane += 90 * ((yy - y) ** 2 + (xx - x) ** 2 < 90)
    plane = cv2.GaussianBlur(plane, (0, 0), 1.0)
    assert count(kit, plane.astype(np.float32)) == 25
    assert count(kit, (plane * 200 + 5000).astype(np.uint16)) == 25
