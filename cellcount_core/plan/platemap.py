"""Plate maps: what was put into each well, as a table that people write, joined to the fields of a plan.

A map is a CSV (commas, semicolons or tabs), a Parquet table or the first sheet of an Excel workbook; which of them is told by its content. A
row is of one well, which one column names ("B02", "b2", "B-02", "R2C2") or two do (row and column). A column that names the plate makes it
a row of that plate alone. Every other column is a label of the well.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from cellcount_core.domain.columns import Column, Kind, Merge, Schema, fields_columns
from cellcount_core.domain.delimited import DelimitedTable, TableRow, parse_table, refuse_twins
from cellcount_core.domain.errors import ConfigFault, likely
from cellcount_core.domain.fields import FieldKey, Label, PlannedField
from cellcount_core.domain.plates import WellPosition, parse_well
from cellcount_core.domain.total_columns import plates_columns, wells_columns
from cellcount_core.stores.base import Absent, Denied, StorageOptions
from cellcount_core.stores.open import open_store

_PREFIX = "Metadata_"
_LARGEST_BYTES = 256 * 2**20
_SHOWN = 5

_WELL = ("well", "wellposition", "wellid", "wellname", "platewell")
_ROW = ("row", "wellrow", "platerow", "rowletter")
_COLUMN = ("column", "col", "wellcolumn", "wellcol", "platecolumn", "platecol")
_PLATE = ("plate", "platename", "platebarcode", "plateid", "barcode", "assayplatebarcode")
_FORMS = "a column `Well` (or Metadata_Well, Metadata_well_position, well_position), or two columns `Row` and `Column` (or `Col`)"

_LOOSE = re.compile(r"([A-Za-z]{1,2})[\s_:\-]*0*([1-9][0-9]?)")
_BY_NUMBERS = re.compile(r"[Rr]0*([1-9][0-9]?)[\s_\-]*[Cc]0*([1-9][0-9]?)")
_NUMBER = re.compile(r"0*([1-9][0-9]?)(?:\.0*)?")

_NOT_KNOWN = ("", "nan", "na", "n/a", "#n/a", "null")
"""What a cell of a column of numbers may hold where there is none, in small letters."""
_WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})")
_REAL = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class MapRow:
    """One row of a plate map: its number (the header is 1), plate ("" for any), well ("B02"), and all its cells by the names of the columns."""

    number: int
    plate: str
    well: str
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MapTable:
    """A plate map as it was read. `labels` are the columns that name neither plate nor well. No two rows are of one plate and well."""

    location: str
    labels: tuple[str, ...]
    rows: tuple[MapRow, ...]


def read_platemap(
    location: str, options: StorageOptions | None = None, needed: Sequence[str] = ()
) -> MapTable:
    """Read the plate map at a path or URL.

    Raises ConfigFault naming the file, and the row and value where there is one: if it cannot be read or is no table, if its columns
    name no well or one of the `needed` columns is missing, if a row names no well, or if two rows of one well say different things.
    """
    table = _table(location, _bytes(location, options or StorageOptions()))
    for name in needed:
        if name not in table.columns:
            raise ConfigFault(
                f"{location}: the column {name!r} is missing; {_there(table)}{likely(name, table.columns)}"
            )
    keys = _keys(location, table)
    labels = tuple(name for name in table.columns if name not in keys.names)
    found: dict[tuple[str, str], MapRow] = {}
    for cells in table.rows:
        stripped = {name: cell.strip() for name, cell in cells.items()}
        well = keys.well_of(f"{location}: row {cells.number}", stripped)
        row = MapRow(cells.number, keys.plate_of(stripped), well, stripped)
        before = found.setdefault((row.plate, row.well), row)
        other = next((name for name in labels if before.columns[name] != row.columns[name]), None)
        if other is not None:
            raise ConfigFault(
                f"{location}: rows {before.number} and {row.number} are both of well {row.well}"
                + (f" of plate {row.plate}" if row.plate else "")
                + f", and {other!r} is {before.columns[other]!r} and {row.columns[other]!r}: one row for each well expected"
            )
    if not found:
        raise ConfigFault(f"{location}: has a header and no rows; a row for each well expected")
    return MapTable(location, labels, tuple(found.values()))


@dataclass(frozen=True, slots=True)
class _Keys:
    """The columns of a plate map that say what a row is of: `well`, or else `row` and `column`; "" for one that is not there."""

    plate: str
    well: str
    row: str
    column: str

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are there, and not labels."""
        return (self.plate, self.well) if self.well else (self.plate, self.row, self.column)

    def plate_of(self, cells: Mapping[str, str]) -> str:
        """The plate of a row, "" for any."""
        return _unquoted(cells[self.plate]) if self.plate else ""

    def well_of(self, where: str, cells: Mapping[str, str]) -> str:
        """The well of a row. Raises ConfigFault, which begins with `where`, if it names none."""
        if self.well:
            if not (name := _unquoted(cells[self.well])):
                raise ConfigFault(
                    f"{where} names no well: {self.well!r} is empty; expected a name such as B02"
                )
            return well_name(name)
        row, column = _unquoted(cells[self.row]), _unquoted(cells[self.column])
        letter = parse_well(f"{row}1") if row.isalpha() else None
        at = letter.row if letter else _counted(row)
        across = _counted(column)
        if at is None or across is None or at >= 32 or across >= 48:
            raise ConfigFault(
                f"{where} names no well: {self.row!r} is {row!r} and {self.column!r} is {column!r}; expected a row A to AF or 1 to 32, and a"
                " column 1 to 48"
            )
        return WellPosition(at, across).name


