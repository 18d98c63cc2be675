"""A table of image and label files: CSV or Parquet, a row an image."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.evaluation.labelled import Entry, file_entry

Row = dict[str, str]


def list_entries(path: Path) -> list[Entry]:
    """Entries of a table with the columns image and label, and, if wanted, id, split, modality, group.

    Files are relative to the table's folder. Raises ConfigFault naming table, row and column.
    """
    return entries_of_rows(path, read_rows(path), image="image", needed=("image", "label"))


def read_rows(path: Path) -> list[Row]:
    """Rows of a CSV or Parquet file as text; empty cells are "". Raises ConfigFault where it is neither."""
    try:
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path)
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(stream)]
    except OSError as error:
        raise ConfigFault(f"{path}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigFault(f"{path}: not a CSV table: {error}") from error


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise ConfigFault(f"{path}: not a Parquet table: {error}") from error
    return [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]


def entries_of_rows(path: Path, rows: Sequence[Row], *, image: str, needed: Sequence[str]) -> list[Entry]:
    """Entries of the rows of the table `path`, whose column `image` names the image file. Raises ConfigFault."""
    for column in needed:
        if not rows or column not in rows[0]:
            raise ConfigFault(
                f"{path}: no column {column!r}{nearest(column, rows[0] if rows else [])}"
                if rows
                else f"{path}: no row"
            )
    for number, row in enumerate(rows, start=2):
        if not row[image] or not row["label"]:
            raise ConfigFault(f"{path}: row {number} has no {image if not row[image] else 'label'}")
    return [
        file_entry(
            row.get("id") or Path(row[image]).stem,
            path.parent / row[image],
            path.parent / row["label"],
            split=row.get("split", ""),
            modality=row.get("modality", ""),
            group=row.get("group", ""),
        )
        for row in rows
    ]
