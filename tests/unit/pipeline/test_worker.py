"""A worker's shards: memory that is tight for a moment, a fault in one field, and the seconds each shard took."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.domain.errors import Interrupted
from cellcount_core.domain.fields import Shard
from cellcount_core.models.engines import ENGINES, Engine, no_room
from cellcount_core.models.package import Package
from cellcount_core.output.planfile import read_shards
from cellcount_core.output.run_folder import load_plan
from cellcount_core.output.runfile import read_run
from cellcount_core.pipeline.worker import ShardWorker
from cellcount_core.runners.places import Places, make_context
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.jobs import count, digest, job, rows
from tests.plates import Plate, write_plate

Tiles = NDArray[np.float32]
GOLDEN_CALLS = 1


class Tight:
    """The package's own engine, on a device that has no memory for the calls and tiles that `refuses` says."""

    name = "smooth"
    batch = 1

    def __init__(self, engine: Engine, refuses: Callable[[int, Tiles], bool]) -> None:
        self._engine = engine
        self._refuses = refuses
        self._calls = 0

    def run(self, tiles: Tiles) -> Tiles:
        self._calls += 1
        if self._calls > GOLDEN_CALLS and self._refuses(self._calls, tiles):
            raise no_room(tiles.shape)
        return self._engine.run(tiles)


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """3 wells, 2 sites; the first well is empty."""
    return write_plate(tmp_path_factory.mktemp("input") / "plate", well_count=3)


def with_engine(
    patch: pytest.MonkeyPatch, plate: Plate, output: Path, refuses: Callable[[int, Tiles], bool]
) -> dict[tuple[str, int], tuple[str, str | None, int | None]]:
    load = ENGINES["smooth"]

    def tight(package: Package, threads: int) -> Engine:
        return Tight(load(package, threads), refuses)

    patch.setitem(ENGINES, "smooth", tight)
    count(plate.folder, output)
    table = rows(output, "fields").to_pylist()
    return {
        (row["Metadata_Well"], row["Metadata_Site"]): (row["status"], row["reason"], row["count"])
        for row in table
    }


def test_a_field_that_does_not_fit_beside_others_is_counted_alone(
    plate: Plate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = with_engine(monkeypatch, plate, tmp_path / "out", lambda call, _: call in (3, 4))
    assert found == {key: ("ok", None, number) for key, number in plate.truth.items()}


@pytest.mark.parametrize("blocks", [{}, {"block": 256, "whole_limit": 65_536}], ids=["whole", "blocks"])
def test_a_device_with_little_memory_gives_the_very_tables_of_one_with_enough(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    blocks: dict[str, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    large = write_plate(tmp_path / "plate", well_count=2, sites=1, size=300)
    count(large.folder, tmp_path / "enough", run=blocks)
    assert capsys.readouterr().err == ""
    load = ENGINES["smooth"]
    monkeypatch.setitem(
        ENGINES,
        "smooth",
        lambda package, threads: Tight(load(package, threads), lambda _, tiles: max(tiles.shape[1:3]) > 100),
    )
    count(large.folder, tmp_path / "little", run=blocks)
    assert digest(tmp_path / "little") == digest(tmp_path / "enough")
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("warning: a device has no memory for tiles of ")


def test_a_field_that_does_not_fit_alone_either_is_the_only_one_that_fails(
    plate: Plate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[Tiles] = []

    def third_field(call: int, tiles: Tiles) -> bool:
        if call == GOLDEN_CALLS + 3:
            refused.append(tiles)
        # Smaller tiles of that field too.
        return bool(refused and np.isin(tiles, refused[0]).all())

    found = with_engine(monkeypatch, plate, tmp_path / "out", third_field)
    failed = {key: row for key, row in found.items() if row[0] != "ok"}
    assert list(failed.values()) == [("failed", "out_of_memory", None)]
    assert {key: row[2] for key, row in found.items() if key not in failed} == {
        key: number for key, number in plate.truth.items() if key not in failed
    }
    [row] = [row for row in rows(tmp_path / "out", "fields").to_pylist() if row["status"] == "failed"]
    assert row["reason_detail"] == (
        "the device has no memory for a tile of 17 x 17 px, the smallest that there can be, nor for any larger one "
        "(tried from 1280 px down)"
    )


def test_the_seconds_of_a_receipt_are_those_of_its_own_shard(plate: Plate, tmp_path: Path) -> None:
    count(plate.folder, tmp_path / "out", execution={"shard_fields": 1, "in_flight": 1})
    [timings] = (tmp_path / "out" / "run" / "timings").iterdir()
    shards = json.loads(timings.read_text())["shards"]
    assert len(shards) == 6
    for shard in shards:
        # One field, so its stages come one after the other.
        assert 0 < sum(shard["stage_seconds"].values()) <= shard["seconds"] + 0.01


def worker_and_shard(plate: Plate, folder: Path) -> tuple[ShardWorker, Shard]:
    """A worker that commits to folder/elsewhere, and the first shard of its run."""
    configured = job(plate.folder, folder / "out")
    count(plate.folder, folder / "out")
    options = StorageOptions()
    output = open_store(folder / "out", options)
    run = read_run(output)
    places = Places(str(plate.folder), options, str(folder / "elsewhere"), options)
    worker = ShardWorker(make_context(run, configured.run, places, readers=2))
    return worker, next(read_shards(load_plan(output, run)))


def test_a_shard_for_which_no_thread_can_be_started_does_not_keep_the_next_one_waiting(
    plate: Plate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellcount_core.pipeline.worker._BYTES_IN_HAND", 1)
    worker, shard = worker_and_shard(plate, tmp_path)
    # An executor that was shut down refuses what it is given with a RuntimeError, as one that gets no thread does.
    worker._threads.shutdown()
    refused: list[str] = []

    def attempt() -> None:
        for _ in range(2):
            try:
                worker.count(shard)
            except RuntimeError as error:
                refused.append(str(error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(10)
    worker.close()
    assert refused == ["cannot schedule new futures after shutdown"] * 2


def test_a_stopped_worker_gives_its_shards_up_without_committing_them(plate: Plate, tmp_path: Path) -> None:
    worker, shard = worker_and_shard(plate, tmp_path)
    worker.stop()
    ended: list[BaseException] = []

    def attempt() -> None:
        try:
            worker.count(shard)
        except Interrupted as error:
            ended.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join(10)
    worker.close()
    assert len(ended) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_worker_says_how_far_it_is_within_a_shard(
    plate: Plate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, shard = worker_and_shard(plate, tmp_path)
    assert len(shard.fields) == 4
    told: list[dict[int, int]] = []
    settle: Callable[[int, Future[object]], None] = worker._settle  # type: ignore[assignment]

    def settling(number: int, counted: Future[object]) -> None:
        settle(number, counted)
        told.append(worker.progress())

    monkeypatch.setattr(worker, "_settle", settling)
    assert worker.progress() == {}
    worker.count(shard)
    worker.close()
    assert [each[shard.number] for each in told] == [1, 2, 3, 4]
    assert worker.progress() == {}