def _counted(text: str) -> int | None:
    found = _NUMBER.fullmatch(text)
    return int(found[1]) - 1 if found else None


def _unquoted(cell: str) -> str:
    """A cell without the quotes that some programs write around a number so that it stays text."""
    return cell.strip("\"' ")


def well_name(text: str) -> str:
    """The name of a well with a two-digit column, however it is spelled. A text that names no well of a plate comes back as it is: where the
    layout knows no wells, it is the name of an image.

    >>> well_name("b2"), well_name("B-002"), well_name("R2C2"), well_name("slide 7")
    ('B02', 'B02', 'B02', 'slide 7')
    """
    if (loose := _LOOSE.fullmatch(text)) and (position := parse_well(f"{loose[1]}{loose[2]}")):
        return position.name
    if (numbers := _BY_NUMBERS.fullmatch(text)) and int(numbers[1]) <= 32 and int(numbers[2]) <= 48:
        return WellPosition(int(numbers[1]) - 1, int(numbers[2]) - 1).name
    return text


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold().removeprefix("metadata")


def _keys(location: str, table: DelimitedTable) -> _Keys:
    def only(what: str, spellings: Sequence[str]) -> str:
        found = [name for name in table.columns if _plain(name) in spellings]
        if len(found) > 1:
            raise ConfigFault(
                f"{location}: {' and '.join(map(repr, found))} both name the {what}; leave one of them out, or give it another name"
            )
        return found[0] if found else ""

    plate = min(
        (name for name in table.columns if _plain(name) in _PLATE),
        key=lambda name: _PLATE.index(_plain(name)),
        default="",
    )
    if well := only("well", _WELL):
        return _Keys(plate, well, "", "")
    row, column = only("row", _ROW), only("column", _COLUMN)
    if not row or not column:
        half = f" {(row or column)!r} alone names none;" if row or column else ""
        raise ConfigFault(
            f"{location}: no column names the well;{half} expected {_FORMS}; {_there(table)}{likely('well', table.columns)}"
        )
    return _Keys(plate, "", row, column)


def _there(table: DelimitedTable) -> str:
    shown = ", ".join(map(repr, table.columns[:12])) + (", …" if table.columns[12:] else "")
    return f"there {'is' if len(table.columns) == 1 else 'are'} {shown or 'none'}"


def _bytes(location: str, options: StorageOptions) -> bytes:
    folder, _, name = location.rpartition("/")
    if not name:
        raise ConfigFault(f"{location!r} names a folder; a plate map is a file (CSV, TSV, Parquet or XLSX)")
    try:
        store = open_store(folder or ("/" if location.startswith("/") else "."), options)
        size = store.size_of(name)
        if size is not None and size > _LARGEST_BYTES:
            raise ConfigFault(
                f"{location}: {size:,} bytes; a plate map of at most {_LARGEST_BYTES:,} expected"
            )
        return store.get(name)
    except Absent:
        raise ConfigFault(
            f"{location}: no such file; a plate map (a file: CSV, TSV, Parquet or XLSX) expected"
        ) from None
    except Denied as denied:
        raise ConfigFault(f"{location}: may not be read: {denied}") from None


