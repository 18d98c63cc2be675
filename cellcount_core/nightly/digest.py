"""What a night came to: one value, its JSON, and the code that an operator's alert goes by."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from cellcount_core.config import accepted_failures
from cellcount_core.domain.errors import ExitCode
from cellcount_core.nightly.control import Reading
from cellcount_core.nightly.ledger import Event, PlateStatus


@dataclass(frozen=True, slots=True)
class Digest:
    """A night.

    `events` are its lines of the ledger, `unchanged` the plates that had been counted as they are. `problems` want somebody to
    look, `empty` tells of roots in which there was nothing to count, `notices` are worth knowing. `cost` is None where no price was given. `left` plates are known, complete and not begun.
    With `strict` (`execution.strict`) plates in doubt have an exit code of their own. `webhook` says what came of sending this; "" before it was sent, and where none is set.
    """

    night: str
    began: str
    seconds: float
    cost: float | None
    events: tuple[Event, ...]
    unchanged: int
    readings: tuple[Reading, ...]
    problems: tuple[str, ...]
    empty: tuple[str, ...]
    notices: tuple[str, ...]
    max_failed: int | str | None
    strict: bool = False
    interrupted: bool = False
    webhook: str = ""

    def of(self, *statuses: PlateStatus) -> list[Event]:
        """The night's events of these statuses, in order."""
        return [event for event in self.events if event.status in statuses]

    @property
    def incomplete(self) -> list[Event]:
        """Counted plates with more failed and missing fields than execution.max_failed."""
        return [
            event
            for event in self.of(PlateStatus.COUNTED)
            if (event.failed or 0) + (event.missing or 0)
            > accepted_failures(self.max_failed, event.fields or 0)
        ]

    @property
    def doubted(self) -> list[Event]:
        """Counted plates that are in doubt as a whole."""
        return [event for event in self.of(PlateStatus.COUNTED) if event.doubt]

    @property
    def sentences(self) -> list[str]:
        """What became of each plate that did not simply go well, in words: failed and late ones, failed and missing fields, doubts."""
        said = []
        for event in self.of(PlateStatus.FAILED, PlateStatus.LATE, PlateStatus.COUNTED):
            if event.status is PlateStatus.FAILED:
                said.append(f"{event.plate}: not counted: {event.detail}")
            elif event.status is PlateStatus.LATE:
                said.append(f"{event.plate}: late, not counted tonight: {event.detail}")
            elif event.detail:
                said.append(f"{event.plate}: {event.detail}")
            said += [f"{event.plate}: {line}" for line in event.doubts.splitlines()]
        return said

    @property
    def flagged(self) -> list[Reading]:
        """Statistics outside their limits."""
        return [reading for reading in self.readings if reading.flagged]

    @property
    def exit_code(self) -> ExitCode:
        """Interrupted before anything else; then what somebody must look at, with `strict` plates in doubt, a root without anything to
        count, work that the budget left."""
        if self.interrupted:
            return ExitCode.INTERRUPTED
        if self.of(PlateStatus.FAILED) or self.incomplete or self.flagged or self.problems:
            return ExitCode.FAILURES
        if self.strict and self.doubted:
            return ExitCode.DOUBTS
        if self.empty:
            return ExitCode.NOTHING
        return ExitCode.INTERRUPTED if self.of(PlateStatus.LEFT) else ExitCode.OK

    @property
    def headline(self) -> str:
        """The night in one line."""
        parts = [f"{len(self.of(PlateStatus.COUNTED))} counted"]
        parts += [f"{len(found)} {words}" for status, words in _WORDS.items() if (found := self.of(status))]
        parts.append(f"{self.unchanged} unchanged")
        if lacking := [
            event for event in self.of(PlateStatus.COUNTED) if (event.failed or 0) + (event.missing or 0)
        ]:
            parts.append(f"{len(lacking)} with failed or missing fields")
        if self.doubted:
            parts.append(f"{len(self.doubted)} in doubt")
        if self.flagged:
            parts.append(f"{len(self.flagged)} outside limits")
        return ("stopped: " if self.interrupted else "") + ", ".join(parts)


_WORDS = {
    PlateStatus.FAILED: "failed",
    PlateStatus.LATE: "late",
    PlateStatus.LEFT: "left by the budget",
    PlateStatus.SUPERSEDED: "superseded",
    PlateStatus.DELETED: "deleted",
}


def digest_json(digest: Digest) -> bytes:
    """The bytes of digest.json, which the webhook receives too."""

    def plates(*statuses: PlateStatus) -> list[dict[str, object]]:
        return [event.plain() for event in digest.of(*statuses)]

    data = {
        "night": digest.night,
        "headline": digest.headline,
        "exit_code": int(digest.exit_code),
        "interrupted": digest.interrupted,
        "began": digest.began,
        "seconds": round(digest.seconds, 1),
        "cost": digest.cost,
        "fields_counted": sum(event.fields_now or 0 for event in digest.of(PlateStatus.COUNTED)),
        **{status.value: plates(status) for status in PlateStatus},
        "unchanged": digest.unchanged,
        "sentences": digest.sentences,
        "incomplete": [event.plate for event in digest.incomplete],
        "in_doubt": {event.plate: event.doubt for event in digest.doubted},
        "drift": [{**asdict(reading), "flagged": reading.flagged} for reading in digest.readings],
        "problems": list(digest.problems),
        "empty": list(digest.empty),
        "notices": list(digest.notices),
        "webhook": digest.webhook,
    }
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
