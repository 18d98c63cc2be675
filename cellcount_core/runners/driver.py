"""The loop that counts all shards: a limited number of attempts at a time, deaths counted by shard, and
fields that kill workers isolated.

It is the same for every pool. A shard whose worker died `max_deaths` times waits until all other shards
are done. Then it is split into halves again and again, with attempts that do not commit and one attempt
per worker, until the fields that kill are known. No field is blamed for a single death, because that may
be the fault of a machine. Fields that kill are marked, and the shard is done once more, so that it becomes
one part like any other. The driver holds only the shards in flight, never the whole plan.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from cellcount_core.domain.errors import Reason, RunFault
from cellcount_core.domain.fields import PlannedField, Receipt, Shard
from cellcount_core.runners.events import Events, Progress
from cellcount_core.runners.pool import Death, EndedAttempt, Mode, ShardTask, WorkerPool

_PROBE_FLOOR_S = 60.0
"""A probe of few fields gets at least this long, or a slow start would look like a hang."""

_DETAILS = {
    Reason.WORKER_DIED: "its worker died each time",
    Reason.TIMED_OUT: "there was no result within the time limit, each time",
}
"""What the row of a condemned field says. A worker's last words hold its host and process: they go into the log, not into a table."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of attempts: how many deaths until a shard is split, and how many seconds a whole shard may take."""

    max_deaths: int
    shard_timeout_s: float


def run_shards(pool: WorkerPool, shards: Iterable[Shard], policy: Policy, events: Events) -> Progress:
    """Count all `shards` and return the progress. Raises RunFault if the pool does, or if a shard cannot be committed at all."""
    progress = Progress()
    suspects = _run_window(pool, iter(shards), policy, events, progress)
    if suspects:
        pool.isolate()
        for shard in sorted(suspects, key=lambda suspect: suspect.number):
            _run_suspect(pool, shard, policy, events, progress)
    return progress


def _run_window(
    pool: WorkerPool, shards: Iterator[Shard], policy: Policy, events: Events, progress: Progress
) -> list[Shard]:
    again: deque[Shard] = deque()
    deaths: Counter[int] = Counter()
    suspects: list[Shard] = []
    in_flight = 0
    exhausted = False
    while True:
        while in_flight < pool.capacity():
            shard = again.popleft() if again else next(shards, None)
            if shard is None:
                exhausted = True
                break
            pool.submit(ShardTask(shard, Mode.COMMIT, policy.shard_timeout_s))
            in_flight += 1
        if exhausted and not in_flight and not again:
            return suspects
        for outcome in pool.wait(1.0):
            in_flight -= 1
            shard = outcome.task.shard
            match outcome.end:
                case Receipt() as receipt:
                    deaths.pop(shard.number, None)
                    _take(receipt, shard, events, progress)
                case Death() as death:
                    progress.deaths += 1
                    deaths[shard.number] += 1
                    events.death(outcome.task, death)
                    if deaths[shard.number] < policy.max_deaths:
                        again.append(shard)
                    else:
                        suspects.append(shard)
                case None:
                    again.append(shard)
        progress.in_hand = pool.progress()
        events.tick(progress)


def _run_suspect(pool: WorkerPool, shard: Shard, policy: Policy, events: Events, progress: Progress) -> None:
    end = _attempt(pool, ShardTask(shard, Mode.COMMIT, policy.shard_timeout_s), events, progress)
    if isinstance(end, Death):
        marked = _mark_poison(pool, shard, end, policy, events, progress)
        end = _insist(
            pool, ShardTask(marked, Mode.COMMIT, policy.shard_timeout_s), policy.max_deaths, events, progress
        )
    if isinstance(end, Death):
        # Its fields can be counted one by one and not together: the shard as a whole is what fails.
        everything = replace(shard, fields=tuple(_marked(planned, end) for planned in shard.fields))
        end = _insist(
            pool,
            ShardTask(everything, Mode.COMMIT, policy.shard_timeout_s),
            policy.max_deaths,
            events,
            progress,
        )
    if isinstance(end, Death):
        raise RunFault(
            f"shard {shard.number} cannot be committed: workers die on it although none of its fields is read any more; "
            f"the last: {end.detail}"
        )
    _take(end, shard, events, progress)


def _take(receipt: Receipt, shard: Shard, events: Events, progress: Progress) -> None:
    progress.add(receipt)
    events.receipt(replace(receipt, plates=shard.plates), progress)
    # What many workers find is said once.
    for note in receipt.notes:
        if note not in progress.notes:
            progress.notes.add(note)
            events.warn(note)


def _mark_poison(
    pool: WorkerPool, shard: Shard, death: Death, policy: Policy, events: Events, progress: Progress
) -> Shard:
    poison: dict[int, Death] = {}
    countable = [index for index, planned in enumerate(shard.fields) if planned.reason is None]
    groups: list[tuple[list[int], Death]] = [(countable, death)] if countable else []
    while groups:
        indexes, killed_by = groups.pop()
        if len(indexes) == 1:
            poison[indexes[0]] = killed_by
            continue
        middle = len(indexes) // 2
        for half in (indexes[:middle], indexes[middle:]):
            tries = policy.max_deaths if len(half) == 1 else 1
            end = _insist(pool, _probe(shard, half, policy), tries, events, progress)
            if isinstance(end, Death):
                groups.append((half, end))
    fields = tuple(
        _marked(planned, poison[index]) if index in poison else planned
        for index, planned in enumerate(shard.fields)
    )
    return replace(shard, fields=fields)


def _probe(shard: Shard, indexes: Sequence[int], policy: Policy) -> ShardTask:
    probe = replace(shard, fields=tuple(shard.fields[index] for index in indexes))
    timeout = max(_PROBE_FLOOR_S, policy.shard_timeout_s * len(indexes) / len(shard.fields))
    return ShardTask(probe, Mode.PROBE, min(timeout, policy.shard_timeout_s))


def _marked(planned: PlannedField, death: Death) -> PlannedField:
    if planned.reason is not None:
        return planned
    return replace(planned, reason=death.reason, detail=_DETAILS.get(death.reason, death.detail))


def _insist(
    pool: WorkerPool, task: ShardTask, tries: int, events: Events, progress: Progress
) -> Receipt | Death:
    """Up to `tries` attempts, until one gives a receipt."""
    end = _attempt(pool, task, events, progress)
    for _ in range(tries - 1):
        if isinstance(end, Receipt):
            break
        end = _attempt(pool, task, events, progress)
    return end


def _attempt(pool: WorkerPool, task: ShardTask, events: Events, progress: Progress) -> Receipt | Death:
    """One attempt with nothing else in the pool, repeated as long as it is lost through no fault of its own."""
    while True:
        while pool.capacity() < 1:
            pool.wait(1.0)
            events.tick(progress)
        pool.submit(task)
        end = _end_of(pool, events, progress)
        if isinstance(end, Death):
            progress.deaths += 1
            events.death(task, end)
        if end is not None:
            return end


def _end_of(pool: WorkerPool, events: Events, progress: Progress) -> Receipt | Death | None:
    while True:
        ended: list[EndedAttempt] = list(pool.wait(1.0))
        events.tick(progress)
        if ended:
            return ended[0].end
