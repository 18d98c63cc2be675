"""What a worker knows of a field and of its objects, and the tables made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellcount_core.domain.columns import (
    FIELD_ID,
    MOMENTS,
    PLATE,
    SITE,
    TIMEPOINT,
    WELL,
    Features,
    measured,
)
from cellcount_core.domain.doubts import unknown_codes
from cellcount_core.domain.errors import Reason, Status, nearest
from cellcount_core.domain.fields import FieldKey
from cellcount_core.domain.moments import Moments
from cellcount_core.tables.schema import TableName, check_required, table_from_rows, table_schema

OBJECT_NUMBER = "Metadata_ObjectNumber"
_KEY_COLUMNS = (PLATE.name, WELL.name, SITE.name, TIMEPOINT.name, FIELD_ID.name)

ObjectColumn = NDArray[np.generic] | Sequence[str | None]


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One row of the fields table; names, units and meanings as in `domain.columns`.

    `moments` are those of the measured columns, by the column's full name ("Nuclei_AreaShape_Area"); a measured column that
    is not in it was not measured. nan stands for unknown and becomes null.

    Raises ValueError unless exactly the rows that are ok have a count, and exactly the others a reason of that status, or where a
    warning has no sentence in `domain.doubts`.
    """

    key: FieldKey
    z_mode: str
    status: Status
    reason: Reason | None = None
    detail: str = ""
    source: tuple[str, ...] = ()
    channel: str | None = None
    planes: int | None = None
    count: int | None = None
    count_low: float | None = None
    count_high: float | None = None
    count_border: int | None = None
    area_fraction: float | None = None
    width_px: int | None = None
    height_px: int | None = None
    um_per_px: float | None = None
    scale: float | None = None
    diameter_px: float | None = None
    diameter_source: str | None = None
    diameter_images: int | None = None
    diameter_objects: int | None = None
    sizes: str | None = None
    focus: float | None = None
    saturation: float | None = None
    background: float | None = None
    noise: float | None = None
    signal: float | None = None
    empty: bool | None = None
    out_of_domain: float | None = None
    warnings: tuple[str, ...] = ()
    moments: Mapping[str, Moments] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = Status.OK if self.reason is None else self.reason.status
        if self.status is not expected:
            raise ValueError(f"{self.key}: status {self.status.value} does not go with reason {self.reason}")
        if (self.status is Status.OK) != (self.count is not None):
            raise ValueError(f"{self.key}: status {self.status.value} does not go with count {self.count}")
        if unknown := unknown_codes(self.warnings):
            raise ValueError(f"{self.key}: domain/doubts.py has no sentence for {', '.join(unknown)}")


@dataclass(frozen=True, slots=True)
class ObjectRows:
    """The objects of one field: a column of n values a name of `domain.columns.objects_columns`, the key columns apart.

    Columns that are not there are null; nan in a float column is null.
    """

    key: FieldKey
    columns: Mapping[str, ObjectColumn]

    @property
    def count(self) -> int:
        """Number of objects."""
        return len(self.columns[OBJECT_NUMBER])


def fields_table(rows: Sequence[FieldRow], features: Features, fingerprint: str) -> pa.Table:
    """The fields table of `rows`, in their order.

    Raises ValueError where a row has moments of a column that is not measured.
    """
    names = [column.name for column in measured(features)]
    plain = [_field_values(row, names) for row in rows]
    return table_from_rows(plain, table_schema(TableName.FIELDS, features, fingerprint))


def _field_values(row: FieldRow, feature_names: Sequence[str]) -> dict[str, object]:
    values: dict[str, object] = {
        PLATE.name: row.key.plate,
        WELL.name: row.key.well,
        SITE.name: row.key.site,
        TIMEPOINT.name: row.key.timepoint,
        FIELD_ID.name: row.key.field_id,
        "z_mode": row.z_mode,
        "status": row.status.value,
        "reason": row.reason.value if row.reason else None,
        "reason_detail": row.detail or None,
        "source": list(row.source),
        "channel": row.channel,
        "planes": row.planes,
        "count": row.count,
        "count_low": known(row.count_low),
        "count_high": known(row.count_high),
        "count_border": row.count_border,
        "area_fraction": known(row.area_fraction),
        "width_px": row.width_px,
        "height_px": row.height_px,
        "um_per_px": known(row.um_per_px),
        "scale": known(row.scale),
        "diameter_px": known(row.diameter_px),
        "diameter_source": row.diameter_source,
        "diameter_images": row.diameter_images,
        "diameter_objects": row.diameter_objects,
        "sizes": row.sizes,
        "focus": known(row.focus),
        "saturation": known(row.saturation),
        "background": known(row.background),
        "noise": known(row.noise),
        "signal": known(row.signal),
        "empty": row.empty,
        "out_of_domain": known(row.out_of_domain),
        "warnings": list(row.warnings),
    }
    for name in row.moments:
        if name not in feature_names:
            raise ValueError(f"{name} is not a measured column{nearest(name, feature_names)}")
    for name, moments in row.moments.items():
        parts = (moments.n, moments.mean, moments.m2, moments.low, moments.high)
        for prefix, part in zip(MOMENTS, parts, strict=True):
            values[f"{prefix}_{name}"] = part if prefix == "n" else known(part)
    return values


def known(value: float | None) -> float | None:
    """The value, None where it is nan: a table says unknown in one way only."""
    return None if value is None or math.isnan(value) else float(value)


def objects_table(objects: Sequence[ObjectRows], features: Features, fingerprint: str) -> pa.Table:
    """The objects table of some fields, in their order.

    Raises ValueError where a field has a column that is none, columns of different length, or lacks a required one.
    """
    schema = table_schema(TableName.OBJECTS, features, fingerprint)
    for rows in objects:
        _check_columns(rows, schema.names)
    arrays: list[pa.Array] = []
    for arrow in schema:
        pieces = [_object_piece(rows, arrow) for rows in objects]
        arrays.append(pa.concat_arrays(pieces) if pieces else pa.array([], type=arrow.type))
    table = pa.Table.from_arrays(arrays, schema=schema)
    check_required(table)
    return table


def _check_columns(rows: ObjectRows, names: Sequence[str]) -> None:
    for name, values in rows.columns.items():
        if name in _KEY_COLUMNS or name not in names:
            raise ValueError(f"{name} is not a column of an object{nearest(name, names)}")
        if len(values) != rows.count:
            raise ValueError(f"{rows.key}: {name} has {len(values)} values for {rows.count} objects")


def _object_piece(rows: ObjectRows, arrow: pa.Field) -> pa.Array:
    if arrow.name in _KEY_COLUMNS:
        key = rows.key
        values = dict(
            zip(_KEY_COLUMNS, (key.plate, key.well, key.site, key.timepoint, key.field_id), strict=True)
        )
        return pa.repeat(pa.scalar(values[arrow.name], type=arrow.type), rows.count)
    column = rows.columns.get(arrow.name)
    if column is None:
        return pa.nulls(rows.count, type=arrow.type)
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        return pa.array(column.astype(np.float64), type=arrow.type, mask=np.isnan(column))
    return pa.array(column, type=arrow.type)
