"""Which plates lie below a root, what each contains, whether it is complete, and what the ledger calls it.

A plate is identified by its path below the root and its content. The root is not part of its identity,
since it may be moved or spelled differently: the same plate has the same name wherever its root is
mounted, and two plates never share one. If two roots have a plate at the same path, the one that came
later is called "<path>@<root>".
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.fingerprint import canonical_json
from cellcount_core.layouts.auto import AutoSettings, proposed
from cellcount_core.layouts.base import Ignored, LayoutSettings, Sidecar, file_name
from cellcount_core.layouts.flat import FlatSettings
from cellcount_core.layouts.registry import build_layout
from cellcount_core.nightly.config import Complete
from cellcount_core.nightly.ledger import Event, Ledger
from cellcount_core.plan.choose import SAMPLE, sample
from cellcount_core.plan.discover import is_marker, key_reader
from cellcount_core.plan.findings import LINKED, MARKER, NO_PATH
from cellcount_core.stores.base import Listed, Store, addressable
from cellcount_core.stores.open import name_of, path_below, real_url

_EXPORTED = re.compile(r"(?:(?:^|/)[0-9][0-9-]*)+")
_ZARR = ".zarr/"
_UNPARSED = FieldKey("", "", 0, 0)
_SHOWN_WHYS = 3


@dataclass(frozen=True, slots=True)
class PlateFolder:
    """A plate: a folder of images, as one listing showed it.

    - `name`: what the ledger calls it: `path`, unless another root has a plate there too. `path`: the folders below the root.
    - `root`, `source`: the URLs of the root and of the plate's folder. `place`: `source` without links.
    - `content`: the content identity, a SHA-256 over key, size and tag of its images, sorted by key.
    - `files`, `size`: number of files, and their bytes.
    - `fields`: how many fields have as many files as the fullest one. `marked`: whether the marker file exists.
    - `folders`: the folders in which its images lie, below its own ("" is its own).
    - `layout`: how its names are read. It is still "auto" if that is not plain: counting it then says why.
    """

    name: str
    root: str
    path: str
    source: str
    place: str
    content: str
    files: int
    size: int
    fields: int
    marked: bool
    folders: tuple[str, ...]
    layout: LayoutSettings

    @property
    def looks_like_several(self) -> str:
        """In words, why this folder seems to contain several plates instead of being one; "" if it does not.

        That is the case if no image lies directly in it, and the images are in several folders or two or
        more levels deeper. The date and number folders of an ImageXpress export do not count.
        """
        deep = [folder for folder in self.folders if not _EXPORTED.fullmatch(folder)]
        if "" in self.folders or not deep or (len(self.folders) == 1 and "/" not in deep[0]):
            return ""
        shown = ", ".join(self.folders[:3]) + (", …" if len(self.folders) > 3 else "")
        number = f"{len(self.folders)} folders" if len(self.folders) > 1 else "the folder"
        return f"{self.path} holds no image itself, but {number} of them ({shown})"


@dataclass(slots=True)
class _Seen:
    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    files_of: Counter[FieldKey] = field(default_factory=Counter)
    folders: set[str] = field(default_factory=set)
    marked: bool = False
    layout: LayoutSettings = field(default_factory=AutoSettings)


@dataclass(frozen=True, slots=True)
class Sight:
    """What a listing of a root showed: its plates sorted by path, the number of files, and what cannot be
    counted, each with the reason.

    `beside` is the number of images that lie above the plates' folders (`example` is one of them);
    `left_out` counts other files by reason.
    """

    plates: tuple[PlateFolder, ...]
    files: int
    refused: tuple[str, ...]
    beside: int = 0
    example: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)


def look(store: Store, run: RunConfig, complete: Complete, *, depth: int = 1, prefix: str = "") -> Sight:
    """List one root and return its plates: each folder `depth` levels below it that contains an image which
    `run` would count.

    With `prefix` only the plate at that path is listed. A line of text for each file is kept in memory
    while it lists, and the listing itself if the layout is "auto", which is found out for each plate on its own. Raises the store's faults.
    """
    listing, layouts = _with_layouts(store.list(prefix), run, depth)
    readers = {
        layout.kind: _reader(run.model_copy(update={"layout": layout}))
        for layout in (FlatSettings(), *layouts.values(), run.layout)
        if not isinstance(layout, AutoSettings)
    }
    seen: dict[str, _Seen] = {}
    refused: dict[str, None] = {}
    left_out: Counter[str] = Counter()
    files = 0
    beside: list[str] = []
    for listed in listing:
        files += 1
        parts = listed.key.split("/", depth)
        name, inside = "/".join(parts[:depth]), parts[depth] if len(parts) > depth else ""
        if not addressable(listed.key, store.url):
            refused[f"{store.url}: left out: {listed.key!r}: {NO_PATH}"] = None
            continue
        if not _is_text(name):
            refused[f"{store.url}: {name!a}: the folder's name is not UTF-8"] = None
            continue
        if inside and inside == complete.marker:
            seen.setdefault(name, _Seen()).marked = True
            continue
        layout = layouts.get(name, run.layout)
        # An input whose layout is not plain is one of images all the same: counting it will have to say what is wrong.
        read = readers.get(layout.kind, readers["flat"])
        parsed = read(inside or file_name(listed.key))
        if isinstance(parsed, Ignored):
            left_out[parsed.why] += 1
        elif is_marker(store, listed):
            left_out[MARKER] += 1
        elif not inside and isinstance(parsed, Sidecar | _Chunk):
            left_out["metadata files" if isinstance(parsed, Sidecar) else "of no plate"] += 1
        elif not inside:
            beside.append(listed.key)
        elif listed.link.startswith(f"{name}/") and isinstance(read(listed.link[len(name) + 1 :]), Parsed):
            left_out[LINKED] += 1
        else:
            _note(seen.setdefault(name, _Seen()), listed, inside, parsed)
            seen[name].layout = layout
    return Sight(
        tuple(_plate(store, name, plate) for name, plate in sorted(seen.items()) if plate.files_of),
        files,
        tuple(refused),
        len(beside),
        min(beside, default=""),
        dict(left_out.most_common()),
    )


def _with_layouts(
    batches: Iterable[list[Listed]], run: RunConfig, depth: int
) -> tuple[Iterable[Listed], Mapping[str, LayoutSettings]]:
    """A listing, and the layout of each plate in it if `run` says "auto": from the names of the plate's first files, those in sorted
    order. A plate whose layout is not plain has none.
    """
    if not isinstance(run.layout, AutoSettings):
        return (one for batch in batches for one in batch), {}
    listing = [one for batch in batches for one in batch]
    insides: defaultdict[str, list[str]] = defaultdict(list)
    for listed in listing:
        parts = listed.key.split("/", depth)
        if len(parts) > depth:
            insides["/".join(parts[:depth])].append(parts[depth])
    layouts: dict[str, LayoutSettings] = {}
    for name, keys in insides.items():
        with suppress(ConfigFault):
            layouts[name] = proposed(sample(sorted(keys)[:SAMPLE], run)).layout
    return listing, layouts


def apart(plates: Sequence[PlateFolder]) -> tuple[list[PlateFolder], list[str]]:
    """Return the plates of all roots without those that share images with another one, and in words what was
    left out.

    Folders are compared without links. If a folder was found twice, the first one stays, and a direct one
    is preferred to one behind a link. If plates lie inside another plate's folder, they stay if they
    contain all of its images and none lies directly in it; otherwise the outer folder stays.
    """
    said: list[str] = []
    kept: dict[str, PlateFolder] = {}
    for plate in sorted(plates, key=lambda one: one.source != one.place):
        if plate.place in kept:
            said.append(f"{plate.source} is {kept[plate.place].source}: counted once")
        else:
            kept[plate.place] = plate
    for outer in sorted(kept.values(), key=lambda one: one.place):
        inner = [one for one in kept.values() if one.place.startswith(f"{outer.place}/")]
        if outer.place not in kept or not inner:
            continue
        if "" not in outer.folders and outer.files == sum(one.files for one in inner):
            del kept[outer.place]
            said.append(
                f"{outer.source}: its images are those of {len(inner)} {'plate' if len(inner) == 1 else 'plates'} of another root: counted there"
            )
            continue
        for one in inner:
            del kept[one.place]
            said.append(f"{one.source} lies inside the plate {outer.source} of another root: counted there")
    order = {plate.source: number for number, plate in enumerate(plates)}
    return sorted(kept.values(), key=lambda one: order[one.source]), said


def nothing_seen(sight: Sight, root: str, run: RunConfig, depth: int) -> str:
    """In words, why a root shows no plate, and what to do about it."""
    if not sight.files:
        return f"{root}: nothing to count: it lists no file at all"
    levels = "a level" if depth == 1 else f"{depth} levels"
    if sight.beside:
        above = sight.example.count("/")
        way = f"set depth: {above}" if above else "if the root itself is a plate, give the folder above it"
        return (
            f"{root}: nothing to count {levels} below it, where plates are looked for (depth: {depth}); {sight.beside} images lie "
            f"higher up, such as {sight.example!r}: {way}"
        )
    whys = ", ".join(f"{number} {why}" for why, number in list(sight.left_out.items())[:_SHOWN_WHYS])
    hint = f"; run.include is {', '.join(run.include)}" if run.include else ""
    return f"{root}: nothing to count among {sight.files} files: {whys}{hint}"


def wanting(plate: PlateFolder, complete: Complete) -> str:
    """In words, what the marker and the number of fields still lack; "" if nothing. The waiting time
    (`unchanged_min`) is checked elsewhere.
    """
    if complete.marker is not None and not plate.marked:
        return f"no file {complete.marker} (complete.marker)"
    if complete.fields is not None and plate.fields < complete.fields:
        return f"{plate.fields} of {complete.fields} fields (complete.fields)"
    return ""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """An object inside a plate of arrays that says nothing of itself: a chunk, mostly."""


_Meaning = Parsed | Sidecar | Ignored | _Chunk | None


def _reader(run: RunConfig) -> Callable[[str], _Meaning]:
    """What the object at a path below a plate's folder is. Of arrays, only the metadata says that a folder is a plate."""
    layout = build_layout(run.layout, "")
    arrays = layout.arrays
    if arrays is None:
        return key_reader(run, layout)

    def read(inside: str) -> _Meaning:
        node = arrays.node(inside)
        if isinstance(node, Ignored):
            return node
        if node is None:
            return _Chunk()
        before, suffix, _ = inside.rpartition(_ZARR)
        return Parsed(_UNPARSED, "", 0, f"{before}{suffix}".rstrip("/"))

    return read


