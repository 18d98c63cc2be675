"""What workers are given on a Ray cluster, whether it can grow or not, and which nodes are left out."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellcount_core.config import ExecutionConfig
from cellcount_core.domain.errors import ConfigFault, ExitCode, Interrupted, ModelFault
from cellcount_core.runners.ray_cluster import (
    Node,
    NodeChoice,
    Resources,
    Sizing,
    Unfit,
    connected,
    size_workers,
)
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


SIZING = Sizing(actors=4, cpus=2.0, gpus=0.0, threads=2, memory_bytes=None)
HEAD = Node("0" * 56, "head", True, {"memory": 8e9})
FIRST, SECOND = (Node(digit * 56, f"host-{digit}", True, {"CPU": 4.0, "memory": 8e9}) for digit in "ab")
FAULT = "package nuclei 1.1.0: engine onnxruntime is off its golden tensors by 0.3"


def unfit(node: Node, fault: str = FAULT) -> Unfit:
    return Unfit(node.id, node.host, fault)


def choice(said: list[str], sizing: Sizing = SIZING) -> NodeChoice:
    return NodeChoice(sizing, said.append, patience_s=60)


def test_until_a_node_is_left_out_ray_chooses_freely() -> None:
    assert choice([]).selector() is None


def test_a_node_is_left_out_with_one_warning_however_many_of_its_workers_fail() -> None:
    chosen = choice(said := [])
    for _ in range(3):
        chosen.leave_out(unfit(FIRST), [HEAD, FIRST, SECOND])
    assert said == [f"host-a (node {'a' * 12}) is left out of this run: {FAULT}"]
    assert chosen.selector() == {"ray.io/node-id": f"!in({FIRST.id})"}


def test_every_node_left_out_is_avoided() -> None:
    third = replace(SECOND, id="c" * 56)
    chosen = choice([])
    chosen.leave_out(unfit(SECOND), [FIRST, SECOND, third])
    chosen.leave_out(unfit(FIRST), [FIRST, SECOND, third])
    assert chosen.selector() == {"ray.io/node-id": f"!in({FIRST.id},{SECOND.id})"}


@pytest.mark.parametrize(
    "others",
    [
        [],
        [HEAD],
        [replace(SECOND, alive=False)],
        [replace(SECOND, resources={"CPU": 1.0})],
    ],
    ids=["alone", "head without cores", "lost node", "node too small"],
)
def test_without_another_node_for_a_worker_the_fault_stops_the_run(others: list[Node]) -> None:
    chosen = choice(said := [])
    with pytest.raises(ModelFault) as raised:
        chosen.leave_out(unfit(FIRST), [FIRST, *others])
    assert (str(raised.value), raised.value.exit_code) == (FAULT, ExitCode.MODEL)
    assert said == []


def test_a_worker_with_a_gpu_or_a_memory_limit_needs_a_node_that_has_them() -> None:
    for need in ({"gpus": 1.0}, {"memory_bytes": 16 << 30}):
        with pytest.raises(ModelFault):
            choice([], replace(SIZING, **need)).leave_out(unfit(FIRST), [FIRST, SECOND])
    gpu = replace(SECOND, resources={"CPU": 4.0, "GPU": 1.0})
    choice([], replace(SIZING, gpus=0.5)).leave_out(unfit(FIRST), [FIRST, gpu])


def test_the_last_node_left_out_stops_the_run_with_its_own_fault() -> None:
    chosen = choice(said := [])
    chosen.leave_out(unfit(FIRST), [FIRST, SECOND])
    with pytest.raises(ModelFault, match="not a folder"):
        chosen.leave_out(unfit(SECOND, "not a folder"), [FIRST, SECOND])
    assert len(said) == 1


def test_nodes_that_are_gone_are_waited_for_but_not_for_ever() -> None:
    chosen = choice([])
    chosen.leave_out(unfit(FIRST), [FIRST, SECOND])
    lost = [FIRST, replace(SECOND, alive=False)]
    chosen.await_one(lost, now=1000.0)
    chosen.await_one(lost, now=1059.0)
    joined = replace(SECOND, id="c" * 56)
    chosen.await_one([*lost, joined], now=1060.0)
    chosen.await_one(lost, now=1061.0)
    chosen.await_one(lost, now=1120.0)
    with pytest.raises(ModelFault, match=rf"{FAULT}; that is on host-a .* no node without a fault .* 60 s"):
        chosen.await_one(lost, now=1121.0)
