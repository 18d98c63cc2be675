"""A manifest: a CSV or Parquet table with one row for each file, which says what each file is and which files are expected.

File names are not interpreted: the rows of the table are joined with the listing. A file that the table names but that does not exist
is a missing field. Files that the table does not name are ignored. Tables with one row for each field are read by loaddata.py; both
layouts read their file with `TableFile`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cellcount_core.domain.delimited import ENCODING, columns_of, delimiter_of, refuse_twins
from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import canonical_well
from cellcount_core.domain.settings import Place
from cellcount_core.layouts.base import Entry, Layout, LayoutKind, LayoutSettings, Table, Traits, parent, stem
from cellcount_core.stores.base import Absent, Denied, StorageOptions, Store, checked_key
from cellcount_core.stores.open import open_store

COLUMNS = ("key", "plate", "well", "site", "timepoint", "channel", "plane")

_WHOLE = re.compile(r"([0-9]{1,9})(?:\.0+)?")
_ELSEWHERE = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://|/|[A-Za-z]:[\\/]|\\\\)")


class TableSettings(LayoutSettings):
    """A manifest (CSV or Parquet) with one row for each file.

    `manifest` is a path relative to the input, or a path or URL of its own. `columns` maps `key`, `plate`, `well`, `site`,
    `timepoint`, `channel`, `plane` to the names of the manifest's columns; those left out keep their own name.
    A file that the manifest names but that does not exist becomes a `missing` row.
    """

    kind: Literal["table"] = "table"
    manifest: Place
    columns: dict[str, str] = {}  # noqa: RUF012 (pydantic gives each section its own)


Choose = Callable[[list[str]], Mapping[str, int]]
"""Chooses from the names of a table's columns those to read: what they are called from here on, and their places in the table."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """A CSV or Parquet table at a `location`: a path relative to the input, or a path or URL of its own."""

    location: str

    def rows(
        self, store: Store, options: StorageOptions, choose: Choose
    ) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield where each row stands, in words, and the chosen columns of it, as text. The bytes of the table are held in memory.

        A relative location is looked up in the input `store`, then on this machine. Raises ConfigFault if there is no such table, or it
        is not one, and what `choose` raises.
        """
        body = self._read(store, options)
        return self._parquet_rows(body, choose) if body[:4] == b"PAR1" else self._csv_rows(body, choose)

    def _read(self, store: Store, options: StorageOptions) -> bytes:
        try:
            if _ELSEWHERE.match(self.location):
                folder, name = _split_location(self.location)
                return open_store(folder, options).get(name)
            try:
                return store.get(checked_key(self.location))
            except Absent:
                path = Path(self.location).absolute()
                return open_store(path.parent, options).get(path.name)
        except Absent:
            raise ConfigFault(
                f"run.layout.manifest: {self.location!r} is neither in the input ({store.url}) nor a file or URL of its own"
            ) from None
        except Denied as denied:
            raise ConfigFault(f"run.layout.manifest: {denied}") from None

    def _csv_rows(self, body: bytes, choose: Choose) -> Iterator[tuple[str, dict[str, str]]]:
        text = io.TextIOWrapper(io.BytesIO(body), encoding=ENCODING, newline="")
        try:
            first = text.readline()
            header = columns_of(first)
            used = self._chosen(header, choose)
            reader = csv.reader(text, delimiter=delimiter_of(first), strict=True)
            for row in reader:
                where = f"{self.location}: line {reader.line_num + 1}"
                if not row:
                    continue
                if len(row) != len(header):
                    raise ConfigFault(f"{where}: has {len(row)} values, the header has {len(header)} columns")
                yield where, {ours: row[index].strip() for ours, index in used.items()}
        except UnicodeDecodeError as error:
            raise ConfigFault(f"{self.location}: neither Parquet nor UTF-8 text: {error.reason}") from None
        except csv.Error as error:
            raise ConfigFault(f"{self.location}: not a CSV table: {error}") from None

    def _parquet_rows(self, body: bytes, choose: Choose) -> Iterator[tuple[str, dict[str, str]]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(pa.BufferReader(body))
            names = file.schema_arrow.names
            used = self._chosen(names, choose)
            number = 0
            for batch in file.iter_batches(
                columns=[names[index] for index in used.values()], use_threads=False
            ):
                values = {ours: batch.column(names[index]).to_pylist() for ours, index in used.items()}
                for row in range(batch.num_rows):
                    number += 1
                    found = {ours: values[ours][row] for ours in used}
                    yield (
                        f"{self.location}: row {number}",
                        {ours: "" if value is None else str(value).strip() for ours, value in found.items()},
                    )
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            # The table is in memory: an OSError is how Arrow says that its bytes are not those of Parquet.
            told = " ".join(str(error).split())[:200]
            raise ConfigFault(f"{self.location}: not a readable Parquet table: {told}") from None

    def _chosen(self, header: list[str], choose: Choose) -> Mapping[str, int]:
        used = choose(header)
        chosen = {header[index] for index in used.values()}
        refuse_twins([name for name in header if name in chosen], self.location)
        return used


@dataclass(frozen=True, slots=True)
class TableLayout(Layout):
    """The location of the table, and the names of its columns (`columns` maps our names to the table's). Build it with `check_manifest`."""

    location: str
    columns: Mapping[str, str]
    root: str

    def parse(self, key: str) -> None:
        """None for every key: the table says what a file is, not its name."""
        return

    @property
    def table(self) -> Table:
        """The manifest itself."""
        return self

    def entries(self, store: Store, options: StorageOptions) -> Iterator[Entry]:
        """Yield the rows in the table's order. The bytes of the table are held in memory.

        Without a column (or value), the plate is the file's folder (`root` for the input itself), the well is the file's name, site and
        time point are 1, the plane is 0 and the channel "". Wells get their two-digit form. Raises ConfigFault naming table, row and
        value if something cannot be used.
        """
        for where, row in TableFile(self.location).rows(store, options, self._used):
            yield self._entry(where, row)

    def _used(self, header: list[str]) -> dict[str, int]:
        used: dict[str, int] = {}
        for ours in COLUMNS:
            theirs = self.columns.get(ours, ours)
            if theirs in header:
                used[ours] = header.index(theirs)
            elif ours == "key" or ours in self.columns:
                raise ConfigFault(
                    f"{self.location}: has no column {theirs!r} (for {ours!r}){nearest(theirs, header)}; "
                    f"name it with run.layout.columns.{ours}"
                )
        return used

    def _entry(self, where: str, row: Mapping[str, str]) -> Entry:
        key = _key(where, row["key"])
        site, timepoint, plane = (
            whole_number(where, name, row.get(name) or default)
            for name, default in (("site", "1"), ("timepoint", "1"), ("plane", "0"))
        )
        plate = row.get("plate") or parent(key) or self.root
        well = canonical_well(row.get("well") or stem(key))
        return Entry(key, Parsed(FieldKey(plate, well, site, timepoint), row.get("channel", ""), plane))


def check_manifest(config: TableSettings, root: str) -> TableLayout:
    """The layout of `config`; `root` is the plate of files in the input itself. Raises ConfigFault if `columns` maps an unknown name."""
    known: Iterable[str] = COLUMNS
    for name in sorted(set(config.columns) - set(known)):
        raise ConfigFault(f"run.layout.columns: {name!r} is unknown{nearest(name, known)}")
    return TableLayout(config.manifest, dict(config.columns), root)


def _split_location(location: str) -> tuple[str, str]:
    folder, slash, name = location.rpartition("/")
    if not name:
        raise ConfigFault(f"run.layout.manifest: {location!r} names a folder, a file was expected")
    return folder or slash, name


def _key(where: str, text: str) -> str:
    if not text:
        raise ConfigFault(f"{where}: the key is empty; expected a path relative to the input")
    if _ELSEWHERE.match(text):
        raise ConfigFault(
            f"{where}: the key {text!r} must be a path relative to the input, not an absolute one"
        )
    try:
        return checked_key(text.removeprefix("./"))
    except ConfigFault as fault:
        raise ConfigFault(f"{where}: {fault}") from None


def whole_number(where: str, name: str, text: str) -> int:
    """The whole number of a cell, which spreadsheets may have written as "3.0". Raises ConfigFault if it is not one."""
    whole = _WHOLE.fullmatch(text)
    if whole is None:
        raise ConfigFault(f"{where}: {name} is {text!r}, a whole number from 0 was expected")
    return int(whole[1])


KIND = LayoutKind("table", TableSettings, check_manifest, Traits(told_by_table=True))
