"""A plate full of files that lie: each is refused with a reason, or counted right; none crashes, hangs or becomes a 0."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cellcount_core.domain.errors import ExitCode, Reason, Status
from cellcount_core.reduce.verify import verify
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.faults.drill import Verdict, left_over, note
from tests.fields import count_array
from tests.hostile.made import PERHAPS_NONE, Hostile
from tests.hostile.mutants import mutants
from tests.hostile.other_readers import read_otherwise
from tests.hostile.others import archives, arrays, bitmaps, jpegs, misnamed, pngs, strangers
from tests.hostile.tiffs import all_tiffs
from tests.plates import Plate, write_plate

pytestmark = pytest.mark.beside

MAX_PIXELS = 4_000_000
SHARD_FIELDS = 8
LONGEST_SHARD_S = 300.0
LONGEST_RUN_S = 900.0
LARGEST_MIB = 1200
"""Of the whole process, with the plate's files in it; a bomb of this drill unpacks to 200 MiB, or asks for gigabytes."""

_ABOUT_A_FILE = frozenset(Reason) - {
    Reason.INTERNAL, Reason.WORKER_DIED, Reason.TIMED_OUT, Reason.OUT_OF_MEMORY, Reason.CHANGED, Reason.ABSENT,
    Reason.ACCESS_DENIED, Reason.AMBIGUOUS_FILE, Reason.CHANNEL_MISSING,
}  # fmt: skip

# libpng has no other place to complain of a stream whose checksum is right and whose pixels are not; it writes the end of
# the line apart, so that two threads may share one.
_LIBRARY_LINES = re.compile(r"^(libpng (error|warning): .*)?$")


def hostile_files() -> Iterator[tuple[str, Hostile]]:
    """(name of the file, file)."""
    groups = {
        "tif": all_tiffs(), "png": pngs(), "jpg": jpegs(), "bmp": bitmaps(), "npy": arrays(), "npz": archives(), "tiff": strangers(),
    }  # fmt: skip
    every = [(extension, file) for extension, files in groups.items() for file in files]
    every += [*misnamed(), *mutants()]
    for number, (extension, file) in enumerate(every):
        yield f"{number:03d}_{file.name}.{extension}", file


@dataclass(frozen=True)
class Drill:
    """A run over the plate: how it ended, what it said, what it took, and the row of each file."""

    code: int
    out: str
    words: list[str]
    seconds: dict[str, float]
    largest_mib: float
    rows: dict[str, dict[str, object]]
    doubled: int
    files: dict[str, Hostile]
    good: Plate
    output: Path


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Drill:
    folder = tmp_path_factory.mktemp("hostile")
    source, output = folder / "plate", folder / "out"
    good = write_plate(source / "good", well_count=6, sites=1)
    files = dict(hostile_files())
    for name, file in files.items():
        (source / "bad").mkdir(exist_ok=True)
        (source / "bad" / name).write_bytes(file.body)
    command = [sys.executable, "-m", "cellcount_core.cli", "count", str(source), str(output), "--layout", "flat",
               "--model", "threshold", "--runner", "serial", "--progress", "json", "--set", f"run.max_pixels={MAX_PIXELS}",
               "--set", f"execution.shard_fields={SHARD_FIELDS}", "--set", "execution.in_flight=1"]  # fmt: skip
    told, said = folder / "stderr", folder / "stdout"
    with told.open("wb") as error, said.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=error)
        code, largest_kib = _ended(process)
    lines = told.read_text().splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    every = [
        row
        for part in sorted((output / "fields").glob("*.parquet"))
        for row in pq.read_table(part).to_pylist()
    ]
    rows = {str(row["source"][0]).removeprefix("bad/"): row for row in every}
    return Drill(
        code,
        said.read_text(),
        [line for line in lines if not line.startswith("{")],
        {str(event["shard"]): event["seconds"] for event in events if event["event"] == "shard"},
        largest_kib / 1024,
        rows,
        len(every) - len(rows),
        files,
        good,
        output,
    )


