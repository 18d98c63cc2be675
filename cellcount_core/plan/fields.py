"""From the rows of a field to the planned field: which channels are counted, which fields are expected, and which files each needs.

Channels are chosen by name, never by position.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import merge
from itertools import groupby, pairwise, product
from operator import itemgetter
from typing import Literal, NamedTuple

from cellcount_core.config import ExpectGrid, RunConfig
from cellcount_core.domain.errors import ConfigFault, Reason, likely, matching, nearest
from cellcount_core.domain.fields import FieldKey, PlannedField, Source
from cellcount_core.domain.plates import FORMATS, ExpectedFields, PlateFacts, WellPosition
from cellcount_core.images.imagefile import COLOURS
from cellcount_core.plan.rows import Place, Row, by_field

UNNAMED = ""
"""The channel of a file whose name does not tell one: the file may hold any channel."""


@dataclass(frozen=True, slots=True)
class ChannelChoice:
    """`counted` has one channel for each role of the model, in the order of the roles; `measured` has those whose intensity is measured.

    "" stands for the only channel of files whose names do not tell one. `colours_in` is set if red, green and blue are counted and are
    all in the files that file names call so.
    """

    counted: tuple[str, ...]
    measured: tuple[str, ...]
    colours_in: str | None = None

    def in_files(self, channel: str) -> str:
        """How file names call the channel in whose files this one lies."""
        return self.colours_in if self.colours_in is not None and channel in COLOURS else channel

    @property
    def count(self) -> str:
        """The channel of the model's first role, by which a count is named."""
        return self.counted[0]

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every channel whose files are read, each once."""
        return tuple(dict.fromkeys((*self.counted, *self.measured)))


Names = Mapping[str, Mapping[str, Sequence[str]]]
"""The instrument's name of a channel ("DAPI") -> its names in file names ("w1") -> the plates in which that is so."""

NO_NAMES: Names = {}


def select_channels(
    run: RunConfig, roles: Sequence[str], seen: Collection[str], names: Names = NO_NAMES
) -> ChannelChoice:
    """Choose the channels to use from those `seen` in file names, by the model's `roles` and by `run.channels` (role to channel).

    A model with one role takes the only channel without being told, and a model of red, green and blue
    takes the colours of the only files. A channel may be asked for by its name in file names or by its name
    in the instrument (`names`). If file names do not tell channels, the channel is looked for inside the files. Upper and lower case do
    not matter as long as only one channel can be meant. The counted channels and those of `run.measure` are measured.

    Raises ConfigFault, which names the known channels, if one has to be chosen, if one that was asked for does not exist, or if a name
    means different channels in different plates.
    """
    for role in run.channels:
        if role not in roles:
            raise ConfigFault(f"run.channels: the model has no role {role!r}{nearest(role, roles)}")
    known = _Known(seen, names)
    colours_in = _colours_in(run, roles, known)
    if colours_in is None:
        counted = tuple(_counted(run.channels.get(role), role, roles, known) for role in roles)
    else:
        counted = COLOURS
    for place, channel in enumerate(counted):
        if channel != UNNAMED and channel in counted[:place]:
            both = f"{roles[counted.index(channel)]!r} and {roles[place]!r}"
            raise ConfigFault(
                f"run.channels: the roles {both} are both channel {channel!r}; each needs its own"
            )
    asked = (known.channel(name, "run.measure") for name in run.measure)
    measured = tuple(dict.fromkeys(asked))
    unasked = (channel for channel in dict.fromkeys(counted) if channel not in measured)
    return ChannelChoice(counted, (*unasked, *measured), colours_in)


def _colours_in(run: RunConfig, roles: Sequence[str], known: _Known) -> str | None:
    """The channel, as file names call it, of the files that hold the red, green and blue a model looks at.

    It is the only channel there is, or the one that is asked for under all three roles. None for a model of other roles, and if each
    colour has files of its own. Raises ConfigFault if there are several channels and none is asked for.
    """
    if tuple(roles) != COLOURS:
        return None
    asked = {run.channels.get(role) for role in roles}
    if len(asked) > 1:
        return None
    [name] = asked
    if name is not None:
        return known.channel(name, "run.channels")
    if UNNAMED in known.seen:
        return UNNAMED
    if all(matching(role, known.seen) is not None for role in roles):
        return None
    if len(known.seen) > 1:
        raise ConfigFault(
            f"the model looks at red, green and blue of colour images, and the input has several channels ({known.shown()}): say which "
            "of them are the colour images with --channel NAME"
        )
    return next(iter(known.seen))


