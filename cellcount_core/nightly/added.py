"""Whether a plate has only gained wells since it was counted: then those alone are counted, into a folder of their own.

Only where this gives the rows that counting the whole plate would give: every doubt counts the plate whole.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from cellcount_core.config import RunConfig
from cellcount_core.domain.fields import Parsed
from cellcount_core.layouts.base import Ignored, Sidecar
from cellcount_core.layouts.registry import build_layout, kind_of
from cellcount_core.models.package import find_package
from cellcount_core.output.planfile import read_shards
from cellcount_core.output.run_folder import load_plan
from cellcount_core.output.runfile import read_run
from cellcount_core.plan.derived import Suspect, suspects
from cellcount_core.plan.discover import key_reader
from cellcount_core.plan.rows import Row, row_of
from cellcount_core.stores.base import Listed, Store
from cellcount_core.tasks.object_size.looks import tells_sizes

MOST_FILES = 1000
"""More files than this are not named one by one in run.include: the plate is counted whole."""

Well = tuple[str, str]


def fields_are_independent(run: RunConfig) -> bool:
    """Whether no row depends on other fields of its plate: no size is estimated from them, no field expected because of them."""
    alone = run.diameter != "auto" or not tells_sizes(find_package(run.model.package))
    return alone and run.expect == "observed" and not kind_of(run.layout).traits.told_by_table


def added_files(
    run: RunConfig, root: str, listing: Iterable[Listed], counted: Sequence[Store]
) -> tuple[Listed, ...]:
    """The files of wells that the outputs `counted` (all of the plate `root`) do not have yet, in order of their keys.

    Empty where more than that changed: a planned file that is gone or another, a file of a counted channel in a well that was
    counted, a well that could not be planned whole, other channels, a plate in several folders, names that do not parse, a metadata file, a file that may be the mask of another.
    """
    planned: dict[str, tuple[int, str]] = {}
    wells: set[Well] = set()
    channels: set[str] = set()
    for store in counted:
        for shard in read_shards(load_plan(store, read_run(store))):
            for field in shard.fields:
                if field.reason is not None:
                    return ()
                wells.add((field.key.plate, field.key.well))
                planned |= {source.key: (source.size, source.etag) for source in field.sources}
                channels |= {source.channel for source in field.sources}
    added: dict[str, Listed] = {}
    seen: dict[bool, set[str]] = {True: set(), False: set()}
    folders: defaultdict[str, set[str]] = defaultdict(set)
    rows: list[Row] = []
    for listed, parsed in _parsed(run, root, listing):
        # A metadata file states things of all wells at once.
        if parsed is None or isinstance(parsed, Sidecar):
            return ()
        known = (parsed.field.plate, parsed.field.well) in wells
        seen[known].add(parsed.channel)
        folders[parsed.field.plate].add(parsed.folder)
        rows.append(row_of(parsed, listed.key))
        if not known:
            added[listed.key] = listed
        elif planned.pop(listed.key, None) != (listed.size, listed.etag) and parsed.channel in channels:
            return ()
    changed = planned or seen[True] != seen[False] or any(len(each) > 1 for each in folders.values())
    masks_too = run.masks == "count" or not kind_of(run.layout).traits.reads_any_name
    if not masks_too and any(isinstance(row, Suspect) for row in suspects(sorted(rows))):
        return ()
    if changed or len(added) > MOST_FILES:
        return ()
    return tuple(listed for _, listed in sorted(added.items()))


def only(run: RunConfig, files: Sequence[Listed]) -> RunConfig:
    """`run` for these files alone."""
    # A glob with a leading '/' is a path from the input down; brackets make a special sign stand for itself.
    include = tuple("/" + re.sub(r"([\[*?])", r"[\1]", listed.key) for listed in files)
    return run.model_copy(update={"include": include})


def _parsed(
    run: RunConfig, root: str, listing: Iterable[Listed]
) -> Iterable[tuple[Listed, Parsed | Sidecar | None]]:
    layout = build_layout(run.layout, root)
    read = key_reader(run, layout)
    for listed in listing:
        parsed = read(listed.key)
        if not isinstance(parsed, Ignored):
            yield listed, parsed
