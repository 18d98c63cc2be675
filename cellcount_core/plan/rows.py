"""Rows: one for each file or image of a stack, collected while listing, sorted (on disk if there are many), grouped into fields."""

from __future__ import annotations

import heapq
import marshal
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

from cellcount_core.domain.fields import Parsed, Source, SourcePart


class Row(NamedTuple):
    """A file and the field it belongs to. Rows sort as tuples: by field, then channel, plane, key, index.

    `reason` is the value of a Reason if the file is known to be of no use, else "". `parts` are the objects (key, size) that an
    array is read from, () for a file. `folder` is that of `Parsed`.
    """

    plate: str
    well: str
    site: int
    timepoint: int
    channel: str
    plane: int
    key: str
    slice_index: int
    size: int
    etag: str
    reason: str
    detail: str
    parts: tuple[tuple[str, int], ...]
    folder: str

    @property
    def source(self) -> Source:
        """The file, or the array, as a field's source."""
        parts = tuple(SourcePart(*part) for part in self.parts)
        return Source(self.channel, self.plane, self.key, self.slice_index, self.size, self.etag, parts)


Place = tuple[str, str, int, int]
"""plate, well, site, time point: a FieldKey as a tuple, which sorts faster."""


def row_of(
    parsed: Parsed,
    key: str,
    *,
    index: int = -1,
    size: int = 0,
    etag: str = "",
    reason: str = "",
    detail: str = "",
    parts: tuple[tuple[str, int], ...] = (),
) -> Row:
    """The row of a file or array that a layout has read."""
    field = parsed.field
    return Row(
        field.plate, field.well, field.site, field.timepoint, parsed.channel, parsed.plane,
        key, index, size, etag, reason, detail, parts, parsed.folder,
    )  # fmt: skip


def by_field(rows: Iterable[Row]) -> Iterator[tuple[Place, list[Row]]]:
    """Sorted rows grouped into fields."""
    for place, group in groupby(rows, _place):
        yield place, list(group)


def _place(row: Row) -> Place:
    return row[:4]


RUN_ROWS = 200_000
"""Rows held in memory before they go to disk as a sorted run."""

_BLOCK_ROWS = 2_000

Plain = tuple[object, ...]


class Sorter:
    """Takes rows (tuples of str and int) in any order and gives them sorted, as often as asked.

    At most `run_rows` rows are held in memory; the others lie as sorted files ("runs") in `folder`, which the caller removes,
    and are merged as they are read (Knuth, TAOCP 3, 5.4). Equal rows are kept.
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
        """All rows taken so far, sorted. Several such iterators may be used side by side; do not add rows meanwhile."""
        self._held.sort()
        if not self._runs:
            return iter(self._held)
        return heapq.merge(*(_read_run(path) for path in self._runs), self._held)

    def clear(self) -> None:
        """Forget all rows. Do not go on with an iterator that was given before."""
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
