"""`--layout auto`: which layout the names of an input follow, with the evidence in a line; a refusal where that is not plain.

Every layout of the registry is asked what it reads; none is named here. A layout counts as found if it reads names that are hardly a
coincidence (`Layout.certain`), or if one of its metadata files lies there. It is proposed if it reads more than half of the images' names,
no other one reads as many, and none of those that it cannot read belong to another. If no layout is found, the images are plain ones:
`flat`, unless that would count the channels or planes of one image, or pictures made of an image, as images of their own.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import ValidationError

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.fields import Parsed
from cellcount_core.layouts.base import (
    AnyLayoutKind,
    Ignored,
    Layout,
    LayoutSettings,
    Sidecar,
    derived_name,
    file_name,
    ignored_name,
    image_like,
    is_hidden,
    mask_name,
    parent,
    stem,
)
from cellcount_core.layouts.flat import FlatSettings
from cellcount_core.layouts.hint import channel_endings, convention, hint
from cellcount_core.layouts.registry import kinds

_FLAT_SAYS = "--layout flat takes each for an image of its own"
_SHOWN = 3


class AutoSettings(LayoutSettings):
    """The default: the layout that the names of the input and the metadata files beside them follow. It is found out before anything else
    and told in a line; `run/run.json` has the layout that was found. Where two fit or names of several are mixed, nothing is counted and the
    message says what to choose from.
    """

    kind: Literal["auto"] = "auto"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A layout for an input, and in one line why."""

    layout: LayoutSettings
    evidence: str


class _ReadAs(NamedTuple):
    """What the layouts make of one name: those that read a field from it, those that know it for something else, such as a thumbnail, and
    those of both that are certain. Names of layouts."""

    fields: frozenset[str]
    certain: frozenset[str]
    others: frozenset[str]


@dataclass(slots=True)
class _NamesSeen:
    """What was seen of the names of an input. `metadata` has the metadata files of each layout, `groups` the objects of arrays."""

    images: int = 0
    names: list[str] = field(default_factory=list)
    readings: Counter[_ReadAs] = field(default_factory=Counter)
    examples: dict[_ReadAs, str] = field(default_factory=dict)
    metadata: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    groups: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def read_by(self, kind: str) -> int:
        """How many names a layout reads or knows."""
        return sum(number for one, number in self.readings.items() if kind in one.fields | one.others)

    def sure_of(self, kind: str) -> int:
        """How many of the names that it reads are hardly a coincidence."""
        return sum(number for one, number in self.readings.items() if kind in one.certain & one.fields)

    def known_to(self, kind: str) -> int:
        """How many names it certainly knows for something else than fields."""
        return sum(number for one, number in self.readings.items() if kind in one.certain - one.fields)

    def left_by(self, kind: str) -> Counter[_ReadAs]:
        """The names that a layout does not know."""
        return Counter(
            {one: number for one, number in self.readings.items() if kind not in one.fields | one.others}
        )


def proposed(keys: Iterable[str]) -> Proposal:
    """The layout of an input, from the keys of its files or of some of them. Keys that a run leaves out should not be among them.

    Raises ConfigFault if more than one layout fits, if names of several are mixed, or if counting plain images would count channels, planes or
    pictures of an image as images; the message names the ways out.
    """
    layouts = candidates()
    seen = _look(sorted(keys), layouts)
    if seen.groups:
        return _of_arrays(seen)
    found = [name for name in layouts if _is_found(name, layouts[name][0], seen)]
    if found and seen.images:
        return _chosen(found, seen, layouts)
    with_metadata = [name for name in seen.metadata if name in layouts]
    if not seen.images and len(with_metadata) == 1:
        [name] = with_metadata
        return Proposal(
            _settings(layouts[name][0]),
            f"{_shown(seen.metadata[name])} {_is(seen.metadata[name])} there, and no image is",
        )
    if seen.images and len(with_metadata) == 1 and layouts[with_metadata[0]][0].traits.told_by_table:
        [name] = with_metadata
        return Proposal(
            _settings(layouts[name][0]),
            f"{_shown(seen.metadata[name])} {_is(seen.metadata[name])} there, which says what each of {_many(seen.images, 'image file')} is",
        )
    return _plain(seen)


@dataclass(frozen=True, slots=True)
class Tried:
    """What a layout makes of the names of an input: how many images it reads or knows, one of them and one that it does not know ("" if there
    is none), and its metadata files."""

    kind: str
    read: int
    example: str
    unread: str
    metadata: tuple[str, ...]


