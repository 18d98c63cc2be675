"""The gate in front of a worker's memory: never more inside than fits, and nobody waits for ever."""

from __future__ import annotations

import threading
import time

from cellcount_core.pipeline.context import MemoryGate


def test_a_heavy_field_is_not_passed_by_light_ones_for_ever() -> None:
    gate = MemoryGate(10)
    gate.enter(4)
    entered = threading.Event()

    def heavy() -> None:
        gate.enter(100)
        entered.set()
        gate.leave(100)

    thread = threading.Thread(target=heavy, daemon=True)
    thread.start()
    time.sleep(0.05)

    light_inside = threading.Event()

    def light() -> None:
        gate.enter(4)
        light_inside.set()
        gate.leave(4)

    threading.Thread(target=light, daemon=True).start()
    assert not light_inside.wait(0.1)
    gate.leave(4)
    assert entered.wait(120)
    assert light_inside.wait(120)
    thread.join(5)


def test_what_is_inside_never_weighs_more_than_the_limit_unless_it_is_alone() -> None:
    gate = MemoryGate(10)
    lock = threading.Lock()
    inside: list[int] = []
    seen: list[tuple[int, ...]] = []

    def visit(weight: int) -> None:
        gate.enter(weight)
        with lock:
            inside.append(weight)
            seen.append(tuple(inside))
        time.sleep(0.001)
        with lock:
            inside.remove(weight)
        gate.leave(weight)

    threads = [threading.Thread(target=visit, args=(weight,)) for weight in [3, 4, 25, 1, 6, 10, 2, 5] * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == 48
    assert all(sum(weights) <= 10 or len(weights) == 1 for weights in seen)
