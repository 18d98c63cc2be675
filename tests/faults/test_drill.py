"""The judge of the drills: whatever is wrong with an output, the verdict says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellcount_core.stores.local import STAGED_PREFIX, STAGED_SUFFIX
from tests.faults.drill import VERDICTS, judge, left_over
from tests.jobs import count
from tests.plates import Plate, write_plate
from tests.s3_jobs import Tables, tables
from tests.s3_server import S3Server

SPOILT = ("A02", 1)


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """Three wells, two sites: three shards of two fields."""
    return write_plate(tmp_path_factory.mktemp("judged") / "plate", well_count=3)


@pytest.fixture(scope="module")
def whole(plate: Plate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "out"
    count(plate.folder, output, execution={"shard_fields": 2})
    return output


@pytest.fixture(scope="module")
def unbroken(whole: Path) -> Tables:
    return tables(whole)


@pytest.fixture
def output(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


@pytest.fixture(autouse=True)
def verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the verdicts of these tests go: they are none of a drill."""
    path = tmp_path / "verdicts"
    monkeypatch.setenv(VERDICTS, str(path))
    return path


def lose_a_part(output: Path) -> None:
    (output / "fields" / "part-000001.parquet").unlink()


def rewrite(part: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(part)), part)


def double_a_row(output: Path) -> None:
    rewrite(
        output / "fields" / "part-000000.parquet", lambda table: pa.concat_tables([table, table.slice(0, 1)])
    )


def alter_a_count(output: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index("count")
        counts = [value + 1 for value in table.column("count").to_pylist()]
        return table.set_column(
            index, table.schema.field(index), pa.array(counts, table.schema.field(index).type)
        )

    rewrite(output / "fields" / "part-000002.parquet", change)


def lose_objects(output: Path) -> None:
    rewrite(output / "objects" / "part-000002.parquet", lambda table: table.slice(0, 1))


def alter_a_merged_table(output: Path) -> None:
    rewrite(output / "wells.parquet", lambda table: table.slice(1))


def leave_half_a_put(output: Path) -> None:
    (output / "fields" / f"{STAGED_PREFIX}0{STAGED_SUFFIX}").write_bytes(b"half")


def leave_an_orphan(output: Path) -> None:
    shutil.copy(output / "objects" / "part-000000.parquet", output / "objects" / "part-000009.parquet")


def test_a_whole_output_is_flawless_and_its_verdict_is_written(
    unbroken: Tables, output: Path, verdicts: Path
) -> None:
    verdict = judge("whole", unbroken, output, redone=3)
    assert (verdict.fields, verdict.failed, verdict.redone) == (6, 0, 3)
    assert [json.loads(line)["drill"] for line in verdicts.read_text().splitlines()] == ["whole"]


@pytest.mark.parametrize(
    ("harm", "seen"),
    [
        (lose_a_part, {"lost": 2}),
        (double_a_row, {"doubled": 1}),
        (alter_a_count, {"altered": 2}),
        (lose_objects, {"altered": 2}),
        (alter_a_merged_table, {"altered": 1}),
        (leave_half_a_put, {"left": [f"fields/{STAGED_PREFIX}0{STAGED_SUFFIX}"]}),
    ],
)
def test_what_is_wrong_with_an_output_is_in_the_verdict_and_fails_it(
    unbroken: Tables, output: Path, verdicts: Path, harm: Callable[[Path], None], seen: dict[str, object]
) -> None:
    harm(output)
    with pytest.raises(AssertionError):
        judge("harmed", unbroken, output)
    verdict = json.loads(verdicts.read_text())
    assert {name: verdict[name] for name in ("lost", "doubled", "altered", "left")} == {
        "lost": 0,
        "doubled": 0,
        "altered": 0,
        "left": [],
        **seen,
    }


def test_a_file_that_only_looks_like_a_part_is_found_by_the_proof(unbroken: Tables, output: Path) -> None:
    leave_an_orphan(output)
    with pytest.raises(AssertionError):
        judge("orphan", unbroken, output)


def test_a_field_that_was_to_fail_must_have_failed_for_that_reason(
    plate: Plate, unbroken: Tables, output: Path, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError):
        judge("counted all the same", unbroken, output, spoilt={SPOILT: ("failed", "unreadable")})
    bad = Plate(Path(shutil.copytree(plate.folder, tmp_path / "bad")), plate.truth)
    bad.file(*SPOILT).write_bytes(b"II*\0 and nothing more")
    count(bad.folder, tmp_path / "bad-out", execution={"shard_fields": 2})
    with pytest.raises(AssertionError):
        judge("not spoilt", unbroken, tmp_path / "bad-out")
    with pytest.raises(AssertionError):
        judge("other reason", unbroken, tmp_path / "bad-out", spoilt={SPOILT: ("failed", "worker_died")})
    reason = str(_reason(tmp_path / "bad-out"))
    assert judge("spoilt", unbroken, tmp_path / "bad-out", spoilt={SPOILT: ("failed", reason)}).failed == 1


def test_an_upload_that_was_never_finished_is_left_over(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import botocore.session

    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    place = s3_server.make_bucket("judged") + "/out"
    assert left_over(place, s3_server.endpoint) == []
    client = botocore.session.Session().create_client(
        "s3", endpoint_url=s3_server.endpoint, region_name="us-east-1"
    )
    client.create_multipart_upload(Bucket="judged", Key="out/wells.parquet")
    client.put_object(Bucket="judged", Key="out/fields/part-000000.parquet.tmp", Body=b"half")
    assert left_over(place, s3_server.endpoint) == [
        "fields/part-000000.parquet.tmp",
        "upload of out/wells.parquet",
    ]


def _reason(output: Path) -> object:
    rows = tables(output)["fields"]
    assert isinstance(rows, list)
    return next(row["reason"] for row in rows if row["status"] == "failed")
