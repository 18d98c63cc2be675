"""Measurements agree with scikit-image, and with themselves whether taken in a block or in the whole field."""

from __future__ import annotations

import math
from dataclasses import fields

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.measure import regionprops

from cellcount_core.domain.columns import OBJECT_NUMBER, Merge, names
from cellcount_core.objects import labels as labels_module
from cellcount_core.objects.labels import number_in_raster_order
from cellcount_core.objects.measure import ObjectTable, join_tables, measure
from cellcount_core.tasks.instances.columns import (
    moments_of,
    object_columns,
    object_moments,
    object_values,
)

from .scenes import draw, random_discs


def _scene(seed: int, shape: tuple[int, int] = (240, 300)) -> NDArray[np.int32]:
    rng = np.random.default_rng(seed)
    image = np.zeros(shape, np.int32)
    for number in range(1, 60):
        centre = (int(rng.integers(shape[1])), int(rng.integers(shape[0])))
        axes = (int(rng.integers(1, 16)), int(rng.integers(1, 12)))
        cv2.ellipse(image, centre, axes, float(rng.integers(180)), 0, 360, number, -1)
    image[5, 5], image[9, 5:7], image[12:15, 5] = 60, 61, 62
    # Ellipses drawn over another one may have cut it in two; each piece is an object here.
    pieces = np.zeros(shape, np.int32)
    for number in np.unique(image[image > 0]):
        count, found = cv2.connectedComponents((image == number).astype(np.uint8))
        top = int(pieces.max())
        pieces[found > 0] = found[found > 0] + top
        assert count > 1
    return number_in_raster_order(pieces)


@pytest.mark.parametrize("seed", range(5))
def test_shape_and_intensity_are_those_of_scikit_image(seed: int) -> None:
    labels = _scene(seed)
    plane = np.random.default_rng(seed).integers(0, 65535, labels.shape).astype(np.uint16)
    table = measure(labels, {"w1": plane})
    props = regionprops(labels, intensity_image=plane)
    assert table.count == len(props) > 30
    for row, prop in enumerate(props):
        assert table.number[row] == prop.label
        assert table.area[row] == prop.area
        assert (table.min_y[row], table.min_x[row], table.max_y[row], table.max_x[row]) == prop.bbox
        assert (table.center_y[row], table.center_x[row]) == pytest.approx(prop.centroid, abs=1e-9)
        assert table.eccentricity[row] == pytest.approx(prop.eccentricity, abs=1e-6)
        assert table.perimeter[row] == pytest.approx(prop.perimeter, abs=1e-9)
        assert table.solidity[row] == pytest.approx(prop.solidity)
        assert table.equivalent_diameter[row] == pytest.approx(prop.equivalent_diameter_area)
        assert table.mean_intensity["w1"][row] == pytest.approx(prop.intensity_mean, rel=1e-12)
        assert table.integrated_intensity["w1"][row] == int(plane[labels == prop.label].sum(dtype=np.int64))
        if prop.perimeter > 0:
            expected = 4 * math.pi * prop.area / prop.perimeter**2
            assert table.form_factor[row] == pytest.approx(expected)


def test_objects_of_one_and_two_pixels_have_finite_measurements() -> None:
    labels = np.zeros((8, 8), np.int32)
    labels[1, 1] = 1
    labels[4, 4:6] = 2
    table = measure(labels, {})
    assert table.area.tolist() == [1, 2]
    assert table.form_factor.tolist() == [1.0, 1.0]
    assert table.solidity.tolist() == [1.0, 1.0]
    assert table.eccentricity.tolist() == [0.0, 1.0]
    assert table.equivalent_diameter[0] == pytest.approx(math.sqrt(4 / math.pi))


def _equal_rows(table: ObjectTable, row: int, other: ObjectTable, other_row: int) -> None:
    for field in fields(ObjectTable):
        one, two = getattr(table, field.name), getattr(other, field.name)
        if field.name == "number":
            continue
        if isinstance(one, np.ndarray):
            assert one[row : row + 1].tobytes() == two[other_row : other_row + 1].tobytes(), field.name
        else:
            for name in one:
                assert one[name][row].tobytes() == two[name][other_row].tobytes(), (field.name, name)


@pytest.mark.parametrize("seed", range(3))
def test_an_object_measures_the_same_bits_alone_and_in_the_whole_field(seed: int) -> None:
    labels = _scene(seed)
    rng = np.random.default_rng(seed)
    planes = {
        "w1": rng.integers(0, 65535, labels.shape).astype(np.uint16),
        "float": rng.normal(1e4, 1e3, labels.shape).astype(np.float32),
    }
    score = rng.random(labels.shape).astype(np.float32)
    whole = measure(labels, planes, score_map=score)
    for row in range(whole.count):
        y0, x0 = max(0, int(whole.min_y[row]) - 1), max(0, int(whole.min_x[row]) - 2)
        box = (slice(y0, int(whole.max_y[row])), slice(x0, int(whole.max_x[row])))
        alone = measure(
            (labels[box] == row + 1).astype(np.int32),
            {name: plane[box] for name, plane in planes.items()},
            score_map=score[box],
            origin=(y0, x0),
            field_shape=labels.shape,
        )
        _equal_rows(whole, row, alone, 0)