def _ended(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Exit code and largest resident size in KiB. A process that outlives the limit is killed and fails the test."""
    until = time.monotonic() + LONGEST_RUN_S
    largest = 0
    while process.poll() is None:
        # Not the usage of a child: that begins with what its parent held when it was forked.
        if found := re.search(
            r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE
        ):
            largest = int(found[1])
        if time.monotonic() > until:
            process.kill()
            process.wait()
            pytest.fail(f"the run took more than {LONGEST_RUN_S:.0f} s")
        time.sleep(0.02)
    return process.returncode, largest


def test_there_are_enough_hostile_files_and_the_same_ones_every_time(drill: Drill) -> None:
    assert len(drill.files) >= 200
    assert [file for _, file in mutants()] == [file for _, file in mutants()]


def test_the_run_ends_as_one_with_failed_fields_and_says_nothing_else(drill: Drill) -> None:
    assert drill.code == ExitCode.FAILURES, drill.words[-20:]
    assert [line for line in drill.words if not _LIBRARY_LINES.match(line)] == []
    assert "Traceback" not in drill.out


def test_no_file_takes_long_or_much_memory(drill: Drill) -> None:
    assert len(drill.seconds) == -(-len(drill.rows) // SHARD_FIELDS)
    assert max(drill.seconds.values()) < LONGEST_SHARD_S
    assert drill.largest_mib < LARGEST_MIB


def test_good_fields_beside_them_are_counted_right(drill: Drill) -> None:
    for (well, site), count in drill.good.truth.items():
        row = _of_good(drill, well, site)
        assert (row["status"], row["count"]) == ("ok", count)


def _of_good(drill: Drill, well: str, site: int) -> dict[str, object]:
    return drill.rows[drill.good.file(well, site).relative_to(drill.good.folder.parent).as_posix()]


def test_every_hostile_file_has_one_row_which_names_it_and_why(drill: Drill) -> None:
    assert len(drill.rows) == len(drill.files) + len(drill.good.truth)
    assert drill.doubled == 0
    wrong = []
    for name, file in drill.files.items():
        row = drill.rows[name]
        if row["status"] == Status.OK:
            continue
        allowed = file.reasons or _ABOUT_A_FILE
        if row["reason"] not in allowed or name not in str(row["reason_detail"]) or row["count"] is not None:
            wrong.append((name, row["reason"], row["reason_detail"]))
    assert wrong == []


def test_what_is_counted_all_the_same_has_the_count_of_its_pixels_and_no_0_comes_of_damage(
    drill: Drill,
) -> None:
    wrong = []
    for name, file in drill.files.items():
        row = drill.rows[name]
        if isinstance(file.count, int):
            expected: object = file.count
        elif row["status"] != Status.OK:
            continue
        elif file.count is None:
            expected = "a refusal"
        else:
            expected = count_array(read_otherwise(file.body)).row.values["count"]
            if not expected and file.count != PERHAPS_NONE:
                expected = "objects"
        if (row["status"], row["count"]) != (Status.OK, expected):
            wrong.append((name, row["status"], row["reason_detail"], row["count"], expected))
    assert wrong == [], "\n".join(map(str, wrong))


def test_the_ledger_is_whole(drill: Drill) -> None:
    expected = len(drill.files) + len(drill.good.truth)
    failed = sum(row["status"] != Status.OK for row in drill.rows.values())
    altered = sum(_of_good(drill, *place)["count"] != count for place, count in drill.good.truth.items())
    left = left_over(drill.output, None)
    lost = expected - len(drill.rows)
    note(Verdict("hostile files", expected, lost, drill.doubled, altered, failed, redone=None, left=left))
    assert left == []
    assert verify(open_store(str(drill.output), StorageOptions())).proven
    reasons = Counter(str(row["reason"] or "counted") for row in drill.rows.values())
    print(
        f"{len(drill.files)} hostile files, {max(drill.seconds.values()):.1f} s the slowest shard, {drill.largest_mib:.0f} MiB at most"
    )
    for reason, files in reasons.most_common():
        print(f"{files:6d} {reason}")