def tried(keys: Iterable[str]) -> tuple[Tried, ...]:
    """What each layout that may be proposed makes of some names, those that read most first. Layouts that read none and have no metadata
    file are left out, and so is `flat`, which reads any."""
    seen = _look(sorted(keys), candidates())
    found = []
    for name in dict.fromkeys(
        [*(kind for one in seen.readings for kind in one.fields), *seen.metadata, *seen.groups]
    ):
        read = [key for one, key in seen.examples.items() if name in one.fields]
        unread = [seen.examples[one] for one in seen.left_by(name)]
        files = (*seen.metadata.get(name, ()), *seen.groups.get(name, ()))
        found.append(
            Tried(name, seen.read_by(name), next(iter(read), ""), next(iter(unread), ""), tuple(files))
        )
    return tuple(sorted(found, key=lambda one: (-one.read, -len(one.metadata), one.kind)))


def readers_of(key: str) -> tuple[str, ...]:
    """The layouts that read a field from this name, `flat` not among them."""
    return tuple(sorted(kind for one in _look([key], candidates()).readings for kind in one.fields))


def candidates() -> dict[str, tuple[AnyLayoutKind, Layout]]:
    """The layouts that may be proposed, by name: those that need no settings, and that a name or a metadata file can tell."""
    found = {}
    for kind in kinds():
        try:
            settings = kind.settings.model_validate({"kind": kind.name})
        except ValidationError:
            continue
        if kind.traits.has_sidecars or not kind.traits.told_by_table:
            found[kind.name] = kind, kind.of(settings, "")
    return found


def _settings(kind: AnyLayoutKind) -> LayoutSettings:
    return kind.settings.model_validate({"kind": kind.name})


def _look(keys: Sequence[str], layouts: Mapping[str, tuple[AnyLayoutKind, Layout]]) -> _NamesSeen:
    seen = _NamesSeen()
    with_arrays = {name: layout.arrays for name, (_, layout) in layouts.items() if layout.arrays is not None}
    of_names = {
        name: (kind, layout)
        for name, (kind, layout) in layouts.items()
        if name not in with_arrays and not kind.traits.reads_any_name
    }
    with_metadata = {name: layout for name, (kind, layout) in layouts.items() if kind.traits.has_sidecars}
    for key in keys:
        nodes = {name: arrays.node(key) for name, arrays in with_arrays.items()}
        groups = [name for name, node in nodes.items() if isinstance(node, tuple)]
        for name in groups:
            seen.groups[name].append(key)
        # An image file inside a group of arrays is none of the images.
        if groups or is_hidden(key) or (None in nodes.values() and image_like(key)):
            continue
        meaning = {name: layout.parse(key) for name, layout in with_metadata.items()}
        sidecar_of = [name for name, what in meaning.items() if isinstance(what, Sidecar)]
        for name in sidecar_of:
            seen.metadata[name].append(key)
        if sidecar_of or ignored_name(key) is not None or derived_name(key) is not None:
            continue
        meaning |= {name: layout.parse(key) for name, (_, layout) in of_names.items() if name not in meaning}
        fields = frozenset(
            name for name, what in meaning.items() if isinstance(what, Parsed) and name in of_names
        )
        if not fields and mask_name(key):
            continue
        others = frozenset(
            name for name, what in meaning.items() if isinstance(what, Ignored) and name in of_names
        )
        certain = frozenset(name for name in fields | others if of_names[name][1].certain(key))
        reading = _ReadAs(fields, certain, others)
        seen.images += 1
        seen.names.append(key)
        seen.readings[reading] += 1
        seen.examples.setdefault(reading, key)
    return seen


def _is_found(name: str, kind: AnyLayoutKind, seen: _NamesSeen) -> bool:
    if kind.traits.reads_any_name:
        return name in seen.metadata
    if seen.sure_of(name) or (name in seen.metadata and seen.read_by(name)):
        return True
    # All of them may be pictures made of fields that are elsewhere, such as stitched ones.
    return bool(seen.images) and seen.known_to(name) == seen.images


def _of_arrays(seen: _NamesSeen) -> Proposal:
    names = sorted(seen.groups)
    if len(names) > 1 or seen.images:
        beside = f", and {_many(seen.images, 'image file')} such as {seen.names[0]!r}" if seen.images else ""
        ways = " or ".join(f"--layout {name}" for name in names)
        raise ConfigFault(
            f"there are arrays ({_shown(seen.groups[names[0]])}){beside}: say which are counted with {ways}"
            + (" or --layout flat for the image files" if seen.images else "")
        )
    [name] = names
    kind = next(kind for kind in kinds() if kind.name == name)
    groups = {parent(key) for key in seen.groups[name]}
    shown = min(groups, key=lambda group: (group.count("/"), group)) or file_name(seen.groups[name][0])
    return Proposal(
        _settings(kind), f"{_many(len(groups), 'group')} of arrays, such as {shown}, and no image file"
    )


