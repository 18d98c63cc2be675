"""What a row warns of is counted and said in wells, plates, summary, verify and in words."""

from __future__ import annotations

import io
import json

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellcount_core.domain.doubts import Doubt, meaning, sentence, unknown_codes
from cellcount_core.domain.errors import Reason, Status
from cellcount_core.domain.fields import FieldKey
from cellcount_core.output.rows import FieldRow
from cellcount_core.reduce.reducer import reduce_run, reduce_tables
from cellcount_core.reduce.summary import better_package, told_doubts
from cellcount_core.reduce.verify import verify
from cellcount_core.stores.base import Store
from tests.unit.reduce.outputs import Made, cut, output


def field(plate: str, well: str, site: int, end: int | Reason = 5, *warnings: str) -> Made:
    return Made(FieldKey(plate, well, site, 1), end, warnings=warnings)


def doubtful() -> list[Made]:
    """Two plates: of the first most fields are out of domain, the second is well but for one field."""
    return [
        field("P1", "A01", 1, 5, "out_of_domain", "bright_background"),
        field("P1", "A01", 2, 5, "out_of_domain", "bright_background", "channel_missing:w2"),
        field("P1", "A02", 1, Reason.TRUNCATED),
        field("P1", "A02", 2, 5),
        field("P2", "A01", 1, 5, "channel_missing:w2", "channel_missing:w3"),
        field("P2", "A01", 2, 5),
    ]


