"""One row a file (or slice of a stack): what is collected, sorted, grouped into fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from cellcount_core.domain.fields import FieldKey, Parsed, Source


class Row(NamedTuple):
    """A file and the field it belongs to. Rows sort as tuples: by field, then channel, plane, key, index.

    `reason` is a Reason's value where the file is known to be of no use, "" otherwise. `folder` is the acquisition's.
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
    folder: str

    @property
    def source(self) -> Source:
        """The file as a field's source."""
        return Source(self.channel, self.plane, self.key, self.slice_index, self.size, self.etag)


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
) -> Row:
    """The row of a file that a layout has read."""
    field = parsed.field
    return Row(
        field.plate, field.well, field.site, field.timepoint, parsed.channel, parsed.plane,
        key, index, size, etag, reason, detail, parsed.folder,
    )  # fmt: skip


def by_field(rows: Iterable[Row]) -> Iterator[tuple[Place, list[Row]]]:
    """Sorted rows grouped into fields."""
    for place, group in groupby(rows, _place):
        yield place, list(group)


def field_key(place: Place) -> FieldKey:
    """The key of the field at `place`."""
    return FieldKey(*place)


def _place(row: Row) -> Place:
    return row[:4]
