"""The columns that the tables of wells and plates have: the key, the ledger of fields, and those of each total (domain/totals.py)."""

from __future__ import annotations

from dataclasses import dataclass

from cellcount_core.domain.columns import PLATE, TIMEPOINT, WARNINGS, WELL, Column, Kind, Merge, Null, Schema
from cellcount_core.domain.totals import AREA, element_names


def percentage_columns(column: Column) -> tuple[Column, ...]:
    """What stands beside a percentage: the ends of its interval and the number it rests on."""
    first, second = column.of
    name = column.name
    said = (
        f"of {name}, for sampling alone (Wilson): pipetting, dilution and wrongly judged cells are not in it"
    )
    return (
        Column(f"{name}_low", Kind.FLOAT, "%", f"lower end of the 95 % interval {said}"),
        Column(f"{name}_high", Kind.FLOAT, "%", f"upper end of the 95 % interval {said}"),
        Column(f"{name}_n", Kind.INT, "objects", f"number that {name} rests on: {first} + {second}"),
    )


@dataclass(frozen=True, slots=True)
class TotalColumns:
    """The columns of totals in the order of the tables: `plain` ones, then mean and deviation of what is measured (`spread`)."""

    plain: tuple[Column, ...]
    spread: tuple[Column, ...]


def total_columns(schema: Schema) -> TotalColumns:
    """The columns that the totals of a schema have in the wells and plates tables."""
    plain: list[Column] = []
    measured = list(schema.measured)
    for column in schema.fields:
        name, unit = column.name, column.unit
        match column.merge:
            case Merge.COUNT:
                plain += [
                    Column(name, column.kind, unit, "sum over counted fields, never scaled up; null where no field was counted"),
                    Column(f"{name}_per_field_mean", Kind.FLOAT, unit, "mean over counted fields"),
                    Column(f"{name}_per_field_sd", Kind.FLOAT, unit, "sample standard deviation over counted fields; null below two"),
                ]  # fmt: skip
            case Merge.SUM:
                plain.append(
                    Column(name, column.kind, unit, f"sum over counted fields of {name}; null where none was counted")
                )  # fmt: skip
            case Merge.SHARE:
                of = column.of[0]
                plain += [
                    Column(name, column.kind, unit, f"sum over counted fields of {name}; null where none was counted"),
                    Column(f"{name}_share", Kind.FLOAT, "1", f"{name} / {of}; null where there is no {of}"),
                    Column(f"{name}_share_low", Kind.FLOAT, "1", f"lower end of the 95 % interval of {name} / {of} (Wilson)"),
                    Column(f"{name}_share_high", Kind.FLOAT, "1", f"upper end of the 95 % interval of {name} / {of} (Wilson)"),
                ]  # fmt: skip
            case Merge.PERCENT:
                first, second = column.of
                plain += [
                    Column(name, Kind.FLOAT, unit, f"{first} in % of {first} + {second} over counted fields; null where there are none"),
                    *percentage_columns(column),
                    Column(f"{name}_warnings", Kind.STRING, "", f"what to know of {name}, in words; null where there is nothing"),
                ]  # fmt: skip
            case Merge.RATIO:
                above, below = column.of
                plain.append(
                    Column(name, Kind.FLOAT, unit, f"{column.meaning}: {above} / {below}, each summed over counted fields")
                )  # fmt: skip
            case Merge.BINS:
                plain.append(
                    Column(name, column.kind, unit, f"sum over counted fields of {name}, bin by bin")
                )
            case Merge.VECTOR:
                plain += [
                    Column(each, Kind.FLOAT, unit, f"mean over counted fields of {name} for {one}")
                    for each, one in zip(element_names(name, schema.classes), schema.classes, strict=True)
                ]
            case Merge.TALLY:
                plain.append(
                    Column(name, Kind.STRING, "", f"counted fields by their {name} as JSON; null where none was counted")
                )  # fmt: skip
            case Merge.NAMES:
                for one, each in zip(schema.classes, element_names(name, schema.classes), strict=True):
                    plain += [
                        Column(each, Kind.INT, "fields", f"counted fields that have {one}; null where none was counted"),
                        Column(f"{each}_share", Kind.FLOAT, "1", f"share of counted fields that have {one}, of those of which {name} is told"),
                        Column(f"{each}_share_low", Kind.FLOAT, "1", f"lower end of the 95 % interval of {each}_share (Wilson)"),
                        Column(f"{each}_share_high", Kind.FLOAT, "1", f"upper end of the 95 % interval of {each}_share (Wilson)"),
                    ]  # fmt: skip
            case Merge.SHARED:
                plain.append(
                    Column(
                        name, column.kind, unit, f"{column.meaning}; null where fields have different ones"
                    )
                )
            case Merge.AREA:
                plain.append(AREA)
                plain += [
                    Column(f"{one.name}_per_mm2", Kind.FLOAT, "1/mm^2", f"{one.name} / area; null without calibration")
                    for one in schema.fields if one.merge is Merge.COUNT
                ]  # fmt: skip
            case Merge.MOMENTS:
                measured.append(column)
            case Merge.NONE:
                pass
    over = {column.name: "objects" for column in schema.measured}
    means = [
        Column(
            each.name,
            Kind.FLOAT,
            each.unit,
            f"mean over {over.get(each.name, 'counted fields')} of {each.name}",
        )
        for each in measured
    ]
    deviations = [
        Column(f"sd_{each.name}", Kind.FLOAT, each.unit, f"standard deviation over {over.get(each.name, 'counted fields')} of {each.name}")
        for each in measured
    ]  # fmt: skip
    return TotalColumns(tuple(plain), (*means, *deviations))


_LEDGER = (
    Column("fields_expected", Kind.INT, "fields", "fields planned", Null.NEVER),
    Column("fields_ok", Kind.INT, "fields", "fields counted", Null.NEVER),
    Column("fields_failed", Kind.INT, "fields", "fields that could not be counted", Null.NEVER),
    Column("fields_missing", Kind.INT, "fields", "fields whose files are not there", Null.NEVER),
    Column("fields_skipped", Kind.INT, "fields", "fields left out by the configuration", Null.NEVER),
    Column("fields_warned", Kind.INT, "fields", "counted fields with a warning", Null.NEVER),
    Column(WARNINGS.name, Kind.STRING, "", "fields by the code of their warnings as JSON; {} where no field warns", Null.NEVER),
)  # fmt: skip


def wells_columns(schema: Schema) -> tuple[Column, ...]:
    """Columns of the wells table, which has one row for each well and time point."""
    totals = total_columns(schema)
    return (PLATE, WELL, TIMEPOINT, *_LEDGER, *totals.plain, *totals.spread)


def plates_columns(schema: Schema) -> tuple[Column, ...]:
    """Columns of the plates table, which has one row for each plate."""
    totals = total_columns(schema)
    return (
        PLATE,
        Column("wells_expected", Kind.INT, "wells", "wells planned", Null.NEVER),
        Column("wells_complete", Kind.INT, "wells", "wells in which every field was counted", Null.NEVER),
        *_LEDGER,
        *totals.plain,
        Column(
            "reasons",
            Kind.STRING,
            "",
            "fields by reason as JSON; {} where every field was counted",
            Null.NEVER,
        ),
        Column(
            "doubt",
            Kind.STRING,
            "",
            "code of what is doubtful about the plate as a whole; null where nothing is",
        ),
        *totals.spread,
    )
