"""The true counts of a rendered plate, and what was done to its files, as values and as CSV."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from pathlib import Path

from cellcount_core.domain.errors import ConfigFault

COLUMNS = ("plate", "well", "site", "true_count", "treatment", "file_fault")


class Treatment(StrEnum):
    """What is in a well."""

    DMSO = "dmso"
    DOSE = "dose"
    EMPTY = "empty"


class FileFault(StrEnum):
    """What was done to the file of the counted channel."""

    NONE = "none"
    TRUNCATED = "truncated"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class TruthField:
    """One field: where it is, how many nuclei were planted, and what was done to its file."""

    plate: str
    well: str
    site: int
    true_count: int
    treatment: Treatment
    file_fault: FileFault


def truth_csv(fields: tuple[TruthField, ...]) -> str:
    """The fields as CSV with a header, in their order."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in fields:
        writer.writerow(
            (each.plate, each.well, each.site, each.true_count, each.treatment.value, each.file_fault.value)
        )
    return out.getvalue()


def read_truth(path: Path) -> tuple[TruthField, ...]:
    """The fields of a file written by `truth_csv`.

    Raises ConfigFault naming file and line where it is not there or a value is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigFault(f"{path}: the true counts cannot be read: {error.strerror}") from error
    rows = csv.DictReader(StringIO(text))
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise ConfigFault(f"{path}: columns {', '.join(COLUMNS)} are expected (got {rows.fieldnames})")
    fields = []
    for number, row in enumerate(rows, start=2):
        try:
            fields.append(
                TruthField(
                    plate=row["plate"],
                    well=row["well"],
                    site=int(row["site"]),
                    true_count=int(row["true_count"]),
                    treatment=Treatment(row["treatment"]),
                    file_fault=FileFault(row["file_fault"]),
                )
            )
        except (TypeError, ValueError) as error:
            raise ConfigFault(f"{path}: line {number} is no row of true counts: {error}") from error
    return tuple(fields)
