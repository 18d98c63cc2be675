"""Tables as text: comma-separated as programs write them, or with semicolons or tabs as spreadsheets of many countries do."""

from __future__ import annotations

import csv
import io
from pathlib import Path

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


def table_reader(text: str) -> csv.DictReader[str]:
    """The rows of a table with a header, as csv.DictReader gives them."""
    header = text.partition("\n")[0].rstrip("\r")
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(header))


def read_table(path: Path) -> csv.DictReader[str]:
    """The rows of a table in a file. Raises OSError or UnicodeDecodeError if it cannot be read, and csv.Error while the rows are taken."""
    with path.open(encoding=ENCODING, newline="") as stream:
        return table_reader(stream.read())
