from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.layouts.table import Entry, TableSettings, check_manifest
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store

FULL = b"\xef\xbb\xbfkey,plate,well,site,timepoint,channel,plane,dose\r\na/1.tif,P1,b2,3,2,DAPI,4,0.5\r\n"


def entries(
    folder: Path, body: bytes, name: str = "m.csv", columns: dict[str, str] | None = None
) -> list[Entry]:
    (folder / name).write_bytes(body)
    manifest = check_manifest(TableSettings(manifest=name, columns=columns or {}), "PX")
    return list(manifest.entries(open_store(folder, StorageOptions()), StorageOptions()))


def test_every_column_is_read_and_unknown_ones_are_ignored(tmp_path: Path) -> None:
    assert entries(tmp_path, FULL) == [Entry("a/1.tif", Parsed(FieldKey("P1", "B02", 3, 2), "DAPI", 4))]


def test_columns_left_out_get_their_defaults(tmp_path: Path) -> None:
    found = entries(tmp_path, b"key\na/x.tif\n./y.ome.tif\n")
    assert found == [
        Entry("a/x.tif", Parsed(FieldKey("a", "x", 1, 1))),
        Entry("y.ome.tif", Parsed(FieldKey("PX", "y", 1, 1))),
    ]


def test_semicolons_quotes_and_renamed_columns_are_understood(tmp_path: Path) -> None:
    body = b'"FileName";"Metadata_Well"\n"a;b.tif";"C03"\n'
    found = entries(tmp_path, body, columns={"key": "FileName", "well": "Metadata_Well"})
    assert found == [Entry("a;b.tif", Parsed(FieldKey("PX", "C03", 1, 1)))]


def test_parquet_gives_the_same_as_csv(tmp_path: Path) -> None:
    table = pa.table(
        {
            "key": ["a/1.tif"],
            "plate": ["P1"],
            "well": ["b2"],
            "site": [3.0],
            "timepoint": [2],
            "channel": ["DAPI"],
            "plane": [4],
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    assert entries(tmp_path, buffer.getvalue(), "m.parquet") == entries(tmp_path, FULL)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b"file,well\na.tif,A01\n",
            "has no column 'key'; known: 'file', 'well'; name it with run.layout.columns.key",
        ),
        (b"keys,well\na.tif,A01\n", "has no column 'key' (for 'key'); did you mean 'keys'"),
        (b"key,site\na.tif,x\n", "m.csv: line 2: site is 'x', a whole number from 0 was expected"),
        (
            b"key,site\na.tif,1\n/b.tif,1\n",
            "m.csv: line 3: the key '/b.tif' must be a path relative to the input",
        ),
        (b"key\ns3://bucket/b.tif\n", "line 2: the key 's3://bucket/b.tif' must be a path relative"),
        (b"key\na/../../b.tif\n", "line 2: the key 'a/../../b.tif'"),
        (b"key,well,well\na.tif,A01,A02\n", "2 columns are called 'well'; one expected"),
        (b"key,well\na.tif\n", "line 2: has 1 values, the header has 2 columns"),
        (b"key\n\xff\xfe\n", "neither Parquet nor UTF-8 text"),
        (b"PAR1 but not really", "not a readable Parquet table"),
        (b"", "has no column 'key'"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused_with_row_and_value(
    tmp_path: Path, body: bytes, message: str
) -> None:
    with pytest.raises(ConfigFault) as fault:
        entries(tmp_path, body)
    assert message.replace(" (for 'key')", "") in str(fault.value).replace(" (for 'key')", "")


def test_a_mapped_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match=r"no column 'Wel'.*did you mean 'Well'"):
        entries(tmp_path, b"key,Well\na.tif,A01\n", columns={"well": "Wel"})


def test_a_mapping_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigFault, match="'wells' is unknown; did you mean 'well'"):
        check_manifest(TableSettings(manifest="m.csv", columns={"wells": "x"}), "PX")


def test_a_manifest_may_lie_outside_the_input(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "m.csv").write_bytes(FULL)
    store = open_store(tmp_path / "input", StorageOptions())
    for location in (str(tmp_path / "m.csv"), (tmp_path / "m.csv").as_uri()):
        assert (
            len(list(check_manifest(TableSettings(manifest=location), "PX").entries(store, StorageOptions())))
            == 1
        )


def test_a_manifest_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path, StorageOptions())
    with pytest.raises(ConfigFault, match=r"'lost\.csv' is neither in the input"):
        list(check_manifest(TableSettings(manifest="lost.csv"), "PX").entries(store, StorageOptions()))
