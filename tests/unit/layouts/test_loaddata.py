"""LoadData tables: published ones as they are, and each fault that published ones have had."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, Reason
from cellcount_core.domain.fields import PlannedField
from cellcount_core.domain.plates import Position
from cellcount_core.layouts.loaddata import LoadDataSettings
from cellcount_core.plan.planner import PlanSummary
from tests.contract.layouts.test_layout_contract import mutated
from tests.data_dir import data_dir
from tests.unit.plan.listings import MemoryStore, plan_of


def tables() -> Path:
    root = data_dir()
    if root is None or not (root / "plates" / "metadata_only" / "load_data").is_dir():
        pytest.skip("the sample plates are not here (set CELLCOUNT_DATA)")
    return root / "plates" / "metadata_only" / "load_data"


def planned(
    table: bytes,
    files: list[str],
    channel: str = "DNA",
    name: str = "load_data.csv",
    url: str = "memory://input",
    base: str | None = None,
    columns: dict[str, str] | None = None,
) -> tuple[list[PlannedField], PlanSummary]:
    """The fields that are planned of one channel of a table, if these files are there, and the plan's summary."""
    settings = LoadDataSettings(manifest=name, base=base, columns=columns or {})
    store = MemoryStore({name: table, **dict.fromkeys(files, b"pixels")}, url)
    with plan_of(store, RunConfig(layout=settings, plate="PX", channels={"nuclei": channel})) as plan:
        return [field for shard in plan.shards() for field in shard.fields], plan.summary


def csv(
    *rows: str, header: str = "Metadata_Plate,Metadata_Well,Metadata_Site,FileName_DNA,PathName_DNA"
) -> bytes:
    return "\n".join((header, *rows, "")).encode()


def test_a_table_of_jump_is_read_against_a_copy_of_its_bucket_at_any_depth() -> None:
    name = "jump_source_4_BR00126114/test_BR00126114_load_data_with_illum.parquet"
    path = tables() / name
    images = "2021_08_23_Batch12/images/BR00126114__2021-09-01T15_39_48-Measurement1/Images"
    below = {
        "s3://cellpainting-gallery": f"cpg0016-jump/source_4/images/{images}/",
        "memory://copy": f"{images}/",
        "/data/plate": "",
    }
    for url, prefix in below.items():
        files = [
            f"{prefix}r01c01f0{site}p01-ch{number}sk1fk1fl1.tiff" for site in (1, 2) for number in (5, 2)
        ]
        fields, summary = planned(path.read_bytes(), files, name="t.parquet", url=url)
        assert [(f.key.plate, f.key.well, f.key.site, f.reason, f.sources[0].key) for f in fields] == [
            ("BR00126114", "A01", 1, None, files[0]),
            ("BR00126114", "A01", 2, None, files[2]),
        ]
        assert summary.channels_seen == ("AGP", "DNA", "ER", "Mito", "RNA")


@pytest.mark.parametrize(
    ("version", "plate", "um_per_px", "position", "hoechst"),
    [
        (1, "BR00121482", 0.597976, Position(0.0, 0.0), "DNA"),
        (5, "BR00122249", 0.597976, Position(-322.907, 322.907), None),
        (7, "240624_WES_Perturbs_n_densities_1.1", 0.296688, Position(0.0, 0.0), "DNA"),
    ],
)
def test_a_table_of_pe2loaddata_states_pixel_size_position_and_the_instruments_names(
    version: int, plate: str, um_per_px: float, position: Position, hoechst: str | None
) -> None:
    body = (tables() / f"pe2loaddata_Version{version}" / f"load_data_version{version}.csv").read_bytes()
    files = [f"images/r01c01f01p01-ch{number}sk1fk1fl1.tiff" for number in range(1, 8)]
    (field,), summary = planned(body, files, "Alexa 568")
    assert (field.key.plate, field.key.well, field.key.site, field.reason) == (plate, "A01", 1, None)
    assert (field.um_per_px, field.position) == (um_per_px, position)
    assert (summary.counted, summary.channel_names.get("DNA")) == (
        ("AGP",),
        "HOECHST 33342" if hoechst else None,
    )


