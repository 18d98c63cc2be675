"""Making a plan: survey an input, then plan it for a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from cellcount_core.config import ExpectGrid, RunConfig
from cellcount_core.domain.columns import Schema
from cellcount_core.domain.errors import ConfigFault, matching
from cellcount_core.domain.fields import PlannedField, Shard
from cellcount_core.domain.fingerprint import fingerprint
from cellcount_core.domain.plates import PlateFacts
from cellcount_core.domain.scales import ALL_PLATES, PlateNumbers, PlateSize, ShownSize
from cellcount_core.layouts.hint import channel_endings, hint
from cellcount_core.layouts.registry import build_layout, kind_of
from cellcount_core.output.planfile import (
    WITH_LABELS,
    WITH_PARTS,
    ShardLimits,
    Written,
    cut_shards,
    read_shards,
    with_gone,
    write_plan,
)
from cellcount_core.output.runfile import (
    ModelIdentity,
    Numbers,
    RunFile,
    installed_versions,
)
from cellcount_core.plan.choose import settle
from cellcount_core.plan.discover import Discovery, discover
from cellcount_core.plan.facts import known_names
from cellcount_core.plan.fields import (
    UNNAMED,
    ChannelChoice,
    FieldGroup,
    FieldRule,
    Names,
    by_channel,
    expected_groups,
    grid_wells,
    plan_field,
    select_channels,
)
from cellcount_core.plan.findings import Census, PlanSummary, left_out_lines, nothing_found, refuse_unparsed
from cellcount_core.plan.platemap import Join, WellLabels, read_platemap, well_labels, without_labels
from cellcount_core.plan.rows import RUN_ROWS
from cellcount_core.plan.sizes import PLATES, Sampler, WantedWells, contradictions, scale_warnings
from cellcount_core.stores.base import StorageOptions, Store
from cellcount_core.stores.open import name_of, path_below

_SHOWN_LINES = 10


@dataclass(frozen=True, slots=True)
class FoundSizes:
    """What a sample of fields says about the size of objects: the sizes that a run goes by, or those that contradict the one given."""

    pools: tuple[PlateSize, ...] = ()
    shown: tuple[ShownSize, ...] = ()


SizeFinder = Callable[[Sequence[PlannedField], ChannelChoice], FoundSizes]
"""Finds the object sizes of a run from a sample of its fields."""


def no_sizes(_: Sequence[PlannedField], __: ChannelChoice) -> FoundSizes:
    """The size finder for runs whose images are counted as they are."""
    return FoundSizes()


Samples = Mapping[str, Sequence[PlannedField]]
"""Fields that were sampled, by the name of their group."""

FoundNumbers = tuple[tuple[PlateNumbers, ...], tuple[str, ...]]
"""The numbers of each plate, and warnings in words."""


@dataclass(frozen=True, slots=True)
class NumberFinder:
    """Finds what a task needs to know of whole plates before a field can be judged.

    `groups` are the groups of fields that it looks at, each with the wells that they are taken from (none: all wells). `find` is called
    with those fields, once object sizes are known.
    """

    groups: Mapping[str, frozenset[str]]
    find: Callable[[Samples, ChannelChoice, tuple[PlateSize, ...]], FoundNumbers]


NO_NUMBERS = NumberFinder({}, lambda _, __, ___: ((), ()))
"""For runs whose task needs to know nothing of whole plates."""


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """What planning must know about the model: its identity, and the roles of its inputs.

    `schema_of` gives the schema of its tables, from the names of the counted and of the measured channels. `counts_as_is` says that
    images are not resized for it. `doubt` says why its counts are not to be trusted, "" if there is no reason. `notes` is what its task tells
    of it, a line each.
    """

    identity: ModelIdentity
    roles: tuple[str, ...]
    schema_of: Callable[[tuple[str, ...], tuple[str, ...]], Schema]
    counts_as_is: bool = False
    doubt: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan on local disk, not yet bound to an output. Use as a context, or `close` it: the file is temporary.

    `path` is plan.parquet, `file` what run.json will say, `summary` what `cellcount plan` prints.
    """

    folder: TemporaryDirectory[str]
    path: Path
    file: RunFile
    choice: ChannelChoice
    summary: PlanSummary

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary file."""
        self.folder.cleanup()

    def shards(self) -> Iterator[Shard]:
        """The shards, streamed."""
        return read_shards(self.path)


@dataclass(frozen=True, slots=True)
class Survey:
    """An input that was listed and can be planned. Use as a context, or `close` it: its sorted rows are in memory and in a temporary
    folder.

    `run` are the settings with the layout that was found if it was "auto"; `layout` says in a line which it is, and why. `platemap` is the map
    that `run.platemap` names.
    """

    folder: TemporaryDirectory[str]
    run: RunConfig
    discovery: Discovery
    rule: FieldRule
    names: Names
    url: str
    layout: str
    platemap: WellLabels | None = None

    def __enter__(self) -> Survey:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the rows from disk and memory, because counting may go on for hours."""
        self.discovery.sorter.clear()
        self.folder.cleanup()


