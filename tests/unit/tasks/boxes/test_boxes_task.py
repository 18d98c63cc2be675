"""The task `boxes`: what a field's row and its objects hold, tiles, sizes, and what is doubtful."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import names
from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.scales import ScaleSource
from cellcount_core.domain.statistics import CountInterval
from cellcount_core.models.engines import load_engine
from cellcount_core.models.package import Package
from cellcount_core.pipeline.field import examine, planes_kit
from cellcount_core.pipeline.pixels import Pixels
from cellcount_core.pipeline.rows import Examined
from cellcount_core.tasks.boxes.columns import class_counts, covered, field_columns
from cellcount_core.tasks.boxes.section import Boxes
from cellcount_core.tasks.boxes.task import too_dense
from tests.boxes import LARGE, SMALL, Disc, box_package, disc_image, grid_of_discs


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return box_package(tmp_path_factory.mktemp("packages") / "discs")


def seen(
    package: Package, plane: NDArray[np.uint16], um_per_px: float | None = None, **run: object
) -> Examined:
    settings = RunConfig.model_validate(run)
    with closing(planes_kit(package, load_engine(package, "onnxruntime", 1), settings)) as kit:
        return examine(kit, Pixels({"cells": plane}, um_per_px, 65535, ()))


DISCS: list[Disc] = [(40, 40, SMALL), (40, 100, SMALL), (100, 40, LARGE), (110, 110, SMALL), (159, 80, SMALL)]


def test_a_field_has_its_count_and_one_for_each_class(package: Package) -> None:
    values = seen(package, disc_image(DISCS), diameter="model").found.values
    assert (values["count"], values["count_small"], values["count_large"]) == (5, 4, 1)
    assert values["count_border"] == 1
    assert (values["count_low"], values["count_high"]) == (None, None)


def test_every_object_has_a_box_a_class_and_a_score(package: Package) -> None:
    found = seen(package, disc_image(DISCS), um_per_px=0.5, diameter="model").found
    assert found.objects is not None
    columns, moments = found.objects.rows()
    assert list(columns["Metadata_ObjectNumber"]) == [1, 2, 3, 4, 5]
    assert list(columns["class"]) == ["small", "small", "large", "small", "small"]
    for name, wanted in (("X", (40, 100, 40, 110, 80)), ("Y", (40, 40, 100, 110))):
        centres = np.asarray(columns[f"Cells_Location_Center_{name}"])
        assert centres[: len(wanted)] == pytest.approx(wanted, abs=0.3)
    assert np.asarray(columns["Cells_AreaShape_BoundingBoxMinimum_Y"])[0] == pytest.approx(
        40.5 - SMALL / 2, abs=0.4
    )
    assert np.asarray(columns["Cells_AreaShape_BoundingBoxHeight"])[2] == pytest.approx(LARGE, abs=1)
    assert list(columns["touches_border"]) == [False, False, False, False, True]
    assert np.asarray(columns["Cells_AreaShape_BoundingBoxMaximum_Y"])[4] == 160
    area = np.asarray(columns["Cells_AreaShape_BoundingBoxArea"])
    assert np.asarray(columns["area_um2"]) == pytest.approx(area / 4)
    assert moments["Cells_AreaShape_BoundingBoxArea"].n == 5
    assert moments["Cells_AreaShape_BoundingBoxArea"].mean == pytest.approx(area.mean())
    inside = np.asarray(columns["Cells_Intensity_MeanIntensity_cells"])
    assert (inside > 1500).all()


@pytest.mark.slow
@pytest.mark.parametrize("side", [256, 333])
def test_blocks_give_the_boxes_of_the_whole_field(package: Package, side: int) -> None:
    discs = grid_of_discs((700, 820), SMALL, 40, seed=2)
    # Discs on the seams of blocks and on their crossings.
    discs += [(side, 30, SMALL), (30, side, SMALL), (side, side, SMALL), (2 * side, side - 1, LARGE)]
    plane = disc_image(discs, (700, 820))
    whole = seen(package, plane, diameter="model").found
    tiled = seen(package, plane, diameter="model", whole_limit=65_536, block=side, tile=256).found
    assert whole.objects is not None and tiled.objects is not None
    assert whole.values == tiled.values
    assert whole.features == tiled.features
    first, second = whole.objects.rows()[0], tiled.objects.rows()[0]
    assert set(first) == set(second)
    for name in first:
        assert list(first[name]) == list(second[name]), name


@pytest.mark.parametrize("times", [1, 2, 4])
def test_an_image_is_brought_to_the_size_that_its_objects_have(package: Package, times: int) -> None:
    discs = [(y * times, x * times, d * times) for y, x, d in grid_of_discs((240, 240), SMALL, 60)]
    found = seen(package, disc_image(discs, (240 * times, 240 * times)))
    assert found.scale.source is ScaleSource.IMAGE
    assert found.scale.diameter_px == pytest.approx(SMALL * times, rel=0.05)
    assert found.found.count == len(discs)


def test_a_known_pixel_size_decides_the_scale(package: Package) -> None:
    calibrated = replace(package, input=replace(package.input, um_per_px=0.5))
    discs = [(2 * y, 2 * x, 2 * d) for y, x, d in DISCS[:4]]
    found = seen(calibrated, disc_image(discs, (320, 320)), um_per_px=0.25)
    assert (found.scale.source, found.scale.factor) == (ScaleSource.CALIBRATION, 0.5)
    assert found.found.count == 4


def test_a_field_that_tells_no_size_is_counted_as_it_is_and_says_so(package: Package) -> None:
    found = seen(package, disc_image([]))
    assert found.scale.source is ScaleSource.UNKNOWN
    assert Doubt.SIZE_UNKNOWN in found.warnings
    assert (found.found.count, found.found.values["count_large"]) == (0, 0)


def test_the_interval_is_that_which_the_package_states(package: Package) -> None:
    stated = replace(package, interval=CountInterval(0.95, 0.1, -1.0, 1.0, 40))
    values = seen(stated, disc_image(DISCS), diameter="model").found.values
    low, high = values["count_low"], values["count_high"]
    assert isinstance(low, float) and isinstance(high, float)
    assert low < 5 < high


def boxes_at(*corners: tuple[float, float, float, float]) -> Boxes:
    return Boxes(np.array(corners, np.float64), np.zeros(len(corners), np.int64), np.ones(len(corners)))


def test_objects_on_top_of_each_other_are_told_as_too_dense() -> None:
    side_by_side = boxes_at(*((0.0, 10.0 * n, 10.0, 10.0 * n + 10) for n in range(20)))
    assert not too_dense(side_by_side)
    hidden = boxes_at(*((0.0, 3.0 * n, 10.0, 3.0 * n + 10) for n in range(20)))
    assert too_dense(hidden)
    assert not too_dense(hidden.taken(np.arange(4)))
    crossing = boxes_at(*((0.0, 12.0 * n, 40.0, 12.0 * n + 40) for n in range(20)))
    assert too_dense(crossing), "a third of their size apart"
    assert not too_dense(boxes_at(*((0.0, 16.0 * n, 40.0, 16.0 * n + 40) for n in range(20))))


def test_a_single_class_has_no_count_beside_the_field_s() -> None:
    assert class_counts(("algae",)) == ()
    assert names(field_columns(("algae",))) == [
        "count",
        "count_low",
        "count_high",
        "count_border",
        "area_fraction",
    ]
    assert class_counts(("a", "b")) == ("count_a", "count_b")


def test_the_covered_area_counts_what_several_boxes_cover_once() -> None:
    boxes = np.array(
        [[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 6.0, 6.0], [2.0, 10.0, 3.0, 12.5], [0.0, 1.0, 2.0, 2.0]]
    )
    painted = np.zeros((60, 130), bool)
    for y0, x0, y1, x1 in (10 * boxes).astype(int):
        painted[y0:y1, x0:x1] = True
    assert covered(boxes) == pytest.approx(painted.sum() / 100)
    assert covered(np.zeros((0, 4))) == 0


def test_features_do_not_depend_on_the_size_of_the_image_in_px(package: Package) -> None:
    discs = grid_of_discs((240, 240), SMALL, 60)
    large = [(2 * y, 2 * x, 2 * d) for y, x, d in discs]
    fine = disc_image(large, (480, 480), bright=2000)
    coarse = cv2.resize(fine, (240, 240), interpolation=cv2.INTER_AREA)
    one, two = (seen(package, np.asarray(plane, np.uint16)).found for plane in (fine, coarse))
    assert one.features is not None and two.features is not None
    assert one.features == pytest.approx(two.features, abs=0.1)