def unknown_channels(run: RunConfig, seen: Collection[str], names: Names = NO_NAMES) -> tuple[str, ...]:
    """The channels asked for that are neither in file names nor among the instrument's names.

    Empty if file names do not tell channels, because channels are then looked for inside the files.
    """
    if UNNAMED in seen:
        return ()
    asked = dict.fromkeys((*run.channels.values(), *run.measure))
    return tuple(name for name in asked if matching(name, seen) is None and matching(name, names) is None)


def by_channel(names: Names) -> dict[str, str]:
    """What the instrument calls each channel, in words: "DAPI", or "DAPI or GFP" if plates differ."""
    found: dict[str, list[str]] = {}
    for name, channels in names.items():
        for channel in channels:
            found.setdefault(channel, []).append(name)
    return {channel: " or ".join(sorted(each)) for channel, each in found.items()}


@dataclass(frozen=True, slots=True)
class _Known:
    """The known channels, by their names in file names and in instruments."""

    seen: Collection[str]
    names: Names

    def channel(self, asked: str, where: str) -> str:
        """The channel's name in file names, or the name as it was asked for if it is looked for inside files."""
        if (known := matching(asked, self.seen)) is not None:
            self._check_one_meaning(known, asked, where)
            return known
        if UNNAMED in self.seen:
            return asked
        if (name := matching(asked, self.names)) is not None:
            return self._only(name, where)
        hint = likely(asked, [*self.seen, *self.names]) or ";"
        raise ConfigFault(f"{where}: no file of channel {asked!r}{hint} there are {self.shown()}")

    def _check_one_meaning(self, channel: str, asked: str, where: str) -> None:
        """Raise ConfigFault if the instrument uses this name for another channel than file names do."""
        name = matching(asked, self.names)
        others = sorted({other for other in self.names.get(name or "", ()) if other != channel})
        if others:
            called = by_channel(self.names).get(channel)
            ways = f"ask for {others[0]!r}" + (f" or {called!r}" if called else "")
            raise ConfigFault(
                f"{where}: {asked!r} has two meanings: files call {channel!r} so, and the metadata calls {others[0]!r} so; {ways}, or leave the"
                " metadata file out with run.exclude"
            )

    def shown(self) -> str:
        """All channels in words."""
        called = by_channel(self.names)
        return ", ".join(
            (repr(channel) + (f" ({called[channel]})" if channel in called else ""))
            if channel
            else "files without a channel in their name"
            for channel in sorted(self.seen)
        )

    def _only(self, name: str, where: str) -> str:
        channels = self.names[name]
        if len(channels) == 1:
            return next(iter(channels))
        first, second = sorted(channels.items())[:2]
        if both := sorted({*first[1]} & {*second[1]}):
            raise ConfigFault(
                f"{where}: plate {both[0]!r} calls two channels {name!r}: {first[0]!r} and {second[0]!r}; name the channel as the files do"
            )
        told = " and ".join(
            f"{channel!r} in plate {plates[0]!r}" for channel, plates in sorted(channels.items())[:2]
        )
        raise ConfigFault(
            f"{where}: channel {name!r} is {told}; count such plates one by one, or name the channel as the files do"
        )


def _counted(asked: str | None, role: str, roles: Sequence[str], known: _Known) -> str:
    if asked is None and tuple(roles) == COLOURS and matching(role, known.seen) is not None:
        asked = role
    if asked is not None:
        return known.channel(asked, f"run.channels.{role}")
    if len(known.seen) == 1 and len(roles) == 1:
        return next(iter(known.seen))
    if len(roles) == 1:
        raise ConfigFault(
            f"the input has several channels ({known.shown()}): say which one is counted with --channel NAME "
            f"(or run.channels.{role})"
        )
    raise ConfigFault(
        f"the model needs a channel for each of its roles {', '.join(repr(each) for each in roles)}: "
        f"give run.channels.{role}; channels there are: {known.shown()}"
    )


Expectation = Literal["observed", "rectangular"] | ExpectGrid


class FieldGroup(NamedTuple):
    """A field: its place, the rows of its files, and, if it has none, why it is expected.

    `unstated` is True if it has files but the metadata of its plate does not state it.
    """

    place: Place
    rows: list[Row]
    why: str = ""
    unstated: bool = False


