"""From the files of a field to the planned field: channels and planes chosen, what cannot be counted known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from cellcount_core.domain.errors import Reason
from cellcount_core.domain.facts import PlateFacts
from cellcount_core.domain.fields import PlannedField
from cellcount_core.plan.channels import UNNAMED, ChannelChoice
from cellcount_core.plan.expect import Group
from cellcount_core.plan.rows import Row, field_key

ZMode = str | int


@dataclass(frozen=True, slots=True)
class FieldRule:
    """How files become sources: the channels, `run.z`, and the plane number of the instrument's projection, if any.

    `facts` is what metadata files state, by plate.
    """

    choice: ChannelChoice
    z: ZMode
    projection_plane: int | None = None
    facts: Mapping[str, PlateFacts] = field(default_factory=dict)


def plan_field(group: Group, rule: FieldRule) -> PlannedField:
    """One field from its sorted rows (none: the field is expected and has no file), with what metadata files state of it.

    Kept are the files of counted and measured channels, of those the planes that `z` needs. A fault of a file that is
    needed for the count, or a doubt about which file is meant, is the field's reason; a file that is only measured and is
    not there is left out. A row that stands there twice (in a manifest) is one file.
    """
    planned = _planned(group, rule)
    facts = rule.facts.get(planned.key.plate)
    if facts is None or (facts.um_per_px is None and not facts.positions):
        return planned
    position = facts.positions.get((planned.key.well, planned.key.site))
    return replace(planned, um_per_px=facts.um_per_px, position=position)


def _planned(group: Group, rule: FieldRule) -> PlannedField:
    key, rows = field_key(group.place), group.rows
    if not rows:
        return PlannedField(key, (), Reason.ABSENT, group.why)
    counted: dict[Row, None] = {}
    measured: dict[Row, None] = {}
    for channel in rule.choice.wanted:
        files = _files_of(channel, rows)
        needed = channel in rule.choice.counted
        if not files and needed:
            return PlannedField(key, (), Reason.CHANNEL_MISSING, _no_channel(channel, rows))
        planes = _planes(files, rule)
        if files and not planes and needed:
            return PlannedField(key, (), Reason.ABSENT, _no_plane(channel, files, rule.z))
        (counted if needed else measured).update(dict.fromkeys(planes))
    there = [row for row in measured if not row.reason]
    kept = sorted({*counted, *there})
    sources = tuple(row.source for row in kept)
    reason, detail = _fault(list(counted), kept)
    return PlannedField(key, sources, reason, detail)


def _files_of(channel: str, rows: Sequence[Row]) -> list[Row]:
    named = [row for row in rows if row.channel == channel]
    return named or [row for row in rows if row.channel == UNNAMED]


def _planes(files: list[Row], rule: FieldRule) -> list[Row]:
    """The files of the planes that are needed; all, where names carry no plane (then the choice is made in the file)."""
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
