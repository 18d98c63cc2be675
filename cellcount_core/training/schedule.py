"""A learning rate that holds its peak, so that a run can be made longer, and falls at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def trapezoid(
    peak: float, warmup: int, steps: int, decay_share: float
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Rises over `warmup` steps, holds `peak`, falls linearly to a hundredth over the last `decay_share` of `steps`.

    After the constant-then-decay schedules of Zhai et al. (CVPR 2022) and Haegele et al. (2024).
    """
    import keras
    from keras import ops

    class Trapezoid(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        def __call__(self, step: keras.KerasTensor) -> keras.KerasTensor:
            at = ops.cast(step, "float32")
            rising = (at + 1.0) / float(max(1, warmup))
            falling = (steps - at) / float(max(1.0, decay_share * steps))
            return peak * ops.clip(ops.minimum(rising, falling), 0.01, 1.0)

        def get_config(self) -> dict[str, float]:
            return {"peak": peak, "warmup": warmup, "steps": steps, "decay_share": decay_share}

    return Trapezoid()
