"""What a plan holds, in numbers: tallied while the fields stream by, shown by `cellcount plan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cellcount_core.domain.facts import PlateFacts
from cellcount_core.domain.fields import PlannedField
from cellcount_core.domain.scales import PoolScale


@dataclass(frozen=True, slots=True)
class PlateSummary:
    """A plate: its fields, and how many sites its wells have (fewest, median, most; the lower median of an even number)."""

    plate: str
    wells: int
    fields: int
    sites_min: int
    sites_median: int
    sites_max: int


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """Everything `cellcount plan` prints.

    `size` is in bytes, of the files to be read. `reasons` counts fields already known to be missing or failed, `ignored`
    files by why (`ignored_examples`: one of each), `unparsed` images whose names do not parse (`unparsed_examples`: the first of them in sorted order).
    `counted` and `measured` are channels; "" is the one of files without a channel in their name; `channel_names` is how the
    instrument calls channels. `facts` is what metadata files state of plates. `scales` are the object
    sizes found in a sample of the images.
    """

    plates: tuple[PlateSummary, ...]
    fields: int
    sources: int
    shards: int
    size: int
    channels_seen: tuple[str, ...]
    counted: tuple[str, ...]
    measured: tuple[str, ...]
    channel_names: Mapping[str, str]
    facts: Mapping[str, PlateFacts]
    reasons: dict[str, int]
    ignored: dict[str, int]
    ignored_examples: dict[str, str]
    unparsed: int
    unparsed_examples: tuple[str, ...]
    scales: tuple[PoolScale, ...]
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _PlateTally:
    fields: int = 0
    wells_by_sites: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class Census:
    """Counts planned fields in key order. Holds a few numbers a plate.

    `unseen` and `unstated` are, by plate, fields that metadata files state and of which there is no file, and the reverse.
    """

    fields: int = 0
    sources: int = 0
    size: int = 0
    outside: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)
    unstated: Counter[str] = field(default_factory=Counter)
    _plates: dict[str, _PlateTally] = field(default_factory=dict)
    _well: tuple[str, str] | None = None
    _sites: set[int] = field(default_factory=set)
    _last_key: str = ""

    def watch(
        self, fields: Iterable[PlannedField], inside: tuple[frozenset[str], frozenset[int]] | None
    ) -> Iterator[PlannedField]:
        """The same fields, counted. Those whose well or site is not `inside` (wells, sites; None: no such limit) are told apart."""
        for planned in fields:
            self._count(planned)
            if inside is not None and (
                planned.key.well not in inside[0] or planned.key.site not in inside[1]
            ):
                self.outside += 1
            yield planned
        self._close_well()

    def plates(self) -> tuple[PlateSummary, ...]:
        """The plates, in order."""
        return tuple(_plate_summary(plate, tally) for plate, tally in self._plates.items())

    def _count(self, planned: PlannedField) -> None:
        key = planned.key
        if (key.plate, key.well) != self._well:
            self._close_well()
            self._well = (key.plate, key.well)
        self._sites.add(key.site)
        self._plates.setdefault(key.plate, _PlateTally()).fields += 1
        self.fields += 1
        self.sources += len(planned.sources)
        if planned.reason is not None:
            self.reasons[planned.reason.value] += 1
            return
        for source in planned.sources:
            if source.key != self._last_key:
                self.size += source.size
                self._last_key = source.key

    def _close_well(self) -> None:
        if self._well is not None:
            self._plates[self._well[0]].wells_by_sites[len(self._sites)] += 1
        self._well = None
        self._sites = set()


def _plate_summary(plate: str, tally: _PlateTally) -> PlateSummary:
    sites = sorted(tally.wells_by_sites)
    return PlateSummary(
        plate,
        tally.wells_by_sites.total(),
        tally.fields,
        sites[0],
        _lower_median(tally.wells_by_sites, sites),
        sites[-1],
    )


def _lower_median(counts: Counter[int], values: Sequence[int]) -> int:
    below = 0
    middle = (counts.total() + 1) // 2
    for value in values:
        below += counts[value]
        if below >= middle:
            return value
    return values[-1]
