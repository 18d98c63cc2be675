"""The whole run in one value, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cellcount_core.domain.columns import SCHEMA_VERSION, Features, measured, plates_columns
from cellcount_core.domain.errors import Status
from cellcount_core.domain.moments import Moments
from cellcount_core.reduce.plates import Plate, plate_row
from cellcount_core.tables.rows import known

ALL = "all"
"""Name of the last row of summary.csv, over all plates."""

_NO_UNIT = ("", "1")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to.

    `fields` = ok + failed + missing + skipped of `statuses`; `reasons` counts the fields that are not ok. `count` is None where
    no field was counted. `digests`: SHA-256 of the files wells.parquet and plates.parquet (`wells`, `plates`), and of the
    rows of the fields and objects tables (`fields_rows`, `objects_rows`), which no cut into parts can change.
    `moments` are those of the measured columns over all objects, by the column's name. `examples`: for each reason, what was
    said of the first field that has it.
    """

    fingerprint: str
    features: Features
    plates: int
    wells: int
    wells_complete: int
    fields: int
    statuses: Mapping[str, int]
    reasons: Mapping[str, int]
    count: int | None
    count_per_field_mean: float | None
    count_per_field_sd: float | None
    area_mm2: float | None
    count_per_mm2: float | None
    moments: Mapping[str, Moments]
    digests: Mapping[str, str]
    examples: Mapping[str, str]


def summarise(
    fingerprint: str,
    features: Features,
    plates: int,
    everything: Plate,
    digests: Mapping[str, str],
    examples: Mapping[str, str],
) -> Summary:
    """The summary of a run from the totals over all its plates."""
    tally = everything.tally
    return Summary(
        fingerprint=fingerprint,
        features=features,
        plates=plates,
        wells=everything.wells,
        wells_complete=everything.complete,
        fields=tally.fields,
        statuses={status.value: tally.statuses[status.value] for status in Status},
        reasons=dict(sorted(tally.reasons.items())),
        count=tally.count,
        count_per_field_mean=tally.mean,
        count_per_field_sd=tally.sd,
        area_mm2=tally.area_mm2,
        count_per_mm2=tally.per_mm2,
        moments={column.name: its for column, its in zip(measured(features), tally.moments, strict=True)},
        digests=dict(digests),
        examples=dict(examples),
    )


def summary_json(summary: Summary) -> bytes:
    """The bytes of summary.json."""
    data = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": summary.fingerprint,
        "object_name": summary.features.object_name,
        "channels": list(summary.features.channels),
        "plates": summary.plates,
        "wells": summary.wells,
        "wells_complete": summary.wells_complete,
        "fields": {"expected": summary.fields, **summary.statuses},
        "reasons": dict(summary.reasons),
        "count": summary.count,
        "count_per_field_mean": summary.count_per_field_mean,
        "count_per_field_sd": summary.count_per_field_sd,
        "area_mm2": summary.area_mm2,
        "count_per_mm2": summary.count_per_mm2,
        "features": {name: _spread(moments) for name, moments in summary.moments.items()},
        "digests": dict(summary.digests),
    }
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def summary_csv(plates: Sequence[Plate], everything: Plate, features: Features) -> bytes:
    """The bytes of summary.csv: the plates table with the unit in each header that has one, and a last row "all".

    Unknown cells are empty. Lines end with a line feed.
    """
    columns = plates_columns(features)
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(
        column.name if column.unit in _NO_UNIT else f"{column.name} ({column.unit})" for column in columns
    )
    for plate in (*plates, everything):
        row = plate_row(plate, features)
        writer.writerow(row[column.name] for column in columns)
    return sink.getvalue().encode()


def _spread(moments: Moments) -> dict[str, float | int | None]:
    return {
        "n": moments.n,
        "mean": known(moments.mean),
        "sd": known(moments.sd),
        "min": known(moments.low),
        "max": known(moments.high),
    }