def expected_groups(
    rows: Callable[[], Iterator[Row]],
    expect: Expectation,
    facts: Mapping[str, PlateFacts],
    aside: Callable[[], Iterator[Place]],
) -> Iterator[FieldGroup]:
    """All fields of a plan in key order: those with files, and those that are expected and have none.

    `rows` gives the sorted rows again at each call. The expected fields are those that the instrument states (`facts`, by plate) and
    those of `expect`: "rectangular" expects, in each plate, every well seen x every site seen x every time point seen; a grid expects
    every well of its format x its sites x the time points seen. A field with files is always included, even if it is not expected.
    Memory is bounded by the wells, sites and time points of one plate.

    `aside` gives, sorted, the fields with a counted file that include or exclude left out; these fields are not expected. If there are
    any, wells and sites without a single included file are not expected either.
    """
    seen = by_field(rows())
    stated = any(one.expected for one in facts.values())
    if expect == "observed" and not stated:
        return (FieldGroup(place, files) for place, files in seen)
    places = _expected_places(rows(), expect, facts, next(aside(), None) is not None)
    whole = frozenset(plate for plate, one in facts.items() if one.expected)
    return _with_unseen(seen, _without(places, aside()), whole)


def sentence(expect: Expectation) -> str:
    """The `reason_detail` of a field that is expected because of `expect` and has no file."""
    if isinstance(expect, ExpectGrid):
        sites = ", ".join(str(site) for site in expect.sites)
        return f"no file; run.expect asks for every well of {expect.wells}, sites {sites}"
    return "no file; run.expect=rectangular: other wells of this plate have this site and time point"


def grid_wells(expect: ExpectGrid) -> frozenset[str]:
    """Names of all wells of the grid's plate format."""
    rows, columns = FORMATS[expect.wells]
    return frozenset(WellPosition(row, column).name for row in range(rows) for column in range(columns))


def _expected_places(
    rows: Iterable[Row], expect: Expectation, facts: Mapping[str, PlateFacts], limited: bool
) -> Iterator[tuple[Place, str]]:
    """Yield places in order, each once, with the reason why it is expected."""
    for plate, group in groupby(rows, itemgetter(0)):
        wells: set[str] = set()
        sites: set[int] = set()
        timepoints: set[int] = set()
        for row in group:
            wells.add(row.well)
            sites.add(row.site)
            timepoints.add(row.timepoint)
        sources = []
        if plate in facts:
            sources = [_stated(one, timepoints) for one in facts[plate].expected]
        if limited:
            sources = [_within(source, wells, sites) for source in sources]
        if isinstance(expect, ExpectGrid):
            wells, sites = set(grid_wells(expect)), set(expect.sites)
        if expect != "observed":
            sources.append(
                (where, sentence(expect))
                for where in product(sorted(wells), sorted(sites), sorted(timepoints))
            )
        for where, reasons in groupby(merge(*sources, key=itemgetter(0)), itemgetter(0)):
            yield (plate, *where), next(reasons)[1]


_Where = tuple[str, int, int]


def _stated(expected: ExpectedFields, timepoints: set[int]) -> Iterator[tuple[_Where, str]]:
    return ((where, expected.why) for where in expected.places(timepoints))


def _within(
    places: Iterator[tuple[_Where, str]], wells: set[str], sites: set[int]
) -> Iterator[tuple[_Where, str]]:
    return (each for each in places if each[0][0] in wells and each[0][1] in sites)


def _without(places: Iterator[tuple[Place, str]], aside: Iterator[Place]) -> Iterator[tuple[Place, str]]:
    """Yield the `places` that are not among those left out. Both must be in order."""
    left_out = next(aside, None)
    for place, why in places:
        while left_out is not None and left_out < place:
            left_out = next(aside, None)
        if place != left_out:
            yield place, why


def _with_unseen(
    seen: Iterator[tuple[Place, list[Row]]], expected: Iterator[tuple[Place, str]], stated: frozenset[str]
) -> Iterator[FieldGroup]:
    wanted = next(expected, None)
    for place, rows in seen:
        while wanted is not None and wanted[0] < place:
            yield FieldGroup(wanted[0], [], wanted[1])
            wanted = next(expected, None)
        known = wanted is not None and wanted[0] == place
        if known:
            wanted = next(expected, None)
        yield FieldGroup(place, rows, unstated=not known and place[0] in stated)
    while wanted is not None:
        yield FieldGroup(wanted[0], [], wanted[1])
        wanted = next(expected, None)


ZMode = str | int


@dataclass(frozen=True, slots=True)
class FieldRule:
    """How the files of a field become its sources.

    `z` is `run.z`, `projection_plane` the plane number of the instrument's own projection (None if it makes none), and `facts` what
    metadata files state, by plate.
    """

    choice: ChannelChoice
    z: ZMode
    projection_plane: int | None = None
    facts: Mapping[str, PlateFacts] = field(default_factory=dict)


