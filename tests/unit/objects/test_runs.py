"""Runs of pixels: found, joined to components, painted."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cellcount_core.objects.labels import connected, paint, runs_of


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
    pairs = np.unique(np.stack([expected.ravel(), found.ravel()]), axis=1)
    assert np.unique(pairs[0]).size == np.unique(pairs[1]).size == pairs.shape[1]
    assert ((found > 0) == inside).all()
    assert np.unique(found[found > 0]).tolist() == list(range(1, int(found.max()) + 1))


@settings(max_examples=150, deadline=None)
@given(inside=arrays.arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24))))
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


@settings(max_examples=60, deadline=None)
@given(inside=arrays.arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_what_is_painted_is_what_was_there_however_much_it_is(inside: NDArray[np.bool_]) -> None:
    gap = with_gap(inside)
    runs = runs_of(gap)
    painted = paint(runs, np.array([7], np.int32), gap.shape)
    np.testing.assert_array_equal(painted, np.where(gap, 7, 0))
