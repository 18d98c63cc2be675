"""Which channels are counted and which are measured: always by name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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


def select_channels(run: RunConfig, roles: Sequence[str], seen: Collection[str]) -> ChannelChoice:
    """The channels to use of those `seen` in names, given the model's `roles` and `run.channels` (role to channel).

    A model of one role takes the only channel there is unasked. Where names carry no channel, the names asked for are
    looked up inside the files; small and capital letters do not matter where one channel alone is meant. The counted channels are measured, and those of `run.measure`. Raises ConfigFault naming the
    channels there are where one has to be chosen or is not among them.
    """
    for role in run.channels:
        if role not in roles:
            raise ConfigFault(f"run.channels: the model has no role {role!r}{nearest(role, roles)}")
    counted = tuple(_counted(run.channels.get(role), role, roles, seen) for role in roles)
    measured = tuple(dict.fromkeys(_seen_as(channel, "run.measure", seen) for channel in run.measure))
    unasked = (channel for channel in dict.fromkeys(counted) if channel not in measured)
    return ChannelChoice(counted, (*unasked, *measured))


def _counted(asked: str | None, role: str, roles: Sequence[str], seen: Collection[str]) -> str:
    if asked is not None:
        return _seen_as(asked, f"run.channels.{role}", seen)
    if len(seen) == 1 and len(roles) == 1:
        return next(iter(seen))
    if len(roles) == 1:
        raise ConfigFault(
            f"the input has several channels ({_shown(seen)}): say which one is counted with --channel NAME "
            f"(or run.channels.{role})"
        )
    raise ConfigFault(
        f"the model needs a channel for each of its roles {', '.join(repr(each) for each in roles)}: "
        f"give run.channels.{role}; channels there are: {_shown(seen)}"
    )


def _seen_as(channel: str, where: str, seen: Collection[str]) -> str:
    """The channel as names have it, whatever its small and capital letters; as it is where it is looked for within files."""
    known = matching(channel, seen)
    if known is None and UNNAMED not in seen:
        raise ConfigFault(
            f"{where}: no file of channel {channel!r}{likely(channel, seen) or ';'} there are {_shown(seen)}"
        )
    return channel if known is None else known


def _shown(seen: Collection[str]) -> str:
    return ", ".join(
        repr(channel) if channel else "files without a channel in their name" for channel in sorted(seen)
    )
