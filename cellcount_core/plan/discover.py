"""From a listing to sorted rows, one row for each file, and to what the metadata files beside them state.

Images are told by their names; only array files are opened, to see how many images they hold, and one image of each plate whose
metadata states the size of its images. `run.include` and `run.exclude` are globs on keys, as .gitignore reads them. A pattern without '/' is a name: it matches a file or folder of that name anywhere.
With '/' it is a path from the input down. A pattern that matches a folder holds for all below it. `*` and `?` stop at '/',
`**` does not; `[…]` is a set.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import PlateFacts
from cellcount_core.images.reader import WHOLE_LIMIT, Ranged, Reader
from cellcount_core.layouts.base import (
    Ignored,
    Layout,
    Sidecar,
    Table,
    derived_name,
    derived_why,
    is_stack,
    mask_name,
    parent,
)
from cellcount_core.layouts.hint import convention
from cellcount_core.layouts.registry import kind_of
from cellcount_core.plan.arrays import Selected, read_arrays
from cellcount_core.plan.derived import Suspect, judged, suspects
from cellcount_core.plan.facts import (
    LEADS_NOWHERE,
    Acquired,
    Facts,
    against_images,
    joined,
    read_facts,
)
from cellcount_core.plan.findings import EXCLUDED, LINKED, MARKER, NO_PATH, NOT_INCLUDED, Findings
from cellcount_core.plan.rows import RUN_ROWS, Place, Plain, Row, Sorter, row_of
from cellcount_core.plan.wells import WellNames, name_wells
from cellcount_core.stores.base import (
    Absent,
    Denied,
    Listed,
    StorageOptions,
    Store,
    addressable,
    files_beside,
)

_FOLDERS_KEPT = 256


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a key matches any of `patterns` (never, where there are none)."""
    if not patterns:
        return lambda key: False
    expression = re.compile("|".join(f"(?:{_translate(pattern)})" for pattern in patterns))
    return lambda key: expression.fullmatch(key) is not None


def _translate(pattern: str) -> str:
    body = pattern.strip("/")
    where = "" if "/" in body or pattern.startswith("/") else "(?:.*/)?"
    return f"(?s:{where}{_body(body)}(?:/.*)?)"


def _body(pattern: str) -> str:
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at):
            out.append("(?:.*/)?")
            at += 3
        elif pattern.startswith("**", at):
            out.append(".*")
            at += 2
        elif char == "[" and (end := pattern.find("]", at + 2)) > 0:
            out.append(_set(pattern[at + 1 : end]))
            at = end + 1
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)))
            at += 1
    return "".join(out)


def _set(members: str) -> str:
    negated = "^/" if members.startswith("!") else ""
    body = members.removeprefix("!")
    escaped = re.sub(r"([\[\]\\^&~|])", r"\\\1", body)
    try:
        re.compile(f"[{negated}{escaped}]")
    except re.error:
        # A range that runs backwards ("[z-a]") matches nothing, as in a shell.
        return "(?!)"
    return f"[{negated}{escaped}]"


