"""The learning rate that holds its peak."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
pytestmark = pytest.mark.slow


def rates(steps: int, warmup: int = 10, share: float = 0.3) -> np.ndarray:
    from cellcount_core.training.network import trapezoid

    rate = trapezoid(0.01, warmup, steps, share)
    return np.array([float(rate(step)) for step in range(steps)])


def test_the_rate_rises_holds_and_falls() -> None:
    found = rates(100)
    assert (np.diff(found[:10]) > 0).all()
    np.testing.assert_allclose(found[10:70], 0.01, rtol=1e-6)
    assert (np.diff(found[70:]) < 0).all()
    assert found[-1] == pytest.approx(0.01 / 30, rel=1e-4)


def test_up_to_the_fall_a_longer_run_has_the_same_rate() -> None:
    np.testing.assert_array_equal(rates(100)[:70], rates(300)[:70])


def test_the_rate_never_falls_below_a_hundredth_of_its_peak() -> None:
    from cellcount_core.training.network import trapezoid

    assert float(trapezoid(0.01, 10, 100, 0.3)(500)) == pytest.approx(1e-4)
