"""Images of which a table says which patterns they show: each none, one or several of a list of names.

The table is a CSV with the columns `Id` and `Target`, as that of the Human Protein Atlas. `Target` holds the numbers of the patterns
("16 0"), or their names with ";" or "|" between them, or "none". The channels of an image lie in a file each,
`<Id>_<channel>.png`, or together in one, `<Id>.tif`. Optional columns are `split`, `group` and `modality`.

Every fault of the annotations comes in one report, with the file, the row and the value.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePath
from typing import Literal

from cellcount_core.domain.delimited import TableRow, columns_of
from cellcount_core.domain.errors import ConfigFault, likely, matching, nearest
from cellcount_core.labelled.folders import IMAGES, SPLITS, read_rows
from cellcount_core.labelled.image import IMAGE_SUFFIXES, Files, UnequalChannels
from cellcount_core.labelled.whole import WholeEntry, unreadable
from cellcount_core.tasks.patterns.score import COLUMN, SEPARATOR

ID, TARGET, NONE = "Id", "Target", "none"
STRUCTURES = "structures"
"""Name of the list of the 28 structures that the Human Protein Atlas tells apart; it is shipped."""

_SHIPPED = Path(__file__).with_name("structures.csv")
_SHOWN = 10
_LIKE_NUMBERS = re.compile(r"[-+\s\[\](){}.,:'\"/]*\d[-+\s\d\[\](){}.,:'\"/]*")

Action = Literal["refuse", "skip"]
"""What is done about a fault: the data is refused, or what is faulty is left out (the whole image)."""


class PatternFault(StrEnum):
    """What can be wrong with a data set of patterns."""

    NO_ID = "no_id"
    DUPLICATE_ID = "duplicate_id"
    NO_TARGET = "no_target"
    UNKNOWN_PATTERN = "unknown_pattern"
    REPEATED_PATTERN = "repeated_pattern"
    UNKNOWN_SPLIT = "unknown_split"
    NO_IMAGE = "no_image"
    NO_CHANNEL = "no_channel"
    TWO_FILES = "two_files"
    UNEQUAL_CHANNELS = "unequal_channels"
    UNREADABLE = "unreadable"
    NO_ROW = "no_row"

    @property
    def told(self) -> str:
        """What it is, in words."""
        return _TOLD[self]


_TOLD: Mapping[PatternFault, str] = {
    PatternFault.NO_ID: "a row without an Id",
    PatternFault.DUPLICATE_ID: "an Id in several rows",
    PatternFault.NO_TARGET: f"a row without a Target (an image that shows none of the patterns has {NONE!r})",
    PatternFault.UNKNOWN_PATTERN: "a pattern that is none of the known ones",
    PatternFault.REPEATED_PATTERN: "a pattern that a row names twice",
    PatternFault.UNKNOWN_SPLIT: "a split that is no part of the data: its image would be in none",
    PatternFault.NO_IMAGE: "an Id without an image",
    PatternFault.NO_CHANNEL: "an image without one of its channels",
    PatternFault.TWO_FILES: "an image with several files of one channel",
    PatternFault.UNEQUAL_CHANNELS: "an image whose channels differ in size",
    PatternFault.UNREADABLE: "an image that cannot be read",
    PatternFault.NO_ROW: "an image without a row",
}


@dataclass(frozen=True, slots=True)
class ToldFault:
    """One fault: its kind, where it is, what was found, and what is done about it."""

    kind: PatternFault
    where: str
    what: str
    action: Action


@dataclass(frozen=True, slots=True)
class PatternReport:
    """What a data set of patterns holds and everything that is wrong with it.

    `images` are those that are left of the `rows` of the table, and `patterns` counts them by pattern.
    """

    path: str
    rows: int
    images: int
    patterns: Mapping[str, int]
    faults: tuple[ToldFault, ...]

    @property
    def refused(self) -> bool:
        """Whether one of the faults is refused."""
        return any(fault.action == "refuse" for fault in self.faults)

    def lines(self, shown: int = _SHOWN) -> list[str]:
        """The report in words, with at most `shown` examples of each kind of fault."""
        there = sum(number > 0 for number in self.patterns.values())
        told = [f"{self.path}: {self.images:,} images, {there} of {len(self.patterns)} patterns among them"]
        for kind in PatternFault:
            own = [fault for fault in self.faults if fault.kind is kind]
            if own:
                done = {"refuse": "refused", "skip": "left out"}[own[0].action]
                told.append(f"{len(own):,} x {kind.value}: {kind.told} -> {done}")
                told += [f"    {fault.where}: {fault.what}" for fault in own[:shown]]
                told += [f"    … and {len(own) - shown:,} more"] if len(own) > shown else []
        return told if self.faults else [*told, "no faults"]


@dataclass(frozen=True, slots=True)
class PatternData:
    """A data set of patterns: its table, its images, not yet read, the names of the patterns in their order, and the report of its faults."""

    path: Path
    names: tuple[str, ...]
    entries: tuple[WholeEntry, ...]
    report: PatternReport


@dataclass(frozen=True, slots=True)
class PatternReading:
    """How a data set of patterns is read.

    `table` is where its table lies; None looks for it beside the images. `policy` leaves out what has some kinds of fault, which are otherwise
    refused. `splits` are those that are asked for; with them, a row of another one that is not usual either (`SPLITS`) is a fault, and so is a
    row without one beside rows with one. `images` are "listed" alone, or "decoded" once too, which tells those that cannot be.
    """

    table: Path | None = None
    policy: Mapping[PatternFault, Action] = field(default_factory=dict)
    splits: Sequence[str] = ()
    images: Literal["listed", "decoded"] = "listed"


AS_USUAL = PatternReading()


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row of a table of patterns: the image's Id, the names of its patterns, and what else the row says."""

    id: str
    patterns: tuple[str, ...]
    split: str = ""
    group: str = ""
    modality: str = ""