_LISTED, _NAMED = 0, 1
_ABSENT = "is not there"


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a listing holds: a sorted row for each file (`rows()` may be called again and again), tallies, and what metadata files state.

    `aside` holds the files that `run.include` and `run.exclude` left out, if metadata states which fields are expected.
    """

    sorter: Sorter
    found: Findings
    facts: Facts
    aside: Sorter

    def rows(self) -> Iterator[Row]:
        """Rows in order of field, channel, plane, key."""
        return (Row._make(row) for row in self.sorter.rows())

    def set_aside(self, channels: Collection[str]) -> Iterator[Place]:
        """Yield the fields of which include or exclude left out a file of one of `channels`, in key order, once for each such file."""
        return (
            (str(plate), str(well), int(str(site)), int(str(time)))
            for plate, well, site, time, channel, _ in self.aside.rows()
            if channel in channels
        )


def discover(
    store: Store,
    layout: Layout,
    run: RunConfig,
    folder: Path,
    *,
    own_output: str = "",
    options: StorageOptions | None = None,
    run_rows: int = RUN_ROWS,
    listing: Iterable[list[Listed]] | None = None,
) -> Discovery:
    """List `store` and read the name of every file, and the metadata files beside the images.

    Only files that `run` includes and does not exclude are looked at, and none in the folder `own_output` ("" if there is
    no such folder). About `run_rows` rows are held in memory at most; the others lie in `folder`. `listing` is the listing of the store
    if it was begun already. `options` say how a
    manifest outside the input is reached. Raises ConfigFault if a manifest cannot be used; store faults pass through.
    """
    found = Findings()
    sorter, aside = Sorter(folder, run_rows), Sorter(folder, run_rows)
    facts = Facts()
    batches = store.list() if listing is None else listing
    if (table := layout.table) is not None:
        entries = Sorter(folder, run_rows)
        stated = _join(
            store, batches, table, key_filter(run, own_output), entries, options or StorageOptions()
        )
        _add_named(entries, found, sorter)
        told = {
            (one.plate, one.folder): one for one in stated if (one.plate, one.folder) in found.acquisitions
        }
        notes = [f"{one.source}: {note}" for one in stated for note in one.notes]
        facts = joined(told, found, notes)
        facts = against_images(store, facts, (Row._make(row) for row in sorter.rows()), run.max_pixels)
    elif (arrays := layout.arrays) is not None:
        facts = read_arrays(
            store, batches, arrays, _selected(run, own_output), found, sorter, Sorter(folder, run_rows)
        )
    else:
        _add_listed(store, batches, layout, run, own_output, found, sorter, aside)
        facts = read_facts(store, layout, found)
    named = name_wells(facts, found, run.plate_format)
    facts = named.facts
    if facts.names or named.wells:
        sorter = _renamed(sorter, facts.names, named.wells, Sorter(folder, run_rows))
        aside = _renamed(aside, facts.names, named.wells, Sorter(folder, run_rows))
    if layout.table is None and layout.arrays is None:
        rows = (Row._make(row) for row in sorter.rows())
        facts = against_images(store, facts, rows, run.max_pixels)
        if kind_of(run.layout).traits.reads_any_name and run.masks == "leave_out":
            sorter = _without_masks(store, run.max_pixels, sorter, found, Sorter(folder, run_rows))
    return Discovery(sorter, found, facts, aside)


def _selected(run: RunConfig, own_output: str) -> Selected:
    """Include and exclude choose images, by the paths of their arrays: never some of an image's chunks."""
    everything = run.model_copy(update={"include": (), "exclude": ()})
    channels = (*run.channels.values(), *run.measure)
    return Selected(key_filter(everything, own_output), key_filter(run), run.z, channels)


def _add_listed(
    store: Store,
    batches: Iterable[list[Listed]],
    layout: Layout,
    run: RunConfig,
    own_output: str,
    found: Findings,
    sorter: Sorter,
    aside: Sorter,
) -> None:
    read = key_reader(run, layout, own_output)
    traits = kind_of(run.layout).traits
    folder_like_metadata = lru_cache(_FOLDERS_KEPT)(partial(_folder_like_metadata, layout))
    for batch in batches:
        for listed in batch:
            found.files += 1
            if traits.has_sidecars and (folder := folder_like_metadata(parent(listed.key))):
                found.metadata_folders.add(folder)
            parsed = read(listed.key)
            if isinstance(parsed, Ignored):
                found.leave_out(_shown(listed.key), parsed.why)
                if traits.has_sidecars and parsed.why in (NOT_INCLUDED, EXCLUDED):
                    _set_aside(layout.parse(listed.key), aside)
                continue
            if not addressable(listed.key, store.url):
                found.leave_out(_shown(listed.key), NO_PATH)
                continue
            if listed.link and isinstance(read(listed.link), Parsed | Sidecar):
                found.leave_out(_shown(listed.key), LINKED)
                continue
            if is_marker(store, listed):
                found.leave_out(listed.key, MARKER)
                continue
            if not _is_text(listed.key):
                found.add_not_text(_shown(listed.key))
                continue
            if parsed is None:
                found.add_unparsed(listed.key)
                continue
            if isinstance(parsed, Sidecar):
                found.add_sidecar(listed, parsed)
                continue
            found.add_image(parsed)
            if traits.reads_any_name:
                found.conventions[convention(listed.key)] += 1
            if (traits.slices_are_fields and is_stack(listed.key)) or _tells_images(run):
                sorter.extend(_slices(store, listed, parsed, run))
            else:
                sorter.add(_listed_row(listed, parsed))


def _folder_like_metadata(layout: Layout, folder: str) -> str:
    """The first of a file's folders, from the top, that has the name of a metadata file; "" if none has."""
    parts = folder.split("/")
    above = ("/".join(parts[:number]) for number in range(1, len(parts) + 1))
    return next((each for each in above if each and isinstance(layout.parse(each), Sidecar)), "")


