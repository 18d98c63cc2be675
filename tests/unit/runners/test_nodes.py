"""Nodes on which the model cannot be used are left out one by one; without any other the run stops."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cellcount_core.domain.errors import ExitCode, ModelFault
from cellcount_core.runners.ray_cluster import Node, NodeChoice, Sizing, Unfit

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
