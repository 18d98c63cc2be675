"""What a night came to: control charts of each plate's statistics, the digest as a value and as JSON, its
exit code, and sending it to a webhook.

A control chart asks whether a statistic of a plate lies where those of the last nights did. Centre and
spread are robust (the median, and 1.4826 times the median absolute deviation), so that one plate out of
control does not widen the limits for the next (Rousseeuw & Croux, J. Am. Stat. Assoc. 88, 1993).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPException
from statistics import median
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from cellcount_core.config import accepted_failures
from cellcount_core.domain.columns import Merge, Schema
from cellcount_core.domain.errors import ConfigFault, ExitCode
from cellcount_core.nightly.config import History, Webhook
from cellcount_core.nightly.ledger import Event, PlateStatus

_TO_SD = 1.4826
_LEAST_SPREAD = 0.02


def statistics_of(schema: Schema) -> dict[str, str]:
    """The statistics that are watched on every plate, by name, each with its title: means of what is counted,
    shares, percentages, and medians of the columns that are declared as watched.
    """
    counts = {
        f"{one.name}_per_field": f"{one.unit} a field" for one in schema.fields if one.merge is Merge.COUNT
    }
    shares = {
        f"{one.name}_share": f"share of {one.name}" for one in schema.fields if one.merge is Merge.SHARE
    }
    percentages = {one.name: f"{one.name} (%)" for one in schema.fields if one.merge is Merge.PERCENT}
    medians = {
        one.name: f"median {one.name}" + (f" ({one.unit})" if one.unit not in ("", "1") else "")
        for one in schema.fields
        if one.watched and one.merge is not Merge.SUM
    }
    return counts | shares | percentages | medians


@dataclass(frozen=True, slots=True)
class Reading:
    """One statistic of one plate, with its limits. The limits are None if there are too few earlier plates
    (`plates`) to compare with. `title` is the name of the statistic in words.
    """

    plate: str
    statistic: str
    title: str
    value: float
    centre: float | None
    low: float | None
    high: float | None
    plates: int

    @property
    def flagged(self) -> bool:
        """Whether the value lies outside its limits."""
        return self.low is not None and self.high is not None and not self.low <= self.value <= self.high


def limits(values: Sequence[float], history: History) -> tuple[float, float, float] | None:
    """Centre, lower limit and upper limit from the values of earlier plates, or None if there are too few of
    them.

    The spread is at least 2 % of the centre, so that a handful of equal plates does not flag the first one
    that differs.
    """
    if len(values) < history.least:
        return None
    centre = median(values)
    spread = _TO_SD * median(abs(value - centre) for value in values)
    half = history.sigmas * max(spread, _LEAST_SPREAD * abs(centre))
    return centre, centre - half, centre + half


def readings(
    plate: str,
    statistics: Mapping[str, float | None],
    before: Sequence[Mapping[str, float | None]],
    history: History,
    titles: Mapping[str, str],
) -> list[Reading]:
    """Compare each statistic of `plate` with the earlier plates `before`. `titles` holds the statistics to
    read, by name, with their titles; those that the plate does not have are left out.
    """
    found = []
    for name, title in titles.items():
        value = statistics.get(name)
        if value is None:
            continue
        earlier = [each for one in before if (each := one.get(name)) is not None]
        bounds = limits(earlier, history)
        centre, low, high = bounds or (None, None, None)
        found.append(Reading(plate, name, title, value, centre, low, high, len(earlier)))
    return found


@dataclass(frozen=True, slots=True)
class Digest:
    """The result of a night.

    - `events`: the lines that the night added to the ledger.
    - `unchanged`: how many plates were counted already and have not changed.
    - `problems`: what somebody must look at. `empty`: roots in which there was nothing to count. `notices`: what is worth knowing.
    - `cost`: None if no price was given.
    - `strict`: whether plates in doubt have an exit code of their own (`execution.strict`).
    - `webhook`: the result of sending the digest; "" before it was sent, and if there is no webhook.
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
        """The night's events with these statuses, in order."""
        return [event for event in self.events if event.status in statuses]

    @property
    def incomplete(self) -> list[Event]:
        """Counted plates with more failed and missing fields than `execution.max_failed` accepts."""
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
        """In words, what became of each plate that did not simply go well: failed and late plates, failed and missing fields, doubts."""
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
        """The statistics outside their limits."""
        return [reading for reading in self.readings if reading.flagged]

    @property
    def exit_code(self) -> ExitCode:
        """The exit code for an operator's alert. The first one that applies: interrupted; something that
        somebody must look at; plates in doubt (with `strict`); a root with nothing to count; work left
        over by the budget.
        """
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
    PlateStatus.LEFT: "not begun within the budget",
    PlateStatus.SUPERSEDED: "superseded",
    PlateStatus.DELETED: "deleted",
}


def digest_json(digest: Digest) -> bytes:
    """The bytes of digest.json, which are also what the webhook receives."""

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


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirect: it would turn the POST into a GET, and might lead to another host."""

    def redirect_request(self, *_: object) -> None:
        """Returns None, which means that no further request is made."""


def hook_url(hook: Webhook) -> str:
    """The URL to send to. Raises ConfigFault if it is not http or https, or if the environment variable is not set."""
    if hook.url_from is not None:
        url = os.environ.get(hook.url_from, "")
        if not url:
            raise ConfigFault(f"webhook.url_from: the environment variable {hook.url_from} is not set")
        origin = f"webhook.url_from: the value of {hook.url_from}"
    else:
        url, origin = hook.url or "", "webhook.url"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigFault(f"{origin} must be like 'https://host/path'")
    return url


def send(hook: Webhook, body: bytes, sleep: Callable[[float], None]) -> str:
    """POST `body` to the webhook and return in words what happened. A failure never fails the night.

    The words name only the host, because the path may be a secret. The pause between attempts doubles each
    time.
    """
    url = hook_url(hook)
    host = urlsplit(url).hostname
    headers = {"Content-Type": "application/json", "User-Agent": "cellcount"}
    opener = build_opener(_NoRedirects)
    said = ""
    for attempt in range(hook.retries + 1):
        if attempt:
            sleep(hook.pause_s * 2 ** (attempt - 1))
        request = Request(url, data=body, headers=headers, method="POST")  # noqa: S310 - checked by hook_url
        try:
            with opener.open(request, timeout=hook.timeout_s) as reply:
                return f"sent to {host}: {reply.status}"
        except HTTPError as error:
            said = f"it answered {error.code}"
            error.close()
            if error.code < 500 and error.code not in (408, 429):
                break
        except (OSError, HTTPException, ValueError) as error:
            said = str(getattr(error, "reason", error)) or type(error).__name__
    return f"not sent to {host}: {said}"