def survey(
    store_in: Store,
    run: RunConfig,
    roles: tuple[str, ...],
    *,
    own_output: str = "",
    options: StorageOptions | None = None,
    run_rows: int = RUN_ROWS,
) -> Survey:
    """List the input and choose the channels for a model with these `roles`. Memory does not grow with the length of the listing.

    `own_output` is the URL of the output (as its store gives it), which is left out if it lies inside the input. `options` are for a
    manifest with a URL of its own. Raises ConfigFault if the input cannot be planned: nothing was found, names do not parse, a channel
    has to be chosen, the plate map cannot be used, or the layout is wrong or, if it is "auto", not plain.
    """
    labels = None if run.platemap is None else well_labels(read_platemap(run.platemap, options))
    own = (path_below(store_in.url, own_output) or "") if own_output else ""
    settled = settle(store_in, run, own)
    run = settled.run
    layout = build_layout(run.layout, run.plate or name_of(store_in.url))
    scratch = TemporaryDirectory(prefix="cellcount-sort-")
    try:
        discovery = discover(
            store_in,
            layout,
            run,
            Path(scratch.name),
            own_output=own,
            options=options,
            run_rows=run_rows,
            listing=settled.listing,
        )
        names = known_names(store_in, run, discovery.facts.plates, discovery.found.channels, discovery.rows)
        rule = _rule(run, roles, discovery, names, store_in.url)
    except BaseException:
        scratch.cleanup()
        raise
    return Survey(scratch, run, discovery, rule, names, store_in.url, settled.told, labels)


def plan_survey(
    seen: Survey,
    model: PlannedModel,
    limits: ShardLimits,
    find_sizes: SizeFinder = no_sizes,
    before: bytes | None = None,
    numbers: NumberFinder = NO_NUMBERS,
) -> Plan:
    """Plan all of a surveyed input, for a model of the roles it was surveyed for. What `find_sizes` and `numbers` raise passes.

    Fields of the plan `before` that had files and have none now are planned too, as absent.
    """
    folder = TemporaryDirectory(prefix="cellcount-plan-")
    try:
        path = Path(folder.name) / "plan.parquet"
        file, summary = _write(path, seen, _Order(model, limits, find_sizes, before, numbers))
    except BaseException:
        folder.cleanup()
        raise
    return Plan(folder, path, file, seen.rule.choice, summary)


def make_plan(
    store_in: Store,
    run: RunConfig,
    model: PlannedModel,
    limits: ShardLimits,
    *,
    own_output: str = "",
    options: StorageOptions | None = None,
    run_rows: int = RUN_ROWS,
    find_sizes: SizeFinder = no_sizes,
    numbers: NumberFinder = NO_NUMBERS,
) -> Plan:
    """List the input and plan all of it: `survey`, then `plan_survey`. Raises as they do."""
    seen = survey(store_in, run, model.roles, own_output=own_output, options=options, run_rows=run_rows)
    with seen:
        return plan_survey(seen, model, limits, find_sizes, numbers=numbers)


