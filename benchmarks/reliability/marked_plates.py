"""Plates of tiny images in which every field is known by its marks, and the judge that looks for each of them in an output.

A field's image has bright discs at some places of a 4 x 4 grid. Which places is told by the field's number, and fields that
follow each other have other marks: a row that is lost, doubled, given to another field or counted wrong does not fit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from cellcount_core.domain.columns import PLATE, SITE, TIMEPOINT, WELL
from cellcount_core.domain.plates import WellPosition

GRID, PITCH_PX, RADIUS_PX = 4, 10, 3
SIDE_PX = GRID * PITCH_PX
MOST_MARKS = 8
"""More discs in so small an image leave too little background to tell its noise from."""

WELLS, SITES = 384, 9
_STEP = 10_007
"""A prime: neighbours in a plate are far apart in the list of patterns."""

_EXAMPLES = 5
_OF_A_RUN = re.compile(
    r"(fields|objects)/part-\d{6}\.parquet|(wells|plates)\.parquet|summary\.(csv|json)"
    r"|run/(run\.json|plan\.parquet|lease/\d{6}\.json|timings/[\w-]+\.json)"
)
_KEY = (PLATE.name, WELL.name, SITE.name, TIMEPOINT.name)
Place = tuple[str, str, int, int]
"""Plate, well, site and time point of a field."""


@dataclass(frozen=True, slots=True)
class MarkedPlates:
    """Fields 0 to `fields` - 1; `seed` gives them other marks and other noise. A plate has 384 wells of 9 sites."""

    fields: int
    seed: int

    def place(self, number: int) -> Place:
        """Where a field stands."""
        plate, rest = divmod(number, WELLS * SITES)
        well, site = divmod(rest, SITES)
        return f"P{plate:03d}", WellPosition(*divmod(well, 24)).name, site + 1, 1

    def marks(self, number: int) -> int:
        """Where the field has discs: bit 4 * row + column for each."""
        patterns = _patterns()
        return patterns[(number + self.seed) * _STEP % len(patterns)]

    def expected(self) -> Iterator[tuple[Place, int]]:
        """Place and marks of every field."""
        for number in range(self.fields):
            yield self.place(number), self.marks(number)

    def write(self, folder: Path) -> None:
        """The plates as ImageXpress folders, a 16-bit TIFF a field; no two files are equal."""
        rng = np.random.default_rng(self.seed)
        discs = _discs()
        for number, (place, marks) in enumerate(self.expected()):
            plate, well, site, _ = place
            path = folder / plate / "TimePoint_1"
            if number % (WELLS * SITES) == 0:
                path.mkdir(parents=True)
            image = rng.normal(300.0, 12.0, (SIDE_PX, SIDE_PX))
            image += 1800.0 * discs[[bit for bit in range(GRID * GRID) if marks >> bit & 1]].sum(axis=0)
            _, body = cv2.imencode(".tif", image.astype(np.uint16))
            (path / f"{plate}_{well}_s{site}.tif").write_bytes(body.tobytes())


@cache
def _patterns() -> tuple[int, ...]:
    return tuple(marks for marks in range(1 << GRID * GRID) if marks.bit_count() <= MOST_MARKS)


def _discs() -> NDArray[np.bool_]:
    """A disc at each place of the grid: (16, side, side)."""
    yy, xx = np.mgrid[:SIDE_PX, :SIDE_PX]
    centres = [divmod(bit, GRID) for bit in range(GRID * GRID)]
    return np.stack(
        [
            (yy - (row + 0.5) * PITCH_PX) ** 2 + (xx - (column + 0.5) * PITCH_PX) ** 2 <= RADIUS_PX**2
            for row, column in centres
        ]
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of `expected` fields, each number a number of fields; `examples` names some that are not as they should be.

    `lost`: without a row; `doubled`: with more than one; `strange`: with rows, but not expected; `not_ok`: with a row that is
    not `ok`; `miscounted`: whose row has another count than the image has discs; `misplaced`: whose rows in the objects
    table are not those discs. `left` counts files that a whole run does not have.
    """

    expected: int
    objects: int
    lost: int
    doubled: int
    strange: int
    not_ok: int
    miscounted: int
    misplaced: int
    left: int
    examples: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether every field has its one row, with its own count and its own objects, and nothing else is there."""
        rows = (self.lost, self.doubled, self.strange, self.not_ok, self.miscounted, self.misplaced)
        return not any(rows) and not self.left


def judge(output: Path, plates: MarkedPlates) -> Verdict:
    """Compare the tables of an output with what was drawn."""
    fields = ds.dataset(output / "fields").to_table(columns=[*_KEY, "status", "count"])
    rows: dict[Place, list[tuple[object, object]]] = {}
    for *key, status, count in _lines(fields):
        rows.setdefault(_place(key), []).append((status, count))
    found = _objects(output)
    objects = sum(count for _, count in found.values())
    bad: Counter[str] = Counter()
    examples: list[str] = []

    def note(what: str, place: Place, saw: object) -> None:
        bad[what] += 1
        if len(examples) < _EXAMPLES:
            examples.append(f"{what}: {place}: {saw}")

    for place, marks in plates.expected():
        of_field, count = rows.pop(place, []), marks.bit_count()
        if len(of_field) != 1:
            note("doubled" if of_field else "lost", place, of_field)
        if any(status != "ok" for status, _ in of_field):
            note("not_ok", place, of_field)
        if any(counted != count for _, counted in of_field):
            note("miscounted", place, f"{of_field}, drawn {count}")
        if (seen := found.pop(place, (0, 0))) != (marks, count):
            note("misplaced", place, f"{seen}, drawn {(marks, count)}")
    for place in sorted({*rows, *found}):
        note("strange", place, rows.get(place))
    left = [name for name in _files(output) if not _OF_A_RUN.fullmatch(name)]
    examples += [f"left: {name}" for name in left[:_EXAMPLES]]
    return Verdict(
        expected=plates.fields,
        objects=objects,
        lost=bad["lost"],
        doubled=bad["doubled"],
        strange=bad["strange"],
        not_ok=bad["not_ok"],
        miscounted=bad["miscounted"],
        misplaced=bad["misplaced"],
        left=len(left),
        examples=tuple(examples),
    )


def _files(output: Path) -> list[str]:
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir())


def _objects(output: Path) -> dict[Place, tuple[int, int]]:
    """For each field with objects the sum of their bits and their number: only the marks themselves, each once, give both."""
    at = ("Nuclei_Location_Center_X", "Nuclei_Location_Center_Y")
    table = ds.dataset(output / "objects").to_table(columns=[*_KEY, *at])
    column, row = (pc.floor(pc.divide(table.column(name), float(PITCH_PX))) for name in at)
    bit = pc.add(pc.multiply(row, float(GRID)), column)
    table = table.append_column("bits", pc.shift_left(pa.scalar(1, pa.int64()), bit.cast(pa.int64())))
    sums = table.group_by(list(_KEY)).aggregate([("bits", "sum"), ("bits", "count")])
    columns = [*_KEY, "bits_sum", "bits_count"]
    return {
        _place(key): (int(str(bits)), int(str(number))) for *key, bits, number in _lines(sums.select(columns))
    }


def _lines(table: pa.Table) -> Iterator[tuple[object, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _place(key: list[object]) -> Place:
    plate, well, site, timepoint = key
    return str(plate), str(well), int(str(site)), int(str(timepoint))