def pattern_names(given: str | Sequence[str], beside: Path | None = None) -> tuple[str, ...]:
    """The names of patterns in the order of their numbers: of the shipped list `structures`, of a CSV with the columns `number` and `name`,
    or as they are given.

    The path of a CSV may be relative to the folder `beside`. Raises ConfigFault naming file and value if a name or a number is there twice, or if the
    numbers are not 0, 1, 2, …

    >>> pattern_names("structures")[27]
    'Rods & rings'
    """
    if not isinstance(given, str):
        return _checked_names(tuple(given), "patterns")
    path = _SHIPPED if given == STRUCTURES else Path(given)
    if not path.is_file() and beside is not None:
        path = beside / given
    if not path.is_file():
        raise ConfigFault(
            f"patterns: {given!r} is neither a file nor the name of a shipped list ({STRUCTURES}): a CSV with the columns number and name expected"
        )
    rows = read_rows(path)
    for column in ("number", "name"):
        if not rows or column not in rows[0]:
            raise ConfigFault(f"{path}: no column {column!r}{nearest(column, rows[0] if rows else ())}")
    for at, row in enumerate(rows):
        if row["number"].strip() != str(at):
            raise ConfigFault(
                f"{path}: row {at + 2}: number {row['number']!r}; {at} expected (numbers rise from 0)"
            )
    return _checked_names(tuple(row["name"].strip() for row in rows), str(path))


