"""The lease of a folder in a store. One driver at a time may work on the folder, and the place of a dead
driver can be taken over.

A lease is a series of generation files, `<name>/<000001>.json`; the highest one says who holds it. A new
one is created with `put_new`, so that only one of several candidates gets it. The holder rewrites its file
with a growing number of beats. Whoever finds a lease looks several times whether it changes; the clocks of
two machines are never compared (ADR 0007).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cellcount_core.domain.errors import BusyFault, CellcountError
from cellcount_core.stores.base import Absent, Created, Denied, Store

LEASE = "run/lease"
_SUFFIX = ".json"
_LOOKS_A_BEAT = 4
_LONGEST_BEAT_S = 600.0
_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Holder:
    """The content of a generation file. `since` is by that machine's clock and only for people to read;
    `token` is unique to one holding.

    `machine` identifies one boot of one host and one process namespace on it; `pid` and `started` mean
    something only there. It is "" if the system does not tell.
    """

    token: str
    host: str
    machine: str
    pid: int
    started: str
    since: str
    beat_s: float
    beats: int = 0
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lease:
    """A lease that is held. A thread keeps it alive; the driver calls `check` between two shards."""

    def __init__(self, store: Store, name: str, holder: Holder) -> None:
        self._store = store
        self._name = name
        self._number = 0
        self._after_death = False
        self._holder = holder
        self._lost: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=_thread_name(holder), daemon=True)

    @property
    def number(self) -> int:
        """The generation that is held; it grows with every holder."""
        return self._number

    @property
    def after_death(self) -> bool:
        """Whether the previous holder died, or seemed to, while it was working."""
        return self._after_death

    def check(self) -> None:
        """Raise BusyFault if it is known that another driver took the lease over. This does not ask the store."""
        if self._lost is not None:
            raise BusyFault(self._lost)

    def confirm(self) -> None:
        """As `check`, but asks the store first. Call it before something that two drivers must not both do."""
        self._look()
        self.check()

    @contextmanager
    def alive(self) -> Iterator[None]:
        """The thread runs inside this context. That is how others in this process know that this holding is alive."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(_STOP_S)

    def taken(self, number: int, *, after_death: bool) -> None:
        """Generation `number` is held: begin to beat for it."""
        self._after_death = after_death
        self._number = number

    def release(self, say: Callable[[str], None]) -> None:
        """Write to the store that the lease is free. If that fails, whoever comes next waits for beats in vain instead."""
        if self._lost is not None or not self._number:
            return
        try:
            _write(self._store, self._name, self._number, replace(self._holder, released=True))
        except CellcountError as fault:
            say(f"{self._name} could not be released ({fault}); the next run waits a little for it")

    def _beat(self) -> None:
        while self._lost is None and not self._stop.wait(self._holder.beat_s):
            if not self._number:
                continue
            # A store that fails for a while costs beats, not the lease: it is lost only to a higher generation.
            try:
                self._look()
                if self._lost is None:
                    self._holder = replace(self._holder, beats=self._holder.beats + 1)
                    _write(self._store, self._name, self._number, self._holder)
            except CellcountError:
                continue

    def _look(self) -> None:
        highest = max(_generations(self._store, self._name), default=0)
        if self._lost is None and highest > self._number:
            other = _read(self._store, self._name, highest)
            who = str(other) if other is not None else f"generation {highest}"
            self._lost = (
                f"{self._store.url}: another run took this output over ({who}) while this one gave no sign of life; "
                "this one stops, what it committed stays"
            )
            self._store.delete(_key(self._name, self._number))


@contextmanager
def held(
    store: Store,
    name: str = LEASE,
    beat_s: float = 10.0,
    patience_beats: int = 3,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Lease]:
    """Hold the lease `name` of `store`. It is released at the end, also after a fault.

    Raises BusyFault, which names the holder, if another driver is alive: at once if that is a process of
    this host, otherwise as soon as a beat of it is seen. A dead process of this host is replaced at once;
    any other holder is replaced after `patience_beats` of its own `beat_s` (seconds) without a beat. `say`
    is told about waiting and taking over.
    """
    me = _myself(beat_s)
    lease = Lease(store, name, me)
    try:
        with lease.alive():
            number, died = _take(store, name, me, patience_beats, say)
            lease.taken(number, after_death=died)
            yield lease
    finally:
        lease.release(say)


