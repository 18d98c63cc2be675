"""Where each well of a table lies on its plate, and what is known about it: the plate map as a value, before
it is drawn.

A grid has all wells of its plate, including those that were never planned. Images whose names are not
wells have no grid; they are shown as bars.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import pyarrow as pa

from cellcount_core.domain.columns import PLATE, TIMEPOINT, WELL, Kind, Merge, Schema
from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.domain.plates import FORMATS, WellPosition, parse_well, smallest_format
from cellcount_core.domain.total_columns import total_columns
from cellcount_core.domain.totals import element_names

BARS = 60
"""How many images are shown at most if their names are not wells."""


class WellState(Enum):
    """What is known about a well."""

    COMPLETE = "every field counted"
    PARTIAL = "some fields not counted"
    UNCOUNTED = "no field counted"
    UNMEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class DrawnWell:
    """One well of the grid. `value` is None if there is nothing to show."""

    position: WellPosition
    state: WellState
    value: float | None
    fields_ok: int
    fields_expected: int


@dataclass(frozen=True, slots=True)
class PlateGrid:
    """One plate at one time point: all `rows` x `columns` wells, row by row. `stated` says that metadata or a setting gives this shape."""

    title: str
    rows: int
    columns: int
    cells: tuple[DrawnWell, ...]
    stated: bool = False


@dataclass(frozen=True, slots=True)
class ImageBar:
    """One image (or group of images) that has no place on a plate. `value` is None if nothing was counted."""

    name: str
    value: float | None


@dataclass(frozen=True, slots=True)
class ImageBars:
    """Images by value, the largest first and those without a value last. `bars` are the first ones of
    `images` in all, of which `uncounted` have no value.
    """

    title: str
    bars: tuple[ImageBar, ...]
    images: int
    uncounted: int


Panel = PlateGrid | ImageBars


@dataclass(frozen=True, slots=True)
class PlateMap:
    """The panels of one column of a wells table. `low` and `high` are its range over all panels, and `label` is its name in words."""

    label: str
    low: float
    high: float
    panels: tuple[Panel, ...]


def plate_map(
    wells: pa.Table, schema: Schema, column: str = "", shapes: Mapping[str, tuple[int, int]] | None = None
) -> PlateMap:
    """Make the plate map of a wells table: one panel for each plate and time point, sorted by plate and time
    point.

    `column` is any numeric column of the table ("count_per_field_mean", "Nuclei_AreaShape_Area"); "" takes
    the first one that the results of the run's task lead to. `shapes` gives the rows and columns of plates
    by name, where metadata states them; any other plate is drawn as the smallest standard plate that holds
    its wells. Raises ConfigFault if the table has no such column.
    """
    column = column or _first_result(schema)
    if column not in wells.schema.names:
        raise ConfigFault(f"the wells table has no column {column!r}{nearest(column, wells.schema.names)}")
    wanted = [PLATE.name, WELL.name, TIMEPOINT.name, "fields_expected", "fields_ok"]
    keys = wells.select(wanted).to_pylist()
    values = wells.column(column).to_pylist()
    groups: dict[tuple[str, int], dict[str, tuple[Mapping[str, int], float | None]]] = defaultdict(dict)
    for key, value in zip(keys, values, strict=True):
        groups[key[PLATE.name], key[TIMEPOINT.name]][key[WELL.name]] = (key, value)
    times = Counter(plate for plate, _ in groups)
    panels = tuple(
        _panel(
            f"{plate}, time point {time}" if times[plate] > 1 else plate,
            groups[plate, time],
            (shapes or {}).get(plate, (0, 0)),
        )
        for plate, time in sorted(groups)
    )
    known = [float(value) for value in values if value is not None]
    return PlateMap(
        _label(wells.schema, schema, column), min(known, default=0.0), max(known, default=0.0), panels
    )


def _panel(
    title: str, wells: Mapping[str, tuple[Mapping[str, int], float | None]], stated: tuple[int, int]
) -> Panel:
    positions = {name: parse_well(name) for name in wells}
    placed = {position: wells[name] for name, position in positions.items() if position is not None}
    if len(placed) < len(wells):
        return _bars(title, {name: value for name, (_, value) in wells.items()})
    rows, columns = stated
    fits = all(position.row < rows and position.column < columns for position in placed)
    if not fits:
        rows, columns = FORMATS[smallest_format(list(placed))]
    cells = []
    for index in range(rows * columns):
        position = WellPosition(*divmod(index, columns))
        if position in placed:
            cells.append(_cell(position, *placed[position]))
        else:
            cells.append(DrawnWell(position, WellState.UNMEASURED, None, 0, 0))
    return PlateGrid(title, rows, columns, tuple(cells), fits)


def shape_notes(drawn: PlateMap) -> tuple[str, ...]:
    """What to tell of plates whose shape nothing states, in a line: they may have more wells than are drawn."""
    guessed = [panel for panel in drawn.panels if isinstance(panel, PlateGrid) and not panel.stated]
    if not guessed:
        return ()
    first = guessed[0]
    more = f" and {len(guessed) - 1} more" if len(guessed) > 1 else ""
    return (
        f"{first.title}{more}: drawn as {first.rows * first.columns} wells, the fewest that hold the wells that were counted, because nothing"
        " states the plate's shape; if it has more, count it with --plate-format",
    )


def _cell(position: WellPosition, tally: Mapping[str, int], value: float | None) -> DrawnWell:
    done, expected = tally["fields_ok"], tally["fields_expected"]
    if done == 0:
        state = WellState.UNCOUNTED
    else:
        state = WellState.COMPLETE if done == expected else WellState.PARTIAL
    return DrawnWell(position, state, value, done, expected)


def _bars(title: str, values: Mapping[str, float | None]) -> ImageBars:
    ordered = sorted(values.items(), key=lambda item: (item[1] is None, -(item[1] or 0), item[0]))
    bars = tuple(ImageBar(*item) for item in ordered[:BARS])
    return ImageBars(title, bars, len(ordered), sum(value is None for value in values.values()))


def _first_result(schema: Schema) -> str:
    """The first numeric column that a result of the task leads to in wells; the number of counted fields if no result is a number."""
    numbers = [one.name for one in total_columns(schema).plain if one.kind in (Kind.INT, Kind.FLOAT)]
    return next(
        (each for result in schema.results for each in numbers if each.startswith(result)), "fields_ok"
    )


def further_results(schema: Schema) -> tuple[str, ...]:
    """The columns of wells that the other results of the task lead to, for which a plate map can be made too: "count_RBC", "dead_share"."""
    there = [one.name for one in total_columns(schema).plain if one.kind in (Kind.INT, Kind.FLOAT)]
    found: list[str] = []
    for result in schema.results:
        if schema.field(result).merge is Merge.VECTOR:
            found += element_names(result, schema.classes)
        elif schema.field(result).merge is Merge.NAMES:
            found += [f"{name}_share" for name in element_names(result, schema.classes)]
        else:
            found += [name for name in (f"{result}_share", result) if name in there][:1]
    first = _first_result(schema)
    return tuple(name for name in dict.fromkeys(found) if name != first)


def drawn_results(wells: pa.Table, schema: Schema, most: int) -> tuple[tuple[str, ...], int]:
    """The columns of a wells table that maps are drawn of, and how many more results of the task there are.

    The first is that of the map without a name of its own; where images are told classes, the share of the class that most of them have. Of more
    than `most` others, those of the largest values are drawn.
    """
    first, further = _first_result(schema), list(further_results(schema))
    leading = schema.field(schema.results[0]) if schema.results else None
    if leading is not None and leading.merge is Merge.NAMES:
        shares = [f"{name}_share" for name in element_names(leading.name, schema.classes)]
        first = max(shares, key=lambda name: _mean(wells, name))
        further.remove(first)
    kinds = {
        name: next((at for at, each in enumerate(schema.results) if name.startswith(each)), len(further))
        for name in further
    }
    if len(further) > most:
        further.sort(key=lambda name: (kinds[name], -_mean(wells, name)))
    return (first, *further[:most]), max(0, len(further) - most)


def _mean(wells: pa.Table, column: str) -> float:
    """The mean of a column over wells; 0 where nothing is known."""
    values = [float(value) for value in wells.column(column).to_pylist() if value is not None]
    return sum(values) / len(values) if values else 0.0


def _label(table: pa.Schema, schema: Schema, column: str) -> str:
    """In words, what the colours of a plate map stand for."""
    objects = schema.object_name.lower() or "objects"
    for one in schema.fields:
        if one.merge is Merge.COUNT:
            what = objects if one.name == schema.object_count else one.name
            words = {
                one.name: "per well",
                f"{one.name}_per_field_mean": "per field",
                f"{one.name}_per_mm2": "per mm²",
            }
            if column in words:
                return f"{what} {words[column]}"
        if one.merge is Merge.NAMES:
            of = f" (one of {len(schema.classes)} {one.name})" if one.kind is Kind.STRINGS else ""
            for name, element in zip(schema.classes, element_names(one.name, schema.classes), strict=True):
                words = {element: f"images: {name}{of}", f"{element}_share": f"share of images: {name}{of}"}
                if column in words:
                    return words[column]
    unit = (table.field(column).metadata or {}).get(b"unit", b"").decode()
    return f"{column} ({unit})" if unit not in {"", "1"} else column
