"""Dark objects on a bright background are normalised as bright ones on a dark one."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_core.images.normalise import apply, estimate
from cellcount_core.images.quality import assess
from tests.plates import discs


@pytest.mark.parametrize("count", [1, 12])
def test_the_negative_of_an_image_is_normalised_as_the_image(count: int) -> None:
    image = discs(count, 128, seed=count)
    negative = (60_000 - image.astype(np.int64)).astype(np.uint16)
    levels, turned = estimate(image, polarity="auto"), estimate(negative, polarity="auto")
    assert (levels.inverted, turned.inverted) == (False, True)
    assert turned.background == pytest.approx(60_000 - levels.background)
    np.testing.assert_allclose(apply(negative, turned), apply(image, levels), atol=1e-4)


def test_an_empty_noisy_image_is_not_taken_for_an_inverted_one() -> None:
    noise = np.random.default_rng(0).normal(1000, 30, (256, 256)).astype(np.uint16)
    assert not estimate(noise, polarity="auto").inverted


def test_a_polarity_that_is_given_is_kept() -> None:
    image = discs(12, 128, seed=3)
    assert not estimate(60_000 - image, polarity="bright").inverted
    assert estimate(image, polarity="dark").inverted


def test_quality_of_a_negative_has_the_signal_of_its_dark_objects() -> None:
    image = discs(12, 128, seed=4)
    negative = (60_000 - image.astype(np.int64)).astype(np.uint16)
    levels, turned = estimate(image, polarity="auto"), estimate(negative, polarity="auto")
    upright, inverted = assess(image, 65535, levels), assess(negative, 65535, turned)
    assert inverted.signal == pytest.approx(upright.signal, rel=1e-3)
    assert (inverted.empty, upright.empty) == (False, False)
    assert inverted.focus == pytest.approx(upright.focus, rel=1e-3)
