"""One thread owns the device: it takes tiles of all fields in hand, makes full batches of equal shape, and gives maps back."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault
from cellcount_core.models.engines import Engine

Maps = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    tile: NDArray[np.float32]
    answer: Future[Maps]


class Device:
    """Runs an engine in a thread of its own.

    `submit` gives a future of the maps (h, w, K) of a tile (h, w, C). The queue is bounded: a submitter waits when the
    device is `depth` tiles behind. `busy_s` is the time spent inside the engine, `idle_s` the time spent waiting for tiles
    since the first one came.
    """

    def __init__(self, engine: Engine, depth: int | None = None) -> None:
        self._engine = engine
        self.batch = engine.batch
        self._queue: queue.Queue[_Request | None] = queue.Queue(depth or max(4, 3 * engine.batch))
        self.busy_s = 0.0
        self.idle_s = 0.0
        self._thread = threading.Thread(target=self._serve, name="device", daemon=True)
        self._thread.start()

    def submit(self, tile: NDArray[np.float32]) -> Future[Maps]:
        """Maps (h, w, K) of one tile, later."""
        answer: Future[Maps] = Future()
        self._queue.put(_Request(tile, answer))
        return answer

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        held: list[_Request] = []
        closing = False
        started = False
        while not closing or held:
            waited = time.perf_counter()
            if not held:
                request = self._queue.get()
                if request is None:
                    closing = True
                    continue
                held.append(request)
            closing = self._take_waiting(held) or closing
            now = time.perf_counter()
            self.idle_s += now - waited if started else 0.0
            started = True
            shape = held[0].tile.shape
            batch = [request for request in held if request.tile.shape == shape][: self._engine.batch]
            held = [request for request in held if request not in batch]
            self._run(batch)
            self.busy_s += time.perf_counter() - now

    def _take_waiting(self, held: list[_Request]) -> bool:
        while len(held) < 2 * self._engine.batch:
            try:
                request = self._queue.get_nowait()
            except queue.Empty:
                return False
            if request is None:
                return True
            held.append(request)
        return False

    def _run(self, batch: list[_Request]) -> None:
        try:
            tiles = np.zeros((self._engine.batch, *batch[0].tile.shape), np.float32)
            for index, request in enumerate(batch):
                tiles[index] = request.tile
            maps = list(self._engine.run(tiles)[: len(batch)])
            if len(maps) < len(batch):
                raise ModelFault(f"engine {self._engine.name} gives {len(maps)} maps for {len(batch)} tiles")
        # Whatever is raised here belongs to the fields that wait for these tiles: they raise it in their own threads. This
        # thread must live on, or they would wait for ever.
        except BaseException as error:  # noqa: BLE001
            for request in batch:
                request.answer.set_exception(error)
            return
        for request, answer in zip(batch, maps, strict=True):
            request.answer.set_result(answer)
