"""Opening an output for reading."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest

import cellcount_core
from cellcount_core.domain.errors import LedgerFault, NoRunFault, OutputFault
from cellcount_core.output.runfile import RUN_KEY
from cellcount_core.reduce.reducer import reduce_run
from cellcount_core.reduce.verify import verify
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.unit.reduce.outputs import cut, memory_store, output, plate


@pytest.mark.parametrize("place", ["local", "memory"])
def test_an_output_opens_wherever_it_stands(place: str, tmp_path: Path) -> None:
    store = open_store(tmp_path, StorageOptions()) if place == "local" else memory_store()
    summary = reduce_run(output(cut(plate(), 5), store))
    opened = cellcount_core.open(store.url)
    assert opened.fields.count_rows() == summary.fields
    assert opened.objects.count_rows() == summary.totals["count"]
    big = opened.objects.to_table(
        columns=["Nuclei_AreaShape_Area"], filter=pc.field("Metadata_Well") == "B02"
    )
    assert big.num_rows == opened.wells.column("count").to_pylist()[0]
    assert opened.plates.num_rows == 1
    assert opened.summary["count"] == summary.totals["count"]
    assert opened.run.fingerprint == summary.fingerprint


@pytest.mark.parametrize("folder", ["fields", "objects"])
def test_a_finished_run_that_lost_a_part_is_not_read_as_if_it_were_whole(folder: str, tmp_path: Path) -> None:
    store = output(cut(plate(), 5), open_store(tmp_path, StorageOptions()))
    reduce_run(store)
    next((tmp_path / folder).glob("*.parquet")).unlink()
    opened = cellcount_core.open(tmp_path)
    with pytest.raises(LedgerFault, match=rf"{folder}/ holds 2 of its 3 parts"):
        getattr(opened, folder)


def test_a_run_that_is_not_finished_says_how_many_fields_are_counted(tmp_path: Path) -> None:
    output(cut(plate(), 5), open_store(tmp_path, StorageOptions()))
    (tmp_path / "fields" / "part-000001.parquet").unlink()
    opened = cellcount_core.open(tmp_path)
    with pytest.warns(cellcount_core.DoubtfulCount, match="not finished: 7 of 12 fields are counted"):
        assert opened.fields.count_rows() == 7


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "it is not JSON"),
        ("[]", r"it is no JSON object .* but \[\]"),
        ("{}", "it has no `schema_version`"),
        ('{"schema_version": 4}', "it has no `schema`"),
        ('{"schema_version": "four"}', "schema_version: a whole number expected"),
        ('{"schema_version": 99}', "schema version 99, this version of cellcount reads"),
    ],
)
def test_a_damaged_run_file_is_told_in_words(content: str, told: str) -> None:
    store = output(cut(plate(), 5))
    store.put(RUN_KEY, content.encode())
    with pytest.raises(NoRunFault, match=rf"run/run\.json: .*{told}") as caught:
        cellcount_core.open(store.url)
    assert "Error(" not in str(caught.value)


def test_a_run_of_later_results_is_refused_by_all_that_read_it() -> None:
    store = output(cut(plate(), 5))
    later = json.loads(store.get(RUN_KEY)) | {"results_version": 99}
    store.put(RUN_KEY, json.dumps(later).encode())
    for read in (lambda: cellcount_core.open(store.url), lambda: verify(store), lambda: reduce_run(store)):
        with pytest.raises(
            NoRunFault, match="results version 99, this version of cellcount counts and reads"
        ):
            read()


def test_rows_come_in_key_order() -> None:
    store = output(cut(plate(), 3))
    fields = cellcount_core.open(store.url).fields.to_table()
    keys = list(
        zip(
            fields.column("Metadata_Well").to_pylist(),
            fields.column("Metadata_Site").to_pylist(),
            strict=True,
        )
    )
    assert keys == sorted(keys)


def test_a_folder_that_is_no_output_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputFault, match=r"not the output of a run: run/run\.json"):
        cellcount_core.open(tmp_path)


def test_a_run_that_is_not_reduced_says_how_to_get_there() -> None:
    opened = cellcount_core.open(output(cut(plate(), 6)).url)
    with pytest.raises(OutputFault, match="cellcount reduce"):
        _ = opened.wells


def test_a_dataset_cannot_be_written_through() -> None:
    opened = cellcount_core.open(output(cut(plate(), 6)).url)
    with pytest.raises(PermissionError, match="read here"):
        opened.fields.filesystem.delete_file("fields/part-000000.parquet")
    assert opened.fields.count_rows() == 12


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import cellcount_core, sys; print(sorted({'numpy', 'pyarrow', 'ray', 'fsspec'} & set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="threads are listed in /proc, which is not here"
)
@pytest.mark.parametrize("command", ["verify", "reduce"])
@pytest.mark.slow
def test_a_command_that_reads_tables_leaves_no_threads_of_arrow_to_abort_its_end(
    command: str, tmp_path: Path
) -> None:
    reduce_run(output(cut(plate(), 5), open_store(tmp_path, StorageOptions())))
    code = (
        "import os, sys\nfrom cellcount_core.cli.main import main\nimport pyarrow.parquet\n"
        "before = len(os.listdir('/proc/self/task'))\nassert main(sys.argv[1:]) == 0\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, command, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout.splitlines()[-1]) <= 0
