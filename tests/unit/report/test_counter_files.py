"""Files of cell counters: the columns of a Vi-CELL BLU, and Allotrope's JSON, which is held against Allotrope's own schemas."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
from referencing import Registry, Resource

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.models.package import find_package
from cellcount_core.output.runfile import ModelIdentity, Numbers, RunFile
from cellcount_core.pipeline.rows import run_schema
from cellcount_core.plan.platemap import read_platemap
from cellcount_core.report.counter_files import VICELL_COLUMNS, asm_json, vicell_csv
from cellcount_core.report.samples import Samples, WellSample, sample_names, unknown_wells

WHEN = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
COUNTED: dict[str, object] = {
    "fields_ok": 2, "fields_expected": 2, "count": 210, "live": 180, "dead": 20, "both": 6, "neither": 4, "viability": 90.0,
    "viability_low": 85.1, "viability_high": 93.4, "viability_n": 200, "viability_warnings": None, "cells_per_ml": 2.1e6,
    "viable_cells_per_ml": 1.8e6, "sample_ml": 1e-4, "dead_two_edges": 20, "diameter_um": 12.34, "diameter_um_live": 12.5,
    "diameter_um_dead": 11.1, "circularity": 0.91, "circularity_live": 0.92, "clusters": 7,
}  # fmt: skip
NO_VOLUME = {
    **COUNTED,
    "cells_per_ml": None,
    "viable_cells_per_ml": None,
    "sample_ml": None,
    "viability_warnings": "below 50 %",
}
EMPTY: dict[str, object] = {
    "fields_ok": 1, "fields_expected": 1, "count": 0, "live": 0, "dead": 0, "both": 0, "neither": 0, "viability": None, "viability_n": 0,
    "cells_per_ml": 0.0, "viable_cells_per_ml": 0.0, "sample_ml": 1e-4, "dead_two_edges": 0,
}  # fmt: skip


def samples(
    *rows: dict[str, object], roles: tuple[str, ...] = ("all", "dead"), measured: datetime | None = WHEN
) -> Samples:
    package = find_package("viability-fluorescence")
    settings = RunConfig.model_validate(
        {"viability": {"min_diameter": "7um", "dilution": 2, "depth_um": 100}}
    )
    run = RunFile(
        "f" * 64, {}, "/plate", ModelIdentity(package.name, "1", "d", "onnxruntime"), {role: f"w{at}" for at, role in enumerate(roles)},
        run_schema(package, roles, roles), "", "", Numbers(1, 1, 1, 1, {}, {}, 0), {},
    )  # fmt: skip
    wells = tuple(WellSample("P", f"A{at:02d}", 1, f"S{at}", row) for at, row in enumerate(rows, 1))
    return Samples(run, settings, measured, wells)


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def allotropy(name: str) -> Path:
    """A folder of the installed package allotropy, which is not imported: only its schemas and the names it reads are used."""
    spec = find_spec("allotropy")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("allotropy, which holds Allotrope's schemas, is not installed")
    return Path(spec.submodule_search_locations[0]) / name


def faults(document: object) -> list[str]:
    """What Allotrope's schema of cell counting (REC/2024/09) says against a document."""
    schemas = allotropy("allotrope/schemas")

    def retrieve(uri: str) -> Resource[object]:
        path = schemas / f"{uri.partition('json-schemas/')[2]}.json"
        return Resource.from_contents(json.loads(path.read_text(encoding="utf-8")))

    root = json.loads(
        (schemas / "adm/cell-counting/REC/2024/09/cell-counting.schema.json").read_text(encoding="utf-8")
    )
    checks = jsonschema.Draft202012Validator(root, registry=Registry(retrieve=retrieve))  # type: ignore[call-arg]
    return [error.message[:300] for error in checks.iter_errors(document)]


def test_a_line_of_the_vicell_csv_has_its_columns_and_units() -> None:
    text = vicell_csv(samples(COUNTED))
    assert tuple(text.splitlines()[0].split(",")) == VICELL_COLUMNS
    [row] = table(text)
    assert row["Sample ID"] == "S1"
    assert (row["Cell count"], row["Viable cells"], row["Viability (%)"]) == ("200", "180", "90.0")
    assert (row["Total (x10^6) cells/mL"], row["Viable (x10^6) cells/mL"]) == ("2.1", "1.8")
    assert (row["Average diameter (μm)"], row["Average viable diameter (μm)"]) == ("12.34", "12.5")
    assert (row["Dilution"], row["Minimum Diameter (μm)"], row["Images"]) == ("2", "7.0", "2")
    assert (row["Average cells per image"], row["Cluster count"]) == ("100.0", "7")
    assert (row["Analysis date/time"], row["Aspiration cycles"], row["Tag"]) == (
        "2026-11-30 09:00:00",
        "",
        "cells/mL without cells at the right and lower edges (rule of two edges)",
    )


