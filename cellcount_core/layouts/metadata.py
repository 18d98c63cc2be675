"""Reading the metadata files of instruments: text of any encoding, XML and JSON that cannot harm, values that are what their names
promise, one error for what cannot be read."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from xml.parsers import expat

from cellcount_core.domain.scales import LARGEST_UM_PER_PX, SMALLEST_UM_PER_PX

_MOST_DEPTH = 64
_PIECE = 1 << 20
"""Bytes of a file that are parsed at a time."""

_DECLARED = re.compile(rb"""\s*<\?xml[^>]{0,80}\bencoding\s*=\s*["']([A-Za-z0-9._:\-]{1,40})["']""")

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Unreadable(Exception):
    """A metadata file cannot be used. `key` names it; `why` says in words what was found and what was expected."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(key, why)
        self.key = key
        self.why = why

    def __str__(self) -> str:
        return f"{self.key}: {self.why}"


Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Value = TypeVar("Value")

MOST_ROWS, MOST_COLUMNS = 32, 48
"""The largest plate, of 1536 wells."""
_MOST_ODD = 8


@dataclass(frozen=True, slots=True)
class Values:
    """Values by their names, of an element or a line of the metadata file `key`; `of` is what messages call it.

    Every method raises Unreadable if the value does not fit its name.
    """

    key: str
    of: str
    values: Mapping[str, str]

    def whole(self, name: str, most: int, least: int = 1) -> int:
        """A whole number from `least` to `most`."""
        text = self.values.get(name, "").strip()
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise Unreadable(
                self.key,
                f"{name} of {self.of} is {text[:60]!r}; a whole number from {least} to {most} was expected",
            )
        return int(text)

    def number(self, name: str) -> float:
        """A finite number."""
        text = self.values.get(name, "")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise Unreadable(self.key, f"{name} of {self.of} is {text[:60]!r}; a number was expected")
        return value


@dataclass(slots=True)
class Odd:
    """What is odd about many records: how many there are of each kind, and one of them. At most eight kinds are kept."""

    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, why: str, example: str) -> None:
        """Count one more record."""
        if why in self.kinds or len(self.kinds) < _MOST_ODD:
            number, first = self.kinds.get(why, (0, example[:200]))
            self.kinds[why] = (number + 1, first)

    def notes(self, what: str) -> list[str]:
        """Sentences for the user; `what` is what one record is called ("image")."""
        return [
            f"of {number} {what if number == 1 else what + 's'}, such as {first!r}, {why}"
            for why, (number, first) in sorted(self.kinds.items())
        ]


def only(values: Iterable[Value]) -> Value | None:
    """The one value that is stated everywhere; None if none is, or several."""
    found = set(values)
    return next(iter(found)) if len(found) == 1 else None


def pixel_size(um_per_px: float, of: str, notes: list[str]) -> float | None:
    """A stated pixel size; None for one that no microscope has, of which `notes` then tells. `of` is what states it, in words."""
    size = round(um_per_px, 6)
    if SMALLEST_UM_PER_PX <= size <= LARGEST_UM_PER_PX:
        return size
    notes.append(f"the pixel size {size:g} µm{of} is stated, which no microscope has and which is not taken")
    return None


def read_json(key: str, body: bytes) -> Json:
    """The value of a JSON file. Raises Unreadable if it is none."""
    try:
        value: Json = json.loads(text_of(body))
    except (ValueError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else str(error)[:100]
        raise Unreadable(key, f"not readable JSON: {why}") from None
    return value


def text_of(body: bytes) -> str:
    """The text of a metadata file: by its byte order mark, else UTF-8, else Windows-1252 as instrument PCs write.

    Never fails; bytes that no encoding has become U+FFFD.
    """
    for mark, encoding in _BOMS:
        if body.startswith(mark):
            return body.decode(encoding, "replace")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body.decode("cp1252", "replace")


def read_xml(
    key: str,
    body: bytes,
    start: Callable[[str, Mapping[str, str]], None],
    end: Callable[[str, str], None] = lambda _, __: None,
) -> None:
    """Walk the elements of an XML file as a stream: memory does not grow with the file.

    `start(name, attributes)` is called when an element begins, and `end(name, text)` when it ends; `text` is its text (after its last
    child, if it has children). Names have no namespace. A file that is not in the encoding that it declares, or not in UTF-8 if it
    declares none, is read as Latin-1. Raises Unreadable if the file is not XML, has a document type or entities of its own, or is
    nested more than 64 deep.
    """
    try:
        _parse(key, body, start, end)
    except expat.ExpatError as error:
        raise Unreadable(
            key, f"not readable XML: {expat.ErrorString(error.code)} in line {error.lineno}"
        ) from None


def _parse(
    key: str,
    body: bytes,
    start: Callable[[str, Mapping[str, str]], None],
    end: Callable[[str, str], None],
) -> None:
    parser = expat.ParserCreate(encoding="utf-8")
    parser.buffer_text = True
    texts: list[list[str]] = []

    def begin(name: str, attributes: dict[str, str]) -> None:
        if len(texts) == _MOST_DEPTH:
            raise Unreadable(key, f"elements are nested more than {_MOST_DEPTH} deep")
        if texts:
            texts[-1].clear()
        texts.append([])
        start(_local(name), {_local(each): value for each, value in attributes.items()})

    def finish(name: str) -> None:
        end(_local(name), "".join(texts.pop()))

    def refuse(*_: object) -> None:
        raise Unreadable(key, "has a document type, which instruments do not write and which can do harm")

    parser.StartElementHandler = begin
    parser.EndElementHandler = finish
    parser.CharacterDataHandler = lambda text: texts[-1].append(text) if texts else None
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    text = memoryview(_as_utf8(key, body))
    for at in range(0, len(text), _PIECE):
        parser.Parse(text[at : at + _PIECE].tobytes(), False)
    parser.Parse(b"", True)


def _as_utf8(key: str, body: bytes) -> bytes:
    """The file in UTF-8, whatever its encoding, because the parser knows only a few."""
    if any(body.startswith(mark) for mark, _ in _BOMS):
        return text_of(body).encode()
    declared = _DECLARED.match(body)
    encoding = declared[1].decode("ascii") if declared is not None else "utf-8"
    if encoding.lower() in ("utf-8", "utf8") and _is_utf8(body):
        return body
    try:
        text = body.decode(encoding)
    except LookupError:
        raise Unreadable(key, f"declares the encoding {encoding!r}, which does not exist") from None
    except UnicodeError:
        text = body.decode("iso-8859-1")
    return text.encode("utf-8", "replace")


def _is_utf8(body: bytes) -> bool:
    """Whether the file is text in UTF-8. It is looked at in pieces, because a large one should not be held twice."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    text = memoryview(body)
    try:
        for start in range(0, len(text), _PIECE):
            decoder.decode(text[start : start + _PIECE].tobytes())
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


def _local(name: str) -> str:
    return name.rpartition(":")[2]
