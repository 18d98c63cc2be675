"""The whole run in one value, written as JSON and CSV, and the plain table of its results."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cellcount_core.domain.columns import (
    DETAIL,
    PLATE,
    REASON,
    SITE,
    SOURCE,
    STATUS,
    TIMEPOINT,
    WARNINGS,
    WELL,
    Column,
    Kind,
    Merge,
    Schema,
    Value,
)
from cellcount_core.domain.doubts import PACKAGE_HELPS, Doubt, by_weight, meaning, sentence
from cellcount_core.domain.errors import ModelFault, Reason, Status
from cellcount_core.domain.statistics import Moments
from cellcount_core.domain.total_columns import plates_columns, total_columns
from cellcount_core.domain.totals import MomentsTotal, element_names, known, total_values
from cellcount_core.models.package import shipped_packages
from cellcount_core.output.runfile import RunFile, read_run
from cellcount_core.reduce.groups import PlateTotals, plate_row
from cellcount_core.reduce.ledger import fields_parts
from cellcount_core.stores.base import Store

ALL = "all"
"""Name of the last row of summary.csv, over all plates."""

_NO_UNIT = ("", "1")
_SHOWN_PLATES = 10
_SHOWN_NAMES = 6


@dataclass(frozen=True, slots=True)
class PlateDoubt:
    """A plate in doubt as a whole: why, and how many (`fields`) of its `ok` counted fields say so."""

    plate: str
    doubt: Doubt
    fields: int
    ok: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to.

    `model` is the name of the package it was counted with, `model_doubt` why its counts are not to be trusted ("" for no reason), `noun` what its fields are called ("image" or "field").
    `wells_warnings` counts the wells by what should be known of their percentages. `fields` = ok + failed + missing + skipped of `statuses`. `reasons` counts the fields that are not ok, `warnings` the counted fields by the
    codes of their warnings, and `warned` the fields that have any. `doubts` are the plates in doubt. `totals` holds what the columns of the
    schema come to, with the names and in the order of `total_columns`; the values are None if no field was counted. `moments` are those of
    the measured columns, by name. `digests` are SHA-256 of the files wells.parquet and plates.parquet (`wells`, `plates`) and of the rows of
    the fields and objects tables (`fields_rows`, `objects_rows`), which do not depend on the cut into parts. `examples` holds, for each
    reason, the detail of the first field that has it.
    """

    fingerprint: str
    schema: Schema
    model: str
    noun: str
    plates: int
    wells: int
    wells_complete: int
    fields: int
    statuses: Mapping[str, int]
    reasons: Mapping[str, int]
    warnings: Mapping[str, int]
    warned: int
    doubts: tuple[PlateDoubt, ...]
    totals: Mapping[str, Value]
    moments: Mapping[str, Moments]
    digests: Mapping[str, str]
    examples: Mapping[str, str]
    wells_warnings: Mapping[str, int]
    model_doubt: str = ""


def summarise(
    run: RunFile,
    plates: Sequence[PlateTotals],
    everything: PlateTotals,
    doubts: Mapping[str, Doubt],
    digests: Mapping[str, str],
    examples: Mapping[str, str],
) -> Summary:
    """The summary of a run, from its plates, the totals over all of them (`everything`) and the plates in doubt."""
    tally = everything.tally
    values = total_values(tally.totals)
    return Summary(
        fingerprint=run.fingerprint,
        schema=run.schema,
        model=run.model.name,
        noun=run.noun,
        plates=len(plates),
        wells=everything.wells,
        wells_complete=everything.complete,
        fields=tally.fields,
        statuses={status.value: tally.statuses[status.value] for status in Status},
        reasons=dict(sorted(tally.reasons.items())),
        warnings=dict(sorted(tally.warnings.items())),
        warned=tally.warned,
        doubts=tuple(_plate_doubt(plate, doubts[plate.name]) for plate in plates if plate.name in doubts),
        totals={column.name: values[column.name] for column in total_columns(run.schema).plain},
        moments={
            total.column.name: total.moments for total in tally.totals if isinstance(total, MomentsTotal)
        },
        digests=dict(digests),
        examples=dict(examples),
        wells_warnings=dict(sorted(everything.well_concerns.items())),
        model_doubt=run.model_doubt,
    )


def _plate_doubt(plate: PlateTotals, doubt: Doubt) -> PlateDoubt:
    tally = plate.tally
    return PlateDoubt(
        plate.name, doubt, tally.ok if doubt is Doubt.NO_OBJECTS else tally.warnings[doubt], tally.ok
    )


def headline(summary: Summary) -> str:
    """What the run found, in words: "1,234 objects", "31.2 % dead (29.0 to 33.4)", "12 alive, 3 dead"; "" if no field was counted."""
    if not summary.statuses[Status.OK.value]:
        return ""
    schema = summary.schema
    told = [_told(column, schema, summary.totals) for column in map(schema.field, schema.results)]
    return ", ".join(words for words in told if words)


