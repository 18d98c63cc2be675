"""Opening an output for reading."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest

import cellcount_core
from cellcount_core.domain.errors import OutputFault
from cellcount_core.reduce.reducer import reduce_run
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
