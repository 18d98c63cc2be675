"""Which plates lie below a root, what each holds, and whether it is complete."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cellcount_core.config import RunConfig
from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.fingerprint import canonical_json
from cellcount_core.layouts.base import Ignored, Sidecar, file_name
from cellcount_core.layouts.registry import build_layout
from cellcount_core.nightly.config import Complete
from cellcount_core.plan.discover import is_marker, key_reader
from cellcount_core.plan.findings import LINKED, MARKER, NO_PATH
from cellcount_core.stores.base import Listed, Store, addressable
from cellcount_core.stores.open import real_url

_EXPORTED = re.compile(r"(?:(?:^|/)[0-9][0-9-]*)+")
_UNPARSED = FieldKey("", "", 0, 0)
_SHOWN_WHYS = 3


@dataclass(frozen=True, slots=True)
class Plate:
    """A folder of images as one listing showed it.

    `name` is what the ledger calls it: `path`, the folders below the root, unless another root has a plate there too. `root`
    and `source` are URLs, `place` is `source` without links. `content` is the content identity: SHA-256 over key, size and
    tag of its images in order of the keys. `fields` counts those with as many files as the fullest one. `marked`: the marker
    file is there. `folders` are those in which its images lie, below its own ("" is its own).
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

    @property
    def looks_like_several(self) -> str:
        """Why its folder seems to be not the plate but a folder of plates, in words; "" where it does not.

        No image lies in it, and they lie in several folders, or two or more levels deeper (but for the date and number of an
        ImageXpress export).
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


@dataclass(frozen=True, slots=True)
class Sight:
    """What a listing of a root gave: its plates by path, how many files in all, and what cannot be counted, each with why.

    `beside` are images that lie above the plates' folders (`example`: one of them), `left_out` other files by why.
    """

    plates: tuple[Plate, ...]
    files: int
    refused: tuple[str, ...]
    beside: int = 0
    example: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)


def look(store: Store, run: RunConfig, complete: Complete, *, depth: int = 1, prefix: str = "") -> Sight:
    """The plates of one root: each folder `depth` levels below it that holds an image that `run` would look at.

    `prefix` looks at one plate alone. Holds a line of text a file while it lists. Store faults pass.
    """
    read = key_reader(run, build_layout(run.layout, ""))
    seen: dict[str, _Seen] = {}
    refused: dict[str, None] = {}
    left_out: Counter[str] = Counter()
    files = 0
    beside: list[str] = []
    for listed in (one for batch in store.list(prefix) for one in batch):
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
        parsed = read(inside or file_name(listed.key))
        if isinstance(parsed, Ignored):
            left_out[parsed.why] += 1
        elif is_marker(store, listed):
            left_out[MARKER] += 1
        elif not inside and isinstance(parsed, Sidecar):
            left_out["metadata files"] += 1
        elif not inside:
            beside.append(listed.key)
        elif listed.link.startswith(f"{name}/") and isinstance(read(listed.link[len(name) + 1 :]), Parsed):
            left_out[LINKED] += 1
        else:
            _note(seen.setdefault(name, _Seen()), listed, inside, parsed)
    return Sight(
        tuple(_plate(store, name, plate) for name, plate in sorted(seen.items()) if plate.files_of),
        files,
        tuple(refused),
        len(beside),
        min(beside, default=""),
        dict(left_out.most_common()),
    )


def apart(plates: Sequence[Plate]) -> tuple[list[Plate], list[str]]:
    """The plates of all roots such that no image is of two of them, and in words which were left out for that.

    Folders are compared without links. Of one folder seen twice the first stays, and one seen straight before one behind a
    link. Of a folder and plates inside it these stay if they hold all of its images and none is its own; otherwise the folder does.
    """
    said: list[str] = []
    kept: dict[str, Plate] = {}
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
    """Why a root shows no plate, in words with what to do about it."""
    if not sight.files:
        return f"{root}: nothing to count: it lists no file at all"
    levels = "a level" if depth == 1 else f"{depth} levels"
    if sight.beside:
        above = sight.example.count("/")
        way = f"set depth: {above}" if above else "if the root is a plate itself, give the folder above it"
        return (
            f"{root}: nothing to count {levels} below it, where plates are looked for (depth: {depth}); {sight.beside} images lie "
            f"higher up, such as {sight.example!r}: {way}"
        )
    whys = ", ".join(f"{number} {why}" for why, number in list(sight.left_out.items())[:_SHOWN_WHYS])
    hint = f"; run.include is {', '.join(run.include)}" if run.include else ""
    return f"{root}: nothing to count among {sight.files} files: {whys}{hint}"


def wanting(plate: Plate, complete: Complete) -> str:
    """What marker and number of fields still lack, in words; "" where nothing does (the waiting time is told elsewhere)."""
    if complete.marker is not None and not plate.marked:
        return f"no file {complete.marker} (complete.marker)"
    if complete.fields is not None and plate.fields < complete.fields:
        return f"{plate.fields} of {complete.fields} fields (complete.fields)"
    return ""


def _note(plate: _Seen, listed: Listed, inside: str, parsed: Parsed | Sidecar | None) -> None:
    line = canonical_json([inside, listed.size, listed.etag])
    plate.lines.append(line.encode())
    plate.size += listed.size
    if isinstance(parsed, Sidecar):
        return
    # An image whose name does not parse belongs to the plate too: counting will have to say something about it.
    plate.files_of[parsed.field if parsed is not None else _UNPARSED] += 1
    if parsed is not None:
        plate.folders.add(parsed.folder)


def _plate(store: Store, path: str, seen: _Seen) -> Plate:
    digest = hashlib.sha256()
    for line in sorted(seen.lines):
        digest.update(line + b"\n")
    fullest = max(seen.files_of.values())
    whole = sum(files == fullest for files in seen.files_of.values())
    source = f"{store.url.rstrip('/')}/{path}"
    return Plate(
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
    )


def _is_text(name: str) -> bool:
    return name == name.encode("utf-8", "backslashreplace").decode("utf-8")
