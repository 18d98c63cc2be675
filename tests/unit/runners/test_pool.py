"""What an attempt that fails tells the driver, and what survives the way there."""

from __future__ import annotations

import pickle

import pytest

from cellcount_core.domain import errors
from cellcount_core.domain.errors import FieldFault, Reason, RunFault, StorageFault
from cellcount_core.domain.fields import Receipt, Shard
from cellcount_core.runners.pool import Death, attempt

FAULTS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RunFault)]


class Unpicklable(Exception):
    """An exception of a library that cannot be read back where it arrives."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)


def test_a_fault_of_ours_is_a_death_that_names_what_happened_and_where() -> None:
    def act(shard: Shard) -> Receipt:
        raise Unpicklable(7, "odd tile\nand more")

    end = attempt(act, Shard(0, ()))
    assert isinstance(end, Death)
    assert end.reason is Reason.INTERNAL
    assert end.detail.startswith("Unpicklable: odd tile (test_pool.py:")
    assert pickle.loads(pickle.dumps(end)) == end


def test_a_fault_of_the_run_is_raised_as_it_is() -> None:
    def act(shard: Shard) -> Receipt:
        raise StorageFault("store gone")

    with pytest.raises(StorageFault, match="store gone"):
        attempt(act, Shard(0, ()))


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_of_the_run_survives_the_way_to_the_driver(kind: type[RunFault]) -> None:
    back = pickle.loads(pickle.dumps(kind("out/run.json: not there")))
    assert type(back) is kind
    assert str(back) == "out/run.json: not there"


def test_a_fault_of_a_field_keeps_its_reason_detail_and_file() -> None:
    back = pickle.loads(pickle.dumps(FieldFault(Reason.CHANGED, "10 bytes", "a/b.tif")))
    assert (back.reason, back.detail, back.key) == (Reason.CHANGED, "10 bytes", "a/b.tif")
