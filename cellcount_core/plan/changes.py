"""What became of an input since a run was planned: files added, changed and gone, and the fields that are still what they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from cellcount_core.domain.errors import Reason
from cellcount_core.domain.fields import PlannedField, Shard, Source

NAMED = 10
"""Files of each kind that are named; more are only counted."""

_GONE = "it was there when this output was counted before, and is gone"

_Pair = tuple[PlannedField | None, PlannedField | None]


@dataclass(slots=True)
class Files:
    """Some files: how many, and the names of the first in order of their fields."""

    number: int = 0
    first: list[str] = field(default_factory=list)
    last: str = ""

    def add(self, key: str) -> None:
        """One more; a file of several fields that follow each other is one file."""
        if self.number and self.last == key:
            return
        self.number, self.last = self.number + 1, key
        if len(self.first) < NAMED:
            self.first.append(key)

    def told(self, what: str) -> str:
        """ "3 files were added: a.tif, b.tif, c.tif"."""
        files = "1 file was" if self.number == 1 else f"{self.number} files were"
        more = f", … and {self.number - len(self.first)} more" if self.number > len(self.first) else ""
        return f"{files} {what}: {', '.join(self.first)}{more}"


@dataclass(slots=True)
class Changes:
    """The difference between two plans of the same settings. `other` counts fields that differ in something else than their files;
    `same` those of which some file is there and what it was. `folders` are those in which files were added, changed or removed."""

    added: Files = field(default_factory=Files)
    changed: Files = field(default_factory=Files)
    gone: Files = field(default_factory=Files)
    other: int = 0
    same: int = 0
    folders: set[str] = field(default_factory=set)

    @property
    def none(self) -> bool:
        """Whether the plans are the same."""
        return not (self.added.number or self.changed.number or self.gone.number or self.other)

    @property
    def elsewhere(self) -> str:
        """Why an update cannot bring one plan to the other, "" where it can: nothing of the first is in the second."""
        if self.same or self.changed.number or not self.gone.number:
            return ""
        if (self.added.number, self.added.first) == (self.gone.number, self.gone.first):
            return (
                "the same files are of another plate now, since a plate is named by its folder: give the folder its name back, or "
                "count into another output"
            )
        return (
            f"none of the {self.gone.number} files that were counted is there: is it the right folder? What is in it can be counted "
            "into another output"
        )

    def lines(self) -> list[str]:
        """A line for each kind there is."""
        kinds = ((self.added, "added"), (self.changed, "changed"), (self.gone, "removed"))
        lines = [files.told(what) for files, what in kinds if files.number]
        return lines or ([f"{self.other} fields are planned otherwise"] if self.other else [])


def changes(before: Iterable[Shard], now: Iterable[Shard]) -> Changes:
    """What differs between the plan of an output and one made now; what the first already knows to be gone is no difference."""
    found = Changes()
    for old, new in paired(_fields(before), _fields(now)):
        if old is not None and is_gone(old) and new in (None, old):
            continue
        files_before, files_now = _files(old), _files(new)
        found.same += old == new or not files_before.items().isdisjoint(files_now.items())
        if old == new:
            continue
        kinds = (
            (found.added, [key for key in files_now if key not in files_before]),
            (
                found.changed,
                [key for key in files_now if files_before.get(key, files_now[key]) != files_now[key]],
            ),
            (found.gone, [key for key in files_before if key not in files_now]),
        )
        for files, keys in kinds:
            for key in keys:
                files.add(key)
                found.folders.add(key.rpartition("/")[0])
        if files_before == files_now:
            found.other += 1
    return found


def with_gone(now: Iterable[PlannedField], before: Iterable[Shard]) -> Iterator[PlannedField]:
    """The fields of `now`, and those of the plan `before` that had files and are not among them: expected, and absent.

    Both come in key order, and so does what is given.
    """
    for old, new in paired(_fields(before), now):
        if new is not None:
            yield new
        elif old is not None and old.sources:
            yield replace(old, reason=Reason.ABSENT, detail=_detail(old))


def is_gone(planned: PlannedField) -> bool:
    """Whether a field is in its plan only because its files were there once."""
    return planned.reason is Reason.ABSENT and bool(planned.sources) and planned.detail == _detail(planned)


def paired(before: Iterable[PlannedField], now: Iterable[PlannedField]) -> Iterator[_Pair]:
    """Fields of the same key together, None where there is none; both in key order."""
    left, right = iter(before), iter(now)
    old, new = next(left, None), next(right, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.key < new.key):
            yield old, None
            old = next(left, None)
        elif old is None or new.key < old.key:
            yield None, new
            new = next(right, None)
        else:
            yield old, new
            old, new = next(left, None), next(right, None)


def _fields(shards: Iterable[Shard]) -> Iterator[PlannedField]:
    for shard in shards:
        yield from shard.fields


def _detail(planned: PlannedField) -> str:
    return f"{planned.sources[0].key}: {_GONE}"


def _files(planned: PlannedField | None) -> dict[str, tuple[int, str]]:
    """Size and tag of each file that is there."""
    if planned is None or is_gone(planned):
        return {}
    return {source.key: _content(source) for source in planned.sources}


def _content(source: Source) -> tuple[int, str]:
    return source.size, source.etag
