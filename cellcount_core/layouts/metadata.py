"""Reading the metadata files of instruments: text of any encoding, XML that cannot harm, one error for what cannot be read."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from xml.parsers import expat

_MOST_DEPTH = 64

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
    parser.Parse(_as_utf8(key, body), True)


def _as_utf8(key: str, body: bytes) -> bytes:
    """The file in UTF-8, whatever its encoding, because the parser knows only a few."""
    if any(body.startswith(mark) for mark, _ in _BOMS):
        return text_of(body).encode()
    declared = _DECLARED.match(body)
    encoding = declared[1].decode("ascii") if declared is not None else "utf-8"
    try:
        text = body.decode(encoding)
    except LookupError:
        raise Unreadable(key, f"declares the encoding {encoding!r}, which does not exist") from None
    except UnicodeError:
        text = body.decode("iso-8859-1")
    return text.encode("utf-8", "replace")


def _local(name: str) -> str:
    return name.rpartition(":")[2]
