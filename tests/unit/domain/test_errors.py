"""Every fault is also the builtin exception that a Python caller expects."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
from collections.abc import Iterator

import pytest

import cellcount_core
from cellcount_core.domain.errors import (
    CellcountError,
    ConfigFault,
    FieldFault,
    Interrupted,
    Reason,
    RunFault,
)

EXPECTED = {
    Reason.ABSENT: FileNotFoundError,
    Reason.CHANNEL_MISSING: FileNotFoundError,
    Reason.ACCESS_DENIED: PermissionError,
    Reason.TIMED_OUT: TimeoutError,
    Reason.OUT_OF_MEMORY: MemoryError,
    Reason.WORKER_DIED: RuntimeError,
    Reason.INTERNAL: RuntimeError,
}
"""Whatever else can be wrong with a field is wrong with what the file holds or was asked for: a ValueError."""


def faults() -> Iterator[type[CellcountError]]:
    """Every class of fault of every module."""
    for module in pkgutil.walk_packages(cellcount_core.__path__, "cellcount_core."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    waiting: list[type[CellcountError]] = [CellcountError]
    while waiting:
        fault = waiting.pop()
        waiting += fault.__subclasses__()
        yield fault


def builtins_of(fault: type[BaseException]) -> set[type]:
    return {kind for kind in fault.__mro__ if kind.__module__ == "builtins"} - {
        Exception,
        BaseException,
        object,
    }


@pytest.mark.parametrize("reason", Reason)
def test_a_field_fault_is_the_builtin_of_its_reason(reason: Reason) -> None:
    fault = FieldFault(reason, "what was found", "A01.tif")

    assert isinstance(fault, EXPECTED.get(reason, ValueError))
    assert str(fault) == f"A01.tif: what was found [{reason.value}]"


@pytest.mark.parametrize("reason", Reason)
def test_a_field_fault_goes_through_a_pickle_as_it_is(reason: Reason) -> None:
    fault = FieldFault(reason, "what was found", "A01.tif")

    again = pickle.loads(pickle.dumps(fault))

    assert type(again) is type(fault)
    assert (again.reason, again.detail, again.key) == (reason, "what was found", "A01.tif")


def test_every_fault_of_the_product_is_a_builtin_but_for_the_roots_and_a_stop() -> None:
    plain = {fault for fault in faults() if not builtins_of(fault)}

    # A stop comes from a signal in the midst of a library, which would take a builtin for its own.
    assert plain == {CellcountError, FieldFault, RunFault, Interrupted}


def test_a_fault_of_the_run_keeps_its_one_message_whatever_builtin_it_is() -> None:
    for fault in faults():
        if issubclass(fault, RunFault) and fault.__init__ is RunFault.__init__:
            assert str(fault("one message")) == "one message", fault


def test_no_fault_is_two_unrelated_builtins_but_for_an_input_that_is_not_there() -> None:
    lines = {fault: builtins_of(fault) for fault in faults()}
    two = {fault.__name__ for fault, kinds in lines.items() if {ValueError, OSError} <= kinds}

    assert two == {"NoInputFault"}
    assert issubclass(next(fault for fault in lines if fault.__name__ == "NoInputFault"), ConfigFault)