def _told(column: Column, schema: Schema, totals: Mapping[str, Value]) -> str:
    value = totals.get(column.name)
    if column.merge is Merge.COUNT and isinstance(value, int):
        return f"{value} {column.unit.removesuffix('s') if value == 1 else column.unit}"
    if column.merge is Merge.SUM and isinstance(value, int):
        return f"{value} {column.name}"
    if column.merge is Merge.PERCENT and isinstance(value, float):
        low, high = (totals[f"{column.name}_{end}"] for end in ("low", "high"))
        return f"{column.name} {value:.1f} % ({low:.1f} to {high:.1f})"
    if column.merge is Merge.SHARE:
        ends = [totals.get(f"{column.name}_share{end}") for end in ("", "_low", "_high")]
        share, low, high = (100 * each if isinstance(each, float) else None for each in ends)
        known_share = share is not None and low is not None and high is not None
        counted = schema.field(column.of[0]).unit
        of_class = column.unit in schema.classes
        what = f"of {counted} {column.unit}" if of_class or column.unit != counted else column.name
        return f"{share:.1f} % {what} ({low:.1f} to {high:.1f})" if known_share else ""
    if column.merge is Merge.NAMES:
        return _most_named(column, schema.classes, totals)
    if column.merge is Merge.TALLY and isinstance(value, str):
        return ", ".join(f"{number} {word}" for word, number in json.loads(value).items())
    return ""


def _most_named(column: Column, classes: Sequence[str], totals: Mapping[str, Value]) -> str:
    """The classes that most fields have, with the number of those: "8 Nucleoplasm, 3 Cytosol, 1 Nucleoli"."""
    numbers = {
        one: int(number)
        for one, name in zip(classes, element_names(column.name, classes), strict=True)
        if isinstance(number := totals.get(name), int) and number
    }
    ordered = sorted(numbers, key=lambda one: (-numbers[one], one))
    shown = [f"{numbers[one]} {one}" for one in ordered[:_SHOWN_NAMES]]
    left = len(ordered) - len(shown)
    return ", ".join([*shown, *([f"{left} more {column.name}"] if left else [])])


def told_doubts(summary: Summary) -> list[str]:
    """What is doubtful about a run, in words: its package, if its counts are not to be trusted; one line for each code that rows warn of, the most frequent first, then one for each plate in doubt if the run has
    several plates. Each line says what can be done, and names the shipped package that fits, if one does.
    """
    ok, noun, model = summary.statuses[Status.OK.value], summary.noun, summary.model
    shown = summary.doubts[: _SHOWN_PLATES if summary.plates > 1 else 0]
    codes = {*summary.warnings, *(one.doubt.value for one in shown)}
    packages = {code: better_package(code, summary.warnings, model) for code in codes}
    lines = [summary.model_doubt] if summary.model_doubt else []
    lines += [
        sentence(
            code,
            fields,
            ok,
            noun=noun,
            model=model,
            package=packages[code],
            example=summary.examples.get(code, ""),
        )
        for code, fields in by_weight(summary.warnings)
    ]
    lines += [
        f"plate {one.plate!r}: "
        + sentence(one.doubt, one.fields, one.ok, noun=noun, model=model, package=packages[one.doubt])
        for one in shown
    ]
    wells = "image" if summary.noun == "image" else "well"
    lines += [
        sentence(code, number, summary.wells, noun=wells, model=model)
        for code, number in by_weight(summary.wells_warnings)
    ]
    left = len(summary.doubts) - _SHOWN_PLATES
    return [*lines, f"… and {left} more plates in doubt"] if left > 0 else lines


def better_package(code: str, warnings: Mapping[str, int], model: str) -> str:
    """The shipped package that settles the doubt `code` about images counted with `model`; "" if none is known to.

    Another package of the same task fits if the background is of the other kind: bright under a model for fluorescence, or dark under one for stains. A
    model that counts at any scale cannot be told an object size; a package of the same modality that has a size can.
    """
    if code not in PACKAGE_HELPS:
        return ""
    try:
        shipped = shipped_packages()
    except ModelFault:
        # A damaged package is told where somebody counts with it; what was counted is told all the same.
        return ""
    own = next((package for package in shipped if package.name == model), None)
    task = "instances" if own is None else own.task
    trained = [
        package
        for package in shipped
        if package.domain is not None and package.name != model and package.task == task
    ]
    if code == Doubt.SIZE_UNLIKE:
        free = own is not None and own.input.diameter_px is None
        return next(
            (one.name for one in trained if free and own and set(one.modality) & set(own.modality)), ""
        )
    for doubt, dark in ((Doubt.BRIGHT_BACKGROUND, True), (Doubt.DARK_BACKGROUND, False)):
        if 2 * warnings.get(doubt, 0) > max(1, warnings.get(Doubt.OUT_OF_DOMAIN, 0)):
            return next((one.name for one in trained if (one.input.polarity == "dark") == dark), "")
    return ""


