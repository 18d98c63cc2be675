"""Tables as text: what is read of them, and what is refused because it would be lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellcount_core.domain.delimited import read_table
from cellcount_core.domain.errors import ConfigFault


def table(folder: Path, body: bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(body)
    return path


@pytest.mark.parametrize(
    "body",
    [
        b"a,b\n1,2\n",
        b"\xef\xbb\xbfa;b\r\n1;2\r\n",
        b"a\tb\r1\t2\r",
        b"a , b\n\n1,2\n,\n",
        b"a,b\n1,2,,\n",
        b',a,b\n0,1,"2"\n',
        b"a,b,,\n1,2,,\n",
    ],
    ids=["commas", "semicolons", "carriage returns", "blanks", "ends in commas", "index", "empty columns"],
)
def test_tables_are_read_as_programs_and_spreadsheets_write_them(tmp_path: Path, body: bytes) -> None:
    found = read_table(table(tmp_path, body))
    assert (found.columns, found.rows) == (("a", "b"), ({"a": "1", "b": "2"},))


def test_cells_that_are_not_there_are_empty(tmp_path: Path) -> None:
    assert read_table(table(tmp_path, b"a,b\n1\n")).rows == ({"a": "1", "b": ""},)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"a,b\n1,2\n\n3,4,5\n", "table.csv: line 4: 3 cells, but the header has 2; put a cell with ',', ';' in it in quotes"),
        (b"a;b\n1;2;3;4\n", "table.csv: line 2: 4 cells, but the header has 2"),
        (b"a,b,,\n1,2,3,\n", "table.csv: line 2: 4 cells, but the header has 2"),
        (b"a,b,a\n1,2,3\n", "table.csv: 2 columns are called 'a'; one expected"),
        (b"a,b, a\n1,2,3\n", "table.csv: 2 columns are called 'a'; one expected"),
        ("a,b\n1,2\n".encode("utf-16"), r"table.csv: not text in UTF-8 \(byte 0 is 0xff\); save the table as CSV UTF-8"),
        ("a,b\n1,µ\n".encode("latin-1"), r"table.csv: not text in UTF-8 \(byte 6 is 0xb5\)"),
    ],
)  # fmt: skip
def test_what_would_be_lost_is_refused(tmp_path: Path, body: bytes, words: str) -> None:
    with pytest.raises(ConfigFault, match=words):
        read_table(table(tmp_path, body))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match=r"gone.csv: cannot be read: No such file or directory"):
        read_table(tmp_path / "gone.csv")
