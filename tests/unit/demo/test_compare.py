"""Counted against true."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cellcount_core.demo.compare import Comparison, WellResult, compare, print_comparison
from cellcount_core.demo.plate import FileFault, Treatment, TruthField, truth_csv
from cellcount_core.domain.columns import schema_3
from cellcount_core.domain.errors import ConfigFault, Reason, Status
from cellcount_core.domain.fields import FieldKey
from cellcount_core.output.rows import FieldRow, fields_table

SCHEMA = schema_3("Nuclei", ("w1",))
Counts = Mapping[tuple[str, int], "int | Reason"]

TRUE = (
    TruthField("P", "A01", 1, 100, Treatment.DMSO, FileFault.NONE),
    TruthField("P", "A01", 2, 50, Treatment.DMSO, FileFault.TRUNCATED),
    TruthField("P", "A02", 1, 0, Treatment.EMPTY, FileFault.NONE),
    TruthField("P", "A02", 2, 0, Treatment.EMPTY, FileFault.NONE),
    TruthField("P", "A03", 1, 40, Treatment.DOSE, FileFault.NONE),
    TruthField("P", "A03", 2, 60, Treatment.DOSE, FileFault.NONE),
)
COUNTED: dict[tuple[str, int], int | Reason] = {
    ("A01", 1): 90, ("A01", 2): Reason.TRUNCATED, ("A02", 1): 0, ("A02", 2): 1, ("A03", 1): 42, ("A03", 2): 60,
}  # fmt: skip


def field(well: str, site: int, found: int | Reason) -> FieldRow:
    key = FieldKey("P", well, site, 1)
    if isinstance(found, Reason):
        return FieldRow(key, "max", found.status, found, "image.TIF ends at byte 7 of 9")
    return FieldRow(key, "max", Status.OK, values={"count": found})


def write_run(folder: Path, counted: Counts) -> None:
    """The tables of a finished run, its fields cut into two parts."""
    (folder / "fields").mkdir(parents=True)
    rows = [field(well, site, found) for (well, site), found in counted.items()]
    for number, part in enumerate((rows[:3], rows[3:])):
        pq.write_table(fields_table(part, SCHEMA, "f"), folder / "fields" / f"part-{number:06d}.parquet")
    wells = []
    for well in sorted({well for well, _ in counted}):
        values = [found for (name, _), found in counted.items() if name == well]
        counts = [found for found in values if not isinstance(found, Reason)]
        wells.append(
            {
                "Metadata_Plate": "P",
                "Metadata_Well": well,
                "fields_expected": len(values),
                "fields_ok": len(counts),
                "count": sum(counts) if counts else None,
            }
        )
    pq.write_table(pa.Table.from_pylist(wells), folder / "wells.parquet")


def compared(folder: Path, counted: Counts) -> Comparison:
    write_run(folder / "out", counted)
    (folder / "truth.csv").write_text(truth_csv(TRUE))
    return compare(folder / "out", folder / "truth.csv")


def full_plate() -> Comparison:
    wells = tuple(
        WellResult(f"{row}{column:02d}", Treatment.DOSE, 498, 500, 2, 2)
        for row in "ABCDEFGH"
        for column in range(1, 13)
    )
    return Comparison("P", wells, (), ())


def printed(comparison: Comparison, width: int) -> str:
    out = StringIO()
    print_comparison(comparison, Console(width=width, color_system=None, file=out))
    return out.getvalue()


def test_only_fields_that_were_counted_are_compared(tmp_path: Path) -> None:
    found = compared(tmp_path, COUNTED)
    assert (found.counted, found.true) == (193, 200)
    assert [(well.well, well.counted, well.true) for well in found.wells] == [
        ("A01", 90, 100), ("A02", 1, 0), ("A03", 102, 100),
    ]  # fmt: skip


def test_bias_is_over_all_fields_and_the_mean_error_over_wells_with_cells(tmp_path: Path) -> None:
    found = compared(tmp_path, COUNTED)
    assert found.bias == pytest.approx(-7 / 200)
    assert found.mape == pytest.approx((0.10 + 0.02) / 2)
    assert found.counted_in_empty == 1


def test_a_field_without_a_count_is_told_with_its_reason_and_what_was_done_to_its_file(
    tmp_path: Path,
) -> None:
    (lost,) = compared(tmp_path, COUNTED).uncounted
    assert (lost.well, lost.site, lost.reason, lost.planted) == ("A01", 2, "truncated", FileFault.TRUNCATED)
    assert "byte 7" in lost.detail


def test_a_damaged_file_that_was_counted_all_the_same_is_told(tmp_path: Path) -> None:
    assert compared(tmp_path / "a", COUNTED).unnoticed == ()
    assert compared(tmp_path / "b", {**COUNTED, ("A01", 2): 0}).unnoticed == (TRUE[1],)


def test_a_well_without_any_count_is_no_zero(tmp_path: Path) -> None:
    found = compared(tmp_path, {**COUNTED, ("A01", 1): Reason.UNREADABLE})
    assert found.wells[0].counted is None
    assert "failed" in printed(found, 120)


def test_a_run_over_other_fields_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match="A03"):
        compared(tmp_path, {key: value for key, value in COUNTED.items() if key != ("A03", 2)})


def test_wells_that_contradict_their_fields_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "out", COUNTED)
    (tmp_path / "truth.csv").write_text(truth_csv(TRUE))
    wells = pq.read_table(tmp_path / "out" / "wells.parquet").to_pylist()
    wells[2]["count"] = 103
    pq.write_table(pa.Table.from_pylist(wells), tmp_path / "out" / "wells.parquet")
    with pytest.raises(ConfigFault, match="A03 has 103"):
        compare(tmp_path / "out", tmp_path / "truth.csv")


def test_a_run_that_is_not_finished_is_named(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(truth_csv(TRUE))
    with pytest.raises(ConfigFault, match="is the run finished"):
        compare(tmp_path / "out", tmp_path / "truth.csv")


@pytest.mark.parametrize("width", [120, 80])
def test_the_printed_plate_fits_the_terminal(width: int) -> None:
    text = printed(full_plate(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    rows = [line.split() for line in text.splitlines()]
    assert [row[0] for row in rows if row and row[0] in set("ABCDEFGH")] == list("ABCDEFGH")
    assert (
        next(row for row in rows if row and row[0] == "B")[1:] == ["498/500" if width == 120 else "498"] * 12
    )


def test_marks_tell_incomplete_wells(tmp_path: Path) -> None:
    text = printed(compared(tmp_path, COUNTED), 120)
    assert "90/100!" in text
    assert "102/100 " in text
    assert "193 nuclei, true 200 (-3.5%)" in text
    assert "well A01 site 2: failed, truncated (planted: truncated file)" in text
