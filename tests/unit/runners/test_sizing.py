"""What workers are given: shares that Ray can hand out, on clusters that can grow and on those that cannot."""

from __future__ import annotations

import signal
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellcount_core.config import ExecutionConfig
from cellcount_core.domain.errors import ConfigFault, Interrupted
from cellcount_core.runners.ray_cluster import Resources, connected, size_workers
from cellcount_core.runners.stopping import interruptible


@given(
    cores=st.integers(1, 256),
    actors=st.integers(1, 512),
    threads=st.one_of(st.just("auto"), st.integers(1, 16)),
)
def test_all_actors_asked_for_fit_on_an_own_cluster_in_shares_that_ray_can_hand_out(
    cores: int, actors: int, threads: str | int
) -> None:
    execution = ExecutionConfig.model_validate({"actors": actors, "threads": threads})
    sizing = size_workers(execution, Resources(cores, 0.0, own=True), shards=1000)
    # Ray rounds a share to ten-thousandths, and refuses a broken number above 1.
    share = Fraction(round(sizing.cpus * 10_000), 10_000)
    assert share * sizing.actors <= cores
    assert 0 < sizing.cpus < 1 or sizing.cpus == int(sizing.cpus)


def test_a_cluster_that_has_no_cores_yet_is_asked_for_whole_ones() -> None:
    sizing = size_workers(ExecutionConfig(actors=10), Resources(0.0, 0.0, own=False), shards=1000)
    assert (sizing.actors, sizing.cpus) == (10, 1.0)


def test_one_and_a_half_gpus_an_actor_are_refused() -> None:
    with pytest.raises(ConfigFault, match=r"gpus_per_actor is 1\.5"):
        size_workers(ExecutionConfig(gpus_per_actor=1.5), Resources(8.0, 4.0, own=False), shards=10)


def test_a_cluster_of_our_own_has_no_gpu_to_wait_for() -> None:
    execution = ExecutionConfig(actors=2, gpus_per_actor=1)
    with pytest.raises(ConfigFault, match="has 0 GPUs now; set gpus_per_actor to 0"):
        size_workers(execution, Resources(8.0, 0.0, own=True), shards=10)


def test_no_worker_is_started_that_would_have_nothing_to_do() -> None:
    for execution, resources in (
        (ExecutionConfig(actors=64), Resources(2.0, 0.0, own=True)),
        (ExecutionConfig(actors=64), Resources(128.0, 0.0, own=False)),
        (ExecutionConfig(actors=64, gpus_per_actor=1), Resources(128.0, 0.0, own=False)),
    ):
        assert size_workers(execution, resources, shards=2).actors == 2
        assert size_workers(execution, resources, shards=1000).actors == 64


def test_a_stop_while_ray_starts_is_a_stop_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        # As ray.init does: its own handler ends the process there and then.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("ray.init", init)
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(Interrupted, match="goes on"),
        interruptible("the same command goes on"),
        connected(ExecutionConfig()),
    ):
        pass
    assert signal.getsignal(signal.SIGTERM) is before