def _note(plate: _Seen, listed: Listed, inside: str, parsed: Parsed | Sidecar | _Chunk | None) -> None:
    line = canonical_json([inside, listed.size, listed.etag])
    plate.lines.append(line.encode())
    plate.size += listed.size
    if isinstance(parsed, Sidecar | _Chunk):
        return
    # An image whose name does not parse belongs to the plate too: counting will have to say something about it.
    plate.files_of[parsed.field if parsed is not None else _UNPARSED] += 1
    if parsed is not None:
        plate.folders.add(parsed.folder)


def _plate(store: Store, path: str, seen: _Seen) -> PlateFolder:
    digest = hashlib.sha256()
    for line in sorted(seen.lines):
        digest.update(line + b"\n")
    fullest = max(seen.files_of.values())
    whole = sum(files == fullest for files in seen.files_of.values())
    source = f"{store.url.rstrip('/')}/{path}"
    return PlateFolder(
        name=path,
        root=store.url,
        path=path,
        source=source,
        place=real_url(source),
        content=digest.hexdigest(),
        files=len(seen.lines),
        size=seen.size,
        fields=whole,
        marked=seen.marked,
        folders=tuple(sorted(seen.folders)),
        layout=seen.layout,
    )


def _is_text(name: str) -> bool:
    return name == name.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(slots=True)