def test_what_is_not_known_is_empty_with_its_reason_and_never_a_zero() -> None:
    no_volume, empty = table(vicell_csv(samples(NO_VOLUME, EMPTY)))
    assert (no_volume["Total (x10^6) cells/mL"], no_volume["Viable (x10^6) cells/mL"]) == ("", "")
    assert no_volume["Tag"].startswith("below 50 %; no cells/mL: the volume that an image shows is not known")
    assert (empty["Cell count"], empty["Viability (%)"], empty["Viable (x10^6) cells/mL"]) == ("0", "", "0.0")


def test_every_column_that_allotropy_reads_of_a_vicell_is_one_of_ours() -> None:
    source = (allotropy("parsers/beckman_vi_cell_blu") / "vi_cell_blu_structure.py").read_text(
        encoding="utf-8"
    )
    read = set(
        re.findall(
            r'(?:float|str), "([^"]+)"|data\[\w+, "([^"]+)"\]|^\s+"([A-Z][^"]+)",$', source, re.MULTILINE
        )
    )
    names = {name for each in read for name in each if name} - {"Wash, Mixing"}
    assert {"Viability (%)", "Analysis date/time", "Bubble count"} <= names
    assert names <= set(VICELL_COLUMNS)


@pytest.mark.parametrize("row", [COUNTED, NO_VOLUME, EMPTY], ids=["counted", "no volume", "empty"])
def test_allotropes_schema_holds(row: dict[str, object]) -> None:
    assert faults(json.loads(asm_json(samples(row), "out.json"))) == []


def test_the_schema_would_tell() -> None:
    document = json.loads(asm_json(samples(COUNTED), "out.json"))
    [measurement] = document["cell counting aggregate document"]["cell counting document"][0][
        "measurement aggregate document"
    ]["measurement document"]
    measurement["processed data aggregate document"]["processed data document"][0][
        "viability (cell counter)"
    ]["unit"] = "share"
    assert faults(document) != []


def measurement_of(data: Samples) -> dict[str, object]:
    document = json.loads(asm_json(data, "out.json"))
    [measurement] = document["cell counting aggregate document"]["cell counting document"][0][
        "measurement aggregate document"
    ]["measurement document"]
    assert isinstance(measurement, dict)
    return measurement


def test_a_density_that_is_not_known_is_left_out_and_told() -> None:
    measurement = measurement_of(samples(NO_VOLUME))
    [found] = measurement["processed data aggregate document"]["processed data document"]  # type: ignore[index]
    assert "viable cell density (cell counter)" not in found
    assert found["viability (cell counter)"] == {"value": 90.0, "unit": "%"}
    errors = measurement["error aggregate document"]["error document"]  # type: ignore[index]
    assert [each["error feature"] for each in errors] == [
        "viable cell density (cell counter)",
        "viability (cell counter)",
    ]
    assert errors[0]["error"].startswith("not known: the volume that an image shows is not known")


def test_densities_are_in_millions() -> None:
    [found] = measurement_of(samples(COUNTED))["processed data aggregate document"]["processed data document"]  # type: ignore[index]
    assert found["total cell density (cell counter)"] == {"value": 2.1, "unit": "10^6 cells/mL"}
    assert found["dead cell density (cell counter)"]["value"] == pytest.approx(0.2)
    assert found["data processing document"]["cell density dilution factor"] == {
        "value": 2.0,
        "unit": "(unitless)",
    }


def test_the_same_export_is_the_same_text_and_each_well_has_its_own_name() -> None:
    assert asm_json(samples(COUNTED, EMPTY), "o") == asm_json(samples(COUNTED, EMPTY), "o")
    documents = json.loads(asm_json(samples(COUNTED, EMPTY), "o"))["cell counting aggregate document"][
        "cell counting document"
    ]
    names = {
        each["measurement aggregate document"]["measurement document"][0]["measurement identifier"]
        for each in documents
    }
    assert len(names) == 2


def test_a_bright_field_run_without_a_volume_is_refused_with_a_way_out() -> None:
    with pytest.raises(
        ConfigFault, match="count with --depth or --chamber and a pixel size, or export --to vicell"
    ):
        asm_json(samples(NO_VOLUME, roles=("cells",)), "o")


