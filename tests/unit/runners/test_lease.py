"""The lease of an output: one holder at a time, whatever the clocks say, and a dead holder's place is free."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from cellcount_core.domain.errors import BusyFault, CredentialsFault, ExitCode
from cellcount_core.runners.lease import LEASE, Holder, held
from cellcount_core.stores.local import LocalStore, open_local
from tests.lagging import LaggingStore

BEAT_S = 0.1
OTHER_MACHINE = Holder(
    "other", "far", "far boot pid:[1]", 4242, "77", "2026-05-01T20:00:00Z", BEAT_S, beats=5
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return open_local(tmp_path)


def written(store: LocalStore, number: int = 1) -> Holder:
    return Holder(**json.loads(store.get(f"{LEASE}/{number:06d}.json")))


def write(store: LocalStore, holder: Holder, number: int = 1) -> None:
    store.put(f"{LEASE}/{number:06d}.json", json.dumps(dataclasses.asdict(holder)).encode())


@contextmanager
def beating(store: LocalStore, holder: Holder) -> Iterator[None]:
    """A holder on another machine that lives."""
    end = threading.Event()

    def beat() -> None:
        beats = holder.beats
        while not end.wait(holder.beat_s):
            beats += 1
            write(store, dataclasses.replace(holder, beats=beats))

    write(store, holder)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def hold_in_another_process(store: LocalStore) -> subprocess.Popen[str]:
    code = (
        "import sys, time; from cellcount_core.runners.lease import held; from cellcount_core.stores.local import open_local\n"
        f"with held(open_local({store.url!r}), beat_s=60): print('held', flush=True); time.sleep(300)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_holder_in_the_same_process_is_refused_at_once(store: LocalStore) -> None:
    with (
        held(store, beat_s=60.0),
        pytest.raises(BusyFault, match=r"another run is at work on this output: process \d+ on "),
        held(store, beat_s=60.0),
    ):
        pass


def test_refusal_has_an_exit_code_of_its_own() -> None:
    assert BusyFault.exit_code is ExitCode.BUSY


def test_a_released_lease_is_taken_at_once_and_only_the_last_generation_before_it_stays(
    store: LocalStore,
) -> None:
    with held(store, beat_s=60.0) as first:
        pass
    assert written(store).released
    with held(store, beat_s=60.0) as second:
        assert (first.number, second.number) == (1, 2)
    with held(store, beat_s=60.0):
        files = sorted(path.name for path in Path(store.url, LEASE).iterdir())
        assert files == ["000002.json", "000003.json"]


def test_a_lease_is_released_after_a_fault(store: LocalStore) -> None:
    with pytest.raises(ZeroDivisionError), held(store, beat_s=60.0):
        raise ZeroDivisionError
    assert written(store).released


def test_a_living_process_of_this_host_is_refused_and_its_place_is_free_once_it_is_killed(
    store: LocalStore,
) -> None:
    process = hold_in_another_process(store)
    try:
        with pytest.raises(BusyFault, match=f"process {process.pid} on "), held(store, beat_s=60.0):
            pass
        process.kill()
        # Killed and not waited for: the process table still names it.
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        told: list[str] = []
        began = time.monotonic()
        with held(store, beat_s=60.0, say=told.append):
            assert time.monotonic() - began < 10
        assert told == [line for line in told if line.startswith(f"taking over from process {process.pid}")]
    finally:
        process.kill()
        process.communicate()


def test_a_process_number_that_was_given_anew_is_not_the_holder(store: LocalStore) -> None:
    with held(store, beat_s=60.0):
        mine = written(store)
    write(store, dataclasses.replace(mine, started="1"), number=1)
    with held(store, beat_s=60.0) as lease:
        assert lease.number == 2


def test_another_machine_that_gives_no_beat_is_taken_over_from(store: LocalStore) -> None:
    write(store, OTHER_MACHINE)
    told: list[str] = []
    began = time.monotonic()
    with held(store, beat_s=60.0, patience_beats=4, say=told.append) as lease:
        assert lease.number == 2
    assert 4 * BEAT_S <= time.monotonic() - began < 30
    assert told[0].endswith("waiting up to 0 s for a sign of life")
    assert told[1].startswith("taking over from process 4242 on far, since 2026-05-01T20:00:00Z")


@pytest.mark.parametrize("since", ["1970-01-01T00:00:00Z", "2999-12-31T23:59:59Z"])
def test_another_machine_that_beats_is_refused_whatever_its_clock_says(store: LocalStore, since: str) -> None:
    holder = dataclasses.replace(OTHER_MACHINE, since=since)
    began = time.monotonic()
    with (
        beating(store, holder),
        pytest.raises(BusyFault, match=f"4242 on far, since {since}"),
        held(store, patience_beats=100),
    ):
        pass
    assert time.monotonic() - began < 100 * BEAT_S


@pytest.mark.parametrize("jump_s", [-1e9, 1e9])
def test_a_jump_of_the_wall_clock_neither_loses_nor_frees_a_lease(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    with beating(store, OTHER_MACHINE):
        monkeypatch.setattr(time, "time", lambda: jump_s)
        with pytest.raises(BusyFault), held(store, patience_beats=100):
            pass
    with held(store, name="run/another", beat_s=BEAT_S) as lease:
        monkeypatch.setattr(time, "time", lambda: -jump_s)
        time.sleep(5 * BEAT_S)
        lease.confirm()


def test_the_holder_beats(store: LocalStore) -> None:
    with held(store, beat_s=BEAT_S):
        until = time.monotonic() + 30
        while written(store).beats < 3:
            assert time.monotonic() < until
            time.sleep(BEAT_S)


def test_the_loser_notices_and_leaves_the_new_holder_its_lease(store: LocalStore) -> None:
    with held(store, beat_s=BEAT_S) as lease:
        lease.check()
        write(store, OTHER_MACHINE, number=2)
        until = time.monotonic() + 30
        while True:
            try:
                lease.check()
            except BusyFault as fault:
                assert "another run took this output over (process 4242 on far" in str(fault)
                break
            assert time.monotonic() < until
            time.sleep(BEAT_S)
    # The thread that learnt of the loss tells first, and then removes the file; leaving the lease waits for it.
    assert not Path(store.url, LEASE, "000001.json").exists()
    assert written(store, 2) == OTHER_MACHINE


def test_a_look_into_the_store_tells_of_a_loss_before_the_next_beat(store: LocalStore) -> None:
    with held(store, beat_s=60.0) as lease:
        write(store, OTHER_MACHINE, number=2)
        lease.check()
        with pytest.raises(BusyFault):
            lease.confirm()


def test_a_file_that_says_nothing_holds_nobody_up(store: LocalStore) -> None:
    store.put(f"{LEASE}/000007.json", b"{")
    with held(store, beat_s=60.0) as lease:
        assert lease.number == 8


def without_generation(store: LocalStore, number: int) -> LaggingStore:
    """The same store, whose listings do not show this generation yet."""
    return LaggingStore(store.url, lambda key: key == f"{LEASE}/{number:06d}.json")


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_a_listing_that_lags_hides_no_holder(store: LocalStore, runs: int) -> None:
    for _ in range(runs - 1):
        with held(store, beat_s=60.0):
            pass
    with (
        held(store, beat_s=60.0) as lease,
        pytest.raises(BusyFault, match="another run is at work"),
        held(without_generation(store, runs), beat_s=60.0),
    ):
        pass
    assert lease.number == runs


def test_a_lease_goes_on_from_the_last_one_where_listings_lag(store: LocalStore) -> None:
    for number in (1, 2, 3):
        with held(without_generation(store, number - 1), beat_s=60.0) as lease:
            assert lease.number == number
    with held(LaggingStore(store.url, lambda key: not key.endswith("2.json")), beat_s=60.0) as lease:
        assert lease.number == 4


def test_a_lease_is_taken_again_where_listings_show_nothing(store: LocalStore) -> None:
    for number in (1, 2):
        with held(LaggingStore(store.url), beat_s=60.0) as lease:
            assert lease.number == number


class Ending(LocalStore):
    """A store that takes no puts in place of others: a lease can be taken there and not released."""

    def put(self, key: str, body: bytes) -> None:
        raise CredentialsFault("expired")


def test_a_lease_of_this_process_that_could_not_be_released_is_taken_over_at_once(store: LocalStore) -> None:
    told: list[str] = []
    with held(Ending(store.url), beat_s=60.0, say=told.append):
        pass
    assert not written(store).released
    with held(store, beat_s=60.0, say=told.append) as lease:
        assert lease.number == 2
    assert "could not be released (expired)" in told[0]
    assert told[1].startswith("taking over from process")


def test_of_many_at_once_one_holds_at_a_time(store: LocalStore) -> None:
    """All want it at the same moment: one gets it, every other is told who has it."""
    start, done = threading.Barrier(8), threading.Barrier(8)
    got: list[int] = []
    refused: list[str] = []

    def want() -> None:
        with ExitStack() as stack:
            start.wait(120)
            try:
                got.append(stack.enter_context(held(store, beat_s=60.0)).number)
            except BusyFault as fault:
                refused.append(str(fault))
            done.wait(120)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(got), len(refused)) == (1, 7)