def _table(location: str, body: bytes) -> DelimitedTable:
    """The table in a file."""
    if body[:4] == b"PAR1":
        return _of_parquet(location, body)
    if body[:4] == b"PK\x03\x04":
        return _of_workbook(location, body)
    if body[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise ConfigFault(f"{location}: an old Excel workbook (.xls); save it as .xlsx or as CSV UTF-8")
    return parse_table(body, location)


def _of_parquet(location: str, body: bytes) -> DelimitedTable:
    try:
        table = pq.ParquetFile(pa.BufferReader(body)).read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigFault(
            f"{location}: not a readable Parquet table: {str(error).partition(chr(10))[0]}"
        ) from error
    return _of_cells(
        location, [table.schema.names, *zip(*(one.to_pylist() for one in table.columns), strict=True)]
    )


def _of_workbook(location: str, body: bytes) -> DelimitedTable:
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError:
        raise ConfigFault(
            f"{location}: Excel workbooks are read with openpyxl, which is not installed: pip install 'cellcount[xlsx]', or save the sheet"
            " as CSV UTF-8"
        ) from None
    # What a damaged or foreign archive raises depends on which of its files is wrong.
    wrong = (zipfile.BadZipFile, InvalidFileException, OSError, LookupError, ValueError, TypeError, AttributeError, SyntaxError)  # fmt: skip
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            size = sum(one.file_size for one in archive.infolist())
        if size > _LARGEST_BYTES:
            raise ConfigFault(
                f"{location}: unpacks to {size:,} bytes; a plate map of at most {_LARGEST_BYTES:,} expected"
            )
        sheet = load_workbook(io.BytesIO(body), read_only=True, data_only=True).worksheets[0]
        sheet.reset_dimensions()
        cells = [list(row) for row in sheet.iter_rows(values_only=True)]
    except wrong as error:
        raise ConfigFault(f"{location}: not a readable Excel workbook (.xlsx): {error}") from error
    return _of_cells(location, cells)


def _of_cells(location: str, cells: Sequence[Sequence[object]]) -> DelimitedTable:
    """The table of cells whose first row holds the names."""
    columns = [_text(name) for name in cells[0]] if cells else []
    refuse_twins(columns, location)
    rows: list[TableRow] = []
    for number, values in enumerate(cells[1:], 2):
        texts = [*map(_text, values), *[""] * (len(columns) - len(values))]
        if any(texts):
            named = {name: text for name, text in zip(columns, texts, strict=False) if name}
            rows.append(TableRow(named, number))
    return DelimitedTable(tuple(name for name in columns if name), tuple(rows))


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float() if math.isnan(value):
            return ""
        case float() if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        case date():
            return value.isoformat()
        case _:
            return str(value).strip()


@dataclass(frozen=True, slots=True)
class WellLabels:
    """A plate map that can be joined: the columns that it gives the tables, and the labels of each plate ("" for any) and well."""

    location: str
    columns: tuple[Column, ...]
    labels: Mapping[tuple[str, str], tuple[Label, ...]]

    def schema(self, schema: Schema) -> Schema:
        """The schema of a run with the columns of this map. Raises ConfigFault if one of them has the name of another column."""
        plain = without_labels(schema)
        tables = (fields_columns(plain), wells_columns(plain), plates_columns(plain))
        taken = {column.name.casefold(): column.name for table in tables for column in table}
        for column in self.columns:
            if (own := taken.get(column.name.casefold())) is not None:
                raise ConfigFault(
                    f"{self.location}: a column would be called {column.name}, and the tables have {own} already: give it another name, or"
                    " leave it out"
                )
        return replace(plain, fields=(*plain.fields, *self.columns))


def without_labels(schema: Schema) -> Schema:
    """The schema of a run without the columns of a plate map."""
    return replace(schema, fields=tuple(one for one in schema.fields if one.merge is not Merge.SHARED))


def well_labels(table: MapTable) -> WellLabels:
    """Make a table ready to be joined. A column in which every cell is a number, or says that there is none, is one of numbers.

    Raises ConfigFault if two columns would have one name, or there is none but those that name the well.
    """
    named: dict[str, str] = {}
    columns: list[Column] = []
    values: list[list[Label]] = []
    for name in table.labels:
        column = _PREFIX + re.sub(r"\W+", "_", re.sub(rf"^{_PREFIX}", "", name, flags=re.I)).strip("_")
        if (twin := named.setdefault(column.casefold(), name)) != name:
            raise ConfigFault(
                f"{table.location}: the columns {twin!r} and {name!r} would both be called {column}: give one of them another name"
            )
        kind, cells = _typed([row.columns[name] for row in table.rows])
        columns.append(Column(column, kind, "", f"{name!r} of the plate map", merge=Merge.SHARED))
        values.append([(column, cell) for cell in cells])
    if not columns:
        raise ConfigFault(
            f"{table.location}: says nothing of its wells; a column beside those that name plate and well expected"
        )
    of_wells = zip(*values, strict=True)
    return WellLabels(
        table.location,
        tuple(columns),
        {(row.plate, row.well): labels for row, labels in zip(table.rows, of_wells, strict=True)},
    )


def _typed(cells: Sequence[str]) -> tuple[Kind, Sequence[str | int | float | None]]:
    stated = [cell for cell in cells if cell.casefold() not in _NOT_KNOWN]
    # A number such as 007 is a name.
    for kind, form, number in ((Kind.INT, _WHOLE, int), (Kind.FLOAT, _REAL, float)):
        if stated and all(form.fullmatch(cell) and math.isfinite(number(cell)) for cell in stated):
            return kind, [number(cell) if cell.casefold() not in _NOT_KNOWN else None for cell in cells]
    return Kind.STRING, [cell or None for cell in cells]


@dataclass(slots=True)
class Join:
    """A plate map while the fields of a plan stream by in key order: which of its rows were met, and which wells have none."""

    map: WellLabels
    met: set[tuple[str, str]] = field(default_factory=set)
    plates: dict[str, None] = field(default_factory=dict)
    unlabelled: int = 0
    first: list[str] = field(default_factory=list)

    def watch(self, fields: Iterable[PlannedField]) -> Iterator[PlannedField]:
        """The fields with the labels of their wells. A row that names the plate goes before one that is of any plate."""
        last: tuple[str, str] | None = None
        for planned in fields:
            well = planned.key.plate, planned.key.well
            found = self._row(planned.key)
            if well != last:
                last = well
                self.plates[well[0]] = None
                if found is None:
                    self.unlabelled += 1
                    self.first += [" ".join(well)] if len(self.first) < _SHOWN else []
            if found is not None:
                self.met.add(found)
            yield replace(planned, labels=() if found is None else self.map.labels[found])

    def _row(self, key: FieldKey) -> tuple[str, str] | None:
        well = well_name(key.well)
        return next((row for row in ((key.plate, well), ("", well)) if row in self.map.labels), None)

    def warnings(self) -> list[str]:
        """The wells of the map without fields, and those with fields that the map does not name. Call it when all fields have streamed by.

        Raises ConfigFault if no field has a row: it is the map of another plate.
        """
        strange = sorted(set(self.map.labels) - self.met)
        told = partial(_some, [f"{plate} {well}".strip() for plate, well in strange[:_SHOWN]])
        if not self.met:
            plates = sorted({plate for plate, _ in strange if plate})
            named = f" of plates {_some(plates[:_SHOWN], len(plates))}" if plates else ""
            hint = likely(plates[0], self.plates) if plates else ""
            raise ConfigFault(
                f"{self.map.location}: none of its wells has a field: it names {told(len(strange))}{named}, and the fields are of"
                f" {_some(self.first, self.unlabelled)} (plate and well){hint}"
            )
        lines = []
        if strange:
            lines.append(
                f"plate map {self.map.location}: {_many(len(strange), 'row')} of wells that have no field: {told(len(strange))}"
            )
        if self.unlabelled:
            lines.append(
                f"plate map {self.map.location}: {_many(self.unlabelled, 'well')} with fields that it does not name, whose columns of the map are"
                f" null: {_some(self.first, self.unlabelled)}"
            )
        return lines


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _some(names: Sequence[str], number: int) -> str:
    return ", ".join(names) + (f" … and {number - len(names):,} more" if number > len(names) else "")