def summary_json(summary: Summary) -> bytes:
    """The bytes of summary.json."""
    data = {
        "schema_version": summary.schema.version,
        "fingerprint": summary.fingerprint,
        "object_name": summary.schema.object_name or None,
        "channels": list(summary.schema.channels),
        "plates": summary.plates,
        "wells": summary.wells,
        "wells_complete": summary.wells_complete,
        "fields": {"expected": summary.fields, **summary.statuses},
        "reasons": dict(summary.reasons),
        **({"model_doubt": summary.model_doubt} if summary.model_doubt else {}),
        "fields_warned": summary.warned,
        "warnings": dict(summary.warnings),
        "plates_in_doubt": dict(Counter(one.doubt.value for one in summary.doubts)),
        **({"wells_warnings": dict(summary.wells_warnings)} if has_percentages(summary.schema) else {}),
        **summary.totals,
        "features": {name: _spread(moments) for name, moments in summary.moments.items()},
        "digests": dict(summary.digests),
    }
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def summary_csv(
    plates: Sequence[PlateTotals], everything: PlateTotals, doubts: Mapping[str, Doubt], schema: Schema
) -> bytes:
    """The bytes of summary.csv: the plates table, with the unit in each header that has one, and a last row "all".

    Cells that are not known are empty. Lines end with a line feed.
    """
    columns = plates_columns(schema)
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(
        column.name if column.unit in _NO_UNIT else f"{column.name} ({column.unit})" for column in columns
    )
    for plate in (*plates, everything):
        row = plate_row(plate, {} if plate is everything else doubts)
        writer.writerow(_in_csv(row[column.name]) for column in columns)
    return sink.getvalue().encode()


def _in_csv(value: Value) -> Value:
    """A list is written with spaces between its numbers."""
    return " ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value


def has_percentages(schema: Schema) -> bool:
    """Whether a field has a percentage, of which a well may say that it rests on few cells."""
    return any(column.merge is Merge.PERCENT for column in schema.fields)


def _spread(moments: Moments) -> dict[str, float | int | None]:
    return {
        "n": moments.n,
        "mean": known(moments.mean),
        "sd": known(moments.sd),
        "min": known(moments.low),
        "max": known(moments.high),
    }


def results_csv(store: Store) -> str:
    """A plain table of a run's results, one row for each field in key order: `index,count,...` if objects are counted.

    `index` counts from 0; for one stack of images it is the index of the image in the stack. The results come next, each interval (`count_low`,
    `count_high`) behind the result that it is of; then file, plate, well, site and time point, status, the reason code and what was found
    for a field that could not be counted, and the warnings in words. The results of a field that could not be counted are empty, never 0. A
    list of numbers has one column for each of its classes; names stand in one, with "; " between them, and so do files and warnings.

    Raises OutputFault if `store` holds no run, LedgerFault if a shard is not counted yet.
    """
    run = read_run(store)
    there = {column.name: column for column in run.schema.fields}
    columns = [
        there[name]
        for result in run.schema.results
        for name in (result, f"{result}_low", f"{result}_high")
        if name in there
    ]
    ledger = (PLATE, WELL, SITE, TIMEPOINT, STATUS, REASON, DETAIL, SOURCE, WARNINGS)
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["index", *(name for column in columns for name in _names(column, run.schema)), *_ABOUT])
    index = 0
    for part in fields_parts(store, run):
        for row in part.table.select([column.name for column in (*columns, *ledger)]).to_pylist():
            cells = [cell for column in columns for cell in _cells(row[column.name], column, run.schema)]
            writer.writerow([index, *cells, *_about(row, run.schema.task)])
            index += 1
    return sink.getvalue()


_ABOUT = ("file", "plate", "well", "site", "timepoint", "status", "reason", "reason_detail", "warnings")
"""The columns of the plain table that say which image a row is of, and what to know of it."""


def _about(row: Mapping[str, object], task: str) -> list[object]:
    """The cells of `_ABOUT`, of a row of the fields table of a run of `task`."""
    files, warnings = row[SOURCE.name], row[WARNINGS.name]
    reason, detail = row[REASON.name], row[DETAIL.name]
    if not detail and isinstance(reason, str) and reason in set(Reason):
        detail = Reason(reason).sentence
    return [
        "; ".join(files) if isinstance(files, list) else None,
        *(row[column.name] for column in (PLATE, WELL, SITE, TIMEPOINT, STATUS)),
        reason,
        detail,
        "; ".join(meaning(warning, task) for warning in warnings) if isinstance(warnings, list) else None,
    ]


def _names(column: Column, schema: Schema) -> list[str]:
    return element_names(column.name, schema.classes) if column.kind is Kind.FLOATS else [column.name]


def _cells(value: object, column: Column, schema: Schema) -> list[object]:
    if column.kind is Kind.STRINGS:
        return ["; ".join(value) if isinstance(value, list) else None]
    if column.kind is not Kind.FLOATS:
        return [value]
    return list(value) if isinstance(value, list) else [None] * len(schema.classes)
