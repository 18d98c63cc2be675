"""What a run asks of a store, exactly, as seen on the wire between cellcount and a real S3 server.

For N fields of C channels each (one file a field-channel) in S shards, of which the shards left to do hold n fields in s
shards, with pages(k) = max(1, ceil(k / 1000)) requests for a listing of k keys:

    input    lists  pages(all keys below it)
             reads  n * C                            one a field-channel
    output   puts   2 * s                            two a shard: objects part, fields part
                    + 4                              wells, plates, summary as CSV and as JSON
                    + 1 if s > 0                     timings of this driver
                    + 2 if the folder is new         plan, run.json
                    + 2                              lease: taken, released
             reads  S                                the reduction reads each fields part
                    + 4                              run.json three times (engine, plan, reduction), the plan
                    + 1 unless the folder is new     the lease of the run before
             lists  3 * pages(S)                     what is committed, what to reduce, what is orphaned
                    + 1 if the folder is new         that no parts of a lost run are there
                    + 3                              lease: before and after taking it, before the reduction
             deletes 1 from the third run on         the lease of the run before the last

and every 10 s of a run one list and one put, the beat of the lease (runs here are shorter). Nothing else is asked: no HEAD
(but one for each image file of 0 bytes: the listing does not tell it from the marker of a folder), no second read. A fixed
engine (`run.model.engine`) saves one read of run.json. Retries come on top, where the store asks for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from cellcount_core.output.parts import fields_key, objects_key
from cellcount_core.stores.base import StorageOptions, Store
from cellcount_core.stores.open import open_store
from tests.jobs import count
from tests.plates import Plate, write_plate
from tests.s3_jobs import upload
from tests.s3_proxy import S3Proxy, s3_proxy
from tests.s3_server import S3Server

IN, OUT = "operations-in", "operations-out"


@pytest.fixture(scope="module")
def proxy(s3_server: S3Server) -> Iterator[S3Proxy]:
    with s3_server.with_buckets(IN, OUT), s3_proxy(s3_server.endpoint) as between:
        yield between


@pytest.fixture(scope="module")
def plate(proxy: S3Proxy, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """6 wells, 2 sites, 2 channels."""
    plate = write_plate(tmp_path_factory.mktemp("operations") / "plate", well_count=6, channels=2)
    upload(plate, open_store(f"s3://{IN}/plate", StorageOptions(endpoint=s3_server.endpoint)))
    return plate


def asked(
    proxy: S3Proxy, output: str, shard_fields: int, measure: list[str], include: list[str]
) -> tuple[Counter[str], Counter[str]]:
    """Operations on the input and on the output of one run, started or gone on with."""
    proxy.requests.clear()
    run = {"channels": {"nuclei": "w1"}, "measure": measure, "include": include}
    execution = {"shard_fields": shard_fields}
    place = f"s3://{OUT}/{output}"
    count(f"s3://{IN}/plate", place, run=run, execution=execution, storage={"endpoint": proxy.endpoint})
    assert all(status < 500 for _, status in proxy.requests)
    return proxy.operations(IN), proxy.operations(OUT)


@pytest.mark.parametrize(
    ("fields", "channels", "shards", "shard_fields"), [(12, 1, 3, 4), (12, 2, 12, 1), (4, 2, 1, 64)]
)
def test_a_new_run_reads_each_field_channel_once_and_puts_twice_a_shard(
    plate: Plate, proxy: S3Proxy, fields: int, channels: int, shards: int, shard_fields: int
) -> None:
    include = ["**"] if fields == 12 else ["**/P1_A01_*", "**/P1_A02_*"]
    measure = ["w1", "w2"][:channels]
    source, output = asked(proxy, f"new-{fields}-{channels}-{shards}", shard_fields, measure, include)
    assert source == Counter(list=1, read=fields * channels)
    assert output == Counter(list=7, read=shards + 4, put=2 * shards + 9)


def test_a_run_that_goes_on_asks_only_for_what_is_left(
    plate: Plate, proxy: S3Proxy, s3_server: S3Server
) -> None:
    shards, shard_fields = 6, 2
    asked(proxy, "resumed", shard_fields, ["w1"], ["**"])
    store = open_store(f"s3://{OUT}/resumed", StorageOptions(endpoint=s3_server.endpoint))
    lost = (1, 4)
    _lose(store, lost)
    source, output = asked(proxy, "resumed", shard_fields, ["w1"], ["**"])
    assert source == Counter(list=1, read=len(lost) * shard_fields)
    assert output == Counter(list=6, read=shards + 5, put=2 * len(lost) + 7)

    source, output = asked(proxy, "resumed", shard_fields, ["w1"], ["**"])
    assert source == Counter(list=1)
    assert output == Counter(list=6, read=shards + 5, put=6, DELETE=1)


def _lose(store: Store, shards: tuple[int, ...]) -> None:
    """As if the run had been stopped before these shards."""
    for number in shards:
        store.delete(fields_key(number))
        store.delete(objects_key(number))
