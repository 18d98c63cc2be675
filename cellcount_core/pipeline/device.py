"""The device: one thread that owns a loaded engine and serves the tiles of all fields in hand.

It collects tiles of equal shape into full batches and gives each field its maps back. If the device has no memory for a tile, that
is remembered for everybody who uses it.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault
from cellcount_core.models.engines import Engine
from cellcount_core.tasks.task import MapArray

_KEPT_PX = 640 * 640
"""`AskedOnce` keeps tiles of up to this many pixels."""


class TileDevice(Protocol):
    """Anything that turns tiles into maps: a `Device`, or an `AskedOnce` in front of one."""

    def submit(self, tile: NDArray[np.float32]) -> Future[MapArray]:
        """A future of the maps (h, w, K) of one tile (h, w, C)."""

    def largest_tile(self, wanted: int) -> int:
        """Side (px) of the largest tile to submit: `wanted` or less."""

    def remember(self, refused: int, held: int) -> None:
        """Note that tiles of `refused` px a side did not fit into the device's memory and those of `held` px do."""


class DeviceFull(MemoryError):
    """The device has no memory for a tile, even alone. A smaller tile may fit."""


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    tile: NDArray[np.float32]
    answer: Future[MapArray]


class Device:
    """Runs an engine in a thread of its own.

    The queue is bounded: `submit` waits while the device is `depth` tiles behind. `busy_s` are the seconds spent inside the engine,
    `idle_s` those spent waiting for tiles since the first one came.
    """

    def __init__(self, engine: Engine, depth: int | None = None) -> None:
        self._engine = engine
        self.batch = engine.batch
        self._queue: queue.Queue[_Request | None] = queue.Queue(depth or max(4, 3 * engine.batch))
        self.busy_s = 0.0
        self.idle_s = 0.0
        self._remembering = threading.Lock()
        self._largest: int | None = None
        self._notes: list[str] = []
        self._taken = (0.0, 0.0)
        self._thread = threading.Thread(target=self._serve, name="device", daemon=True)
        self._thread.start()

    def submit(self, tile: NDArray[np.float32]) -> Future[MapArray]:
        """A future of the maps (h, w, K) of one tile (h, w, C).

        The future raises DeviceFull if there is no memory for the tile, and whatever else the engine raises.
        """
        answer: Future[MapArray] = Future()
        self._queue.put(_Request(tile, answer))
        return answer

    def largest_tile(self, wanted: int) -> int:
        """Side (px) of the largest tile to submit: `wanted`, or less if the device was found to hold no more."""
        with self._remembering:
            return wanted if self._largest is None else min(wanted, self._largest)

    def remember(self, refused: int, held: int) -> None:
        """Tiles of `refused` px a side did not fit and those of `held` px do: from now on no tile should be larger."""
        with self._remembering:
            if self._largest is not None and self._largest <= held:
                return
            self._largest = held
            self._notes.append(
                f"a device has no memory for tiles of {refused} px: its worker goes on with tiles of {held} px, which count "
                "the same and take longer"
            )

    def take_notes(self) -> tuple[str, ...]:
        """Messages for the user about the device; each is given once."""
        with self._remembering:
            notes, self._notes = tuple(self._notes), []
        return notes

    def take_times(self) -> tuple[float, float]:
        """Seconds at work and seconds of waiting, both since the last call."""
        busy, idle = self.busy_s, self.idle_s
        with self._remembering:
            then_busy, then_idle = self._taken
            self._taken = (busy, idle)
        return max(0.0, busy - then_busy), max(0.0, idle - then_idle)

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
            maps = list(self._engine.run(self._full(batch))[: len(batch)])
            if len(maps) < len(batch):
                raise ModelFault(f"engine {self._engine.name} gives {len(maps)} maps for {len(batch)} tiles")
        except MemoryError as error:
            full = DeviceFull(str(error) or f"no memory for a batch of tiles of {batch[0].tile.shape[:2]} px")
            full.__cause__ = error
            self._fail(batch, full)
            return
        # Whatever is raised here belongs to the fields that wait for these tiles: they raise it in their own threads. This
        # thread must live on, or they would wait for ever.
        except BaseException as error:  # noqa: BLE001
            self._fail(batch, error)
            return
        for request, answer in zip(batch, maps, strict=True):
            request.answer.set_result(answer)

    def _full(self, batch: list[_Request]) -> NDArray[np.float32]:
        """The tiles as a full batch, empty tiles added. A batch of one tile is a view: the device waits for it anyway."""
        if self._engine.batch == 1:
            return batch[0].tile[None]
        tiles = np.zeros((self._engine.batch, *batch[0].tile.shape), np.float32)
        for index, request in enumerate(batch):
            tiles[index] = request.tile
        return tiles

    def _fail(self, batch: list[_Request], error: BaseException) -> None:
        for request in batch:
            request.answer.set_exception(error)


class AskedOnce:
    """Stands before a device for one field: a tile that was kept is answered with the maps it had then.

    A field's size is told from looks at it, and one of them often is what is counted. Small tiles alone are kept, and none after
    `keep_no_more`: a large field is counted in more tiles than memory holds.
    """

    def __init__(self, device: TileDevice) -> None:
        self._device = device
        self._known: list[tuple[NDArray[np.float32], Future[MapArray]]] = []
        self._keeps = True

    def submit(self, tile: NDArray[np.float32]) -> Future[MapArray]:
        """As the device does."""
        for known, answer in self._known:
            if known.shape == tile.shape and np.array_equal(known, tile):
                return answer
        answer = self._device.submit(tile)
        if self._keeps and tile.shape[0] * tile.shape[1] <= _KEPT_PX:
            self._known.append((tile, answer))
        return answer

    def keep_no_more(self) -> None:
        """Tiles that are given from now on are not kept; those that were still are answered for."""
        self._keeps = False

    def largest_tile(self, wanted: int) -> int:
        """As the device does."""
        return self._device.largest_tile(wanted)

    def remember(self, refused: int, held: int) -> None:
        """As the device does."""
        self._device.remember(refused, held)