def test_a_photo_without_a_cell_or_a_pixel_size_does_not_stop_the_others() -> None:
    data = samples(COUNTED, EMPTY, NO_VOLUME, roles=("cells",))
    document = json.loads(asm_json(data, "o"))
    assert faults(document) == []
    whole = document["cell counting aggregate document"]
    assert len(whole["cell counting document"]) == 1
    assert [each["error"] for each in whole["error aggregate document"]["error document"]] == [
        "sample S2 (plate P, well A02) left out: no viability: no live and no dead cell was found",
        "sample S3 (plate P, well A03) left out: no cells/mL: the volume that an image shows is not known: no depth or volume was set, or the "
        "images have no pixel size",
    ]


def test_the_hint_to_give_a_depth_stands_only_where_it_helps() -> None:
    with pytest.raises(
        ConfigFault, match=r"well A01 has no viability: no live.*was found; export --to vicell$"
    ):
        asm_json(samples(EMPTY, roles=("cells",)), "o")


def test_a_failed_photo_of_a_sample_is_told_in_both_files() -> None:
    data = samples({**COUNTED, "fields_expected": 3}, COUNTED, {**COUNTED, "fields_ok": 0, "count": None})
    tags = [row["Tag"].split("; ")[0] for row in table(vicell_csv(data))]
    assert tags[0] == "1 of 3 images could not be counted"
    assert [one.uncounted for one in data.wells[1:]] == ["", ""]
    [error] = measurement_of(samples({**COUNTED, "fields_expected": 3}))["error aggregate document"][
        "error document"
    ]  # type: ignore[index]
    assert error["error"] == "1 of 3 images could not be counted"


def test_wells_of_a_plate_map_that_the_run_does_not_have_are_named(tmp_path: Path) -> None:
    path, data = tmp_path / "map.csv", samples(COUNTED, COUNTED)

    def said(*lines: str) -> str:
        path.write_text("\n".join(("well,sample,plate", *lines)) + "\n")
        return unknown_wells(read_platemap(str(path), needed=("sample",)).rows, data)

    assert said("A1,x,", "A02,y,P") == ""
    assert said("A1,x,") == ""
    assert (
        said("A1,x,", "B02,y,", "H12,z,")
        == "wells that the run does not have: B02, H12; known: 'A01', 'A02'; wells without a line in it go by plate and well: S2"
    )
    assert said("A1,x,", "A2,y,", "H12,z,") == "wells that the run does not have: H12; known: 'A01', 'A02'"
    assert said("A01,x,p", "A01,y,", "A02,z,") == "wells that the run does not have: p A01; did you mean 'P'?"
    with pytest.raises(
        ConfigFault,
        match="the plate map names only wells that the run does not have: H12; known: 'A01', 'A02'",
    ):
        said("H12,z,")


def test_no_time_is_made_up() -> None:
    with pytest.raises(ConfigFault, match="give it with --measured"):
        asm_json(samples(COUNTED, measured=None), "o")
    assert table(vicell_csv(samples(COUNTED, measured=None)))[0]["Analysis date/time"] == ""


def test_a_plate_map_names_samples(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text("well,sample,plate\nA1,first,\nB02,second,Q\nC3,,\n")
    assert sample_names(read_platemap(str(path), needed=("sample",)).rows) == {
        ("", "A01"): "first",
        ("Q", "B02"): "second",
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_plate_map_as_spreadsheets_write_it_is_read(tmp_path: Path, delimiter: str, encoding: str) -> None:
    path = tmp_path / "map.csv"
    rows = [("well", "sample", "dilution"), ("A01", "first, diluted", "1"), ("A02", "second", "2")]
    path.write_text(
        "\r\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows),
        encoding=encoding,
        newline="",
    )
    read = read_platemap(str(path), needed=("sample", "dilution")).rows
    assert [tuple(row.columns.values()) for row in read] == rows[1:]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wel,sample\nA1,x\n", "no column names the well; expected a column `Well`"),
        ("well\nA1\n", "the column 'sample' is missing; there is 'well'"),
        ("well,sample\nA1,x\nA01,y\n", "rows 2 and 3 are both of well A01, and 'sample' is 'x' and 'y'"),
        ("well,sample\n,x\n", "row 2 names no well"),
    ],
)
def test_faults_of_a_plate_map_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "map.csv"
    path.write_text(text)
    with pytest.raises(ConfigFault, match=re.escape(said)):
        read_platemap(str(path), needed=("sample",)).rows


def test_a_well_that_could_not_be_counted_has_no_measurement() -> None:
    failed: dict[str, object] = {"fields_ok": 0, "fields_expected": 2}
    document = json.loads(asm_json(samples(COUNTED, failed), "plate.json"))
    assert faults(document) == []
    assert len(document["cell counting aggregate document"]["cell counting document"]) == 1
    with pytest.raises(ConfigFault, match="no well of this run could be counted"):
        asm_json(samples(failed), "plate.json")
