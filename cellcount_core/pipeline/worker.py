"""A worker: holds the model, takes shards, counts their fields with all stages overlapping, and commits each shard's part.

A few threads each take a field from its bytes to its rows. While one waits for the device, others decode, separate and measure, and
the reader fetches what comes next. Several shards may be in hand; they share the threads and the device.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial

from cellcount_core.domain.errors import Interrupted
from cellcount_core.domain.fields import Commit, PlannedField, Receipt, Shard
from cellcount_core.output.parts import Part, amend_part, build_part, commit_part
from cellcount_core.pipeline.context import MemoryGate, RunContext, StageClock, prepare_process
from cellcount_core.pipeline.field import FieldKit, FieldResult, count_alone, count_field, open_kit
from cellcount_core.pipeline.files import Loaded, read_fields
from cellcount_core.stores.open import open_store
from cellcount_core.stores.requests import take_retries

_FIELD_THREADS = 3
"""One field waits for the device, one is being decoded, one is being separated and measured."""

_BYTES_IN_HAND = 256 << 20
"""Bytes of the files of fields that are being counted at once."""


@dataclass(frozen=True, slots=True, eq=False)
class _Crowded:
    """A field that did not fit into memory beside others."""

    planned: PlannedField


class ShardWorker:
    """Counts shards of one run. Thread-safe: several shards may be counted at once.

    Raises ModelFault if the package is not the one that the run was planned with, or fails its golden tensors.
    """

    def __init__(self, context: RunContext) -> None:
        prepare_process()
        self._context = context
        self._kit = open_kit(context)
        self._input = open_store(context.input_url, context.input_options)
        self._gate = MemoryGate(_BYTES_IN_HAND)
        self._threads = ThreadPoolExecutor(
            max(_FIELD_THREADS, 2 * self._kit.device.batch), thread_name_prefix="field"
        )
        self._committing = threading.Lock()
        self._settling = threading.Lock()
        self._settled_of: dict[int, int] = {}
        self._stopping = threading.Event()

    def count(self, shard: Shard) -> Receipt:
        """Count every field of the shard, then commit its part, or amend the part that is there.

        Raises RunFault if the run cannot go on, and Interrupted after `stop`.
        """
        began = time.perf_counter()
        kit = replace(self._kit, clock=StageClock())
        results, size = self._count_fields(kit, shard)
        with self._committing, kit.clock("commit"):
            put = amend_part if self._context.amends else commit_part
            commit = put(kit.output, self._part(shard, results))
        receipt = _receipt(kit, shard, results, commit, began)
        busy, idle = kit.device.take_times()
        return replace(
            receipt,
            notes=kit.device.take_notes(),
            bytes_read=size,
            retries=take_retries(),
            device_busy_s=round(busy, 3),
            device_idle_s=round(idle, 3),
        )

    def probe(self, shard: Shard) -> Receipt:
        """Count without committing, to learn whether these fields can be counted at all."""
        began = time.perf_counter()
        kit = replace(self._kit, clock=StageClock())
        return _receipt(kit, shard, self._count_fields(kit, shard)[0], Commit.PROBED, began)

    def progress(self) -> dict[int, int]:
        """Number of fields counted so far, by the number of each shard in hand; none of them is committed yet."""
        with self._settling:
            return dict(self._settled_of)

    def stop(self) -> None:
        """Give up the shards in hand: each raises Interrupted once the fields that are being counted are done."""
        self._stopping.set()

    def close(self) -> None:
        """Stop, and end the threads."""
        self.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._kit.close()

    def _count_fields(self, kit: FieldKit, shard: Shard) -> tuple[list[FieldResult], int]:
        """The result of each field, and the bytes read for all of them."""
        read: dict[str, int] = {}
        pending: list[Future[FieldResult | _Crowded]] = []
        self._settled_of[shard.number] = 0
        try:
            for planned, files in self._read(*shard.fields):
                weight = sum(file.size for file in files.values())
                self._gate.enter(weight)
                pending.append(self._start(weight, kit, planned, files, read))
                pending[-1].add_done_callback(partial(self._settle, shard.number))
                self._raise_if_stopped()
            # The first fault ends the shard, wherever in it that is.
            for counted in wait(pending, return_when=FIRST_EXCEPTION).done:
                counted.result()
            return [self._settled(kit, counted.result()) for counted in pending], sum(read.values())
        finally:
            for counted in pending:
                counted.cancel()
            with self._settling:
                self._settled_of.pop(shard.number, None)

    def _start(
        self,
        weight: int,
        kit: FieldKit,
        planned: PlannedField,
        files: Mapping[str, Loaded],
        read: dict[str, int],
    ) -> Future[FieldResult | _Crowded]:
        try:
            counted = self._threads.submit(self._count_beside_others, kit, planned, files, read)
        except BaseException:
            # No thread could be started: what is inside for ever would keep everybody else out.
            self._gate.leave(weight)
            raise
        counted.add_done_callback(partial(self._leave, weight))
        return counted

    def _read(self, *fields: PlannedField) -> Iterator[tuple[PlannedField, dict[str, Loaded]]]:
        return read_fields(self._input, fields, ahead=self._context.readers, run=self._context.run)

    def _count_beside_others(
        self, kit: FieldKit, planned: PlannedField, files: Mapping[str, Loaded], read: dict[str, int]
    ) -> FieldResult | _Crowded:
        self._raise_if_stopped()
        try:
            return count_field(kit, planned, files)
        except MemoryError:
            return _Crowded(planned)
        finally:
            # Known only now: of a large file, what is read follows from what is counted.
            read |= {key: file.bytes_read for key, file in files.items()}

    def _settled(self, kit: FieldKit, counted: FieldResult | _Crowded) -> FieldResult:
        if isinstance(counted, FieldResult):
            return counted
        # Whether a field fits must not depend on its neighbours: it is read and counted again with the worker to itself. Where
        # it was the device that had no memory, smaller tiles have been tried by now; on a CPU its memory is that of its neighbours.
        self._gate.enter(self._gate.limit)
        try:
            [(planned, files)] = self._read(counted.planned)
            return count_alone(kit, planned, files)
        finally:
            self._gate.leave(self._gate.limit)

    def _raise_if_stopped(self) -> None:
        if self._stopping.is_set():
            raise Interrupted("stopped; the same command goes on where this one stopped")

    def _leave(self, weight: int, _: Future[FieldResult | _Crowded]) -> None:
        self._gate.leave(weight)

    def _settle(self, shard: int, _: Future[FieldResult | _Crowded]) -> None:
        with self._settling:
            if shard in self._settled_of:
                self._settled_of[shard] += 1

    def _part(self, shard: Shard, results: Sequence[FieldResult]) -> Part:
        return build_part(
            shard.number,
            [result.row for result in results],
            [result.objects for result in results if result.objects is not None],
            self._context.schema,
            self._context.fingerprint,
        )


def _receipt(
    kit: FieldKit,
    shard: Shard,
    results: Sequence[FieldResult],
    commit: Commit,
    began: float,
) -> Receipt:
    return Receipt(
        shard=shard.number,
        commit=commit,
        statuses=dict(Counter(result.row.status.value for result in results)),
        reasons=dict(Counter(result.row.reason.value for result in results if result.row.reason is not None)),
        objects=sum(result.objects.count for result in results if result.objects is not None),
        pixels=sum(result.pixels for result in results),
        seconds=time.perf_counter() - began,
        stage_seconds=kit.clock.totals(),
        host=socket.gethostname(),
        pid=os.getpid(),
    )