def plan_field(group: FieldGroup, rule: FieldRule) -> PlannedField:
    """The field of a group, with what metadata files state about it. A group without rows is an expected field without files.

    Its sources are the files of the counted and measured channels, limited to the planes that `z` needs. If a file that is needed for
    the count is faulty, or if two files claim the same place, the field has that as its reason. A missing file that would only be
    measured is ignored. A file that a manifest names twice counts once.
    """
    planned = _planned(group, rule)
    facts = rule.facts.get(planned.key.plate)
    if facts is None or (facts.um_per_px is None and not facts.positions):
        return planned
    position = facts.positions.get((planned.key.well, planned.key.site))
    return replace(planned, um_per_px=facts.um_per_px, position=position)


def _planned(group: FieldGroup, rule: FieldRule) -> PlannedField:
    key, rows = FieldKey(*group.place), group.rows
    if (why := _not_acquired(key, rule)) and not all(
        _files_of(rule.choice.in_files(channel), rows) for channel in rule.choice.counted
    ):
        return PlannedField(key, (), Reason.NOT_ACQUIRED, why)
    if not rows:
        return PlannedField(key, (), Reason.ABSENT, group.why)
    counted: dict[Row, None] = {}
    measured: dict[Row, None] = {}
    for channel in rule.choice.wanted:
        files = _files_of(rule.choice.in_files(channel), rows)
        needed = channel in rule.choice.counted
        if not files and needed:
            return PlannedField(
                key, (), Reason.CHANNEL_MISSING, _no_channel(rule.choice.in_files(channel), rows)
            )
        planes = _planes(files, rule)
        if files and not planes and needed:
            return PlannedField(key, (), Reason.ABSENT, _no_plane(channel, files, rule.z))
        (counted if needed else measured).update(dict.fromkeys(planes))
    there = [row for row in measured if not row.reason]
    kept = sorted({*counted, *there})
    sources = tuple(_source(row, rule.choice) for row in kept)
    reason, detail = _fault(list(counted), kept)
    return PlannedField(key, sources, reason, detail)


def _not_acquired(key: FieldKey, rule: FieldRule) -> str:
    """Why a counted channel was never to be imaged in this well, by the metadata; "" if it was, or nothing is known of that."""
    facts = rule.facts.get(key.plate)
    if facts is None or key.well not in facts.acquired:
        return ""
    there = facts.acquired[key.well]
    lacking = [name for name in map(rule.choice.in_files, rule.choice.counted) if name and name not in there]
    if not lacking:
        return ""
    shown = ", ".join(map(repr, sorted(there)))
    return f"{facts.source} has no image of channel {lacking[0]!r} in this well; there are {shown}"


def _source(row: Row, choice: ChannelChoice) -> Source:
    # Colours are looked for within a file, whatever its name calls it.
    return replace(row.source, channel=UNNAMED) if row.channel == choice.colours_in else row.source


def _files_of(channel: str, rows: Sequence[Row]) -> list[Row]:
    named = [row for row in rows if row.channel == channel]
    return named or [row for row in rows if row.channel == UNNAMED]


def _planes(files: list[Row], rule: FieldRule) -> list[Row]:
    """The files of the planes that are needed; all files if their names do not tell planes (the plane is then chosen inside the file)."""
    stacked = [row for row in files if row.plane != rule.projection_plane]
    projected = [row for row in files if row.plane == rule.projection_plane]
    if rule.z == "max" and projected:
        return projected
    planes = stacked or projected
    if all(row.plane == 0 for row in files):
        return files
    if isinstance(rule.z, int):
        return [row for row in files if row.plane == rule.z]
    if rule.z == "first":
        lowest = min(row.plane for row in planes)
        return [row for row in planes if row.plane == lowest]
    return planes


def _fault(counted: list[Row], kept: list[Row]) -> tuple[Reason | None, str]:
    for row in counted:
        if row.reason:
            return Reason(row.reason), f"{row.key}: {row.detail}"
    for before, row in pairwise(kept):
        if (before.channel, before.plane) == (row.channel, row.plane):
            what = f"channel {row.channel!r}, " if row.channel else ""
            return Reason.AMBIGUOUS_FILE, f"{before.key} and {row.key} both claim {what}plane {row.plane}"
    for row in counted:
        if row.size == 0:
            return Reason.EMPTY_FILE, f"{row.key}: has 0 bytes"
    return None, ""


def _no_channel(channel: str, rows: Sequence[Row]) -> str:
    there = ", ".join(repr(name) for name in dict.fromkeys(row.channel for row in rows))
    return f"no file of channel {channel!r}; there are {there}"


def _no_plane(channel: str, files: Sequence[Row], z: ZMode) -> str:
    there = ", ".join(str(plane) for plane in dict.fromkeys(row.plane for row in files))
    what = f"of channel {channel!r}, " if channel else "of "
    return f"no file {what}plane {z} (run.z); planes there are: {there}"
