"""Label images, whose numbers follow the first pixel of each object, and the runs of pixels that they are made from."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cellcount_core.objects import labels as labels_module
from cellcount_core.objects.labels import (
    Runs,
    anchors,
    border_numbers,
    connected,
    drop_small,
    first_of_runs,
    label_dtype,
    number_in_raster_order,
    paint,
    paste,
    raster_numbers,
    renumber,
    runs_of,
)
from tests.often import often

_IMAGES = arrays(np.int32, st.tuples(st.integers(0, 9), st.integers(1, 9)), elements=st.integers(0, 12))


@given(_IMAGES)
def test_numbers_rise_with_the_first_pixel_and_objects_stay_what_they_are(labels: NDArray[np.int32]) -> None:
    numbered = number_in_raster_order(labels)
    seen = list(dict.fromkeys(value for value in numbered.ravel().tolist() if value))
    assert seen == list(range(1, len(seen) + 1))
    pairs = set(zip(labels.ravel().tolist(), numbered.ravel().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert ((labels == 0) == (numbered == 0)).all()


@given(_IMAGES)
@settings(max_examples=often(50))
def test_anchors_are_first_pixels_whatever_is_read_at_once(labels: NDArray[np.int32]) -> None:
    flat = labels.ravel().tolist()
    expected = {value: flat.index(value) for value in flat if value}
    whole = labels_module._STRIP_PX
    for strip in (whole, 1, 7):
        labels_module._STRIP_PX = strip
        try:
            numbers, first = anchors(labels)
        finally:
            labels_module._STRIP_PX = whole
        assert dict(zip(numbers.tolist(), first.tolist(), strict=True)) == expected
        assert first.tolist() == sorted(first.tolist())


def test_small_objects_go_and_the_gap_is_closed() -> None:
    labels = np.array([[1, 0, 2, 2], [0, 0, 2, 0], [3, 3, 0, 0]], np.int32)
    assert drop_small(labels, 2).tolist() == [[0, 0, 1, 1], [0, 0, 1, 0], [2, 2, 0, 0]]
    assert drop_small(labels, 0).tolist() == labels.tolist()


@given(_IMAGES, st.integers(0, 4))
def test_dropping_small_objects_keeps_the_others_pixel_by_pixel(
    labels: NDArray[np.int32], min_area: int
) -> None:
    kept = [number for number in range(1, 13) if (labels == number).sum() >= max(1, min_area)]
    dropped = drop_small(labels, min_area)
    assert dropped.dtype == np.int32
    np.testing.assert_array_equal(dropped > 0, np.isin(labels, kept))
    np.testing.assert_array_equal(dropped, number_in_raster_order(np.where(np.isin(labels, kept), labels, 0)))


@given(_IMAGES)
def test_an_image_cut_into_runs_is_painted_again_as_it_was(labels: NDArray[np.int32]) -> None:
    margin = np.pad(labels > 0, ((0, 0), (0, 1)))
    places = np.flatnonzero(margin)
    places -= places // margin.shape[1]
    if places.size == 0:
        return
    # Pixels of one row and one number, one at a time: the shortest runs there are.
    single = Runs(places, np.ones_like(places), labels.ravel()[places].astype(np.intp))
    np.testing.assert_array_equal(paint(single, np.arange(13, dtype=np.int32), labels.shape), labels)
    first = first_of_runs(places)
    joined = Runs(places[first], np.diff(first, append=places.size), np.ones(first.size, np.intp))
    np.testing.assert_array_equal(joined.pixels(), places)
    numbers = np.array([0, 5], np.int32)
    np.testing.assert_array_equal(paint(joined, numbers, labels.shape), 5 * (labels > 0))


def test_owners_that_are_not_kept_get_no_number() -> None:
    runs = Runs(np.array([4, 9, 20, 2]), np.array([3, 2, 1, 4]), np.array([3, 3, 1, 5]))
    assert raster_numbers(runs).tolist() == [0, 3, 0, 2, 0, 1]
    assert raster_numbers(runs, np.array([True, False, True, True, True, True])).tolist() == [
        0,
        0,
        0,
        2,
        0,
        1,
    ]


def test_objects_at_the_edge_are_named() -> None:
    labels = np.zeros((6, 6), np.int32)
    labels[0, 2], labels[3, 3], labels[4, 5] = 1, 2, 3
    assert border_numbers(labels).tolist() == [1, 3]
    assert border_numbers(np.zeros((0, 5), np.int32)).size == 0


@pytest.mark.parametrize(("count", "dtype"), [(0, np.uint16), (65_535, np.uint16), (65_536, np.uint32)])
def test_pixels_are_as_wide_as_the_count_needs(count: int, dtype: type) -> None:
    assert label_dtype(count) is dtype


def test_pasted_blocks_become_one_label_image_in_raster_order() -> None:
    canvas = np.zeros((4, 6), np.uint32)
    paste(canvas, np.array([[0, 1], [1, 1]], np.int32), (1, 0), 0)
    paste(canvas, np.array([[1, 0, 2], [1, 2, 2]], np.int32), (0, 1), 1)
    assert canvas[1].tolist() == [0, 2, 3, 3, 0, 0]
    joined = renumber(canvas, np.array([0, 3, 1, 2]))
    assert joined.dtype == np.uint16
    assert joined.tolist()[:3] == [[0, 1, 0, 2, 0, 0], [0, 1, 2, 2, 0, 0], [3, 3, 0, 0, 0, 0]]
    wide = renumber(canvas, np.array([0, 70_000, 1, 2]))
    assert wide.dtype == np.uint32
    assert wide[2, 0] == 70_000


def with_gap(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.pad(inside, ((0, 0), (0, 1)))


def components(inside: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Label image of the components, by their runs."""
    gap = with_gap(inside)
    runs = runs_of(gap)
    owners = connected(runs, gap.shape[1])
    numbers = np.arange(int(owners.max(initial=0)) + 1, dtype=np.int32)
    return paint(runs.owned(owners), numbers, gap.shape)[:, :-1]