@dataclass(frozen=True, slots=True)
class _Order:
    """What a plan is made for."""

    model: PlannedModel
    limits: ShardLimits
    find_sizes: SizeFinder
    before: bytes | None
    numbers: NumberFinder


def _rule(run: RunConfig, roles: tuple[str, ...], discovery: Discovery, names: Names, url: str) -> FieldRule:
    if run.unparsed == "refuse":
        refuse_unparsed(discovery.found)
    if not len(discovery.sorter):
        raise nothing_found(discovery.found, url)
    choice = select_channels(run, roles, discovery.found.channels, names)
    traits = kind_of(run.layout).traits
    return FieldRule(choice, run.z, traits.projection_plane, discovery.facts.plates)


def _write(path: Path, seen: Survey, order: _Order) -> tuple[RunFile, PlanSummary]:
    run, discovery, rule = seen.run, seen.discovery, seen.rule
    identity = order.model.identity
    section = run.model_dump(mode="json")
    census, sampler = Census(), Sampler()
    groups_of_fields = {name: Sampler(wells) for name, wells in order.numbers.groups.items()}
    wanted = {name: WantedWells(wells) for name, wells in order.numbers.groups.items()}
    sizes = FoundSizes()
    found: FoundNumbers = ((), ())

    schema = without_labels(order.model.schema_of(*_column_names(order.model, rule.choice)))
    join = None if seen.platemap is None else Join(seen.platemap)
    if seen.platemap is not None:
        schema = seen.platemap.schema(schema)
    unjoined: list[str] = []

    def name_of(listing: str) -> str:
        # Called once all fields have streamed by, when the samples are complete.
        nonlocal sizes, found
        _refuse_missing_wells(wanted)
        unjoined.extend(() if join is None else join.warnings())
        sizes = order.find_sizes(sampler.fields(), rule.choice)
        samples = {name: each.fields() for name, each in groups_of_fields.items()}
        found = _for_every_plate(order.numbers.find(samples, rule.choice, sizes.pools), wanted, census)
        return fingerprint(
            section, identity.digest, identity.engine, listing, sizes.pools, found[0], sizes.shown
        )

    facts = discovery.facts.plates

    def groups() -> Iterator[FieldGroup]:
        aside = partial(discovery.set_aside, (*map(rule.choice.in_files, rule.choice.counted), UNNAMED))
        return expected_groups(discovery.rows, run.expect, facts, aside)

    few = sum(1 for _ in islice(groups(), order.limits.enough))
    fields = _planned(groups(), rule, census)
    if order.before is not None:
        fields = with_gone(fields, read_shards(order.before))
    if join is not None:
        fields = join.watch(fields)
    fields = sampler.watch(_watched(fields, census, run))
    for each in groups_of_fields.values():
        fields = each.watch(fields)
    for wells in wanted.values():
        fields = wells.watch(fields)
    written = write_plan(
        path,
        cut_shards(fields, order.limits.fitting(few)),
        name_of,
        facts,
        WITH_LABELS if join else WITH_PARTS if kind_of(run.layout).traits.holds_arrays else None,
    )
    scales = sizes.pools
    warnings = [
        *_warnings(seen, census),
        *unjoined,
        *scale_warnings(scales),
        *_unused_diameter(run, order.model),
    ]
    warnings += contradictions(sizes.shown, run.diameter) if not isinstance(run.diameter, str) else []
    warnings += [*_crossed_roles(order.model.roles, seen), *order.model.notes, *found[1]]
    summary = replace(_summary(seen, census, written, scales, warnings), plate_numbers=found[0])
    file = RunFile(
        fingerprint=written.fingerprint,
        run=section,
        input=seen.url,
        model=identity,
        channels=dict(zip(order.model.roles, rule.choice.counted, strict=True)),
        schema=schema,
        listing_digest=written.listing_digest,
        plan_sha256=_sha256(path),
        numbers=_numbers(summary),
        versions=installed_versions(),
        scales=scales,
        plate_numbers=found[0],
        model_doubt=order.model.doubt,
        shown_sizes=sizes.shown,
    )
    return file, summary