def _set_aside(parsed: Parsed | Sidecar | Ignored | None, aside: Sorter) -> None:
    if isinstance(parsed, Parsed):
        field = parsed.field
        aside.add((field.plate, field.well, field.site, field.timepoint, parsed.channel, parsed.folder))


def key_reader(
    run: RunConfig, layout: Layout, own_output: str = ""
) -> Callable[[str], Parsed | Sidecar | Ignored | None]:
    """Return a function that says what a key is for `run`: what `Layout.parse` says, or `Ignored` if the run leaves it out.

    Left out are the run's own output, what include and exclude leave out, and masks recognised by their names. A metadata file is read
    even if `run.include` does not name it.
    """
    left_out = key_filter(run, own_output)
    masks_too = run.masks == "count" or kind_of(run.layout).traits.told_by_table

    def read(key: str) -> Parsed | Sidecar | Ignored | None:
        why = left_out(key)
        if why is not None and why.why != NOT_INCLUDED:
            return why
        parsed = layout.parse(key)
        if isinstance(parsed, Sidecar):
            return parsed
        if why is not None:
            return why
        if masks_too or isinstance(parsed, Ignored):
            return parsed
        if (why := derived_name(key)) is not None:
            return why
        # A name that the layout reads is an image's, whatever else it may mean.
        named = mask_name(key) if parsed is None else ""
        return Ignored(derived_why(named)) if named else parsed

    return read


def is_marker(store: Store, listed: Listed) -> bool:
    """Whether an object of 0 bytes only marks a folder ("sub.tif/"). Consoles and tools write such markers to stores without folders."""
    if listed.size or "://" not in store.url:
        return False
    try:
        return store.size_of(listed.key) is None
    except Denied:
        return False


def _without_masks(store: Store, max_pixels: int, sorter: Sorter, found: Findings, target: Sorter) -> Sorter:
    """The rows without the masks that lie beside images; `sorter` itself if there are none."""

    def rows() -> Iterator[Row | Suspect]:
        return suspects(Row._make(row) for row in sorter.rows())

    verdicts = judged(rows(), store, max_pixels)
    if verdicts is None:
        return sorter
    for row in rows():
        if not isinstance(row, Suspect):
            target.add(row)
        elif why := verdicts.why(row):
            found.leave_out(row.row.key, why)
        else:
            target.add(row.row)
    return target


def _listed_row(listed: Listed, parsed: Parsed) -> Row:
    if not listed.etag and not listed.size:
        return row_of(parsed, listed.key, reason=Reason.ABSENT.value, detail=LEADS_NOWHERE)
    return row_of(parsed, listed.key, size=listed.size, etag=listed.etag)


def _tells_images(run: RunConfig) -> bool:
    """Whether `run` declares that pages, or an axis, are images of their own. Each file must then be opened to see how many it holds."""
    return run.pages == "time" or bool(set("NT") & set(run.axes or ""))


def _slices(store: Store, listed: Listed, parsed: Parsed, run: RunConfig) -> Iterator[Row]:
    """Yield a row for each image in a file, by its header; one row with the reason if the number of images cannot be read.

    Images that are time points differ in the field's time point, others in its site.
    """
    from cellcount_core.images.decode import stack_length
    from cellcount_core.images.imagefile import as_declared

    plain = _listed_row(listed, parsed)
    try:
        images = stack_length(
            _opened(store, listed),
            listed.key,
            run.max_pixels,
            as_declared(run.axes, run.pages),
            files_beside(store, listed.key),
        )
    except FieldFault as fault:
        yield plain._replace(reason=fault.reason.value, detail=fault.detail)
        return
    except Absent:
        yield plain._replace(reason=Reason.ABSENT.value, detail=LEADS_NOWHERE)
        return
    except Denied as denied:
        yield plain._replace(reason=Reason.ACCESS_DENIED.value, detail=denied.detail)
        return
    if images == 1 and not is_stack(listed.key):
        yield plain
        return
    times = run.pages == "time" or "T" in (run.axes or "")
    for index in range(images):
        if times:
            yield plain._replace(timepoint=plain.timepoint + index, slice_index=index)
        else:
            yield plain._replace(site=index + 1, slice_index=index)


def _opened(store: Store, listed: Listed) -> bytes | Reader:
    """The bytes of a file whose header is needed. A large file is read in parts, as they are asked for."""
    if listed.size > WHOLE_LIMIT:
        return Ranged(store, listed.key, listed.size)
    return store.get(listed.key)


