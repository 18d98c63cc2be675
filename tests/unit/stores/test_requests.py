"""Reading ahead: in order, in parallel, never more than asked for."""

from __future__ import annotations

import threading
import time

import pytest

from cellcount_core.domain.errors import StorageFault
from cellcount_core.stores.base import Absent, Denied
from cellcount_core.stores.requests import in_order


class Shelf:
    """Objects whose reads are counted from their start until the reader has taken them."""

    def __init__(self) -> None:
        self.started = 0
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes:
        with self._lock:
            self.started += 1
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        time.sleep(0.001 * (hash(key) % 5))
        with self._lock:
            self.running -= 1
        if key.startswith("absent"):
            raise Absent(key)
        if key.startswith("denied"):
            raise Denied(key, "no")
        if key.startswith("broken"):
            raise StorageFault("unreachable")
        return key.encode()


@pytest.mark.parametrize("ahead", [1, 2, 5, 40])
def test_no_more_than_ahead_objects_are_in_flight_or_waiting(ahead: int) -> None:
    shelf = Shelf()
    keys = [f"k{number}" for number in range(60)]
    taken = 0
    for key, body in in_order(shelf.get, keys, ahead=ahead):
        assert body == key.encode()
        taken += 1
        time.sleep(0.001)
        assert shelf.started - taken <= ahead
    assert taken == 60
    assert shelf.most_running <= ahead


def test_the_next_objects_are_read_while_one_is_worked_on() -> None:
    shelf = Shelf()
    reading = in_order(shelf.get, [f"k{number}" for number in range(20)], ahead=4)
    next(reading)
    deadline = time.monotonic() + 5
    while shelf.started < 5 and time.monotonic() < deadline:
        time.sleep(0.002)
    assert shelf.started == 5
    reading.close()  # type: ignore[attr-defined]


def test_absent_and_denied_are_values_and_a_run_fault_is_raised_in_its_turn() -> None:
    reading = in_order(Shelf().get, ["a", "absent", "denied", "broken", "b"], ahead=5)
    assert next(reading) == ("a", b"a")
    assert isinstance(next(reading)[1], Absent)
    assert isinstance(next(reading)[1], Denied)
    with pytest.raises(StorageFault, match="unreachable"):
        next(reading)
    assert list(reading) == []


def test_a_window_below_one_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"1 or more \(got 0\)"):
        in_order(Shelf().get, [], ahead=0)
