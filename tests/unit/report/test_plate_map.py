"""Plate maps: the whole grid, whatever was measured."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa
import pytest

from cellcount_core.domain.columns import Column, Kind, Merge, Schema, schema_3
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.plates import FORMATS, WellPosition
from cellcount_core.output.schema import TableName, table_from_rows, table_schema
from cellcount_core.report.platelayout import (
    BARS,
    DrawnWell,
    ImageBars,
    PlateGrid,
    WellState,
    drawn_results,
    further_results,
    plate_map,
    shape_notes,
)
from cellcount_core.report.platemap import plate_map_png

RUN = schema_3("Nuclei", ("w1",))
SCHEMA = table_schema(TableName.WELLS, RUN, "f")
Row = dict[str, object]


def well(name: str, count: int | None, *, plate: str = "P", time: int = 1, ok: int = 2) -> Row:
    return {
        "Metadata_Plate": plate, "Metadata_Well": name, "timepoint": time, "fields_expected": 2, "fields_ok": ok,
        "fields_failed": 2 - ok, "fields_missing": 0, "fields_skipped": 0, "fields_warned": 0, "warnings": "{}", "count": count,
    }  # fmt: skip


def table(rows: Sequence[Row]) -> pa.Table:
    return table_from_rows(rows, SCHEMA)


def names(rows: range, columns: range) -> list[str]:
    return [WellPosition(row, column).name for row in rows for column in columns]


def only_grid(wells: pa.Table) -> PlateGrid:
    (panel,) = plate_map(wells, RUN).panels
    assert isinstance(panel, PlateGrid)
    return panel


def by_name(grid: PlateGrid) -> dict[str, DrawnWell]:
    return {cell.position.name: cell for cell in grid.cells}


def pixels(png: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


@pytest.mark.parametrize("wells", FORMATS)
def test_a_full_plate_of_every_format_is_drawn_as_its_grid(wells: int) -> None:
    rows, columns = FORMATS[wells]
    grid = only_grid(table([well(name, 3) for name in names(range(rows), range(columns))]))
    assert (grid.rows, grid.columns, len(grid.cells)) == (rows, columns, wells)
    assert {cell.state for cell in grid.cells} == {WellState.COMPLETE}


@pytest.mark.parametrize(("rows", "columns"), [(8, 12), (16, 24), (32, 48)])
def test_inner_wells_alone_stand_in_the_whole_grid_and_the_outer_ones_are_blank(
    rows: int, columns: int
) -> None:
    inner = names(range(1, rows - 1), range(1, columns - 1))
    grid = only_grid(table([well(name, 5) for name in inner]))
    assert len(grid.cells) == rows * columns
    blank = {cell.position.name for cell in grid.cells if cell.state is WellState.UNMEASURED}
    assert blank == set(names(range(rows), range(columns))) - set(inner)
    assert all(cell.value is None for cell in grid.cells if cell.position.name in blank)


def test_cells_come_in_row_order_each_in_its_place() -> None:
    grid = only_grid(table([well("B03", 7), well("A01", 1)]))
    assert [cell.position for cell in grid.cells] == [
        WellPosition(*divmod(i, grid.columns)) for i in range(6)
    ]
    assert by_name(grid)["B03"].value == 7


def test_a_well_with_a_lost_field_one_without_any_count_and_an_empty_one_are_three_things() -> None:
    grid = by_name(only_grid(table([well("A01", 7, ok=1), well("A02", None, ok=0), well("A03", 0)])))
    states = {name: (grid[name].state, grid[name].value) for name in ("A01", "A02", "A03")}
    assert states == {
        "A01": (WellState.PARTIAL, 7),
        "A02": (WellState.UNCOUNTED, None),
        "A03": (WellState.COMPLETE, 0),
    }


def test_every_plate_and_time_point_has_its_panel_on_one_scale() -> None:
    rows = [well("A01", 5, time=2), well("A01", 900, time=1), well("A01", 4, plate="Q")]
    found = plate_map(table(rows), RUN)
    assert [panel.title for panel in found.panels] == ["P, time point 1", "P, time point 2", "Q"]
    assert (found.low, found.high) == (4, 900)


def test_the_colour_bar_names_the_objects_and_the_unit() -> None:
    wells = table([well("A01", 5)])
    assert plate_map(wells, RUN).label == "nuclei per well"
    assert plate_map(wells, RUN, "count_per_mm2").label == "nuclei per mm²"
    assert plate_map(wells, RUN, "Nuclei_AreaShape_Area").label == "Nuclei_AreaShape_Area (px^2)"


def test_a_column_that_is_not_there_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigFault, match="did you mean 'count_per_mm2'"):
        plate_map(table([well("A01", 5)]), RUN, "count_per_mm")


def test_images_whose_names_are_no_wells_become_bars_with_the_highest_first() -> None:
    rows = [well(f"scan/{number:03d}.png", number) for number in range(70)] + [
        well("scan/bad.png", None, ok=0)
    ]
    (panel,) = plate_map(table(rows), RUN).panels
    assert isinstance(panel, ImageBars)
    assert [bar.value for bar in panel.bars] == list(range(69, 69 - BARS, -1))
    assert (panel.images, panel.uncounted) == (71, 1)


def test_one_name_that_is_no_well_keeps_all_of_its_plate_in_view() -> None:
    (panel,) = plate_map(table([well("A01", 5), well("overview", 8)]), RUN).panels
    assert isinstance(panel, ImageBars)
    assert [bar.name for bar in panel.bars] == ["overview", "A01"]


@pytest.mark.slow
def test_equal_tables_give_equal_pictures_and_other_counts_others() -> None:
    one, other = table([well("A01", 5), well("A02", 7)]), table([well("A01", 5), well("A02", 2)])
    assert plate_map_png(plate_map(one, RUN)) == plate_map_png(plate_map(one, RUN))
    assert plate_map_png(plate_map(one, RUN)) != plate_map_png(plate_map(other, RUN))


def test_a_lost_field_shows_in_the_picture() -> None:
    whole, lost = table([well("A01", 5), well("A02", 5)]), table([well("A01", 5), well("A02", 5, ok=1)])

    def red(wells: pa.Table) -> int:
        image = pixels(plate_map_png(plate_map(wells, RUN))).astype(int)
        return int(((image[..., 2] > 150) & (image[..., 1] < 80) & (image[..., 0] < 80)).sum())

    assert red(whole) == 0
    assert red(lost) > 100


@pytest.mark.slow
def test_1536_wells_are_drawn_in_a_picture_that_fits_a_screen() -> None:
    wells = table([well(name, index) for index, name in enumerate(names(range(32), range(48)))])
    height, width, _ = pixels(plate_map_png(plate_map(wells, RUN))).shape
    assert width <= 1200
    assert height <= 1200


def test_a_run_without_a_well_still_gives_a_picture() -> None:
    assert pixels(plate_map_png(plate_map(table([]), RUN))).size > 0


@pytest.mark.slow
def test_a_screen_of_many_plates_fits_one_picture() -> None:
    rows = [
        well(f"A{column:02d}", column, plate=f"P{plate:03d}") for plate in range(60) for column in range(1, 9)
    ]
    found = plate_map(table(rows), RUN)
    assert len(found.panels) == 60
    height, width, _ = pixels(plate_map_png(found)).shape
    assert width <= 2000
    assert height <= 4000


def test_a_plate_is_drawn_in_the_shape_that_its_metadata_states_unless_a_well_lies_beyond_it() -> None:
    wells = table([well("B02", 5), well("C04", 5)])
    plate = wells.column("Metadata_Plate")[0].as_py()
    for shapes, drawn in (
        ({plate: (8, 12)}, (8, 12)),
        ({"other": (8, 12)}, (3, 4)),
        ({plate: (2, 3)}, (3, 4)),
    ):
        found = plate_map(wells, RUN, shapes=shapes)
        (panel,) = found.panels
        assert isinstance(panel, PlateGrid)
        assert (panel.rows, panel.columns) == drawn
        told = shape_notes(found)
        assert bool(told) == (drawn != (8, 12))
        assert all("drawn as 12 wells" in note and "--plate-format" in note for note in told)


def test_every_further_result_can_have_a_map_of_its_own() -> None:
    whole, one = (
        Column("n", Kind.INT, "cells", "", merge=Merge.COUNT),
        Column("p", Kind.FLOATS, "1", "", merge=Merge.VECTOR),
    )
    dead = Column("dead", Kind.INT, "cells", "", merge=Merge.SHARE, of=("n",))
    word = Column("kind", Kind.STRING, "", "", merge=Merge.TALLY)
    schema = Schema(
        "t", "", (), (whole, dead, one, word), results=("n", "dead", "p", "kind"), classes=("a", "b")
    )
    assert further_results(schema) == ("dead_share", "p_a", "p_b")


def test_of_many_patterns_those_that_most_images_show_are_drawn_and_the_others_counted() -> None:
    names = ("a", "b", "c")
    patterns = Column("patterns", Kind.STRINGS, "", "", merge=Merge.NAMES)
    schema = Schema("patterns", "", (), (patterns,), results=("patterns",), classes=names)
    shares = {f"patterns_{name}_share": [share] for name, share in zip(names, (0.1, 0.9, 0.5), strict=True)}
    counts: dict[str, list[object]] = {f"patterns_{name}": [1] for name in names}
    keys: dict[str, list[object]] = {
        "Metadata_Plate": ["P"], "Metadata_Well": ["A01"], "timepoint": [1], "fields_expected": [1], "fields_ok": [1],
    }  # fmt: skip
    told = pa.table({**keys, **counts, **shares})
    assert drawn_results(told, schema, 1) == (("patterns_b_share", "patterns_c_share"), 1)
    assert drawn_results(told, schema, 9)[1] == 0
    drawn = plate_map(told, schema, "patterns_b_share")
    assert drawn.label == "share of images: b (one of 3 patterns)"


def test_a_counted_well_without_a_value_has_an_entry_in_the_legend() -> None:
    valued = plate_map_png(plate_map(table([well("A01", 5), well("A02", 6)]), RUN))
    blank = plate_map_png(plate_map(table([well("A01", 5), well("A02", None)]), RUN))
    # The legend lies below the wells: there the pictures are alike but for the further entry.
    below = slice(round(0.8 * pixels(valued).shape[0]), None)
    assert pixels(valued).shape == pixels(blank).shape
    assert not np.array_equal(pixels(valued)[below], pixels(blank)[below])
