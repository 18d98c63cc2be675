"""Opening an image from its bytes. The first bytes decide which format it is, never the file's name.

To add a format, write a module with `opens(body) -> bool` and `open_bytes(body, key, max_pixels, declared, beside) ->
ImageFile`, and add it to `_FORMATS`. TIFF is opened on a `Reader` instead, so that only the parts that are asked for
are read.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from types import ModuleType

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images import cellomics, npz, png_jpeg, tiff
from cellcount_core.images.imagefile import UNDECLARED, Beside, Declared, ImageFile, Plane, alone
from cellcount_core.images.reader import Reader, Whole

__all__ = ["ImageFile", "Plane", "open_image", "stack_length"]

_FORMATS: tuple[ModuleType, ...] = (png_jpeg, npz, cellomics)
_HEAD = 8

_KNOWN = "PNG, JPEG, BMP, TIFF, C01, NPZ and NPY are expected"

_MAGIC = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\x00",
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
    b"\x93NUMPY",
    b"PK\x03\x04",
)

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"PK", "a ZIP archive"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a RIFF container (WebP or video)"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 image"),
    (b"PAR1", "a Parquet table"),
    (b"ZISRAWFILE", "a Zeiss CZI file; export it as OME-TIFF"),
    (b"\xda\xce\xbe\x0a", "a Nikon ND2 file; export it as TIFF"),
    (b"\x70\x00\x00\x00", "a Leica LIF file; export it as OME-TIFF"),
    (b"\xd0\xcf\x11\xe0", "an OLE file (older Zeiss, Olympus or Office); export it as TIFF"),
)


def open_image(
    body: bytes | Reader,
    key: str,
    *,
    max_pixels: int,
    declared: Declared = UNDECLARED,
    beside: Beside = alone,
) -> ImageFile:
    """Open the image in `body`. Only its headers are read. `key` is the file's name in messages.

    `max_pixels` limits height x width of one plane, before anything is decoded. `declared` is what the user says
    about the axes. `beside` gives the other files of a set that the header names.

    Raises FieldFault: EMPTY_FILE, NOT_AN_IMAGE, TRUNCATED, TOO_MANY_PIXELS, WRONG_SHAPE, WRONG_DTYPE, UNSUPPORTED,
    UNREADABLE, and ABSENT if another file that describes this one is not there.
    """
    reader = Whole(body) if isinstance(body, bytes) else body
    if not reader.size:
        raise FieldFault(Reason.EMPTY_FILE, "the file has 0 bytes; an image is expected", key)
    if tiff.opens(bytes(reader.read(0, _HEAD))):
        return tiff.open_reader(reader, key, max_pixels, declared, beside)
    body = reader.whole()
    for kind in _FORMATS:
        if kind.opens(body):
            image: ImageFile = kind.open_bytes(body, key, max_pixels, declared, beside)
            return image
    if any(len(body) < len(magic) and magic.startswith(body) for magic in _MAGIC):
        raise FieldFault(
            Reason.TRUNCATED, f"the file ends after {len(body)} bytes, inside an image's signature", key
        )
    raise FieldFault(Reason.NOT_AN_IMAGE, f"the file looks like {_looks_like(body)}; {_KNOWN}", key)


def stack_length(
    body: bytes | Reader, key: str, max_pixels: int, declared: Declared = UNDECLARED, beside: Beside = alone
) -> int:
    """Number of images in the file that are fields of their own, from its header: those of a stack (N, H, W, …), or
    declared time points. Otherwise 1.

    Raises what `open_image` raises.
    """
    return open_image(body, key, max_pixels=max_pixels, declared=declared, beside=beside).images


def _looks_like(body: bytes) -> str:
    for magic, name in _OTHERS:
        if body.startswith(magic):
            return name
    head = body[:512]
    if not head.strip(b"\x00"):
        return "a blank: its first bytes are all zero (a copy that reserved the space and never filled it?)"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page (an error or login page saved as a file?)"
    if text.startswith((b"<?xml", b"<error", b"<ome")):
        return "an XML document"
    if text.startswith((b"{", b"[")) and _is_text(head):
        return "JSON text"
    if _is_text(head):
        return "text"
    return f"no format known here (its first bytes are {head[:8].hex(' ')})"


def _is_text(head: bytes) -> bool:
    try:
        text = getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n\f\ufeff" for letter in text)