def _refuse_missing_wells(wanted: Mapping[str, WantedWells]) -> None:
    """Raises ConfigFault if a control well that settings name is on no plate."""
    for group, wells in wanted.items():
        missing = wells.missing()
        if missing:
            told = "; ".join(
                f"there is no well {well!r}" + (f" (the nearest are {', '.join(near)})" if near else "")
                for well, near in missing.items()
            )
            raise ConfigFault(
                f"control wells of {group!r}: {told}. Name wells that have images (--control {group}=WELL,WELL)"
            )


def _for_every_plate(found: FoundNumbers, wanted: Mapping[str, WantedWells], census: Census) -> FoundNumbers:
    """What was found on control wells, for plates without such wells too, with a warning that names those plates."""
    numbers, warnings = found
    plates = [plate.plate for plate in census.plates()]
    own = {one.plate for one in numbers} - {ALL_PLATES}
    without = [plate for plate in plates if plate not in own]
    named_wells = any(wells.names for wells in wanted.values())
    if not named_wells or not own or not without or len(plates) > PLATES:
        return found
    if ALL_PLATES not in {one.plate for one in numbers}:
        numbers = tuple(sorted((*numbers, replace(numbers[0], plate=ALL_PLATES)), key=lambda one: one.plate))
    named = ", ".join(map(repr, without[:_SHOWN_LINES])) + (", …" if without[_SHOWN_LINES:] else "")
    told = f"no control well of {'plate' if len(without) == 1 else 'plates'} {named} could be used; thresholds of the other plates are taken there"
    return numbers, (*warnings, told)


def _planned(groups: Iterable[FieldGroup], rule: FieldRule, census: Census) -> Iterator[PlannedField]:
    for group in groups:
        if group.place[0] in rule.facts:
            census.unstated[group.place[0]] += group.unstated
            census.unseen[group.place[0]] += not group.rows
        yield plan_field(group, rule)


def _numbers(summary: PlanSummary) -> Numbers:
    return Numbers(
        summary.fields,
        summary.sources,
        summary.shards,
        summary.size,
        summary.reasons,
        summary.ignored,
        summary.unparsed,
    )


def _column_names(model: PlannedModel, choice: ChannelChoice) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """How columns call the counted and the measured channels: by name, or by the role one plays where files carry no name."""
    counted = tuple(channel or role for role, channel in zip(model.roles, choice.counted, strict=True))
    return counted, tuple(
        channel or model.roles[choice.counted.index(channel)] for channel in choice.measured
    )


def _watched(fields: Iterator[PlannedField], census: Census, run: RunConfig) -> Iterator[PlannedField]:
    grid = run.expect if isinstance(run.expect, ExpectGrid) else None
    return census.watch(fields, None if grid is None else (grid_wells(grid), frozenset(grid.sites)))


def _summary(
    seen: Survey,
    census: Census,
    written: Written,
    scales: tuple[PlateSize, ...],
    warnings: Sequence[str],
) -> PlanSummary:
    found, choice = seen.discovery.found, seen.rule.choice
    return PlanSummary(
        plates=census.plates(),
        fields=census.fields,
        sources=census.sources,
        shards=written.shards,
        size=census.size,
        channels_seen=tuple(sorted(found.channels)),
        counted=choice.counted,
        measured=choice.measured,
        channel_names=by_channel(seen.names),
        facts=seen.discovery.facts.plates,
        reasons=dict(sorted(census.reasons.items())),
        ignored=dict(sorted(found.ignored.items())),
        ignored_examples=found.ignored_examples,
        unparsed=found.unparsed,
        unparsed_examples=tuple(found.unparsed_examples),
        scales=scales,
        warnings=tuple(warnings),
        layout=seen.layout,
    )