def _take(
    store: Store, name: str, me: Holder, patience_beats: int, say: Callable[[str], None]
) -> tuple[int, bool]:
    """The generation that is now held, and whether the holder before it died."""
    # Found by a put: a listing may lag behind it.
    known = 0
    died = False
    while True:
        numbers = _generations(store, name)
        highest = max([known, *numbers])
        if highest:
            died = not _wait_for_end(store, name, highest, me.beat_s, patience_beats, say)
        mine = highest + 1
        if not _create(store, name, mine, me):
            known = mine
            continue
        # A slow taker may create a generation below one that is held by now: only the highest one counts.
        if max(_generations(store, name), default=0) > mine:
            store.delete(_key(name, mine))
            continue
        # The last one stays: who is shown an old listing finds it where this one would be created, and looks further.
        for number in numbers:
            if number < mine - 1:
                store.delete(_key(name, number))
        return mine, died


def _create(store: Store, name: str, number: int, me: Holder) -> bool:
    """Whether this generation is ours now. That may be so even if the reply to our own put was lost."""
    if store.put_new(_key(name, number), _body(me)) is Created.NEW:
        return True
    found = _read(store, name, number)
    return found is not None and found.token == me.token


def _wait_for_end(
    store: Store, name: str, number: int, beat_s: float, patience_beats: int, say: Callable[[str], None]
) -> bool:
    """Return once the holder of generation `number` is known to be gone, and whether it released the lease.
    Raises BusyFault as soon as the holder is seen to be alive.
    """
    first = _read(store, name, number)
    if first is None or first.released:
        return True
    alive = _lives_here(first)
    if alive is False:
        say(f"taking over from {first}, which is gone")
        return False
    if alive:
        raise _busy(store, first)
    beat = first.beat_s if 0 < first.beat_s <= _LONGEST_BEAT_S else beat_s
    patience = beat * patience_beats
    say(f"{store.url} is held by {first}; waiting up to {patience:.0f} s for a sign of life")
    # Looks are counted, not seconds: a watcher that is itself held up looks later, and as often.
    for _ in range(_LOOKS_A_BEAT * patience_beats):
        time.sleep(beat / _LOOKS_A_BEAT)
        now = _read(store, name, number)
        if now is None or now.released:
            return True
        if now != first:
            raise _busy(store, now)
    say(f"taking over from {first}, which gave no sign of life for {patience:.0f} s")
    return False


def _busy(store: Store, holder: Holder) -> BusyFault:
    return BusyFault(
        f"{store.url}: another run is at work on this output: {holder}; wait until it is done, or end it and run the "
        "same command again"
    )


def _generations(store: Store, name: str) -> list[int]:
    names = (listed.key.rsplit("/", 1)[-1] for batch in store.list(name) for listed in batch)
    return [int(stem) for stem in (file.removesuffix(_SUFFIX) for file in names) if stem.isdecimal()]


def _key(name: str, number: int) -> str:
    return f"{name}/{number:06d}{_SUFFIX}"


def _body(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), indent=1).encode()


def _write(store: Store, name: str, number: int, holder: Holder) -> None:
    store.put(_key(name, number), _body(holder))


def _read(store: Store, name: str, number: int) -> Holder | None:
    """Who holds this generation; None if the file is gone or unreadable, which means that the next generation may be taken."""
    try:
        found = json.loads(store.get(_key(name, number)))
        return Holder(
            str(found["token"]), str(found["host"]), str(found["machine"]), int(found["pid"]), str(found["started"]),
            str(found["since"]), float(found["beat_s"]), int(found["beats"]), bool(found["released"]),
        )  # fmt: skip
    except (Absent, Denied, ValueError, KeyError, TypeError):
        return None


def _myself(beat_s: float) -> Holder:
    pid = os.getpid()
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Holder(uuid.uuid4().hex, socket.gethostname(), _machine(), pid, _started(pid) or "", since, beat_s)


def _machine() -> str:
    """This boot of this host and its process namespace. Two containers on one host cannot see each other's processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except (OSError, ValueError):
        return ""


def _lives_here(holder: Holder) -> bool | None:
    """Whether the holder is alive; None if this machine cannot know."""
    if not holder.machine or holder.machine != _machine() or not holder.started:
        return None
    if _started(holder.pid) != holder.started:
        return False
    # A holding of this very process lives as long as its thread, also where its end could not be written.
    return holder.pid != os.getpid() or _thread_name(holder) in {one.name for one in threading.enumerate()}


def _thread_name(holder: Holder) -> str:
    return f"lease {holder.token}"


def _started(pid: int) -> str | None:
    """When process `pid` started, in ticks since the boot; None if there is no such process, or a dead one."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = text[text.rindex(")") + 1 :].split()
    return None if state in ("Z", "X") else rest[18]
