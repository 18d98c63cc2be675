"""Plate maps: every form they are written in says the same, what cannot be joined is told, and a plan holds what they say."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import Kind
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.layouts.flat import FlatSettings
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.plan.platemap import read_platemap, well_labels, well_name
from tests.data_dir import data_dir, needs_data
from tests.often import often
from tests.unit.plan.listings import plan_bytes, plan_of, store_of

KEYS = [f"p/p_{row}{column:02d}_s{site}_w1.TIF" for row in "AB" for column in (1, 2) for site in (1, 2)]
REAL = (data_dir() or Path()) / "plates"


def mapped(path: Path) -> RunConfig:
    return RunConfig(layout=ImageXpressSettings(), platemap=str(path))


def labels_of(path: Path) -> dict[tuple[str, str], dict[str, object]]:
    """What a plate map says, by plate and well."""
    return {well: dict(labels) for well, labels in well_labels(read_platemap(str(path))).labels.items()}


def written(folder: Path, body: bytes, name: str = "map.csv") -> Path:
    path = folder / name
    path.write_bytes(body)
    return path


def as_workbook(rows: list[list[object]]) -> bytes:
    book, sink = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        book.worksheets[0].append(row)
    book.save(sink)
    return sink.getvalue()


def as_parquet(columns: dict[str, list[object]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


FORMS = {
    "commas": b"Well,drug,dose\nA01,DMSO,\nB02,taxol,0.5\n",
    "semicolons and a mark": b"\xef\xbb\xbfwell_position;drug;dose\r\na1;DMSO;NaN\r\nb2;taxol;0.5\r\n",
    "tabs": b"Metadata_well_position\tdrug\tdose\nA-1\tDMSO\t\nB-02\ttaxol\t.5\n",
    "row and column": b'row,col,drug,dose\nA,"""01""",DMSO,\nB,"""02""",taxol,5e-1\n',
    "numbers of both": b"Metadata_Row,Metadata_Col,drug,dose\n1,1,DMSO,\n2,2.0,taxol,0.5\n",
    "numbers in one": b"Well ID,drug,dose\nR1C1,DMSO,\nr02c02,taxol,0.50\n",
    "workbook": as_workbook([["Well", "drug", "dose"], ["A01", "DMSO", None], ["B02", "taxol", 0.5]]),
    "parquet": as_parquet({"Well": ["A1", "B2"], "drug": ["DMSO", "taxol"], "dose": [None, 0.5]}),
    "a row said twice": b"Well,drug,dose\nA01,DMSO,\nB02,taxol,0.5\nB2,taxol,0.5\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(tmp_path: Path, form: str) -> None:
    assert labels_of(written(tmp_path, FORMS[form])) == {
        ("", "A01"): {"Metadata_drug": "DMSO", "Metadata_dose": None},
        ("", "B02"): {"Metadata_drug": "taxol", "Metadata_dose": 0.5},
    }


def test_only_a_column_that_is_numbers_throughout_is_one_of_numbers(tmp_path: Path) -> None:
    body = b"Well,whole,real,mixed,name,none\nA1,1,1,1,007,\nA2,-20,2.5,x,008,\nA3,n/a,,NA,009,\n"
    found = well_labels(read_platemap(str(written(tmp_path, body))))
    assert [column.kind for column in found.columns] == [
        Kind.INT,
        Kind.FLOAT,
        Kind.STRING,
        Kind.STRING,
        Kind.STRING,
    ]
    assert [[value for _, value in labels] for labels in found.labels.values()] == [
        [1, 1.0, "1", "007", None],
        [-20, 2.5, "x", "008", None],
        [None, None, "NA", "009", None],
    ]


def test_names_of_columns_are_plain_words(tmp_path: Path) -> None:
    found = well_labels(
        read_platemap(str(written(tmp_path, "Well,Conc. (µM),metadata_Drug\nA1,1,x\n".encode())))
    )
    assert [column.name for column in found.columns] == ["Metadata_Conc_µM", "Metadata_Drug"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("b2", "B02"),
        ("B 002", "B02"),
        ("af48", "AF48"),
        ("R32C48", "AF48"),
        ("Z99", "Z99"),
        ("slide 7", "slide 7"),
    ],
)
def test_wells_in_every_spelling(text: str, name: str) -> None:
    assert well_name(text) == name


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"wel,drug\nA1,x\n", "no column names the well; expected a column `Well`"),
        (b"wel,drug\nA1,x\n", "there are 'wel', 'drug'; did you mean 'wel'?"),
        (b"row,drug\nA,x\n", "no column names the well; 'row' alone names none"),
        (b"Well,Metadata_Well,drug\nA1,A1,x\n", "'Well' and 'Metadata_Well' both name the well"),
        (b"Well,drug\nA1,x\n\n,y\n", "row 4 names no well: 'Well' is empty"),
        (b"Row,Col,drug\nA,1,x\nA,49,y\n", "row 3 names no well: 'Row' is 'A' and 'Col' is '49'"),
        (b"Row,Col,drug\nAG,1,x\n", "expected a row A to AF or 1 to 32, and a column 1 to 48"),
        (b"Well,drug\nA1,x\na01,y\n", "rows 2 and 3 are both of well A01, and 'drug' is 'x' and 'y'"),
        (b"Well,drug\n", "has a header and no rows"),
        (b"Well\nA1\n", "says nothing of its wells"),
        (b"Well,a b,a-b\nA1,x,y\n", "the columns 'a b' and 'a-b' would both be called Metadata_a_b"),
        (b"\x89PNG\r\n\x1a\n\0", "not text in UTF-8"),
        (b"PAR1\0\0", "not a readable Parquet table"),
        (b"PK\x03\x04\0\0", "not a readable Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls); save it as .xlsx"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_with_file_row_and_value(tmp_path: Path, body: bytes, said: str) -> None:
    path = written(tmp_path, body)
    with pytest.raises(ConfigFault, match=re.escape(said)) as raised:
        well_labels(read_platemap(str(path)))
    assert str(path) in str(raised.value)


def test_a_map_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match=r"no\.csv: no such file; a plate map"):
        read_platemap(str(tmp_path / "no.csv"))
    with pytest.raises(ConfigFault, match="names a folder"):
        read_platemap(f"{tmp_path}/")


def test_fields_have_what_the_map_says_of_their_wells(tmp_path: Path) -> None:
    path = written(tmp_path, b"Well,drug\nA1,DMSO\nB02,taxol\nH12,x\nC3,y\n")
    with plan_of(store_of(KEYS), mapped(path)) as plan:
        fields = [planned for shard in plan.shards() for planned in shard.fields]
        assert [(one.key.well, one.labels) for one in fields if one.key.site == 1] == [
            ("A01", (("Metadata_drug", "DMSO"),)),
            ("A02", ()),
            ("B01", ()),
            ("B02", (("Metadata_drug", "taxol"),)),
        ]
        assert plan.file.schema.fields[-1].name == "Metadata_drug"
        assert [line for line in plan.summary.warnings if "plate map" in line] == [
            f"plate map {path}: 2 rows of wells that have no field: C03, H12",
            f"plate map {path}: 2 wells with fields that it does not name, whose columns of the map are null: p A02, p B01",
        ]


def test_images_without_wells_are_named_by_themselves(tmp_path: Path) -> None:
    path = written(tmp_path, b"well,drug\nslide 1,x\nslide 2,y\n")
    run = RunConfig(layout=FlatSettings(), platemap=path.as_uri())
    with plan_of(store_of(["slide 1.tif", "slide 2.tif"]), run) as plan:
        found = [dict(one.labels) for shard in plan.shards() for one in shard.fields]
    assert found == [{"Metadata_drug": "x"}, {"Metadata_drug": "y"}]


def test_a_row_of_the_plate_goes_before_one_of_any_plate(tmp_path: Path) -> None:
    keys = [*KEYS, *(key.replace("p/p_", "q/q_") for key in KEYS)]
    path = written(tmp_path, b"Metadata_Plate,Well,drug\n,A1,any\nq,A1,own\n")
    with plan_of(store_of(keys), mapped(path)) as plan:
        found = {
            one.key.plate: one.labels
            for shard in plan.shards()
            for one in shard.fields
            if one.key.well == "A01"
        }
    assert found == {"p": (("Metadata_drug", "any"),), "q": (("Metadata_drug", "own"),)}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"Well,drug\nH12,x\n", "none of its wells has a field: it names H12, and the fields are of p A01"),
        (b"Plate,Well,drug\nP,A1,x\n", "it names P A01 of plates P, and the fields are of p A01"),
        (b"Well,Site\nA1,1\n", "a column would be called Metadata_Site, and the tables have Metadata_Site already"),
    ],
)  # fmt: skip
def test_a_map_of_another_plate_and_a_column_that_is_taken_are_refused(
    tmp_path: Path, body: bytes, said: str
) -> None:
    with (
        pytest.raises(ConfigFault, match=re.escape(said)),
        plan_of(store_of(KEYS), mapped(written(tmp_path, body))),
    ):
        pass


LINES = [b"A1,DMSO,0,1", b"A2,taxol,0.5,2", b"B1,x,1,3", b"H12,y,2,4", b"B2,DMSO,,5"]


@settings(max_examples=often(25), deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_order_of_the_rows_changes_nothing(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("map")
    path = written(folder, b"\n".join([b"Well,drug,dose,number", *LINES]))
    with plan_of(store_of(KEYS), mapped(path)) as plan:
        expected, warned = plan_bytes(store_of(KEYS), mapped(path)), plan.summary.warnings
    shuffled = random.Random(seed).sample(LINES, len(LINES))
    written(folder, b"\n".join([b"Well,drug,dose,number", *shuffled]))
    with plan_of(store_of(KEYS), mapped(path)) as plan:
        assert (plan_bytes(store_of(KEYS), mapped(path)), plan.summary.warnings) == (expected, warned)


def test_the_fingerprint_holds_what_the_map_says_of_the_fields_and_not_where_it_lies(tmp_path: Path) -> None:
    def fingerprint(name: str, body: bytes) -> str:
        with plan_of(store_of(KEYS), mapped(written(tmp_path, body, name))) as plan:
            return plan.file.fingerprint

    first = fingerprint("one.csv", b"Well,drug\nA1,x\n")
    assert fingerprint("two.csv", b"well;drug\na01;x\nH12;of no field\n") == first
    assert fingerprint("one.csv", b"Well,drug\nA1,y\n") != first
    assert fingerprint("one.csv", b"Well,compound\nA1,x\n") != first


@needs_data("plates/metadata_only/plate_maps")
def test_real_plate_maps_are_read() -> None:
    folder = REAL / "metadata_only" / "plate_maps"
    jump = labels_of(folder / "JUMP-Target-1_compound_platemap.tsv")
    assert len(jump) == 384
    assert jump["", "A02"] == {"Metadata_broad_sample": None, "Metadata_solvent": "DMSO"}
    assert [len(labels_of(folder / f"JUMP-Target-1_{kind}_platemap.tsv")) for kind in ("crispr", "orf")] == [
        384,
        384,
    ]
    with pytest.raises(
        ConfigFault, match="rows 2 and 3 are both of well C11, and 'drug' is 'drugA' and 'drugB'"
    ):
        read_platemap(str(folder / "fractal_condition_table.csv"))


@needs_data("plates/harmony_operetta_v5")
@needs_data("plates/bbbc013_sbs")
def test_real_layouts_of_drugs_are_read() -> None:
    harmony = REAL / "harmony_operetta_v5"
    assert labels_of(harmony / "drug_layout.csv") == {
        ("", "C03"): {"Metadata_drug": "DMSO", "Metadata_concentration": 0.125, "Metadata_unit": "%"}
    }
    assert labels_of(harmony / "drug_layout_utf8-dom.csv")["", "B03"]["Metadata_my_metadata"] == "example"
    sbs = labels_of(REAL / "bbbc013_sbs" / "1049_Metadata.csv")
    assert (len(sbs), sbs["", "A03"]) == (
        96,
        {"Metadata_ImageNumber": 3, "Metadata_SBS_Doses": 1, "Metadata_SBS_Controls": 0},
    )