def pieces_agree(inside: NDArray[np.bool_]) -> None:
    _, expected = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
    found = components(inside)
    # One number there for every number here, and the other way round.
    pairs = np.unique(expected.ravel().astype(np.int64) << 32 | found.ravel())
    assert np.unique(pairs >> 32).size == np.unique(pairs & 0xFFFFFFFF).size == pairs.size
    assert ((found > 0) == inside).all()
    assert np.unique(found[found > 0]).tolist() == list(range(1, int(found.max()) + 1))


@settings(max_examples=often(150), deadline=None)
@given(inside=arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24))))
def test_components_of_runs_are_those_of_pixels(inside: NDArray[np.bool_]) -> None:
    pieces_agree(inside)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.6, 0.9])
def test_components_of_a_large_noisy_image(share: float) -> None:
    pieces_agree(np.random.default_rng(1).random((200, 300)) < share)


def test_a_long_snake_and_a_spiral_are_one_piece_each() -> None:
    snake = np.ones((201, 60), np.bool_)
    snake[1::4, :-1] = snake[3::4, 1:] = False
    assert components(snake).max() == 1
    comb = np.zeros((60, 61), np.bool_)
    comb[:, ::2], comb[-1] = True, True
    assert components(comb).max() == 1
    pieces_agree(snake)
    pieces_agree(comb)


def test_an_image_without_anything_has_no_runs() -> None:
    nothing = np.zeros((5, 7), np.bool_)
    assert runs_of(with_gap(nothing)).starts.size == 0
    assert not components(nothing).any()


@settings(max_examples=often(60), deadline=None)
@given(inside=arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_what_is_painted_is_what_was_there_however_much_it_is(inside: NDArray[np.bool_]) -> None:
    gap = with_gap(inside)
    runs = runs_of(gap)
    painted = paint(runs, np.array([7], np.int32), gap.shape)
    np.testing.assert_array_equal(painted, np.where(gap, 7, 0))
