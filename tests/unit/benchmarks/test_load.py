"""The load benchmark's judge sees what it is there to see, and its killer and its figures do what they say."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from shutil import copytree, which

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.reliability.load import Killer, Log, Look, actors_of, memory_of
from benchmarks.reliability.marked_plates import MOST_MARKS, MarkedPlates, Verdict, judge
from tests.jobs import count

PLATES = MarkedPlates(fields=40, seed=3)
MIB = 2**20
Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of a real count of the plates."""
    folder = tmp_path_factory.mktemp("marked")
    PLATES.write(folder / "in")
    count(folder / "in", folder / "out", execution={"shard_fields": 16})
    return folder / "out"


def judged(counted: Path, scratch: Path, table: str, change: Change) -> Verdict:
    """The verdict when the first part of a table is changed."""
    copytree(counted, scratch / "out")
    part = scratch / "out" / table / "part-000000.parquet"
    pq.write_table(change(pq.read_table(part)), part)
    return judge(scratch / "out", PLATES)


def faults(verdict: Verdict) -> dict[str, int]:
    names = ("lost", "doubled", "strange", "not_ok", "miscounted", "misplaced", "left")
    return {name: seen for name in names if (seen := getattr(verdict, name))}


def replaced(table: pa.Table, column: str, row: int, value: object) -> pa.Table:
    values = table.column(column).to_pylist()
    values[row] = value
    at = table.schema.get_field_index(column)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def test_a_right_output_is_called_right(counted: Path) -> None:
    verdict = judge(counted, PLATES)
    assert verdict.right, verdict.examples
    assert verdict.objects == sum(marks.bit_count() for _, marks in PLATES.expected()) > 0


def test_a_lost_row_is_seen(counted: Path, tmp_path: Path) -> None:
    verdict = judged(counted, tmp_path, "fields", lambda table: table.slice(1))
    assert faults(verdict) == {"lost": 1}
    assert not verdict.right


def test_a_lost_part_is_seen(counted: Path, tmp_path: Path) -> None:
    verdict = judged(counted, tmp_path, "fields", lambda table: table.slice(0, 0))
    assert faults(verdict) == {"lost": 16}


def test_a_doubled_row_is_seen(counted: Path, tmp_path: Path) -> None:
    verdict = judged(counted, tmp_path, "fields", lambda table: pa.concat_tables([table, table.slice(2, 1)]))
    assert faults(verdict) == {"doubled": 1}
    assert not verdict.right


def test_a_wrong_count_is_seen(counted: Path, tmp_path: Path) -> None:
    verdict = judged(counted, tmp_path, "fields", lambda table: replaced(table, "count", 3, MOST_MARKS + 1))
    assert faults(verdict) == {"miscounted": 1}
    assert not verdict.right


def test_two_fields_with_each_others_rows_are_seen(counted: Path, tmp_path: Path) -> None:
    def swapped(table: pa.Table) -> pa.Table:
        first, second, *_ = table.column("Metadata_Site").to_pylist()
        return replaced(replaced(table, "Metadata_Site", 0, second), "Metadata_Site", 1, first)

    assert PLATES.marks(0).bit_count() != PLATES.marks(1).bit_count()
    assert faults(judged(counted, tmp_path, "fields", swapped)) == {"miscounted": 2}


def test_a_field_that_failed_is_seen(counted: Path, tmp_path: Path) -> None:
    def failed(table: pa.Table) -> pa.Table:
        return replaced(replaced(table, "status", 0, "failed"), "count", 0, None)

    assert faults(judged(counted, tmp_path, "fields", failed)) == {"not_ok": 1, "miscounted": 1}


def test_a_row_of_no_field_is_seen(counted: Path, tmp_path: Path) -> None:
    verdict = judged(counted, tmp_path, "fields", lambda table: replaced(table, "Metadata_Site", 0, 99))
    assert faults(verdict) == {"lost": 1, "strange": 1}


def test_a_lost_object_and_a_doubled_object_are_seen(counted: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    lost = judged(counted, tmp_path / "one", "objects", lambda table: table.slice(1))
    doubled = judged(
        counted, tmp_path / "two", "objects", lambda table: pa.concat_tables([table, table.slice(0, 1)])
    )
    assert faults(lost) == faults(doubled) == {"misplaced": 1}
    assert not lost.right


def test_objects_of_another_field_are_seen_even_where_the_numbers_are_equal(
    counted: Path, tmp_path: Path
) -> None:
    def moved(table: pa.Table) -> pa.Table:
        return replaced(table, "Nuclei_Location_Center_X", 0, elsewhere(table))

    def elsewhere(table: pa.Table) -> float:
        at = table.column("Nuclei_Location_Center_X")[0].as_py()
        return float((at + 20) % 40)

    assert faults(judged(counted, tmp_path, "objects", moved)) == {"misplaced": 1}


def test_a_file_of_a_writer_that_died_is_seen(counted: Path, tmp_path: Path) -> None:
    copytree(counted, tmp_path / "out")
    (tmp_path / "out" / "fields" / ".part-000001.parquet.x1").write_bytes(b"")
    verdict = judge(tmp_path / "out", PLATES)
    assert faults(verdict) == {"left": 1}
    assert not verdict.right


def test_neighbours_are_not_alike() -> None:
    marks = [PLATES.marks(number) for number in range(10_000)]
    assert len(set(marks)) == len(marks)
    alike = sum(one.bit_count() == other.bit_count() for one, other in pairwise(marks))
    assert alike < 0.4 * len(marks)
    assert len({PLATES.place(number) for number in range(10_000)}) == 10_000


def test_only_actors_are_killed_and_each_once() -> None:
    sleep = which("sleep")
    assert sleep is not None
    names = ("ray::CountingActor.count", "ray::CountingActor", "ray::IDLE")
    sleepers = [subprocess.Popen([name, "60"], executable=sleep) for name in names]
    try:
        killer = Killer(psutil.Process(), per_minute=3.0, seed=0)
        killer.act(0.0)
        assert killer.kills == 0
        assert [process.pid for process in actors_of(psutil.Process())] == sorted(
            process.pid for process in sleepers[:2]
        )
        killer.act(3600.0)
        assert killer.kills == 2
        assert [process.wait(timeout=120) for process in sleepers[:2]] == [-9, -9]
        assert sleepers[2].poll() is None
    finally:
        for process in sleepers:
            process.kill()
            process.wait()


def test_growth_is_told_by_ten_thousand_fields() -> None:
    flat = [Look(done, 200 * MIB, 100 * MIB) for done in range(1000, 61_000, 1000)]
    growing = [
        Look(done, 200 * MIB, 100 * MIB + 2 * MIB * done // 10_000) for done in range(1000, 61_000, 1000)
    ]
    assert memory_of(flat).growth == 0
    assert memory_of(growing).growth == pytest.approx(2.0, abs=0.01)
    with pytest.raises(ValueError, match="too few"):
        memory_of(flat[:5])


def test_the_drivers_own_log_is_read() -> None:
    lines = [
        '{"event": "begin", "fields": 128, "already": 0}',
        '{"event": "shard", "commit": "written", "statuses": {"ok": 60, "failed": 4}}',
        '{"event": "death", "fields": 64}',
        '{"event": "shard", "commit": "already", "statuses": {"ok": 64}}',
        '{"event": "stage", "stage": "reducing"}',
        "a word\n",
    ]
    log = Log()
    log.read(iter(lines))
    assert (log.done, log.lost_attempts, log.fields_again, log.already) == (128, 1, 64, 1)
    assert log.began is not None
    assert log.ended is not None
    assert log.words == ["a word\n"]
