"""Which plates lie below a root, what each holds, and whether it is complete."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from cellcount_core.domain.config import RunConfig
from cellcount_core.domain.fields import FieldKey
from cellcount_core.domain.fingerprint import canonical_json
from cellcount_core.layouts.base import Ignored, file_name
from cellcount_core.layouts.manifest import Manifest
from cellcount_core.layouts.registry import build_layout
from cellcount_core.nightly.config import Complete
from cellcount_core.plan.discover import key_filter, key_reader
from cellcount_core.stores.base import Listed, Store


@dataclass(frozen=True, slots=True)
class Plate:
    """A folder of images as one listing showed it.

    `source` is its URL and names it, `content` its content identity: SHA-256 over key, size and tag of its images in order of
    the keys. `fields` counts those with as many files as the fullest one. `marked`: the marker file is there.
    """

    name: str
    source: str
    content: str
    files: int
    size: int
    fields: int
    marked: bool


@dataclass(slots=True)
class _Seen:
    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    files_of: Counter[FieldKey] = field(default_factory=Counter)
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Sight:
    """What a listing of a root gave: its plates by name, how many files in all, and folders that cannot be counted, each with why."""

    plates: tuple[Plate, ...]
    files: int
    refused: tuple[str, ...]


def look(
    store: Store,
    run: RunConfig,
    complete: Complete,
    *,
    depth: int = 1,
    own_output: str = "",
    prefix: str = "",
) -> Sight:
    """The plates of one root: each folder `depth` levels below it that holds an image that `run` would look at.

    `own_output` is the URL of the nightly's output, left out where it lies inside the root. `prefix` looks at one plate alone.
    Holds a line of text a file while it lists. Store faults pass.
    """
    own = _below(store.url, own_output)
    names = _namer(run)
    seen: dict[str, _Seen] = {}
    refused: set[str] = set()
    files = 0
    for listed in (one for batch in store.list(prefix) for one in batch):
        files += 1
        parts = listed.key.split("/", depth)
        if len(parts) <= depth or (own and listed.key.startswith(own)):
            continue
        name, inside = "/".join(parts[:depth]), parts[depth]
        if not _is_text(name):
            refused.add(f"{name!a}: the folder's name is not UTF-8")
            continue
        plate = seen.setdefault(name, _Seen())
        if inside == complete.marker:
            plate.marked = True
            continue
        key = names(inside)
        if key is not None:
            _note(plate, listed, inside, key)
    return Sight(
        tuple(_plate(store, name, plate) for name, plate in sorted(seen.items()) if plate.lines),
        files,
        tuple(sorted(refused)),
    )


def wanting(plate: Plate, complete: Complete) -> str:
    """What marker and number of fields still lack, in words; "" where nothing does (the waiting time is told elsewhere)."""
    if complete.marker is not None and not plate.marked:
        return f"no file {complete.marker}"
    if complete.fields is not None and plate.fields < complete.fields:
        return f"{plate.fields} of {complete.fields} fields"
    return ""


def _note(plate: _Seen, listed: Listed, inside: str, key: FieldKey) -> None:
    line = canonical_json([inside, listed.size, listed.etag])
    plate.lines.append(line.encode())
    plate.size += listed.size
    plate.files_of[key] += 1


def _plate(store: Store, name: str, seen: _Seen) -> Plate:
    digest = hashlib.sha256()
    for line in sorted(seen.lines):
        digest.update(line + b"\n")
    fullest = max(seen.files_of.values())
    whole = sum(files == fullest for files in seen.files_of.values())
    source = f"{store.url.rstrip('/')}/{name}"
    return Plate(name, source, digest.hexdigest(), len(seen.lines), seen.size, whole, seen.marked)


def _namer(run: RunConfig) -> Callable[[str], FieldKey | None]:
    """The field that a file belongs to, None for files that counting would not look at.

    An image whose name does not parse belongs to the plate's content too: counting will have to say something about it.
    """
    layout = build_layout(run.layout, "")
    if isinstance(layout, Manifest):
        left_out = key_filter(run)
        return lambda key: None if left_out(key) else FieldKey("", file_name(key), 1, 1)
    read = key_reader(run, layout)

    def field_of(key: str) -> FieldKey | None:
        parsed = read(key)
        if isinstance(parsed, Ignored):
            return None
        return FieldKey("", "", 0, 0) if parsed is None else parsed.field

    return field_of


def _below(url: str, inner: str) -> str:
    """The key prefix of the folder `inner` where it lies below `url`, "" where it does not."""
    start = url.rstrip("/") + "/"
    return inner[len(start) :].rstrip("/") + "/" if inner.startswith(start) else ""


def _is_text(name: str) -> bool:
    return name == name.encode("utf-8", "backslashreplace").decode("utf-8")