class Named:
    """Tonight's plates by their names in the ledger, the roots that seem to have moved (old URL to new), and what is worth saying."""

    plates: dict[str, PlateFolder] = field(default_factory=dict)
    moves: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def named(plates: Sequence[PlateFolder], ledger: Ledger, roots: Collection[str]) -> Named:
    """Give the plates their names. `roots` are the URLs of all roots of the night, including those that could
    not be reached.

    A plate is taken for one that the ledger knows if, in this order: it lies where the known plate lay; it
    has the path and content of a known plate, whose root has moved; it has the path of a known plate below
    a root that has moved, or that is no longer listed and gone. If two plates have the same path and
    content, one is left out as a copy.
    """
    found = Named()
    paths: defaultdict[str, list[PlateFolder]] = defaultdict(list)
    for plate in plates:
        twin = next((one for one in paths[plate.path] if one.content == plate.content), None)
        if twin is None:
            paths[plate.path].append(plate)
        else:
            found.said.append(f"{plate.source} holds the same files as {twin.source}: counted once")
    left: dict[str, tuple[list[PlateFolder], dict[str, list[Event]]]] = {}
    for path, group in paths.items():
        left[path] = group, ledger.known(path)
        _match(found, *left[path], lambda plate, events: events[-1].source in (plate.source, plate.place))
    for group, known in left.values():
        _match(found, group, known, lambda plate, events: any(one.content == plate.content for one in events))
    for group, known in left.values():
        _match(
            found, group, known,
            lambda plate, events: found.moves.get(_root(events[-1], plate.path)) == plate.root,
        )  # fmt: skip
        _match(
            found, group, known,
            lambda plate, events: _root(events[-1], plate.path) not in roots and _is_gone(events[-1].source),
        )  # fmt: skip
    for path, (group, _) in left.items():
        for plate in group:
            free = len(group) == 1 and path not in found.plates and not ledger.states(path)
            name = path if free else _qualified(path, plate.root, roots, {*found.plates, *_names(ledger)})
            found.plates[name] = replace(plate, name=name)
    return found


