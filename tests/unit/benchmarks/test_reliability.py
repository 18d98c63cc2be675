"""The table of drills adds up what the verdicts say."""

from __future__ import annotations

from benchmarks.reliability.__main__ import Drilled, lines


def verdict(redone: int | None, lost: int = 0) -> dict[str, object]:
    return {
        "drill": "x", "fields": 8, "lost": lost, "doubled": 1, "altered": 2, "failed": 3, "redone": redone, "left": ["a", "b"],
    }  # fmt: skip


def test_runs_of_a_drill_are_added_and_what_was_counted_again_is_a_span() -> None:
    first, second = Drilled(), Drilled()
    first.add(verdict(redone=2))
    first.add(verdict(redone=5, lost=1))
    second.add(verdict(redone=None))
    table = lines({"b": first, "a": second})
    assert table[2:] == [
        "| a | 1 | 8 | 0 | 1 | 2 | 3 | not seen | 2 |",
        "| b | 2 | 16 | 1 | 2 | 4 | 6 | 2 to 5 | 4 |",
        "| **all** | 3 | 24 | 1 | 3 | 6 | 9 |  | 6 |",
    ]
    assert (first.bad, second.bad) == (1 + 2 + 4 + 4, 1 + 2 + 2)
