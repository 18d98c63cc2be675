"""Which channels are counted and which are measured: always by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, likely, matching, nearest

UNNAMED = ""
"""Channel of a file whose name carries none: it may hold any channel."""


@dataclass(frozen=True, slots=True)
class ChannelChoice:
    """`counted`: a channel for each role of the model, in its order; `measured`: channels whose intensity is measured.

    "" stands for the only channel of files whose names carry none.
    """

    counted: tuple[str, ...]
    measured: tuple[str, ...]

    @property
    def count(self) -> str:
        """The channel of the model's first role, by which a count is named."""
        return self.counted[0]

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every channel whose files are read, each once."""
        return tuple(dict.fromkeys((*self.counted, *self.measured)))


Names = Mapping[str, Mapping[str, Sequence[str]]]
"""By the name of a channel in the instrument ("DAPI"): the channels of file names that it is ("w1"), each with the plates where it is so."""

NO_NAMES: Names = {}


def select_channels(
    run: RunConfig, roles: Sequence[str], seen: Collection[str], names: Names = NO_NAMES
) -> ChannelChoice:
    """The channels to use of those `seen` in file names, given the model's `roles` and `run.channels` (role to channel).

    A model of one role takes the only channel there is unasked. A channel may be asked for as file names call it or as the
    instrument does (`names`). Where file names carry no channel, what is asked for is looked up inside the files. Small and
    capital letters do not matter where one channel alone is meant. The counted channels are measured, and those of
    `run.measure`. Raises ConfigFault naming the channels there are where one has to be chosen, is not among them, or is
    another one in another plate.
    """
    for role in run.channels:
        if role not in roles:
            raise ConfigFault(f"run.channels: the model has no role {role!r}{nearest(role, roles)}")
    known = _Known(seen, names)
    counted = tuple(_counted(run.channels.get(role), role, roles, known) for role in roles)
    asked = (known.channel(name, "run.measure") for name in run.measure)
    measured = tuple(dict.fromkeys(asked))
    unasked = (channel for channel in dict.fromkeys(counted) if channel not in measured)
    return ChannelChoice(counted, (*unasked, *measured))


def unknown_channels(run: RunConfig, seen: Collection[str], names: Names = NO_NAMES) -> tuple[str, ...]:
    """The channels asked for that neither file names nor the instrument's names have; empty where they are looked for in the files."""
    if UNNAMED in seen:
        return ()
    asked = dict.fromkeys((*run.channels.values(), *run.measure))
    return tuple(name for name in asked if matching(name, seen) is None and matching(name, names) is None)


def by_channel(names: Names) -> dict[str, str]:
    """The names of each channel in the instrument, in words: "DAPI", or "DAPI or GFP" where plates differ."""
    found: dict[str, list[str]] = {}
    for name, channels in names.items():
        for channel in channels:
            found.setdefault(channel, []).append(name)
    return {channel: " or ".join(sorted(each)) for channel, each in found.items()}


@dataclass(frozen=True, slots=True)
class _Known:
    """The channels there are: as file names call them, and as instruments do."""

    seen: Collection[str]
    names: Names

    def channel(self, asked: str, where: str) -> str:
        """The channel as file names have it; as it was asked for where it is looked for within files."""
        if (known := matching(asked, self.seen)) is not None:
            return known
        if UNNAMED in self.seen:
            return asked
        if (name := matching(asked, self.names)) is not None:
            return self._only(name, where)
        hint = likely(asked, [*self.seen, *self.names]) or ";"
        raise ConfigFault(f"{where}: no file of channel {asked!r}{hint} there are {self.shown()}")

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
        told = " and ".join(
            f"{channel!r} in plate {plates[0]!r}" for channel, plates in sorted(channels.items())[:2]
        )
        raise ConfigFault(
            f"{where}: channel {name!r} is {told}; count such plates one by one, or name the channel as the files do"
        )


def _counted(asked: str | None, role: str, roles: Sequence[str], known: _Known) -> str:
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
