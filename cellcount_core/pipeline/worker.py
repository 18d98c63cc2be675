"""One worker: holds the model, takes shards, counts their fields with all stages overlapping, commits the part.

A field is counted from bytes to rows in one of a few threads; while one waits for the device, others decode, separate and
measure, and the reader fetches what comes next. Several shards may be in hand: they share the threads and the device.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import cv2

from cellcount_core.domain.fields import Shard
from cellcount_core.domain.receipts import Commit, Receipt
from cellcount_core.pipeline.context import RunContext
from cellcount_core.pipeline.field import FieldResult, count_field
from cellcount_core.pipeline.files import read_fields
from cellcount_core.pipeline.gate import Gate
from cellcount_core.pipeline.kit import open_kit
from cellcount_core.stores.open import open_store
from cellcount_core.tables.parts import Part, build_part, commit_part

_FIELD_THREADS = 3
"""One field waits for the device, one is being decoded, one separated and measured."""

_BYTES_IN_HAND = 256 << 20
"""File bytes of the fields being counted at once."""


class ShardWorker:
    """Counts shards of one run. Thread-safe: several shards may be counted at once.

    Raises ModelFault where the package is not the one the run was planned with or fails its golden tensors.
    """

    def __init__(self, context: RunContext) -> None:
        # The threads of this worker are the parallelism; OpenCV's own would compete with them for the same cores.
        cv2.setNumThreads(1)
        self._context = context
        self._kit = open_kit(context)
        self._input = open_store(context.input_url, context.input_options)
        self._gate = Gate(_BYTES_IN_HAND)
        self._threads = ThreadPoolExecutor(max(_FIELD_THREADS, 2 * self._kit.device.batch), thread_name_prefix="field")
        self._committing = threading.Lock()

    def count(self, shard: Shard) -> Receipt:
        """Count every field of the shard and commit its part. Raises RunFault where the run cannot go on."""
        began = time.perf_counter()
        results = self._count_fields(shard)
        with self._committing, self._kit.clock("commit"):
            commit = commit_part(self._kit.output, self._part(shard, results))
        return self._receipt(shard, results, commit, began)

    def probe(self, shard: Shard) -> Receipt:
        """Count without committing, to learn whether these fields can be counted at all."""
        began = time.perf_counter()
        return self._receipt(shard, self._count_fields(shard), Commit.PROBED, began)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._kit.device.close()

    def _count_fields(self, shard: Shard) -> list[FieldResult]:
        pending: list[Future[FieldResult]] = []
        fields = read_fields(
            self._input, shard.fields, ahead=self._context.readers, max_pixels=self._context.run.max_pixels
        )
        try:
            for planned, files in fields:
                weight = sum(file.size for file in files.values())
                self._gate.enter(weight)
                counted = self._threads.submit(count_field, self._kit, planned, files)
                counted.add_done_callback(partial(self._leave, weight))
                pending.append(counted)
            return [counted.result() for counted in pending]
        finally:
            for counted in pending:
                counted.cancel()

    def _leave(self, weight: int, _: Future[FieldResult]) -> None:
        self._gate.leave(weight)

    def _part(self, shard: Shard, results: Sequence[FieldResult]) -> Part:
        return build_part(
            shard.number,
            [result.row for result in results],
            [result.objects for result in results if result.objects is not None],
            self._context.features,
            self._context.fingerprint,
        )

    def _receipt(self, shard: Shard, results: Sequence[FieldResult], commit: Commit, began: float) -> Receipt:
        return Receipt(
            shard=shard.number,
            commit=commit,
            statuses=dict(Counter(result.row.status.value for result in results)),
            reasons=dict(
                Counter(result.row.reason.value for result in results if result.row.reason is not None)
            ),
            objects=sum(result.row.count or 0 for result in results),
            pixels=sum(result.pixels for result in results),
            seconds=time.perf_counter() - began,
            stage_seconds=self._kit.clock.totals(),
            host=socket.gethostname(),
            pid=os.getpid(),
        )

