"""Losses: what they are least at."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_core.tasks.instances.targets import LossConfig, make_loss

pytestmark = pytest.mark.slow
MAPS = ("foreground", "distance")


def distance_loss(kind: str, said: np.ndarray, true: np.ndarray) -> float:
    """The distance's part of the loss of pixels (n,) of objects, at probabilities `said`."""
    loss = make_loss(LossConfig(cross_entropy=0, dice=0, distance=1, distance_error=kind, size=0), MAPS)
    targets = np.stack([np.ones_like(true), true, np.ones_like(true)], -1)[None, None].astype(np.float32)
    logits = np.log(said / (1 - said))
    given = np.stack([np.full_like(said, 5.0), logits], -1)[None, None].astype(np.float32)
    return float(loss(targets, given))


@pytest.mark.parametrize("kind", ["absolute", "entropy"])
def test_the_distances_loss_is_nothing_where_the_distance_is_right(kind: str) -> None:
    true = np.array([0.05, 0.3, 0.5, 0.9])
    assert distance_loss(kind, true, true) == pytest.approx(0, abs=1e-5)
    for wrong in (true + 0.04, true * 0.8):
        assert distance_loss(kind, wrong, true) > 1e-4


def test_of_a_boundary_in_three_of_ten_only_cross_entropy_leaves_a_trace() -> None:
    true = np.where(np.arange(10) < 3, 0.1, 0.9)
    grid = np.linspace(0.02, 0.98, 97)

    def best(kind: str) -> float:
        return float(grid[np.argmin([distance_loss(kind, np.full(10, p), true) for p in grid])])

    assert best("absolute") == pytest.approx(0.9, abs=0.011)
    assert best("entropy") == pytest.approx(0.3 * 0.1 + 0.7 * 0.9, abs=0.011)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_cross_entropy_stays_finite_at_the_ends(logit: float) -> None:
    loss = make_loss(LossConfig(distance_error="entropy"), MAPS)
    targets = np.array([0.0, 0.0, 1.0], np.float32).reshape(1, 1, 1, 3)
    assert np.isfinite(float(loss(targets, np.full((1, 1, 1, 2), logit, np.float32))))
