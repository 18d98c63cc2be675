"""Rows of a listing, sorted in bounded memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.plan.rows import Sorter
from tests.often import often

ROWS = st.lists(st.tuples(st.text(max_size=3), st.integers(-5, 5), st.text(max_size=2)), max_size=60)


@settings(max_examples=often(60), deadline=None)
@given(rows=ROWS, run_rows=st.integers(1, 70))
def test_a_spilled_merge_equals_a_sort_in_memory_each_time_it_is_read(
    rows: list[tuple[str, int, str]], run_rows: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sorter = Sorter(Path(folder), run_rows)
        sorter.extend(rows)
        assert len(sorter) == len(rows)
        assert list(sorter.rows()) == sorted(rows)
        assert list(zip(sorter.rows(), sorter.rows(), strict=True)) == [(row, row) for row in sorted(rows)]


def test_no_more_rows_are_held_than_allowed(tmp_path: Path) -> None:
    sorter = Sorter(tmp_path, run_rows=100)
    sorter.extend((number,) for number in range(1050))
    assert len(list(tmp_path.iterdir())) == 10
    assert [row[0] for row in sorter.rows()] == list(range(1050))


def test_two_sorters_share_a_folder(tmp_path: Path) -> None:
    first, second = Sorter(tmp_path, 2), Sorter(tmp_path, 2)
    first.extend([(3,), (1,), (2,)])
    second.extend([(9,), (8,), (7,)])
    assert list(first.rows()) == [(1,), (2,), (3,)]
    assert list(second.rows()) == [(7,), (8,), (9,)]