def test_the_size_of_working_strips_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = _scene(7)
    plane = np.random.default_rng(0).normal(100, 30, labels.shape).astype(np.float32)
    before = measure(labels, {"w1": plane}, score_map=plane)
    monkeypatch.setattr(labels_module, "_STRIP_PX", 7 * labels.shape[1])
    after = measure(labels, {"w1": plane}, score_map=plane)
    for row in range(before.count):
        _equal_rows(before, row, after, row)


def test_the_score_is_the_mean_of_the_map_and_unknown_without_one() -> None:
    labels = number_in_raster_order((np.indices((10, 10)).sum(0) < 5).astype(np.int32))
    score = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    assert measure(labels, {}, score_map=score).score[0] == pytest.approx(
        score[labels == 1].mean(dtype=float)
    )
    assert np.isnan(measure(labels, {}).score).all()


def test_only_objects_at_the_edge_of_the_field_touch_its_border() -> None:
    labels = np.zeros((12, 12), np.int32)
    labels[0:2, 5:7], labels[4:6, 4:6], labels[10:12, 2:4] = 1, 2, 3
    assert measure(labels, {}).touches_border.tolist() == [True, False, True]
    inner = measure(labels, {}, origin=(5, 5), field_shape=(40, 40))
    assert inner.touches_border.tolist() == [False, False, False]
    corner = measure(labels, {}, origin=(28, 28), field_shape=(40, 40))
    assert corner.touches_border.tolist() == [False, False, True]


def test_an_empty_label_image_gives_empty_columns() -> None:
    plane = np.ones((5, 6), np.uint16)
    table = measure(np.zeros((5, 6), np.int32), {"w1": plane}, score_map=plane.astype(np.float32))
    assert table.count == 0
    assert all(len(column) == 0 for column in object_values(table, "Nuclei", None).values())
    moments = object_moments(object_values(table, "Nuclei", None), object_columns("Nuclei", ("w1",)))
    assert moments["Nuclei_AreaShape_Area"].n == 0


def test_planes_of_another_shape_and_unordered_numbers_are_refused() -> None:
    labels = np.zeros((5, 6), np.int32)
    with pytest.raises(ValueError, match="channel 'w2' has shape"):
        measure(labels, {"w2": np.zeros((5, 5), np.uint8)})
    labels[0, 0], labels[3, 3] = 2, 1
    with pytest.raises(ValueError, match="raster order"):
        measure(labels, {})


def test_joined_blocks_are_numbered_in_raster_order_of_the_field() -> None:
    field = number_in_raster_order(_scene(1))
    left, right = field.copy(), field.copy()
    middle = {int(number) for number in np.unique(field[:, :150])}
    left[~np.isin(field, list(middle))] = 0
    right[np.isin(field, list(middle))] = 0
    left, right = number_in_raster_order(left), number_in_raster_order(right)
    table, lookup = join_tables([measure(right, {}), measure(left, {})])
    whole = measure(field, {})
    assert np.array_equal(table.number, whole.number)
    assert np.array_equal(table.area, whole.area)
    assert np.array_equal(table.center_x, whole.center_x)
    before = int(right.max())
    joined = np.where(right > 0, lookup[right], np.where(left > 0, lookup[left + before], 0))
    joined[(left == 0) & (right == 0)] = 0
    assert np.array_equal(joined, field)


def test_columns_carry_the_names_of_the_tables() -> None:
    labels = number_in_raster_order(_scene(2))
    plane = labels.astype(np.uint16)
    table = measure(labels, {"w1": plane, "w2": plane})
    declared = object_columns("Nuclei", ("w1", "w2"))
    values = object_values(table, "Nuclei", 0.5)
    assert set(names(declared)) - set(values) == {"class", "class_probability"}
    assert set(values) - set(names(declared)) == {OBJECT_NUMBER.name}
    merged = [column.name for column in declared if column.merge is Merge.MOMENTS]
    assert list(object_moments(values, declared)) == merged
    assert values["area_um2"].tolist() == (table.area * 0.25).tolist()


def test_moments_leave_out_nan_and_agree_with_numpy() -> None:
    values = np.array([3.0, np.nan, 5.0, 10.0])
    found = moments_of(values)
    assert (found.n, found.mean, found.low, found.high) == (3, 6.0, 3.0, 10.0)
    assert found.m2 == pytest.approx(26.0)
    nothing = moments_of(np.array([np.nan]))
    assert nothing.n == 0
    assert nothing.merge(found) == found


def test_a_disc_is_round_and_solid() -> None:
    labels = draw((80, 80), [(40, 40, 30)]).astype(np.int32)
    table = measure(labels, {})
    assert table.eccentricity[0] < 0.05
    assert table.form_factor[0] == pytest.approx(1.0, abs=0.12)
    assert table.solidity[0] > 0.97


def test_scenes_hold_discs_larger_than_a_halo() -> None:
    sizes = [
        max(r for _, _, r in random_discs(np.random.default_rng(seed), (200, 200), 64)) for seed in range(30)
    ]
    assert max(sizes) > 48
