"""The driver's loop, on a pool of scripted deaths: nothing is lost, nothing done twice, the poison is found."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.cli.progress import Quiet
from cellcount_core.domain.errors import Reason, RunFault
from cellcount_core.domain.fields import Commit, FieldKey, PlannedField, Receipt, Shard, Source
from cellcount_core.runners.driver import Policy, run_shards
from cellcount_core.runners.events import Progress
from cellcount_core.runners.pool import Death, EndedAttempt, Mode, ShardTask
from tests.often import often

POLICY = Policy(max_deaths=2, shard_timeout_s=100.0)


def shard(number: int, fields: int) -> Shard:
    keys = [FieldKey("P", f"A{number:02d}", site + 1, 1) for site in range(fields)]
    return Shard(number, tuple(PlannedField(key, (Source("", 0, f"{key.field_id}.tif"),)) for key in keys))


class ScriptedPool:
    """Two workers; an attempt dies if it holds a field of `poison`, and as often as `unlucky` says for a shard."""

    def __init__(self, poison: set[str], unlucky: dict[int, int]) -> None:
        self.poison = poison
        self.unlucky = dict(unlucky)
        self.waiting: list[ShardTask] = []
        self.commits: Counter[int] = Counter()
        self.marked: dict[str, Reason] = {}
        self.most = 0
        self.slots = 4

    def capacity(self) -> int:
        return self.slots

    def submit(self, task: ShardTask) -> None:
        self.waiting.append(task)
        self.most = max(self.most, len(self.waiting))
        assert len(self.waiting) <= self.slots

    def wait(self, timeout_s: float) -> Sequence[EndedAttempt]:
        return [EndedAttempt(task, self._end(task)) for task in [self.waiting.pop(0)]] if self.waiting else []

    def _end(self, task: ShardTask) -> Receipt | Death | None:
        if self.unlucky.get(task.shard.number, 0) > 0:
            self.unlucky[task.shard.number] -= 1
            return Death(Reason.WORKER_DIED, "node lost")
        alive = [planned for planned in task.shard.fields if planned.reason is None]
        if any(planned.key.field_id in self.poison for planned in alive):
            return Death(Reason.WORKER_DIED, "segfault")
        if task.mode is Mode.COMMIT:
            self.commits[task.shard.number] += 1
            for planned in task.shard.fields:
                if planned.reason is not None:
                    self.marked[planned.key.field_id] = planned.reason
        statuses = {"ok": len(alive), "failed": len(task.shard.fields) - len(alive)}
        return Receipt(task.shard.number, Commit.WRITTEN, statuses, {}, 0, 0, 0.0)

    def progress(self) -> int:
        return sum(len(task.shard.fields) for task in self.waiting)

    def isolate(self) -> None:
        self.slots = 2

    def close(self) -> None:
        pass


def run(pool: ScriptedPool, shards: list[Shard]) -> Progress:
    return run_shards(pool, iter(shards), POLICY, Quiet())


def test_every_shard_is_committed_once_within_the_window() -> None:
    pool = ScriptedPool(set(), {})
    progress = run(pool, [shard(number, 3) for number in range(10)])
    assert pool.commits == Counter(range(10))
    assert progress.statuses["ok"] == 30
    assert pool.most == 4


def test_a_lost_worker_costs_only_another_attempt() -> None:
    pool = ScriptedPool(set(), {1: 1, 3: 1})
    progress = run(pool, [shard(number, 3) for number in range(5)])
    assert pool.commits == Counter(range(5))
    assert (progress.deaths, progress.statuses["failed"]) == (2, 0)


def test_what_many_workers_found_is_said_once() -> None:
    class Noting(ScriptedPool):
        def _end(self, task: ShardTask) -> Receipt | Death | None:
            end = super()._end(task)
            notes = ("tiles of 640 px", f"odd: {task.shard.number % 2 == 1}")
            return replace(end, notes=notes) if isinstance(end, Receipt) else end

    class Heard(Quiet):
        def __init__(self) -> None:
            self.warned: list[str] = []

        def warn(self, text: str) -> None:
            self.warned.append(text)

    heard = Heard()
    # A shard that is bisected commits its note too, though not with its probes.
    pool = Noting({shard(4, 2).fields[0].key.field_id}, {})
    run_shards(pool, iter(shard(number, 2) for number in range(5)), POLICY, heard)
    assert sorted(heard.warned) == ["odd: False", "odd: True", "tiles of 640 px"]


def test_a_shard_that_shared_its_worker_with_poison_loses_no_field() -> None:
    pool = ScriptedPool(set(), {2: 2})
    progress = run(pool, [shard(number, 3) for number in range(5)])
    assert (progress.statuses["ok"], progress.statuses["failed"]) == (15, 0)


@given(fields=st.integers(1, 40), poisonous=st.sets(st.integers(0, 39), max_size=5))
@settings(max_examples=often(60), deadline=None)
def test_exactly_the_poisonous_fields_are_marked(fields: int, poisonous: set[int]) -> None:
    bad = shard(1, fields)
    poison = {bad.fields[index].key.field_id for index in poisonous if index < fields}
    pool = ScriptedPool(poison, {})
    progress = run(pool, [shard(0, 4), bad, shard(2, 4)])
    assert pool.marked == dict.fromkeys(poison, Reason.WORKER_DIED)
    assert pool.commits == Counter([0, 1, 2])
    assert progress.statuses.total() == fields + 8


def test_a_shard_that_dies_only_as_a_whole_is_failed_as_a_whole() -> None:
    class Crowded(ScriptedPool):
        def _end(self, task: ShardTask) -> Receipt | Death | None:
            if sum(planned.reason is None for planned in task.shard.fields) > 2:
                return Death(Reason.WORKER_DIED, "killed: out of memory")
            return super()._end(task)

    pool = Crowded(set(), {})
    progress = run(pool, [shard(0, 4)])
    assert progress.statuses["failed"] == 4
    assert set(pool.marked.values()) == {Reason.WORKER_DIED}


@given(poisonous=st.integers(0, 7), strike=st.integers(0, 30))
@settings(max_examples=often(80), deadline=None)
def test_a_machine_lost_while_poison_is_looked_for_condemns_no_field(poisonous: int, strike: int) -> None:
    class Struck(ScriptedPool):
        attempts = 0

        def _end(self, task: ShardTask) -> Receipt | Death | None:
            self.attempts += 1
            if self.attempts == strike:
                return Death(Reason.WORKER_DIED, "node lost")
            return super()._end(task)

    bad = shard(0, 8)
    poison = bad.fields[poisonous].key.field_id
    pool = Struck({poison}, {})
    progress = run(pool, [bad])
    assert pool.marked == {poison: Reason.WORKER_DIED}
    assert progress.statuses == Counter(ok=7, failed=1)


def test_a_condemned_field_says_nothing_of_host_or_process() -> None:
    class Talkative(ScriptedPool):
        details: set[str] = set()

        def _end(self, task: ShardTask) -> Receipt | Death | None:
            end = super()._end(task)
            if task.mode is Mode.COMMIT and isinstance(end, Receipt):
                self.details = {planned.detail for planned in task.shard.fields if planned.reason}
            return replace(end, detail=f"pid {next(pids)} on 10.0.0.7") if isinstance(end, Death) else end

    pids = itertools.count(4000)
    bad = shard(0, 3)
    pool = Talkative({bad.fields[1].key.field_id}, {})
    run(pool, [bad])
    assert pool.details == {"its worker died each time"}


def test_a_shard_that_no_worker_survives_at_all_stops_the_run_and_is_not_left_out() -> None:
    class Cursed(ScriptedPool):
        def _end(self, task: ShardTask) -> Receipt | Death | None:
            return Death(Reason.WORKER_DIED, "node lost")

    with pytest.raises(RunFault, match="shard 0 cannot be committed"):
        run(Cursed(set(), {}), [shard(0, 2)])


def test_a_shard_of_nothing_but_known_failures_is_not_searched_for_poison() -> None:
    known = shard(0, 2)
    fields = tuple(replace(planned, reason=Reason.ABSENT) for planned in known.fields)
    pool = ScriptedPool(set(), {0: 3})
    progress = run(pool, [replace(known, fields=fields)])
    assert progress.statuses == Counter(failed=2, ok=0)
    assert set(pool.marked.values()) == {Reason.ABSENT}


def test_a_fault_of_the_run_ends_the_loop() -> None:
    class Refusing(ScriptedPool):
        def wait(self, timeout_s: float) -> Sequence[EndedAttempt]:
            raise ConnectionError("store gone")

    with pytest.raises(ConnectionError):
        run(Refusing(set(), {}), [shard(0, 1)])
