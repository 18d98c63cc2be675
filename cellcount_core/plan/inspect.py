"""What an input holds by its names and metadata files: how each name is read, and the plates, wells, sites, channels, planes and times that
are found. Nothing is refused here, so that a user sees all of it at once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory

from cellcount_core.config import RunConfig
from cellcount_core.domain.plates import PlateFacts
from cellcount_core.layouts.auto import readers_of
from cellcount_core.layouts.base import ignored_name
from cellcount_core.layouts.pattern import PatternSettings
from cellcount_core.layouts.registry import build_layout
from cellcount_core.plan.choose import settle
from cellcount_core.plan.discover import Discovery, discover
from cellcount_core.plan.rows import Row
from cellcount_core.stores.base import StorageOptions, Store
from cellcount_core.stores.open import name_of, path_below

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Inspected:
    """An input that was listed: its settings with the layout that was found, a line about that layout, and what the listing holds."""

    run: RunConfig
    layout: str
    discovery: Discovery


@contextmanager
def inspected(
    store: Store, run: RunConfig, own_output: str = "", options: StorageOptions | None = None
) -> Iterator[Inspected]:
    """List an input and read its names and metadata files, as planning does. Within the context its rows are there.

    `own_output` is the URL of an output that may lie inside the input. Raises ConfigFault if the layout is "auto" and not plain, or a table
    or numbered wells cannot be used.
    """
    own = (path_below(store.url, own_output) or "") if own_output else ""
    settled = settle(store, run, own)
    run = settled.run
    layout = build_layout(run.layout, run.plate or name_of(store.url))
    with TemporaryDirectory(prefix="cellcount-sort-") as folder:
        found = discover(
            store, layout, run, Path(folder), own_output=own, options=options, listing=settled.listing
        )
        yield Inspected(run, settled.told, found)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How some names are read: as what, how many, and a few of them."""

    what: str
    number: int
    examples: tuple[str, ...]


def outcomes(seen: Inspected) -> tuple[Outcome, ...]:
    """How the names of an input are read: images of fields first, then metadata files, what is left out, and names that do not parse."""
    found = seen.discovery.found
    rows = dict.fromkeys(row.key for row, _ in zip(seen.discovery.rows(), range(_SHOWN), strict=False))
    sidecars = sorted(one.key for one in found.sidecars.values())
    copies = sum(map(len, found.copies.values()))
    images = Outcome("image of a field", found.images, tuple(rows))
    metadata = Outcome("metadata file", len(sidecars) + copies, tuple(sidecars[:_SHOWN]))
    left = [
        Outcome(f"left out: {why}", number, (found.ignored_examples[why],))
        for why, number in sorted(found.ignored.items())
    ]
    unparsed = Outcome("name that does not parse", found.unparsed, tuple(found.unparsed_examples[:_SHOWN]))
    return tuple(each for each in (images, metadata, *left, unparsed) if each.number or each is images)


@dataclass(slots=True)
class PlateNames:
    """What the names of one plate tell: its wells with the number of their sites, and its sites, channels, planes and time points.

    `of_channel` counts the fields that have a file of each channel, `fields` all fields. `facts` is what metadata states.
    """

    plate: str
    facts: PlateFacts | None
    wells: dict[str, set[int]] = field(default_factory=dict)
    channels: Counter[str] = field(default_factory=Counter)
    planes: set[int] = field(default_factory=set)
    timepoints: set[int] = field(default_factory=set)
    fields: int = 0
    without: dict[str, str] = field(default_factory=dict)
    """A channel -> the first field, in words, that has no file of it though another field of the plate has."""

    @property
    def sites(self) -> set[int]:
        """The sites of all wells."""
        return set().union(*self.wells.values())

    @property
    def odd_wells(self) -> dict[str, int]:
        """The wells that have another number of sites than most, with that number."""
        numbers = Counter(len(sites) for sites in self.wells.values())
        usual = max(numbers, key=lambda number: (numbers[number], number))
        return {well: len(sites) for well, sites in sorted(self.wells.items()) if len(sites) != usual}

    @property
    def usual_sites(self) -> int:
        """How many sites most wells have."""
        numbers = Counter(len(sites) for sites in self.wells.values())
        return max(numbers, key=lambda number: (numbers[number], number))


def plates(seen: Inspected) -> Iterator[PlateNames]:
    """Yield what the names of each plate tell, in order. One plate at a time is in memory."""
    facts = seen.discovery.facts.plates
    for name, rows in groupby(seen.discovery.rows(), attrgetter("plate")):
        plate = PlateNames(name, facts.get(name))
        fields: list[tuple[str, frozenset[str]]] = []
        for place, files in groupby(rows, lambda row: row[:4]):
            fields.append((f"{place[1]} site {place[2]} time {place[3]}", _take(plate, list(files))))
        for where, channels in fields:
            for channel in plate.channels:
                if channel not in channels:
                    plate.without.setdefault(channel, where)
        yield plate


def _take(plate: PlateNames, files: Sequence[Row]) -> frozenset[str]:
    plate.fields += 1
    for row in files:
        plate.wells.setdefault(row.well, set()).add(row.site)
        plate.planes.add(row.plane)
        plate.timepoints.add(row.timepoint)
    channels = frozenset(row.channel for row in files)
    plate.channels.update(channels)
    return channels


def why_unread(key: str, run: RunConfig) -> str:
    """Why the layout of `run` does not read a name, in words: how far a pattern gets, and which other layouts read it."""
    told = []
    if isinstance(run.layout, PatternSettings):
        told.append(_how_far(run.layout.pattern, key))
    else:
        told.append(f"does not follow {run.layout.kind}")
    if others := [name for name in readers_of(key) if name != run.layout.kind]:
        told.append(f"{', '.join(others)} would read it")
    elif ignored_name(key) is None:
        told.append("flat would take it for a plain image")
    return "; ".join(told)


def _how_far(pattern: str, key: str) -> str:
    """How much of a pattern is found in a name, and what of it then is not."""
    for end in range(len(pattern), 0, -1):
        try:
            match = re.compile(pattern[:end]).search(key)
        except re.error:
            continue
        if match is not None and match[0]:
            if end == len(pattern):
                return "the pattern is found in it, and its groups are no well and numbers"
            return f"the pattern is found up to {pattern[:end]!r}, which is {match[0]!r}, and not {pattern[end:]!r}"
    return "nothing of the pattern is found in it"
