"""Commit, reduce, verify and open on a real S3 server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import cellcount_core
from cellcount_core.domain.fields import Commit
from cellcount_core.output.parts import commit_part
from cellcount_core.reduce.reducer import reduce_run
from cellcount_core.reduce.verify import verify
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.s3_server import S3Server
from tests.unit.reduce.outputs import cut, output, part_of, plate, write_run


@pytest.fixture
def options(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> StorageOptions:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return StorageOptions(endpoint=s3_server.endpoint)


def test_an_output_on_s3_is_the_one_on_local_disk(s3_server: S3Server, options: StorageOptions) -> None:
    bucket = s3_server.make_bucket("tables-out")
    store = output(cut(plate(), 5), open_store(f"{bucket}/run 1", options))
    summary = reduce_run(store)
    assert summary == reduce_run(output(cut(plate(), 4)))
    assert verify(store).proven
    opened = cellcount_core.open(f"{bucket}/run 1", options)
    assert opened.objects.count_rows() == summary.totals["count"]
    assert opened.wells.num_rows == summary.wells


def test_of_workers_that_commit_one_shard_at_once_on_s3_one_writes_it(
    s3_server: S3Server, options: StorageOptions
) -> None:
    bucket = s3_server.make_bucket("tables-race")
    store = open_store(f"{bucket}/run", options)
    made = plate()
    write_run(store, [made])
    with ThreadPoolExecutor(8) as threads:
        ends = list(threads.map(lambda _: commit_part(store, part_of(0, made)), range(8)))
    assert ends.count(Commit.WRITTEN) == 1
    reduce_run(store)
    assert verify(store).proven
