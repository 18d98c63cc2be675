"""Batches of crops, made ahead in a thread while the network trains.

Which image is cut, and how, depends only on the run's seed and the step, so a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cellcount_core.training.config import TrainConfig
from cellcount_core.training.learning import Example, Lesson

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Inputs (B, S, S, C) and targets (B, S, S, T)."""

Draw = Callable[[np.random.Generator, int], Example]
"""Cuts a crop of the image of that number."""

_AHEAD = 6


def make_batch(draw: Draw, weights: NDArray[np.float64], count: int, key: Sequence[int]) -> Batch:
    """Make a batch of `count` crops of images drawn with the chances `weights` (n,). The same `key` always gives the same batch."""
    rng = np.random.default_rng(list(key))
    return _stack([draw(rng, int(number)) for number in rng.choice(len(weights), count, p=weights)])


def _stack(crops: Sequence[Example]) -> Batch:
    return np.stack([inputs for inputs, _ in crops]), np.stack([targets for _, targets in crops])


def training_batches(
    lesson: Lesson, config: TrainConfig, start: int, stop: int
) -> Iterator[tuple[int, Batch]]:
    """Yield the number and the batch of each step from `start` up to, but not including, `stop`.

    A few batches are made ahead while the network trains.
    """
    weights = lesson.chances()
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        waiting: list[Future[Batch]] = []
        try:
            for step in range(start, stop):
                while len(waiting) < _AHEAD and step + len(waiting) < stop:
                    key = (config.seed, step + len(waiting))
                    waiting.append(pool.submit(make_batch, lesson.crop, weights, config.batch, key))
                yield step, waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def validation_batches(lesson: Lesson, config: TrainConfig, count: int) -> list[Batch]:
    """Make `count` batches of unchanged crops of images that do not train, the same ones every time."""
    batches = []
    for number in range(count):
        rng = np.random.default_rng([config.seed, 1, number])
        chosen = rng.choice(len(lesson.watched), config.batch)
        batches.append(_stack([lesson.plain_crop(rng, int(index)) for index in chosen]))
    return batches


def statistics_batches(
    lesson: Lesson, weights: NDArray[np.float64], config: TrainConfig, count: int
) -> Iterator[NDArray[np.float32]]:
    """Yield the inputs of `count` batches of training crops, which give the statistics of the batch normalisation."""
    for number in range(count):
        yield make_batch(lesson.crop, weights, config.batch, (config.seed, 2, number))[0]