def _join(
    store: Store,
    batches: Iterable[list[Listed]],
    table: Table,
    left_out: Callable[[str], Ignored | None],
    entries: Sorter,
    options: StorageOptions,
) -> list[PlateFacts]:
    """Put both sides of the join into one sorter: (key, 0, size, etag) from the listing, (key, 1, field…) from the table. Returns what
    the table states of plates."""
    stated = []
    for entry in table.entries(store, options):
        if isinstance(entry, PlateFacts):
            stated.append(entry)
        elif left_out(entry.key) is None:
            reason = Reason.AMBIGUOUS_FILE.value if entry.doubt else ""
            row = row_of(entry.parsed, entry.key, index=entry.page, reason=reason, detail=entry.doubt)
            entries.add((entry.key, _NAMED, *row))
    for batch in batches:
        for listed in batch:
            if _is_text(listed.key):
                entries.add((listed.key, _LISTED, listed.size, listed.etag))
    return stated


def _add_named(entries: Sorter, found: Findings, sorter: Sorter) -> None:
    for key, group in groupby(entries.rows(), itemgetter(0)):
        sides = list(group)
        listed = [side for side in sides if side[1] == _LISTED]
        named = [Row._make(side[2:]) for side in sides if side[1] == _NAMED]
        found.files += len(listed)
        if not named:
            found.leave_out(str(key), "not named by the manifest")
        by_page: defaultdict[int, dict[Place, None]] = defaultdict(dict)
        for row in named:
            by_page[row.slice_index][row[:4]] = None
        for row in named:
            fields = list(by_page[row.slice_index])
            where = FieldKey(row.plate, row.well, row.site, row.timepoint)
            found.add_image(Parsed(where, row.channel, row.plane, row.folder))
            sorter.add(_of_two_fields(row, fields) if len(fields) > 1 else _sized(row, str(key), listed))


def _of_two_fields(row: Row, fields: Sequence[Place]) -> Row:
    """A row of a file that a table names for several fields: it shows one of them at most, and nothing says which."""
    shown = " and ".join(f"{well} site {site} time {time}" for _, well, site, time in fields[:2])
    return row._replace(
        reason=Reason.AMBIGUOUS_FILE.value, detail=f"the table names it for {len(fields)} fields: {shown}"
    )


def _sized(row: Row, key: str, listed: list[Plain]) -> Row:
    if row.reason:
        return row
    if not listed:
        return row._replace(reason=Reason.ABSENT.value, detail=_ABSENT)
    _, _, size, etag = listed[0]
    where = FieldKey(row.plate, row.well, row.site, row.timepoint)
    parsed = Parsed(where, row.channel, row.plane, row.folder)
    listed_row = _listed_row(Listed(key, int(str(size)), str(etag)), parsed)
    return listed_row._replace(slice_index=row.slice_index)


def _renamed(sorter: Sorter, names: Mapping[Acquired, str], wells: WellNames, target: Sorter) -> Sorter:
    """The rows (plate and well are the first values, the folder is the last) with the names of plates and wells in the plan."""
    nothing: Mapping[str, str] = {}
    for plate, well, *between, folder in sorter.rows():
        of = (str(plate), str(folder))
        target.add((names.get(of, plate), wells.get(of, nothing).get(str(well), well), *between, folder))
    return target


def key_filter(run: RunConfig, own_output: str = "") -> Callable[[str], Ignored | None]:
    """Return a function that says why `run` leaves a key out, whatever the layout; None for a key that is planned.

    Left out are the run's own output, what include and exclude leave out, and keys that are not paths.
    """
    included = matcher(run.include) if run.include else None
    excluded = matcher(run.exclude)
    own = f"{own_output}/" if own_output else None

    def why(key: str) -> Ignored | None:
        if own is not None and key.startswith(own):
            return Ignored("output of this run")
        if not addressable(key):
            return Ignored(NO_PATH)
        if included is not None and not included(key):
            return Ignored(NOT_INCLUDED)
        return Ignored(EXCLUDED) if excluded(key) else None

    return why


def _is_text(key: str) -> bool:
    """Whether the name can stand in a table (file systems may hold names that are not UTF-8)."""
    return key.isascii() or key == _shown(key)


def _shown(key: str) -> str:
    return key.encode("utf-8", "backslashreplace").decode("utf-8")
