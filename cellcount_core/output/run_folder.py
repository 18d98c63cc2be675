"""Binds a plan to an output folder, and tells what differs between a folder's plan and one made now: files added, changed and removed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import OutputFault
from cellcount_core.domain.fields import PlannedField, Shard
from cellcount_core.domain.fingerprint import RESULTS_VERSION, differences
from cellcount_core.layouts.auto import AutoSettings
from cellcount_core.output.parts import half_updated
from cellcount_core.output.planfile import (
    PLAN_KEY,
    fields_of,
    is_gone,
    paired,
    plan_fingerprint,
    read_shards,
    shard_count,
)
from cellcount_core.output.runfile import (
    RUN_KEY,
    ModelIdentity,
    RunFile,
    from_json,
    read_run,
    to_json,
)
from cellcount_core.stores.base import Absent, Created, Store

NAMED = 10
"""Files of each kind that are named; more are only counted."""


@dataclass(slots=True)
class Files:
    """Some files: how many, and the names of the first ones, in the order of their fields."""

    number: int = 0
    first: list[str] = field(default_factory=list)
    last: str = ""

    def add(self, key: str) -> None:
        """Add one file. Several fields in a row from the same file are one file."""
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
    """The difference between two plans of the same settings.

    `other` counts the fields that differ in something besides their files, `same` the fields that still have an unchanged file. `folders` are
    those in which files were added, changed or removed.
    """

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
        """Why an update cannot lead from one plan to the other, which have nothing in common; "" if it can."""
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
        """One line for each kind of change that there is."""
        kinds = ((self.added, "added"), (self.changed, "changed"), (self.gone, "removed"))
        lines = [files.told(what) for files, what in kinds if files.number]
        return lines or ([f"{self.other} fields are planned otherwise"] if self.other else [])


def changes(before: Iterable[Shard], now: Iterable[Shard]) -> Changes:
    """What differs between the plan of an output and one made now. Files that the first one already knows to be gone do not count."""
    found = Changes()
    for old, new in paired(fields_of(before), fields_of(now)):
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


def _files(planned: PlannedField | None) -> dict[str, tuple[tuple[int, str], ...]]:
    """Size and tag of each file that is there; of an array those of each channel that is read."""
    found: dict[str, tuple[tuple[int, str], ...]] = {}
    for source in () if planned is None or is_gone(planned) else planned.sources:
        found[source.key] = (*found.get(source.key, ()), (source.size, source.etag))
    return found


_SHOWN_DIFFERENCES = 12


class InputChanged(OutputFault):
    """The input is not what the output was counted from, and nothing else differs. `changes` says how."""

    def __init__(self, url: str, changes: Changes) -> None:
        lines = "\n".join(f"  {line}" for line in changes.lines())
        super().__init__(f"{url} was counted from other files; since then\n{lines}")
        self.changes = changes


class MadePlan(Protocol):
    """A plan on local disk that is not bound to an output yet: `path` is its plan.parquet, `file` what its run.json will say."""

    @property
    def path(self) -> Path: ...
    @property
    def file(self) -> RunFile: ...


def open_or_create_run(store_out: Store, plan: MadePlan) -> RunFile:
    """Bind `plan` to the output folder, or go on with the run that the folder belongs to.

    A new folder gets run/plan.parquet, then run/run.json by a conditional create, which is the commit: if several drivers start at once, one
    wins and the others go on with its plan. A folder of the same fingerprint keeps its plan and shards, and so does one whose plan differs
    only in fields it knows to be gone. Raises InputChanged, naming the files, if only the input differs; raises OutputFault, with what
    differs and the ways out, if the folder belongs to another run.
    """
    stored = _stored_run(store_out)
    if stored is None:
        _refuse_orphaned_parts(store_out)
        stored = _create(store_out, plan)
    if stored.fingerprint == plan.file.fingerprint:
        return stored
    if replace(stored, listing_digest=plan.file.listing_digest).decided() == plan.file.decided():
        since = changes(read_shards(load_plan(store_out, stored)), read_shards(plan.path))
        if since.none:
            return stored
        raise InputChanged(store_out.url, since)
    raise OutputFault(_belongs_to_another(store_out.url, stored, plan.file))


def stored_run(store_out: Store, run: RunConfig, model: ModelIdentity) -> RunFile | None:
    """The run that an output folder belongs to; None if it belongs to none.

    Raises OutputFault, as `open_or_create_run` does, if that run has other settings or another model. This is known before the input is
    listed. A `model.engine` of "auto" stands for the engine that the run began with, and the layout "auto" for the one that was found then.
    """
    stored = _stored_run(store_out)
    if stored is None:
        return None
    engine = stored.model.engine if model.engine == "auto" else model.engine
    section = run.model_dump(mode="json")
    if isinstance(run.layout, AutoSettings):
        section["layout"] = stored.run["layout"]
    asked = replace(
        stored,
        run=section,
        model=replace(model, engine=engine),
        results_version=RESULTS_VERSION,
    )
    # A model is the same under another name.
    known = replace(stored, model=replace(stored.model, name=model.name))
    if known.decided() != asked.decided():
        raise OutputFault(_belongs_to_another(store_out.url, stored, asked))
    return stored


def load_plan(store_out: Store, run: RunFile) -> bytes:
    """The bytes of the stored plan of `run`, for `read_shards`. Raises OutputFault if it is missing or is not that plan."""
    try:
        body = store_out.get(PLAN_KEY)
    except Absent:
        raise OutputFault(f"{store_out.url}: {PLAN_KEY} is missing; choose another output folder") from None
    if hashlib.sha256(body).hexdigest() != run.plan_sha256:
        raise OutputFault(
            f"{store_out.url}: {PLAN_KEY} is not the plan that {RUN_KEY} names"
            + (half_updated(store_out) or "; choose another output folder")
        )
    return body


def _stored_run(store_out: Store) -> RunFile | None:
    try:
        return from_json(store_out.get(RUN_KEY))
    except Absent:
        return None


def _refuse_orphaned_parts(store_out: Store) -> None:
    for batch in store_out.list("fields"):
        for listed in batch:
            raise OutputFault(
                f"{store_out.url}: holds results ({listed.key}) of a run whose {RUN_KEY} is missing; "
                "choose another output folder"
            )


def _create(store_out: Store, plan: MadePlan) -> RunFile:
    body = plan.path.read_bytes()
    file = plan.file
    if store_out.put_new(PLAN_KEY, body) is Created.EXISTS:
        file = _adopt_or_replace(store_out, file, body)
    if store_out.put_new(RUN_KEY, to_json(file)) is Created.NEW:
        return file
    return read_run(store_out)


def _adopt_or_replace(store_out: Store, file: RunFile, body: bytes) -> RunFile:
    """What to commit where a plan is there and no run.json yet.

    A plan of the same fingerprint (of a driver that ended early, or that starts at this moment) is as good as ours, and
    there must be one cut into shards only; any other is left over from a run that never began.
    """
    there = store_out.get(PLAN_KEY)
    try:
        same = plan_fingerprint(there) == file.fingerprint
    except OutputFault:
        same = False
    if same:
        numbers = replace(file.numbers, shards=shard_count(there))
        return replace(file, plan_sha256=hashlib.sha256(there).hexdigest(), numbers=numbers)
    store_out.put(PLAN_KEY, body)
    return file


def _belongs_to_another(url: str, stored: RunFile, new: RunFile) -> str:
    lines = [_readable(line) for line in differences(stored.decided(), new.decided())]
    shown = "\n".join(f"  {line}" for line in lines[:_SHOWN_DIFFERENCES])
    more = f"\n  … and {len(lines) - _SHOWN_DIFFERENCES} more" if len(lines) > _SHOWN_DIFFERENCES else ""
    return (
        f"{url} belongs to another run; what differs:\n{shown}{more}\n"
        "Choose another output folder, or go back to what that run was started with."
    )


def _readable(line: str) -> str:
    if line.startswith("listing: "):
        return "input: files were added, removed or changed since, the folder was renamed, or run settings or a plate map say otherwise of them"
    return line