def test_bbbc021_has_its_sites_in_the_names_of_files_and_its_plates_in_columns() -> None:
    body = (tables() / "bbbc021" / "BBBC021_v1_image.csv").read_bytes()
    rows = [line.split(",") for line in body.decode().splitlines()[1:]]
    files = [f"{row[3]}/{row[2]}" for row in rows]
    fields, summary = planned(body, files, "DAPI")
    assert len(fields) == 240
    assert {field.key.plate for field in fields} == {"Week1_22123"}
    assert len({field.key.well for field in fields}) == 60
    assert {field.key.site for field in fields} == {1, 2, 3, 4}
    assert all(field.sources[0].key.startswith("Week1/Week1_22123/") for field in fields)
    assert summary.channels_seen == ("Actin", "DAPI", "Tubulin")
    # Without one of its rows, the others are what they were.
    lines = body.splitlines()
    others, _ = planned(b"\n".join(lines[:8] + lines[9:]), files, "DAPI")
    assert others == [field for field in fields if field.sources[0].key != files[7]]


def test_a_file_that_the_table_names_and_that_is_not_there_is_missing() -> None:
    fields, _ = planned(csv("P,A01,1,a.tif,/w/p", "P,A01,2,b.tif,/w/p"), ["b.tif"])
    assert [(field.key.site, field.reason) for field in fields] == [(1, Reason.ABSENT), (2, None)]


def test_one_file_for_two_channels_is_not_counted_as_either() -> None:
    header = "Metadata_Well,Metadata_Site,FileName_DNA,FileName_ER"
    fields, _ = planned(
        csv("A01,1,a.tif,a.tif", "A01,2,b.tif,c.tif", header=header), ["a.tif", "b.tif", "c.tif"]
    )
    assert [field.reason for field in fields] == [Reason.AMBIGUOUS_FILE, None]
    assert "line 2 names it for the channels DNA, ER" in fields[0].detail


def test_one_file_for_two_fields_is_counted_for_neither() -> None:
    fields, _ = planned(csv("P,A01,1,a.tif,", "P,A01,2,a.tif,", "P,A01,3,b.tif,"), ["a.tif", "b.tif"])
    assert [field.reason for field in fields] == [Reason.AMBIGUOUS_FILE, Reason.AMBIGUOUS_FILE, None]
    assert "A01 site 1 time 1 and A01 site 2 time 1" in fields[0].detail


def test_another_well_in_row_and_column_or_in_the_files_name_is_told_and_the_well_holds() -> None:
    header = "Metadata_Plate,Metadata_Well,Metadata_Site,Metadata_Row,Metadata_Col,FileName_DNA,PathName_DNA"
    rows = (
        "P,A01,1,1,2,x.tif,", "P,A02,1,1,2,y.tif,", "P,A03,1,1,3,r01c04f01p01-ch1sk1fk1fl1.tiff,",
    )  # fmt: skip
    fields, summary = planned(csv(*rows, header=header), ["x.tif", "y.tif", "r01c04f01p01-ch1sk1fk1fl1.tiff"])
    assert [field.key.well for field in fields] == ["A01", "A02", "A03"]
    assert [text for text in summary.warnings if "another well" in text] == [
        "load_data.csv: plate 'P': of 1 row, such as 'line 2', has another well in Metadata_Row and Metadata_Col than in Metadata_Well, which"
        " holds",
        "load_data.csv: plate 'P': of 1 row, such as 'line 4', has another well in the name of the file than in the table, which holds",
    ]


@pytest.mark.parametrize(
    ("path", "files", "key"),
    [
        ("C:\\scans\\P", ["P/a.tif"], "P/a.tif"),
        ("\\\\server\\share\\P", ["a.tif"], "a.tif"),
        ("/home/ubuntu/bucket/P/", ["P/a.tif", "bucket/b.tif"], "P/a.tif"),
        ("/P", ["P/a.tif"], "P/a.tif"),
        ("./P", ["P/a.tif"], "P/a.tif"),
        ("", ["a.tif"], "a.tif"),
    ],
)
def test_paths_of_any_machine_are_found_below_the_input(path: str, files: list[str], key: str) -> None:
    fields, _ = planned(csv(f"P,A01,1,a.tif,{path}"), files)
    assert [field.sources[0].key for field in fields] == [key]


@pytest.mark.parametrize(
    ("url", "files"),
    [("file:/scans/my%20plate/a.tif", ["my plate/a.tif"]), ("s3://b/x/a.tif", ["x/a.tif"])],
)
def test_urls_name_files_too(url: str, files: list[str]) -> None:
    fields, _ = planned(csv(f"A01,1,{url}", header="Metadata_Well,Metadata_Site,URL_OrigDNA"), files)
    assert [(field.reason, field.sources[0].key) for field in fields] == [(None, files[0])]