def _chosen(
    found: Sequence[str], seen: _NamesSeen, layouts: Mapping[str, tuple[AnyLayoutKind, Layout]]
) -> Proposal:
    strict = [name for name in found if not layouts[name][0].traits.reads_any_name]
    whole = [name for name in strict if seen.read_by(name) == seen.images]
    fitting = whole or [name for name in strict if 2 * seen.read_by(name) > seen.images]
    if not strict:
        # Layouts whose images may have any name are told by their metadata files alone.
        fitting = list(found)
    for tell in (lambda name: name in seen.metadata, lambda name: 2 * seen.sure_of(name) > seen.images):
        if len(fitting) > 1 and any(map(tell, fitting)):
            fitting = list(filter(tell, fitting))
    if len(fitting) > 1:
        raise _two_fit(fitting, seen)
    if not fitting:
        raise _mixed(strict, seen)
    [name] = fitting
    left = Counter[_ReadAs]() if not strict else seen.left_by(name)
    if any(one.certain & one.fields for one in left):
        raise _mixed([name, *sorted({other for one in left for other in one.certain & one.fields})], seen)
    strangers = [
        other
        for other in seen.metadata
        if other != name and not layouts[other][0].traits.told_by_table and not seen.read_by(other)
    ]
    if strangers and name not in seen.metadata:
        raise _not_described(name, strangers[0], seen)
    return Proposal(_settings(layouts[name][0]), _evidence(name, seen, left))


def _not_described(name: str, other: str, seen: _NamesSeen) -> ConfigFault:
    """The fault for names of one layout beside metadata of another, which would then say nothing of wells, channels and missing fields."""
    files = seen.metadata[other]
    return ConfigFault(
        f"the layout {name} reads {seen.read_by(name):,} of {_many(seen.images, 'name')}, such as {seen.names[0]!r}, but {_shown(files)} "
        f"{_is(files)} metadata of {other}, which reads none of them: --layout {name} goes by the names alone; to go by the metadata, name "
        f"the images as {other} does"
    )


def _evidence(name: str, seen: _NamesSeen, left: Mapping[_ReadAs, int]) -> str:
    number = seen.images - sum(left.values())
    told = f"{number:,} of {_many(seen.images, 'name')} {'is' if number == 1 else 'are'} of it"
    if files := seen.metadata.get(name):
        told += f"; {_shown(files)} {_is(files)} beside them"
    if left:
        told += f"; not {seen.examples[next(iter(left))]!r}"
    return told


def _two_fit(names: Sequence[str], seen: _NamesSeen) -> ConfigFault:
    example = next(key for one, key in seen.examples.items() if set(names) & (one.fields | one.others))
    ways = " or ".join(f"--layout {name}" for name in names)
    return ConfigFault(
        f"several layouts read these names ({', '.join(names)}), such as {example!r}: say which it is with {ways}"
    )


def _mixed(names: Sequence[str], seen: _NamesSeen) -> ConfigFault:
    """The fault for names of several conventions. `names` are the layouts that read some of them."""
    told = []
    for name in dict.fromkeys(names):
        readings = [one for one in seen.readings if name in one.fields]
        if readings:
            number = sum(seen.readings[one] for one in readings)
            told.append(f"{number} {'is' if number == 1 else 'are'} {name} ({seen.examples[readings[0]]!r})")
    unknown = [one for one in seen.readings if not (one.fields | one.others) & set(names)]
    if unknown:
        number = sum(seen.readings[one] for one in unknown)
        told.append(f"{number} of no layout among these ({seen.examples[unknown[0]]!r})")
    ways = " or ".join(f"--layout {name}" for name in dict.fromkeys(names))
    return ConfigFault(
        f"{_many(seen.images, 'image name')} of several kinds are mixed: {', '.join(told)}. Count them apart (--set 'run.include=[NAME]'), or say "
        f"how they are read: {ways} with --set run.unparsed=ignore for what it does not read; {_FLAT_SAYS}"
    )


