"""One night: find the plates that are new and complete, count them one after the other, and write the digest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from cellcount_core.domain.errors import Interrupted, RunFault
from cellcount_core.nightly.config import NightlyConfig
from cellcount_core.nightly.counting import count_plate
from cellcount_core.nightly.digest import (
    Digest,
    Reading,
    digest_json,
    hook_url,
    readings,
    send,
    statistics_of,
)
from cellcount_core.nightly.ledger import Event, Ledger, PlateStatus
from cellcount_core.nightly.opening import (
    Clock,
    Roots,
    SystemClock,
    begin_night,
    bind_settings,
    iso_text,
    open_roots,
)
from cellcount_core.nightly.page import night_html
from cellcount_core.nightly.plates import (
    Named,
    PlateFolder,
    apart,
    heirs,
    look,
    named,
    nothing_seen,
    wanting,
)
from cellcount_core.output.runfile import read_run
from cellcount_core.runners.events import Events
from cellcount_core.runners.lease import Lease, held
from cellcount_core.runners.places import storage_options
from cellcount_core.runners.stopping import interruptible
from cellcount_core.stores.base import Store
from cellcount_core.stores.open import open_store

_MINUTE, _HOUR = 60.0, 3600.0
_KNOWN = (PlateStatus.COUNTED, PlateStatus.FAILED, PlateStatus.LATE, PlateStatus.LEFT)


def run_night(config: NightlyConfig, events: Events, clock: Clock | None = None) -> Digest:
    """Run one night, write its digest and return it. A night that was cut short is completed by the next one.

    Raises RunFault if nothing can be done at all: no root or not the output can be reached, another night
    is working on the output, the output has other settings, or it lies in a root. Problems with a single
    root or plate are reported in the digest instead. A stop (Ctrl-C, SIGTERM) ends the night with a digest
    that says so.
    """
    clock = clock or SystemClock()
    if config.webhook is not None:
        hook_url(config.webhook)
    store = open_store(config.output, storage_options(config.output_storage or config.storage))
    roots = open_roots(config, store)
    with held(store, name="nights/lease", say=events.stage) as lease:
        bind_settings(store, config)
        night = _Night(config, clock, events, store, roots, lease, Ledger(store))
        night.problems += roots.problems
        night.notices += roots.notices
        return night.run()


@dataclass(slots=True)
class _Night:
    config: NightlyConfig
    clock: Clock
    events: Events
    store: Store
    roots: Roots
    lease: Lease
    ledger: Ledger
    name: str = ""
    before: int = 0
    unchanged: int = 0
    readings: list[Reading] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    inherited: defaultdict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    began: float = 0.0

    def run(self) -> Digest:
        """The whole night."""
        date = self.clock.now()
        self.began = self.clock.running()
        self.before = len(self.ledger.events)
        self.name, unended = begin_night(self.store, date)
        self.notices += [f"the night {name} did not end; what it left is done now" for name in unended]
        interrupted = False
        try:
            with interruptible("stopped; the next night goes on where this one stopped"):
                self._work()
        except Interrupted:
            interrupted = True
        seconds = self.clock.running() - self.began
        digest = Digest(
            night=self.name,
            began=iso_text(date),
            seconds=seconds,
            cost=self._cost(seconds),
            events=tuple(self.ledger.events[self.before :]),
            unchanged=self.unchanged,
            readings=tuple(self.readings),
            problems=tuple(self.problems),
            empty=tuple(self.empty),
            notices=tuple(self.notices),
            max_failed=self.config.execution.max_failed,
            strict=self.config.execution.strict,
            interrupted=interrupted,
        )
        return self._publish(digest)

    def _work(self) -> None:
        plates = self._look()
        self._settle(plates)
        ready, waiting = self._sorted_out(plates)
        looked = self.clock.running()
        self._count_all(ready)
        if waiting:
            self._count_all(self._waited_for(waiting, looked))

    def _look(self) -> dict[str, PlateFolder]:
        """All plates by name. Plates that are gone from a root which can still be listed are recorded as deleted."""
        seen: list[PlateFolder] = []
        listed: dict[str, int] = {}
        empty: dict[str, str] = {}
        for root in self.roots.stores:
            self.events.stage(f"listing {root.url}")
            try:
                sight = look(root, self.config.run, self.config.complete, depth=self.config.depth)
            except RunFault as fault:
                self.problems.append(f"{root.url}: left out tonight: {fault}")
                continue
            self.problems += sight.refused
            seen += sight.plates
            listed[root.url] = sight.files
            if not sight.plates:
                empty[root.url] = nothing_seen(sight, root.url, self.config.run, self.config.depth)
            elif sight.beside:
                self.notices.append(
                    f"{root.url}: not looked at: {sight.beside} images beside the plates' folders, such as {sight.example!r}"
                )
        if not listed and self.problems:
            return {}
        kept, said = apart(seen)
        tonight = named(kept, self.ledger, self.roots.urls)
        self.notices += [*said, *tonight.said]
        for url, why in empty.items():
            around = next((plate for plate in kept if f"{url}/".startswith(f"{plate.place}/")), None)
            if around is None:
                self.empty.append(why)
            else:
                self.notices.append(
                    f"the root {url} lies in the plate {around.source} of another root: counted there"
                )
        self._part_with(tonight, listed)
        return tonight.plates

    def _part_with(self, tonight: Named, listed: dict[str, int]) -> None:
        """Record which known plates no longer exist: deleted from a root that can still be listed, or now
        counted as part of another plate.
        """
        gone: defaultdict[str, list[Event]] = defaultdict(list)
        known = [
            event
            for event in self.ledger.current()
            if event.plate not in tonight.plates and event.status in _KNOWN
        ]
        passed: set[Event] = set()
        for event, heir in heirs(known, tonight.plates.values(), (*self.roots.urls, *tonight.moves)):
            self.inherited[heir.name].append(event)
            passed.add(event)
        for event in known:
            if event in passed:
                continue
            root = next(
                (
                    root
                    for root in (*listed, *tonight.moves)
                    if event.source.startswith(f"{root.rstrip('/')}/")
                ),
                None,
            )
            if root is not None and tonight.moves.get(root, root) in listed:
                gone[tonight.moves.get(root, root)].append(event)
        for heir_name in list(self.inherited):
            self._inherit(heir_name)
        for root, events in gone.items():
            if not listed[root]:
                self.problems.append(
                    f"{root} lists no file at all; its {len(events)} known plates are not taken for deleted"
                )
                continue
            for event in events:
                detail = "" if event.status is PlateStatus.COUNTED else f"had been {event.status.value}"
                self._end(event, PlateStatus.DELETED, detail)

    def _inherit(self, name: str) -> None:
        """Once the plate is counted, record that older plates with the same images are superseded by it."""
        if self.ledger.live(name):
            for event in self.inherited.pop(name, []):
                self._end(event, PlateStatus.SUPERSEDED, f"its images are those of the plate {name} now")

    def _end(self, event: Event, status: PlateStatus, detail: str) -> None:
        self.ledger.append(replace(event, night=self.name, status=status, detail=detail, fields_now=None))

    def _settle(self, plates: dict[str, PlateFolder]) -> None:
        """Record contents as superseded whose successor was counted, also if an earlier night was cut short before it did so."""
        for name in plates:
            alive = {event.content for event in self.ledger.live(name)}
            for old in self.ledger.states(name):
                if old.status is PlateStatus.COUNTED and old.content not in alive:
                    self._end(old, PlateStatus.SUPERSEDED, old.detail)

    def _sorted_out(self, plates: dict[str, PlateFolder]) -> tuple[list[PlateFolder], list[PlateFolder]]:
        """Plates to count now, those known longest first, and plates whose waiting time must pass first."""
        first_seen: dict[str, int] = {}
        last: dict[tuple[str, str], Event] = {}
        for number, event in enumerate(self.ledger.events):
            first_seen.setdefault(event.plate, number)
        for event in self.ledger.current():
            last[event.plate, event.content] = event
        ready, waiting = [], []
        for plate in sorted(
            plates.values(), key=lambda one: (first_seen.get(one.name, len(self.ledger.events)), one.name)
        ):
            known = last.get((plate.name, plate.content))
            now = self.ledger.live(plate.name)[-1:]
            if now and now[0].content == plate.content:
                self.unchanged += 1
            elif lacking := wanting(plate, self.config.complete):
                self._late(plate, lacking)
            elif self._waited(known):
                ready.append(plate)
            else:
                waiting.append(plate)
        return ready, waiting

    def _waited(self, known: Event | None) -> bool:
        """Whether a plate with this content has been unchanged for long enough, as far as earlier nights can tell."""
        minutes = self.config.complete.unchanged_min
        if not minutes:
            return True
        if known is None:
            return False
        if known.status is not PlateStatus.LATE:
            return True
        passed = self.clock.now() - datetime.fromisoformat(known.started)
        return passed.total_seconds() >= minutes * _MINUTE

    def _waited_for(self, waiting: Sequence[PlateFolder], looked: float) -> list[PlateFolder]:
        """Those of `waiting` that are unchanged after the waiting time. The others are late, and so are all
        if the budget does not allow for waiting.
        """
        minutes = self.config.complete.unchanged_min or 0.0
        rest = max(0.0, looked + minutes * _MINUTE - self.clock.running())
        if self._spent(rest):
            for plate in waiting:
                self._late(plate, f"unchanged for less than {minutes:g} min when the budget ended")
            return []
        self.events.stage(f"waiting {rest:.0f} s: are {len(waiting)} new plates still being written?")
        self.clock.sleep(rest)
        ready = []
        for plate in waiting:
            again = self._again(plate)
            if again is None or again.content != plate.content:
                self._late(again or plate, f"changed within {minutes:g} min")
            elif lacking := wanting(again, self.config.complete):
                self._late(again, lacking)
            else:
                ready.append(again)
        return ready

    def _again(self, plate: PlateFolder) -> PlateFolder | None:
        """The plate as it is listed now; None if it is gone."""
        root = next(root for root in self.roots.stores if root.url == plate.root)
        sight = look(root, self.config.run, self.config.complete, depth=self.config.depth, prefix=plate.path)
        return next((replace(one, name=plate.name) for one in sight.plates if one.path == plate.path), None)

    def _count_all(self, plates: Sequence[PlateFolder]) -> None:
        for number, plate in enumerate(plates):
            self.lease.check()
            if why := self._spent():
                for left in plates[number:]:
                    self.ledger.append(self._event(left, PlateStatus.LEFT, why))
                return
            self.events.stage(f"plate {plate.name} ({number + 1} of {len(plates)})")
            self._count(plate)

    def _count(self, plate: PlateFolder) -> None:
        blank = self._event(plate, PlateStatus.COUNTED, "")
        self._doubt_depth(plate)
        began = self.clock.running()
        try:
            event = count_plate(
                self.config, plate, blank, self.ledger.live(plate.name), self.store, self.events
            )
            again = self._again(plate)
            if again is None or again.content != plate.content:
                event = replace(
                    event,
                    status=PlateStatus.FAILED,
                    detail="changed while it was counted; it is counted again the next night",
                )
        except Interrupted:
            raise
        except RunFault as fault:
            doubts = "\n".join(fault.warnings)
            event = replace(blank, status=PlateStatus.FAILED, detail=str(fault), doubts=doubts)
        # Only the holder of the lease may say what became of a plate.
        self.lease.check()
        self.ledger.append(replace(event, seconds=round(self.clock.running() - began, 3)))
        if event.status is PlateStatus.COUNTED:
            self._settle({plate.name: plate})
            self._inherit(plate.name)
            counted = open_store(
                f"{self.store.url.rstrip('/')}/{event.output}",
                storage_options(self.config.output_storage or self.config.storage),
            )
            titles = statistics_of(read_run(counted).schema)
            self.readings += readings(
                plate.name, event.statistics, self._earlier(), self.config.history, titles
            )

    def _doubt_depth(self, plate: PlateFolder) -> None:
        """Report that several plates seem to be counted as one. It is a problem, unless the depth was set explicitly."""
        if several := plate.looks_like_several:
            depth = self.config.depth
            deeper = depth + min(folder.count("/") + 1 for folder in plate.folders)
            said = f"{several}: if these are the plates, set depth: {deeper}; if {plate.path} is the plate, depth: {depth} says so"
            chosen = "depth" in self.config.model_fields_set
            (self.notices if chosen else self.problems).append(said)

    def _earlier(self) -> list[Mapping[str, float | None]]:
        """Statistics of the plates that were counted in the last nights before this one."""
        past = self.ledger.events[: self.before]
        nights = list(dict.fromkeys(event.night for event in past))[-self.config.history.nights :]
        return [
            event.statistics
            for event in past
            if event.status is PlateStatus.COUNTED and event.night in nights
        ]

    def _late(self, plate: PlateFolder, detail: str) -> None:
        since = next(
            (
                event.started
                for event in self.ledger.states(plate.name)
                if event.content == plate.content and event.status is PlateStatus.LATE
            ),
            None,
        )
        event = self._event(plate, PlateStatus.LATE, detail)
        self.ledger.append(event if since is None else replace(event, started=since))

    def _event(self, plate: PlateFolder, status: PlateStatus, detail: str) -> Event:
        return Event(
            night=self.name,
            plate=plate.name,
            source=plate.source,
            content=plate.content,
            status=status,
            started=iso_text(self.clock.now()),
            detail=detail,
            files=plate.files,
            bytes=plate.size,
        )

    def _spent(self, more: float = 0.0) -> str:
        """Why nothing more is begun (`more` seconds from now), or "" while the budget lasts."""
        seconds = self.clock.running() - self.began + more
        budget = self.config.budget
        if budget.max_hours is not None and seconds >= budget.max_hours * _HOUR:
            return f"budget.max_hours of {budget.max_hours:g} is spent"
        cost = self._cost(seconds)
        if budget.max_cost is not None and cost is not None and cost >= budget.max_cost:
            return f"budget.max_cost of {budget.max_cost:g} is spent"
        return ""

    def _cost(self, seconds: float) -> float | None:
        price = self.config.budget.cost_per_hour
        return None if price is None else round(price * seconds / _HOUR, 4)

    def _publish(self, digest: Digest) -> Digest:
        self.lease.check()
        self.ledger.write_views()
        self._write(digest)
        hook = self.config.webhook
        if hook is None:
            return digest
        digest = replace(digest, webhook=send(hook, digest_json(digest), self.clock.sleep))
        if not digest.webhook.startswith("sent"):
            self.events.warn(f"webhook: {digest.webhook}")
        self._write(digest)
        return digest

    def _write(self, digest: Digest) -> None:
        history = self._earlier()
        html, data = night_html(digest, history).encode(), digest_json(digest)
        for folder in (f"nights/{self.name}/digest", "nights/latest"):
            self.store.put(f"{folder}.json", data)
            self.store.put(f"{folder}.html", html)