def test_a_base_that_is_given_holds() -> None:
    header = "Metadata_Well,Metadata_Site,URL_DNA"
    rows = csv("A01,1,https://host/p/x/a.tif", header=header)
    fields, _ = planned(rows, ["x/a.tif"], base="https://host/p/")
    assert [field.sources[0].key for field in fields] == ["x/a.tif"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (csv("P,A01,1,a.tif,../up"), "line 2: the path '../up' has '..' in it"),
        (csv("P,A01,1,a.tif,https://host/p"), "never from the web"),
        (csv("P,A01,1,a.tif,/w", "P,A01,2,b.tif,/v"), "line 3: '/v/b.tif' is not below '/w/'"),
        (csv("P,A01,1,gone.tif,s3://b/x"), "is in the input (memory://input) below any of its folders"),
        (csv("P,A01,x,a.tif,"), "line 2: site is 'x', a whole number from 0 was expected"),
        (csv("P,,1,a.tif,"), "line 2: says no well, in no column and not in the name of a.tif"),
        (csv("P,A01,1,,"), "line 2: names no file in any of FileName_DNA"),
        (csv("P,A01,1", header="Metadata_Plate,Well,x"), "has no column FileName_<channel> or URL_<channel>"),
        (csv("P,A01", header="FileName_IllumDNA,x"), "has no column FileName_<channel> or URL_<channel>"),
        (csv("A01,a.tif,3", header="Metadata_Well,FileName_DNA,Frame_DNA"), "line 2: Frame_DNA is '3'"),
        (b"\x00\xff" * 40, "neither Parquet nor UTF-8 text"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_refused_with_row_and_value(rows: bytes, message: str) -> None:
    with pytest.raises(ConfigFault) as fault:
        planned(rows, ["a.tif"])
    assert message in str(fault.value)


def test_columns_of_other_names_are_mapped_and_unknown_ones_refused() -> None:
    rows = csv("P,7,a.tif", header="Metadata_Plate,position,FileName_DNA")
    fields, _ = planned(rows, ["a.tif"], columns={"well": "position"})
    assert [field.key.well for field in fields] == ["7"]
    with pytest.raises(ConfigFault, match=r"no column 'positions'.*did you mean 'position'"):
        planned(rows, ["a.tif"], columns={"well": "positions"})
    with pytest.raises(ConfigFault, match="'wells' is unknown; did you mean 'well'"):
        planned(rows, ["a.tif"], columns={"wells": "position"})


def test_the_usual_names_of_the_table_are_found_in_the_input() -> None:
    store = MemoryStore({"load_data.csv": csv("P,A01,1,a.tif,"), "a.tif": b"x"})
    with plan_of(store, RunConfig(layout=LoadDataSettings())) as plan:
        assert plan.summary.fields == 1
    with pytest.raises(ConfigFault, match=r"has none of load_data\.csv, .*name the table with"):
        plan_of(MemoryStore({"a.tif": b"x"}), RunConfig(layout=LoadDataSettings()))


def test_parquet_says_what_csv_says(tmp_path: Path) -> None:
    from pyarrow import csv as arrow_csv

    (tmp_path / "t.csv").write_bytes(csv("P,A01,1,a.tif,/w", "P,B02,2,b.tif,/w"))
    pq.write_table(arrow_csv.read_csv(tmp_path / "t.csv"), tmp_path / "t.parquet")
    read = [
        planned((tmp_path / name).read_bytes(), ["a.tif", "b.tif"], name=name)[0]
        for name in ("t.csv", "t.parquet")
    ]
    assert read[0] == read[1]


@pytest.mark.parametrize("seed", range(100))
def test_a_mutant_of_a_table_is_read_or_refused_in_words(seed: int) -> None:
    """Cut, flipped, repeated, of another encoding; as CSV, and as the Parquet of JUMP."""
    dice = random.Random(seed)
    name = dice.choice(("load_data.csv", "load_data.parquet"))
    body = csv("P,A01,1,a.tif,/w/p", "P,A01,2,b.tif,/w/p", "Q,B02,1,c.tif,s3://b/w")
    if name.endswith("parquet"):
        body = (
            tables() / "jump_source_4_BR00126114" / "test_BR00126114_load_data_with_illum.parquet"
        ).read_bytes()
    try:
        planned(mutated(body, dice), ["a.tif", "b.tif", "r01c01f01p01-ch5sk1fk1fl1.tiff"], name=name)
    except ConfigFault as fault:
        assert "\n" not in str(fault)