def _plain(seen: _NamesSeen) -> Proposal:
    """`flat`, unless it would count several files of one image."""
    if seen.images > 1:
        conventions = Counter(filter(None, map(convention, seen.names)))
        for told in (
            _known_pattern(seen, conventions),
            _endings(seen),
            _numbered(seen.names),
            _drawn(seen.names),
        ):
            if told:
                raise ConfigFault(told)
    if not seen.images:
        return Proposal(FlatSettings(), "no image is there that a layout knows")
    evidence = (
        f"no instrument's name among {_many(seen.images, 'image')}, each is taken for an image of its own"
    )
    tables = {kind.name for kind in kinds() if kind.traits.told_by_table}
    weak = {name for one in seen.readings for name in one.fields - tables}
    if weak:
        number = sum(count for one, count in seen.readings.items() if one.fields - tables)
        evidence += (
            f"; {number} {'names' if number > 1 else 'name'} a well alone (--layout {min(weak)} reads it)"
        )
    for name, files in sorted(seen.metadata.items()):
        evidence += f"; {_shown(files)} looks like {name}, whose names these are not"
    return Proposal(FlatSettings(), evidence)


def _known_pattern(seen: _NamesSeen, conventions: Mapping[str, int]) -> str:
    told = hint(seen.images, conventions)
    if told is not None:
        return f"{told} Or {_FLAT_SAYS}"
    if not conventions:
        return ""
    shown = ", ".join(f"{number} {name}" for name, number in sorted(conventions.items()))
    return (
        f"{_many(seen.images, 'image name')} of several kinds are mixed: {shown} names among others. Count them apart "
        f"(--set 'run.include=[NAME]'), or say how they are read with --layout pattern; {_FLAT_SAYS}"
    )


def _endings(seen: _NamesSeen) -> str:
    told = channel_endings(sorted((parent(key), stem(key)) for key in seen.names))
    return "" if told is None else f"{told}; {_FLAT_SAYS}"


_NUMBERED = re.compile(
    r"(?:(?<=[_\-. ])|(?<=/)|^)(?P<word>channel|chan|ch|c|wv|wavelength|w|zstep|slice|plane|z)[_\-= ]?(?P<number>[0-9]{1,4})"
    r"(?=[_\-. /]|$)",
    re.IGNORECASE,
)
_STAINS = re.compile(
    r"(?:(?<=[_\-. ])|(?<=/)|^)(?P<word>dapi|hoechst(?:[0-9]+)?|e?gfp|[yrc]fp|mcherry|cy[357]|fitc|tritc|texas[_ ]?red|alexa[_ ]?[0-9]+"
    r"|bright[_ ]?field|phase)(?=[_\-. /]|$)",
    re.IGNORECASE,
)
_MOST_CHANNELS = 9
_LEAST_SHARE = 0.8


def _numbered(names: Sequence[str]) -> str:
    """Why names are those of channels or planes of fewer images: they differ in the number behind such a word alone, or in a stain's name."""
    for expression, least in ((_STAINS, 1), (_NUMBERED, 2)):
        sets: defaultdict[tuple[str, int], dict[str, str]] = defaultdict(dict)
        for key in names:
            path = f"{parent(key)}/{stem(key)}".lstrip("/")
            for number, match in enumerate(expression.finditer(path)):
                masked = f"{path[: match.start()]}\0{path[match.end() :]}"
                sets[masked, number].setdefault(match[0], key)
        several = [each for each in sets.values() if len(each) > 1]
        covered = {key for each in several for key in each.values()}
        if len(several) >= least and len(covered) >= _LEAST_SHARE * len(names):
            first = several[0]
            shown = " and ".join(repr(key) for _, key in sorted(first.items())[:2])
            words = ", ".join(sorted(first)[:_SHOWN])
            return (
                f"{len(covered)} of {_many(len(names), 'image')} differ in {words} alone, such as {shown}, as channels or planes of one image do: say how"
                f" names are read with --layout pattern --set run.layout.pattern=EXPRESSION; {_FLAT_SAYS}"
            )
    return ""


_DRAWN = re.compile(
    r"(?:^|[_\-. ])(?P<word>thumb(?:nail)?s?|montage|stitched|composite|rgb_?merge)(?:[_\-. ]|$)",
    re.IGNORECASE,
)


def _drawn(names: Sequence[str]) -> str:
    """Why some of the names are those of pictures made of the others."""
    drawn = [key for key in names if _DRAWN.search(stem(key))]
    if not drawn or len(drawn) == len(names):
        return ""
    match = _DRAWN.search(stem(drawn[0]))
    word = "" if match is None else match["word"]
    return (
        f"{len(drawn)} of {_many(len(names), 'image')} are pictures made of others by their names, such as {drawn[0]!r}: leave them out with"
        f" --set 'run.exclude=[*{word}*]'; {_FLAT_SAYS}"
    )


def _shown(files: Sequence[str]) -> str:
    """The names of a few files, each once."""
    names = list(dict.fromkeys(map(file_name, files)))
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _is(files: Sequence[str]) -> str:
    return "is" if len(set(map(file_name, files))) == 1 else "are"


def _many(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
