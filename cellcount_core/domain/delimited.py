"""Tables as text: comma-separated as programs write them, or with semicolons or tabs as spreadsheets of many countries do."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellcount_core.domain.errors import ConfigFault

DELIMITERS = (",", ";", "\t")
ENCODING = "utf-8-sig"
"""UTF-8, with or without the mark that spreadsheets put before it."""


def delimiter_of(header: str) -> str:
    """The delimiter of a table, by its first line: the one that cuts it into most columns, a comma if none does.

    >>> delimiter_of("well;sample;dilution")
    ';'
    """
    return max(DELIMITERS, key=lambda each: len(next(csv.reader([header], delimiter=each), [])))


def columns_of(header: str) -> list[str]:
    """The names of the columns in the first line of a table."""
    return [name.strip() for name in next(csv.reader([header], delimiter=delimiter_of(header)), [])]


class TableRow(dict[str, str]):
    """A row of a table: its cells by column, with "" for those that are empty or not there.

    `number` is its place in the file as spreadsheets count rows: the header is 1, and empty rows count too.
    """

    def __init__(self, cells: Mapping[str, str], number: int) -> None:
        super().__init__(cells)
        self.number = number


@dataclass(frozen=True, slots=True)
class DelimitedTable:
    """A table with a header: the names of its columns, and its rows."""

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]


def read_table(path: Path) -> DelimitedTable:
    """Read a table from a file. Raises ConfigFault naming the file if it cannot be read, and as `parse_table` does."""
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigFault(f"{path}: cannot be read: {error.strerror or error}") from error
    return parse_table(body, str(path))


def parse_table(body: bytes, location: str) -> DelimitedTable:
    """The table in the bytes of a file. Lines without anything in them are passed over, spaces around the names of columns too.

    Raises ConfigFault naming the file's `location` if it is no table in UTF-8, with the name if two columns have the same one, and with
    the line if a row has cells that belong to no column: they may be the rest of a cell that lacks its quotes.
    """
    text = _text(body, location)
    header = text.partition("\n")[0].rstrip("\r")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(header))
    try:
        columns = [name.strip() for name in next(reader, [])]
        refuse_twins(columns, location)
        rows = []
        for number, cells in enumerate(reader, 2):
            if any(cell.strip() for cell in cells):
                _refuse_surplus(cells, columns, f"{location}: line {reader.line_num}")
                padded = [*cells, *[""] * (len(columns) - len(cells))]
                named = {name: cell for name, cell in zip(columns, padded, strict=False) if name}
                rows.append(TableRow(named, number))
    except csv.Error as error:
        raise ConfigFault(f"{location}: not a CSV table: {error}") from error
    return DelimitedTable(tuple(name for name in columns if name), tuple(rows))


def _text(body: bytes, location: str) -> str:
    """The text of a file, with line feeds where it has carriage returns alone."""
    try:
        text = body.decode(ENCODING)
    except UnicodeDecodeError as error:
        raise ConfigFault(
            f"{location}: not text in UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}); save the table as CSV UTF-8"
        ) from error
    return text if "\n" in text else text.replace("\r", "\n")


def refuse_twins(columns: Sequence[str], where: str) -> None:
    """Raise ConfigFault that begins with `where` if two columns have one name: only one of them would be read."""
    for name in columns:
        if name and columns.count(name) > 1:
            raise ConfigFault(f"{where}: {columns.count(name)} columns are called {name!r}; one expected")


def _refuse_surplus(cells: Sequence[str], columns: Sequence[str], where: str) -> None:
    named = max((at for at, name in enumerate(columns, 1) if name), default=0)
    if any(cell.strip() for cell in cells[named:]):
        raise ConfigFault(
            f"{where}: {len(cells)} cells, but the header has {named}; put a cell with {', '.join(map(repr, DELIMITERS[:2]))} in it in quotes"
        )
