"""A count with a plate map: its columns stand in every table and for every reader, and a stop, a retry or an update lose none of it."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import OutputFault
from tests.jobs import count, digest, rows
from tests.plates import Plate, write_plate

MAP = "Plate;well_position;drug;dose\nP1;a1;DMSO;0\nP1;A02;taxol;2.5\n;A3;DMSO;0\nP1;H12;none;1\n"


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """Four wells of two sites; no image of the second well can be read."""
    plate = write_plate(tmp_path_factory.mktemp("mapped"), well_count=4)
    for site in (1, 2):
        plate.file(WELLS[1], site).write_bytes(b"no image")
    return plate


WELLS = ("A01", "A02", "A03", "A04")


def mapped(folder: Path, text: str = MAP) -> Path:
    path = folder / "map.csv"
    path.write_text(text)
    return path


def by_well(output: Path) -> list[tuple[object, ...]]:
    names = ("Metadata_Well", "Metadata_drug", "Metadata_dose")
    table = pq.read_table(output / "wells.parquet", columns=list(names))
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def test_columns_of_the_map_stand_in_every_table(plate: Plate, tmp_path: Path) -> None:
    result = count(plate.folder, tmp_path / "out", run={"platemap": str(mapped(tmp_path))})
    assert [line.split(": ", 1)[1] for line in result.warnings if "plate map" in line] == [
        "1 row of wells that have no field: P1 H12",
        "1 well with fields that it does not name, whose columns of the map are null: P1 A04",
    ]
    assert by_well(tmp_path / "out") == [
        ("A01", "DMSO", 0.0),
        ("A02", "taxol", 2.5),
        ("A03", "DMSO", 0.0),
        ("A04", None, None),
    ]
    assert rows(tmp_path / "out", "fields").column("Metadata_drug").to_pylist() == [
        "DMSO", "DMSO", "taxol", "taxol", "DMSO", "DMSO", None, None,
    ]  # fmt: skip
    assert pq.read_table(tmp_path / "out/plates.parquet").column("Metadata_drug").to_pylist() == [None]
    assert json.loads((tmp_path / "out/summary.json").read_text())["Metadata_drug"] is None
    assert main(["verify", str(tmp_path / "out")]) == 0
    found = duckdb.sql(
        f"select Metadata_drug, sum(fields_ok)::int from '{tmp_path}/out/wells.parquet' group by 1 order by 1"
    ).fetchall()
    assert found == [("DMSO", 4), ("taxol", 0), (None, 2)]


def test_a_run_that_goes_on_is_the_run_that_did_not_stop(plate: Plate, tmp_path: Path) -> None:
    run = {"platemap": str(mapped(tmp_path))}
    count(plate.folder, tmp_path / "whole", run=run)
    count(plate.folder, tmp_path / "stopped", run=run)
    (tmp_path / "stopped/fields/part-000001.parquet").unlink()
    (tmp_path / "stopped/wells.parquet").unlink()
    (tmp_path / "elsewhere").mkdir()
    count(plate.folder, tmp_path / "stopped", run={"platemap": str(mapped(tmp_path / "elsewhere"))})
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")
    assert main(["retry", str(tmp_path / "stopped"), "--runner", "serial"]) in (0, 3)
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")


def test_another_map_is_another_run_and_an_update_takes_it_in(plate: Plate, tmp_path: Path) -> None:
    output, path = tmp_path / "out", mapped(tmp_path)
    count(plate.folder, output, run={"platemap": str(path)})
    with pytest.raises(OutputFault, match=r"platemap\.Metadata_drug: 'string' -> None"):
        count(plate.folder, output)
    path.write_text(MAP.replace("A3;DMSO;0", "A3;taxol;1"))
    with pytest.raises(OutputFault, match="2 fields are planned otherwise"):
        count(plate.folder, output, run={"platemap": str(path)})
    assert main(["count", str(output), "--update", "--runner", "serial", "--max-failed", "2"]) == 0
    assert by_well(output)[2] == ("A03", "taxol", 1.0)
    assert main(["verify", str(output)]) == 0


def test_a_run_without_a_map_has_no_trace_of_one(plate: Plate, tmp_path: Path) -> None:
    count(plate.folder, tmp_path / "out")
    assert "platemap" not in (tmp_path / "out/run/run.json").read_text()
    assert "labels" not in pq.read_schema(tmp_path / "out/run/plan.parquet").names