def _checked_names(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    if len(names) < 2 or not all(names):
        raise ConfigFault(f"{where}: {list(names)}; the names of two patterns or more expected")
    for name in names:
        if names.count(name) > 1:
            raise ConfigFault(f"{where}: {name!r} is there twice")
        if name == NONE or name.isdecimal() or set(name) & set(";|,"):
            raise ConfigFault(
                f"{where}: {name!r} cannot be the name of a pattern (no number, no ; | or comma)"
            )
    return names


def patterns_of(values: Mapping[str, str]) -> tuple[str, ...]:
    """The patterns among what is true of an image."""
    return tuple(values[COLUMN].split(SEPARATOR)) if values[COLUMN] else ()


class _Faults:
    """Gathers faults, each with what is done about its kind."""

    def __init__(self, policy: Mapping[PatternFault, Action]) -> None:
        self._policy = policy
        self.found: list[ToldFault] = []

    def tell(self, kind: PatternFault, where: str, what: str) -> None:
        self.found.append(ToldFault(kind, where, what, self._policy.get(kind, "refuse")))


def skipping(kinds: Sequence[str]) -> dict[PatternFault, Action]:
    """The policy that leaves out what has one of these faults. Raises ConfigFault, naming the nearest, if a kind is not known."""
    for kind in kinds:
        if kind not in set(PatternFault):
            raise ConfigFault(
                f"faults: no kind {kind!r}{nearest(kind, [each.value for each in PatternFault])}"
            )
    return {PatternFault(kind): "skip" for kind in kinds}


def read_annotations(
    table: Path, names: Sequence[str], policy: Mapping[PatternFault, Action] | None = None
) -> list[Annotation]:
    """The rows of a table of patterns, without looking for images. Raises ConfigFault with all faults of the table that are refused."""
    faults = _Faults(policy or {})
    found = _annotations(table, names, (), faults)
    _refuse(_report(table, names, len(found), [one.patterns for one in found], faults))
    return found


def list_patterns(
    path: Path, roles: Sequence[str], names: Sequence[str], reading: PatternReading = AS_USUAL
) -> PatternData:
    """List and check the images of a data set of patterns; `roles` are the channels that are wanted.

    `path` is the folder of the images, or the table; the other one is looked for beside it (images in the same folder or in `images/`),
    unless `reading` names the table. `names` are the patterns in the order of their numbers. Raises ConfigFault with the report of all faults.
    """
    data = check_patterns(path, roles, names, reading)
    _refuse(data.report)
    if not data.entries:
        raise ConfigFault("\n".join([f"{data.path}: no image with patterns in it", *data.report.lines()]))
    return data


def check_patterns(
    path: Path, roles: Sequence[str], names: Sequence[str], reading: PatternReading = AS_USUAL
) -> PatternData:
    """As `list_patterns`, but faults are only told in the report; what is faulty is then left out."""
    where, folders = _places(path, reading.table)
    faults = _Faults(reading.policy)
    rows = _annotations(where, names, reading.splits, faults)
    ids = {row.id for row in rows} | _all_ids(where)
    files = _files(folders, ids, roles, faults)
    entries, missing = [], 0
    for row in rows:
        own = files.get(row.id, {})
        tell = partial(faults.tell, where=f"{where}: {row.id}")
        lacking = [role for role in roles if role not in own] if "" not in own else []
        twice = _twice(own, roles)
        if not own:
            what = f"no {row.id}_{roles[0] if roles else '<channel>'}.png or {row.id}.png in {' or '.join(map(str, folders))}"
            # Of many, only the first are told one by one.
            missing += 1
            hint = _meant(row.id, folders, roles) if missing <= _SHOWN else ""
            tell(PatternFault.NO_IMAGE, what=what + hint)
        elif twice:
            tell(PatternFault.TWO_FILES, what=f"{' and '.join(map(str, twice))}; one of them expected")
        elif lacking:
            there = ", ".join(sorted(each.name for some in own.values() for each in some))
            taken = [f"{row.id}_{role}" for role in lacking if f"{row.id}_{role}" in ids]
            told = f"; the file of {taken[0]!r} is taken for the image of that {ID}" if taken else ""
            tell(PatternFault.NO_CHANNEL, what=f"no {', '.join(lacking)}; there is {there}{told}")
        else:
            image: Files = own[""][0] if "" in own else {role: own[role][0] for role in roles}
            values = {COLUMN: SEPARATOR.join(row.patterns)}
            entries.append(WholeEntry(row.id, image, values, row.split, row.modality, row.group))
    if reading.images == "decoded":
        broken = unreadable(entries, roles)
        for name, fault in broken.items():
            unequal = isinstance(fault, UnequalChannels)
            kind = PatternFault.UNEQUAL_CHANNELS if unequal else PatternFault.UNREADABLE
            faults.tell(kind, f"{where}: {name}", str(fault))
        entries = [entry for entry in entries if entry.id not in broken]
    return PatternData(
        where,
        tuple(names),
        tuple(entries),
        _report(where, names, len(_rows(where)), [patterns_of(one.values) for one in entries], faults),
    )


def _meant(name: str, folders: Sequence[Path], roles: Sequence[str]) -> str:
    """What may have been meant by the Id of an image that is not there, or why it is not found, in words; "" if nothing comes to mind."""
    path = PurePath(name.replace("\\", "/"))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        prefix, _, ending = path.stem.rpartition("_")
        stem = prefix if prefix and matching(ending, roles) else path.stem
        return f"; an {ID} has neither ending nor channel: {stem!r}"
    if len(path.parts) > 1:
        return f"; folders within it are not looked into: put the images there and call it {path.name!r}"
    stems = {
        prefix if prefix and matching(ending, roles) else each.stem
        for folder in folders
        for each in folder.iterdir()
        if each.suffix.lower() in IMAGE_SUFFIXES
        for prefix, _, ending in [each.stem.rpartition("_")]
    }
    return likely(name, sorted(stems))


def _refuse(report: PatternReport) -> None:
    if report.refused:
        lines = "\n".join(report.lines())
        raise ConfigFault(
            f"{report.path}: the annotations have faults that are refused; mend them, or leave out what is faulty (data.skip: [no_image, …], "
            f"or --skip-faulty)\n{lines}"
        )


def _report(
    where: Path, names: Sequence[str], rows: int, left: Sequence[tuple[str, ...]], faults: _Faults
) -> PatternReport:
    told = Counter(name for own in left for name in own)
    return PatternReport(
        str(where), rows, len(left), {name: told[name] for name in names}, tuple(faults.found)
    )


def _places(path: Path, table: Path | None) -> tuple[Path, list[Path]]:
    """The table, and the folders in which images are looked for."""
    if not path.exists():
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ConfigFault(
            f"{path}: not there; a folder of images, or a CSV with the columns {ID} and {TARGET}, expected{nearest(path.name, beside)}"
        )
    folder = path.parent if path.is_file() else path
    if table is None:
        table = path if path.is_file() else _only_table(path)
    elif not table.is_file():
        raise ConfigFault(f"{table}: not there; a CSV with the columns {ID} and {TARGET} expected")
    return table, [each for each in (folder, folder / IMAGES) if each.is_dir()]


def _only_table(folder: Path) -> Path:
    tables = sorted(each for each in folder.glob("*.csv") if not each.name.startswith("."))
    fitting = [each for each in tables if {ID, TARGET} & set(_header(each))]
    if len(fitting) != 1 and len(tables) != 1:
        there = ", ".join(each.name for each in tables) or "no CSV at all"
        raise ConfigFault(
            f"{folder}: {len(fitting)} tables of patterns ({there}); one CSV with the columns {ID} and {TARGET} expected, or name it (data.table, --table)"
        )
    return (fitting or tables)[0]


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig") as stream:
            return columns_of(stream.readline().rstrip("\r\n"))
    except (OSError, UnicodeDecodeError):
        return []


def _rows(table: Path) -> list[TableRow]:
    rows = read_rows(table)
    header = list(rows[0]) if rows else _header(table)
    if not rows and not any(header):
        raise ConfigFault(
            f"{table}: the file is empty; a row an image, with the columns {ID} and {TARGET}, expected"
        )
    for column in (ID, TARGET):
        if column not in header:
            raise ConfigFault(
                f"{table}: no column {column!r}{likely(column, header)}; its columns are {', '.join(map(repr, header))}"
            )
    if not rows:
        raise ConfigFault(f"{table}: no row below the header; a row an image expected")
    return rows


def _all_ids(table: Path) -> set[str]:
    """All Ids that a table has, those of faulty rows too: their images are not images without a row."""
    return {row[ID].strip() for row in read_rows(table) if row.get(ID)}


def _annotations(
    table: Path, names: Sequence[str], splits: Sequence[str], faults: _Faults
) -> list[Annotation]:
    """The rows without faults; `splits` () are any. Raises ConfigFault if the file is no table of patterns at all."""
    rows = _rows(table)
    lines: dict[str, list[int]] = {}
    for row in rows:
        lines.setdefault(row[ID].strip(), []).append(row.number)
    split_named = bool(splits) and any(row.get("split", "").strip() for row in rows)
    found = []
    for row in rows:
        name = row[ID].strip()
        where = f"{table}: row {row.number}" + (f" ({name})" if name else "")
        if not name:
            faults.tell(PatternFault.NO_ID, where, f"{TARGET} {row[TARGET]!r} of no image")
            continue
        if len(lines[name]) > 1:
            if lines[name][0] == row.number:
                told = " and ".join(map(str, lines[name]))
                faults.tell(PatternFault.DUPLICATE_ID, f"{table}: {name}", f"rows {told}")
            continue
        patterns = _patterns(row[TARGET].strip(), names, partial(faults.tell, where=where))
        split = row.get("split", "").strip()
        strange = split_named and split not in (*splits, *SPLITS)
        if strange:
            expected = " or ".join(map(repr, splits))
            what = f"split {split!r}; {expected} expected{likely(split, splits)}"
            faults.tell(PatternFault.UNKNOWN_SPLIT, where, what)
        if patterns is not None and not strange:
            found.append(Annotation(name, patterns, split, row.get("group", ""), row.get("modality", "")))
    return found


def _patterns(target: str, names: Sequence[str], tell: partial[None]) -> tuple[str, ...] | None:
    """The patterns of a Target in the order of `names`; None if it is faulty."""
    if not target:
        tell(PatternFault.NO_TARGET, what=f"{TARGET} is empty")
        return None
    if target.casefold() == NONE:
        return ()
    spelt = target.replace("|", ";").split(";") if set(target) & set(";|") else [target]
    numbers = target.split()
    words = numbers if all(_is_number(word) for word in numbers) else [word.strip() for word in spelt]
    found, faulty = [], False
    for word in words:
        name = names[int(word)] if word.isdecimal() and int(word) < len(names) else matching(word, names)
        if name is None:
            if _is_number(word):
                expected = f"numbers 0 to {len(names) - 1} expected"
            elif _LIKE_NUMBERS.fullmatch(word):
                expected = (
                    f"numbers 0 to {len(names) - 1} with spaces between them expected ('{len(names) - 1} 0')"
                )
            else:
                expected = f"a known name expected{nearest(word, names)}"
            tell(PatternFault.UNKNOWN_PATTERN, what=f"{TARGET} {target!r} has {word!r}; {expected}")
            faulty = True
        elif name in found:
            tell(PatternFault.REPEATED_PATTERN, what=f"{TARGET} {target!r} names {name!r} twice")
            faulty = True
        else:
            found.append(name)
    return None if faulty else tuple(name for name in names if name in found)


def _is_number(word: str) -> bool:
    return word.lstrip("+-").isdecimal()


def _twice(files: Mapping[str, Sequence[Path]], roles: Sequence[str]) -> list[Path]:
    """The files of an image of which only one would be read: those of one channel, or one of all channels beside those of each; else none."""
    together = [*files.get("", [])]
    apart = [files[role] for role in roles if role in files]
    if together and len(apart) == len(roles) > 0:
        return [*together, *(path for some in apart for path in some)]
    return next((list(some) for some in (together, *apart) if len(some) > 1), [])


def _files(
    folders: Sequence[Path], ids: set[str], roles: Sequence[str], faults: _Faults
) -> dict[str, dict[str, list[Path]]]:
    """The image files of each Id by channel, one each unless there is a fault; "" is a file of all channels. Files whose names begin with a dot are passed over."""
    found: dict[str, dict[str, list[Path]]] = {}
    strangers: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
                continue
            prefix, _, ending = path.stem.rpartition("_")
            role = matching(ending, roles)
            if path.stem in ids:
                found.setdefault(path.stem, {}).setdefault("", []).append(path)
            elif prefix in ids:
                found.setdefault(prefix, {}).setdefault(role or ending, []).append(path)
            else:
                strangers.setdefault(prefix if role else path.stem, path)
    for name, path in strangers.items():
        faults.tell(PatternFault.NO_ROW, str(path), f"no row with the {ID} {name!r}")
    return found
