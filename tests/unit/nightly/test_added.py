"""A plate that gained a well: only that well is counted, and the rows are those of counting the plate whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import tifffile

from cellcount_core.config import RunConfig
from cellcount_core.nightly.counting import added_files, fields_are_independent, only
from cellcount_core.nightly.digest import Digest
from cellcount_core.nightly.ledger import PlateStatus
from cellcount_core.plan.discover import matcher
from cellcount_core.stores.base import Listed
from tests import jobs
from tests.nights import SimulatedClock, Witness, night, settings
from tests.plates import Plate, discs, write_plate

IMAGEXPRESS = RunConfig.model_validate({"layout": {"kind": "imagexpress"}, "model": {"package": "threshold"}})


@pytest.fixture
def plate(tmp_path: Path) -> Plate:
    plate = write_plate(tmp_path / "scope" / "P1", well_count=3, channels=2)
    (plate.folder / "DONE").touch()
    return plate


def add(plate: Plate, well: str, sites: tuple[int, ...] = (1, 2), channels: tuple[int, ...] = (1, 2)) -> None:
    for site in sites:
        for channel in channels:
            tifffile.imwrite(plate.file(well, site, channel), discs(4, 96, site), compression="zlib")


def htd(plate: Plate) -> None:
    (plate.folder / "P1.HTD").write_text('"HTSInfoFile", Version 1.0')


def counted(plate: Plate, output: Path, witness: Witness | None = None) -> Digest:
    run = {"layout": {"kind": "imagexpress"}, "model": {"package": "threshold"}, "channels": {"nuclei": "w1"}}
    return night(settings(plate.folder.parent, output, run=run), SimulatedClock(), witness)


def live(output: Path) -> pd.DataFrame:
    datasets = pd.read_parquet(output / "nights/datasets.parquet")
    return datasets[datasets.status == "counted"]


def test_only_the_fields_of_an_added_well_are_counted_and_all_rows_are_those_of_the_whole_plate(
    plate: Plate, tmp_path: Path
) -> None:
    output = tmp_path / "counts"
    counted(plate, output)
    add(plate, "A04")
    first = Witness()
    digest = counted(plate, output, first)
    add(plate, "B01")
    second = Witness()
    counted(plate, output, second)

    assert first.fields == second.fields == {"P1": 2}
    assert digest.of(PlateStatus.COUNTED)[0].fields == 2
    assert digest.of(PlateStatus.SUPERSEDED) == []
    folders = list(live(output).output)
    assert len(folders) == 3
    jobs.count(plate.folder, tmp_path / "whole", run={"channels": {"nuclei": "w1"}})
    for table in ("fields", "objects"):
        parts = [row for folder in folders for row in jobs.rows(output / folder, table).to_pylist()]
        assert parts == jobs.rows(tmp_path / "whole", table).to_pylist()
    wells = pd.concat(
        [pd.read_parquet(output / folder / "wells.parquet") for folder in folders], ignore_index=True
    )
    pd.testing.assert_frame_equal(wells, pd.read_parquet(tmp_path / "whole" / "wells.parquet"))
    assert counted(plate, output).unchanged == 1


def test_a_correction_of_a_plate_that_had_gained_a_well_counts_it_whole(plate: Plate, tmp_path: Path) -> None:
    output = tmp_path / "counts"
    counted(plate, output)
    add(plate, "A04")
    counted(plate, output)
    add(plate, "A01", sites=(1,), channels=(1,))

    digest = counted(plate, output)

    assert digest.of(PlateStatus.COUNTED)[0].fields == 8
    assert len(digest.of(PlateStatus.SUPERSEDED)) == 2
    assert len(live(output)) == 1


def test_an_added_well_that_was_taken_away_leaves_the_plate_as_it_had_been_counted(
    plate: Plate, tmp_path: Path
) -> None:
    output = tmp_path / "counts"
    counted(plate, output)
    add(plate, "A04")
    counted(plate, output)
    for file in plate.folder.glob("TimePoint_1/P1_A04*"):
        file.unlink()
    witness = Witness()

    counted(plate, output, witness)

    assert witness.fields == {}
    assert list(live(output)["fields"]) == [6]


DOUBTS: dict[str, Callable[[Plate], None]] = {
    "a site of a counted well": lambda plate: add(plate, "A03", sites=(3,)),
    "a counted image is another": lambda plate: (add(plate, "A04"), add(plate, "A02"))[0],
    "a counted image is gone": lambda plate: (add(plate, "A04"), plate.file("A02", 1).unlink())[0],
    "another channel": lambda plate: add(plate, "A04", channels=(1, 2, 3)),
    "a channel less": lambda plate: add(plate, "A04", channels=(1,)),
    "a metadata file, which states things of all wells": lambda plate: (add(plate, "A04"), htd(plate))[0],
}


@pytest.mark.slow
@pytest.mark.parametrize("doubt", DOUBTS)
def test_in_doubt_the_plate_is_counted_whole(plate: Plate, tmp_path: Path, doubt: str) -> None:
    output = tmp_path / "counts"
    counted(plate, output)
    DOUBTS[doubt](plate)

    digest = counted(plate, output)

    assert digest.of(PlateStatus.COUNTED)[0].extends == ""
    assert len(digest.of(PlateStatus.SUPERSEDED)) == 1


def test_fields_depend_on_each_other_where_their_sizes_are_estimated_together() -> None:
    nuclei = RunConfig.model_validate({"layout": {"kind": "flat"}, "model": {"package": "nuclei"}})

    assert fields_are_independent(IMAGEXPRESS)
    assert not fields_are_independent(nuclei)
    assert fields_are_independent(nuclei.model_copy(update={"diameter": 20.0}))
    assert not fields_are_independent(IMAGEXPRESS.model_copy(update={"expect": "rectangular"}))


def test_cells_that_are_judged_by_their_plate_are_not_counted_well_by_well() -> None:
    section = {
        "layout": {"kind": "imagexpress"},
        "model": {"package": "viability-fluorescence"},
        "diameter": 20.0,
    }
    # Thresholds that are given hold for images of one bit depth, which is found on the plate too.
    given = {"viability": {"thresholds": {"all": 20, "dead": 300}}}
    assert not fields_are_independent(RunConfig.model_validate(section))
    assert not fields_are_independent(RunConfig.model_validate({**section, **given}))
    nuclei = {**section, "model": {"package": "nuclei"}}
    assert fields_are_independent(RunConfig.model_validate(nuclei))


def test_a_file_is_included_by_its_own_name_whatever_signs_it_holds() -> None:
    names = ["TimePoint_1/P1_A01_s1.TIF", "a[1]*/x?.tif", "x.tif"]
    included = matcher(only(IMAGEXPRESS, [Listed(name, 1, "") for name in names]).include)

    assert all(included(name) for name in names)
    assert not any(included(name) for name in ("a1b/xy.tif", "below/x.tif", "a[1]b/x?.tif"))


def test_names_that_do_not_parse_are_a_doubt() -> None:
    assert added_files(IMAGEXPRESS, "P1", [Listed("nonsense.tif", 1, "")], []) == ()
