"""The device's thread outlives whatever its engine does: no field waits for ever."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault
from cellcount_core.pipeline.device import Device

WAIT_S = 120.0


class Odd:
    """An engine that doubles tiles, gives too few maps for tiles of width 3, and raises for those of width 5."""

    name = "odd"

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        if tiles.shape[2] == 5:
            raise MemoryError("no memory for a batch")
        return tiles[:0] if tiles.shape[2] == 3 else 2 * tiles


def tile(width: int, value: float = 1.0) -> NDArray[np.float32]:
    return np.full((2, width, 1), value, np.float32)


@pytest.mark.parametrize(("width", "error"), [(3, ModelFault), (5, MemoryError)])
def test_a_batch_that_fails_fails_its_own_tiles_and_no_other(width: int, error: type[Exception]) -> None:
    device = Device(Odd(batch=4))
    bad, good = device.submit(tile(width)), device.submit(tile(4))
    with pytest.raises(error):
        bad.result(WAIT_S)
    np.testing.assert_array_equal(good.result(WAIT_S), 2 * tile(4))
    device.close()


def test_a_batch_that_the_memory_of_the_host_does_not_hold_fails_its_tiles() -> None:
    # 2**40 copies of a tile: the array of the batch cannot be made.
    device = Device(Odd(batch=1 << 40), depth=4)
    with pytest.raises((MemoryError, ValueError)):
        device.submit(tile(1 << 18)).result(WAIT_S)
    device.close()


def test_tiles_of_many_shapes_come_back_to_those_who_sent_them() -> None:
    device = Device(Odd(batch=4), depth=64)
    sent = [tile(4 + 2 * (index % 2) + 2, float(index)) for index in range(40)]
    answers = [device.submit(one) for one in sent]
    for one, answer in zip(sent, answers, strict=True):
        np.testing.assert_array_equal(answer.result(WAIT_S), 2 * one)
    device.close()


def test_the_times_of_the_device_are_told_once() -> None:
    device = Device(Odd(batch=1))
    for _ in range(3):
        device.submit(tile(4)).result(WAIT_S)
    device.close()
    busy, idle = device.take_times()
    assert busy > 0
    assert (busy, idle) == (device.busy_s, device.idle_s)
    assert device.take_times() == (0.0, 0.0)