def heirs(
    events: Sequence[Event], plates: Collection[PlateFolder], roots: Collection[str]
) -> Iterator[tuple[Event, PlateFolder]]:
    """Yield each event of a plate that no longer exists but whose images belong to a plate of tonight,
    together with that plate.

    That plate is the same folder, one inside it or one around it. If no root of tonight contains the
    event's folder, it may also be a folder of the same name with the same files, as when roots of another
    depth are used; folders next to such a one are then taken to have moved with it, whether or not they
    changed.
    """
    left: list[Event] = []
    for event in events:
        was = f"{real_url(event.source)}/"
        same = (one for one in plates if was.startswith(f"{one.place}/") or one.place.startswith(was))
        if (heir := next(same, None)) is not None:
            yield event, heir
        elif not any(event.source.startswith(f"{root.rstrip('/')}/") for root in roots):
            left.append(event)
    moved: dict[str, str] = {}
    for event in left:
        folder, _, name = event.source.rpartition("/")
        alike = [one for one in plates if one.content == event.content and one.source.endswith(f"/{name}")]
        if len(alike) == 1:
            moved[folder] = alike[0].source.rpartition("/")[0]
    for event in left:
        folder, _, name = event.source.rpartition("/")
        now = f"{moved[folder]}/{name}" if folder in moved else ""
        if (heir := next((one for one in plates if one.source == now), None)) is not None:
            yield event, heir


def same_place(store: Store, others: Iterable[Store]) -> Store | None:
    """The store among `others` that is the same folder as `store`, also through links and mounts; None if there is none."""
    return next((other for other in others if path_below(other.url, store.url) == ""), None)


def _match(
    found: Named,
    group: list[PlateFolder],
    known: dict[str, list[Event]],
    fits: Callable[[PlateFolder, list[Event]], bool],
) -> None:
    """Give those of `group` that fit one of the `known` plates its name, and remove both."""
    for plate in list(group):
        names = [name for name, events in known.items() if fits(plate, events)]
        if names and (len(names) == 1 or len(group) == 1):
            name = names[0]
            moved = _root(known.pop(name)[-1], plate.path)
            group.remove(plate)
            found.plates[name] = replace(plate, name=name)
            if moved not in (plate.root, plate.place.removesuffix(f"/{plate.path}")):
                found.moves[moved] = plate.root


def _root(event: Event, path: str) -> str:
    return event.source.removesuffix(f"/{path}")


def _is_gone(source: str) -> bool:
    return "://" not in source and not Path(source).exists()


def _names(ledger: Ledger) -> set[str]:
    return {event.plate for event in ledger.events}


def _qualified(path: str, root: str, roots: Collection[str], taken: set[str]) -> str:
    """`path` with the shortest end of the root's own path that no other root has, numbered if that name was used before."""
    own = root.rstrip("/").split("/")
    parts = next(
        (number for number in range(1, len(own)) if sum(_ends(one, own[-number:]) for one in roots) == 1),
        len(own),
    )
    tail = name_of(root) if parts == 1 else "/".join(part for part in own[-parts:] if part)
    name, number = f"{path}@{tail}", 1
    while name in taken:
        number += 1
        name = f"{path}@{tail}-{number}"
    return name


def _ends(root: str, parts: list[str]) -> bool:
    return root.rstrip("/").split("/")[-len(parts) :] == parts