def rows(store: Store, key: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(pa.BufferReader(store.get(key))).to_pylist()
    return found


def test_warnings_are_counted_by_code_in_wells_plates_and_summary_and_proven() -> None:
    store = output(cut(doubtful(), 4))
    reduce_run(store)
    wells = {(row["Metadata_Plate"], row["Metadata_Well"]): row for row in rows(store, "wells.parquet")}
    assert wells["P1", "A01"]["fields_warned"] == 2
    assert json.loads(str(wells["P1", "A01"]["warnings"])) == {
        "bright_background": 2,
        "channel_missing": 1,
        "out_of_domain": 2,
    }
    assert (wells["P1", "A02"]["fields_warned"], wells["P1", "A02"]["warnings"]) == (0, "{}")
    one, two = rows(store, "plates.parquet")
    assert (one["fields_warned"], one["doubt"]) == (2, "out_of_domain")
    # A field that warns twice of one code is one field.
    assert (two["fields_warned"], two["warnings"], two["doubt"]) == (1, '{"channel_missing":1}', None)
    summary = json.loads(store.get("summary.json"))
    assert summary["fields_warned"] == 3
    assert summary["warnings"] == {"bright_background": 2, "channel_missing": 2, "out_of_domain": 2}
    assert summary["plates_in_doubt"] == {"out_of_domain": 1}
    report = verify(store)
    assert report.proven
    assert report.warnings == summary["warnings"]
    assert any("unlike what" in line for line in report.told)


def test_verify_names_warnings_that_the_rows_do_not_have_and_codes_that_are_none() -> None:
    store = output(cut(doubtful(), 4))
    reduce_run(store)
    summary = json.loads(store.get("summary.json"))
    summary["warnings"]["out_of_domain"] = 1
    store.put("summary.json", json.dumps(summary).encode())
    found = [str(finding) for finding in verify(store).findings]
    assert "summary.json: counts 1 fields that warn of out_of_domain, the rows have 2" in found
    with pytest.raises(ValueError, match="no sentence for made_up"):
        FieldRow(FieldKey("P", "A01", 1, 1), "max", Status.OK, warnings=("made_up:x",))


def test_the_columns_are_read_alike_by_pandas_polars_and_duckdb() -> None:
    store = output([doubtful()])
    reduce_run(store)
    body = store.get("plates.parquet")
    plates = pq.read_table(pa.BufferReader(body))
    expected = ['{"bright_background":2,"channel_missing":1,"out_of_domain":2}', '{"channel_missing":1}']
    assert pd.read_parquet(io.BytesIO(body))["warnings"].tolist() == expected
    assert pl.read_parquet(io.BytesIO(body))["warnings"].to_list() == expected
    assert duckdb.sql("select sum(fields_warned) from plates").fetchall() == [(3,)]
    assert plates.column("doubt").to_pylist() == ["out_of_domain", None]


def test_every_code_has_a_sentence_for_one_field_and_for_many() -> None:
    for code in Doubt:
        assert code.meaning.endswith(".")
        one = sentence(code, 1, 1, noun="image", model="nuclei")
        many = sentence(code, 3, 40, noun="image", model="nuclei")
        assert one.startswith("1 of 1 image ")
        assert many.startswith("3 of 40 images ")
        assert not {"{", "}"} & set(one + many)
        # Singular and plural differ in the verb.
        assert one.split(" ")[4] != many.split(" ")[4]
    assert unknown_codes(["size_unknown", "channel_missing:w2", "other"]) == ["other"]
    assert sentence("of_a_later_version", 2, 3) == "2 of 3 fields warn of `of_a_later_version`"


def test_an_image_of_another_kind_is_told_of_in_words_of_what_the_run_tells() -> None:
    assert "its count has no interval" in meaning("out_of_domain", "instances")
    assert "none of the classes" in meaning("out_of_domain", "classes")
    assert "the patterns told of it" in meaning("out_of_domain", "patterns")
    assert not any("interval" in meaning("out_of_domain", task) for task in ("classes", "patterns"))


def test_the_hint_names_a_package_that_fits_and_none_where_none_does() -> None:
    told = sentence(Doubt.OUT_OF_DOMAIN, 3, 3, noun="image", model="nuclei", package="histology")
    assert told == "3 of 3 images are unlike what `nuclei` was trained on: try --model histology"
    for code, warnings, model, fits in (
        ("out_of_domain", {"out_of_domain": 3, "bright_background": 3}, "nuclei", "histology"),
        ("bright_background", {"bright_background": 3}, "threshold", "histology"),
        ("dark_background", {"out_of_domain": 3, "dark_background": 2}, "histology", "nuclei"),
        # On a dark background no other package is known to do better.
        ("out_of_domain", {"out_of_domain": 3}, "nuclei", ""),
        ("out_of_domain", {"out_of_domain": 9, "bright_background": 1}, "nuclei", ""),
        # A diameter cannot help a package of any scale.
        ("size_unlike", {"size_unlike": 3}, "threshold", "nuclei"),
        ("size_unlike", {"size_unlike": 3}, "nuclei", ""),
        ("size_unknown", {"size_unknown": 3, "bright_background": 3}, "nuclei", ""),
    ):
        assert better_package(code, warnings, model) == fits, (code, model)


def test_a_plate_without_objects_is_in_doubt_where_the_others_have_hundreds() -> None:
    def plate(name: str, count: int) -> list[Made]:
        return [field(name, "A01", site, count) for site in range(1, 5)]

    made = [*plate("P1", 80), *plate("P2", 0), *plate("P3", 60)]
    summary = reduce_tables(output([made])).summary
    assert [(one.plate, one.doubt) for one in summary.doubts] == [("P2", Doubt.NO_OBJECTS)]
    assert [line for line in told_doubts(summary) if line.startswith("plate 'P2': 4 of 4 fields hold hardly")]
    # Neighbours with a handful tell nothing, nor does a plate alone, nor one where nothing could be counted.
    few = [*plate("P1", 8), *plate("P2", 0)]
    failed = [*plate("P1", 80), *(field("P2", "A01", site, Reason.TRUNCATED) for site in range(1, 5))]
    for made in (few, plate("P2", 0), failed, [*plate("P1", 0), *plate("P2", 0)]):
        assert reduce_tables(output([made])).summary.doubts == ()


def test_a_plate_of_absurd_sizes_is_in_doubt_and_one_with_few_such_fields_is_not() -> None:
    odd = [field("P1", "A01", site, 5, *["size_absurd"] * (site <= 3)) for site in range(1, 6)]
    assert [one.doubt for one in reduce_tables(output([odd])).summary.doubts] == [Doubt.SIZE_ABSURD]
    few = [field("P1", "A01", site, 5, *["size_absurd"] * (site <= 2)) for site in range(1, 6)]
    assert reduce_tables(output([few])).summary.doubts == ()
