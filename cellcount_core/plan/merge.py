"""Sorting more rows than memory holds: sorted runs on disk, merged (Knuth, TAOCP 3, 5.4)."""

from __future__ import annotations

import heapq
import marshal
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile

RUN_ROWS = 200_000
"""Rows held in memory before they go to disk as a sorted run."""

_BLOCK_ROWS = 2_000

Plain = tuple[object, ...]


class Sorter:
    """Takes rows (tuples of str and int) in any order, gives them sorted, as often as asked.

    At most `run_rows` rows are held; runs lie in `folder`, which the caller removes. Equal rows are kept.
    """

    def __init__(self, folder: Path, run_rows: int = RUN_ROWS) -> None:
        self._folder = folder
        self._run_rows = run_rows
        self._held: list[Plain] = []
        self._runs: list[Path] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, row: Plain) -> None:
        """Take one row."""
        self._held.append(row)
        self._count += 1
        if len(self._held) >= self._run_rows:
            self._spill()

    def extend(self, rows: Iterable[Plain]) -> None:
        """Take many rows."""
        for row in rows:
            self.add(row)

    def rows(self) -> Iterator[Plain]:
        """All rows taken so far, sorted. May be iterated several times, also side by side; take no row meanwhile."""
        self._held.sort()
        if not self._runs:
            return iter(self._held)
        return heapq.merge(*(_read_run(path) for path in self._runs), self._held)

    def clear(self) -> None:
        """Forget all rows. An iterator that is still at work is left without them."""
        self._held = []
        self._runs = []
        self._count = 0

    def _spill(self) -> None:
        self._held.sort()
        with NamedTemporaryFile(dir=self._folder, prefix="run-", delete=False) as file:
            for start in range(0, len(self._held), _BLOCK_ROWS):
                # marshal writes plain tuples alone, and far faster than Arrow or pickle; nobody else reads these files.
                block = [tuple(row) for row in self._held[start : start + _BLOCK_ROWS]]
                file.write(marshal.dumps(block))
        self._runs.append(Path(file.name))
        self._held = []


def _read_run(path: Path) -> Iterator[Plain]:
    size = path.stat().st_size
    with path.open("rb") as file:
        while file.tell() < size:
            yield from marshal.load(file)  # noqa: S302 (written by this process, into its own folder)