def _warnings(seen: Survey, census: Census) -> list[str]:
    found, choice = seen.discovery.found, seen.rule.choice
    warnings: list[str] = [*seen.discovery.facts.warnings]
    # Nothing is told of how names of several images are read where there is one.
    several = found.images > 1
    if several and (suggestion := hint(found.images, found.conventions)) is not None:
        warnings.append(suggestion)
    elif kind_of(seen.run.layout).traits.reads_any_name:
        images = ((row.plate, row.well) for row in seen.discovery.rows() if row.slice_index <= 0)
        warnings += filter(None, [channel_endings(images)])
    warnings += left_out_lines(found)
    warnings += _missing_lines(seen.discovery.facts.plates, census)
    if census.outside:
        warnings.append(
            f"{census.outside} fields lie outside the plate that run.expect describes; they are counted too"
        )
    if found.unparsed:
        warnings.append(
            f"{found.unparsed} image {'file is' if found.unparsed == 1 else 'files are'} left out because "
            f"{'its name' if found.unparsed == 1 else 'their names'} cannot be read (run.unparsed=ignore), such as "
            f"{found.unparsed_examples[0]!r}"
        )
    if several and found.channels == {UNNAMED} and choice.wanted != (UNNAMED,) and choice.colours_in is None:
        names = ", ".join(repr(name) for name in choice.wanted if name)
        only = "; a file of one channel without a name is taken for it" if len(choice.wanted) == 1 else ""
        warnings.append(f"file names do not tell the channel: {names} is looked for in each file{only}")
    return warnings


def _unused_diameter(run: RunConfig, model: PlannedModel) -> list[str]:
    if not model.counts_as_is or isinstance(run.diameter, str):
        return []
    return [
        f"the diameter given ({run.diameter:g} px) is not used: `{model.identity.name}` counts images as they are, whatever the size of "
        "their objects"
    ]


def _crossed_roles(roles: Sequence[str], seen: Survey) -> list[str]:
    """Roles that have another channel than the one of their own name, which is there: they may be mixed up."""
    choice, names = seen.rule.choice, dict(seen.names)
    known = [*(channel for channel in seen.discovery.found.channels if channel != UNNAMED), *names]
    if choice.colours_in is not None:
        return []
    told = []
    for role, channel in zip(roles, choice.counted, strict=True):
        own = matching(role, known)
        if own is not None and channel != own and channel not in names.get(own, {}):
            told.append(f"the role {role!r} has the channel {channel!r}, though there is a channel {own!r}")
    return [f"{'; '.join(told)}: are they mixed up?"] if told else []


def _missing_lines(facts: Mapping[str, PlateFacts], census: Census) -> list[str]:
    lines = []
    for plate, stated in facts.items():
        name = stated.source.rpartition("/")[2]
        if unseen := census.unseen[plate]:
            lines.append(
                f"plate {plate!r}: {stated.source} states {unseen} more {'field' if unseen == 1 else 'fields'} than there are files"
                f" of; {'its row is' if unseen == 1 else 'their rows are'} 'missing'. If the folder holds a part of the plate on"
                f" purpose, leave the metadata out: --set 'run.exclude=[{name}]'"
            )
        if unstated := census.unstated[plate]:
            lines.append(
                f"plate {plate!r}: {unstated} {'field is' if unstated == 1 else 'fields are'} not among those that"
                f" {stated.source} states; {'it is' if unstated == 1 else 'they are'} counted too"
            )
    if len(lines) > _SHOWN_LINES:
        lines[_SHOWN_LINES:] = [f"… and {len(lines) - _SHOWN_LINES} more such plates"]
    return lines


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
