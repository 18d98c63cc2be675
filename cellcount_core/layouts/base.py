"""What a layout is, and what all of them know about file names."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from cellcount_core.domain.fields import Parsed
from cellcount_core.domain.plates import PlateFacts
from cellcount_core.domain.settings import Section
from cellcount_core.stores.base import StorageOptions, Store

if TYPE_CHECKING:
    from cellcount_core.layouts.arrays import Arrays

IMAGE_EXTENSIONS = frozenset(
    {"png", "jpg", "jpeg", "jpe", "jfif", "tif", "tiff", "bmp", "c01", "dib", "npz", "npy"}
)
"""Extensions (lower case, no dot) of files that may hold images; what they hold is decided by their bytes alone."""

STACK_EXTENSIONS = frozenset({"npz", "npy"})
"""Extensions of array files, which may hold many images."""

LABELS_SUFFIX = ".labels.tif"
"""End of the names of the label images that cellcount writes."""

_HIDDEN = re.compile(
    r"(?:^|/)(?:\.|(?:thumbs\.db|desktop\.ini|__macosx|@eadir|\$recycle\.bin)(?:/|$))", re.IGNORECASE
)
_PICTURES = re.compile(r"(?:^|/)pictures/(?:plate_map|overlays|[^/]*_[0-9a-f]{16})\.png$")
"""The pictures that `cellcount pictures` draws into an output, which may lie inside an input."""

_ZARR = re.compile(r"(?:^|/)(?:\.z(?:attrs|group|array|metadata)|zarr\.json)$|\.zarr/")
"""Files of a Zarr group, such as an OME-Zarr plate. Only names that are not those of images are compared with it."""

_UNREAD_EXTENSIONS = frozenset({
    "nd2", "czi", "lif", "lsm", "stk", "flex", "oib", "oif", "oir", "vsi", "zvi", "dv", "r3d", "ims", "sld", "sldy",
    "mrc", "ics", "ids", "svs", "ndpi", "scn", "mrxs", "bif", "qptiff", "dcm", "h5", "hdf5", "mvd2",
})  # fmt: skip
"""Extensions of files that hold images in formats that are not read, and that programs of microscopy convert."""

_PHOTO_EXTENSIONS = frozenset({
    "heic", "heif", "avif", "webp", "gif", "jp2", "j2k", "jpf", "jpx", "jxl", "jxr", "tga", "pbm", "pgm", "ppm", "pnm", "psd", "xcf", "exr",
    "dng", "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "orf", "rw2", "raf", "pef", "srw", "rwl", "3fr", "iiq",
})  # fmt: skip
"""Extensions of photos, as phones, cameras and browsers write them, that are not read."""

_TEXTS = frozenset({
    "authors", "changelog", "changes", "citation", "contributing", "copying", "dockerfile", "done", "index", "install", "licence", "license",
    "log", "makefile", "manifest", "md5", "md5sums", "metadata", "news", "notes", "notice", "protocol", "readme", "sha256sums", "success",
    "_success", "todo", "version",
})  # fmt: skip
"""Names (lower case) of files without an extension that are texts."""

_DERIVED_NAMES = re.compile(
    r"(?:^|[_\-. ])(?P<token>cp_?(?:masks?|outlines?|flows?|output)|(?:cellpose|stardist|omnipose|instanseg|mesmer)_?(?:masks?"
    r"|labels?|predictions?|outlines?)|(?:object|simple|instance|semantic)[_ ](?:predictions?|probabilities|identities|segmentation))"
    r"(?:[_\-. ].*|[0-9]*)$|^(?P<before>(?:count masks|mask|outlines?) of |lblimg_)",
    re.IGNORECASE,
)
"""Names that images of cells never have: Cellpose, StarDist, InstanSeg, ilastik, ImageJ and TrackMate write them."""

_MASK_NAMES = re.compile(
    r"(?:^|[_\-. ])(?P<token>masks?|label(?:l?ed|s)?|seg(?:s|mented|mentations?)?|overlays?|outlines?|contours?|flows?|instances?"
    r"|annotations?|predictions?|probabilit(?:y|ies)|gt)(?:[_\-. ]?[0-9]+)?$",
    re.IGNORECASE,
)
_MASK_BEFORE = re.compile(r"^(?P<token>masks?|labels?|seg(?:mentation)?)[_\-. ]", re.IGNORECASE)
_MASK_WITHIN = re.compile(
    r"(?:^|[_\-. ])(?P<token>masks?|label(?:l?ed|s)?|seg(?:s|mented|mentations?)?|outlines?|contours?|overlays?|instances?"
    r"|annotations?|predictions?|lbl|gt|ground[_\- ]?truth)[_\-. ]",
    re.IGNORECASE,
)
_MASK_FOLDERS = re.compile(
    r"^(?:[^/]*[_\- ]|(?-i:[^/]*[a-z](?=[A-Z])))?(?P<token>masks?|label(?:led|s)?|seg(?:s|mented|mentations?)?|outlines?|contours?|annotations?|annotated"
    r"|predictions?|instances?|gt|(?:ground[_\- ]?)?truths?)$",
    re.IGNORECASE,
)

_WORDS = (
    "mask", "label", "seg", "outline", "flow", "output", "predict", "probabilit", "identit", "lbl", "overlay", "contour", "instance",
    "annotat", "gt", "truth",
)  # fmt: skip
"""Every name that the expressions above match contains one of these, so most names need no further look."""

_DERIVED = "masks, outlines or flows of another program"

_UNREAD = "of an image format that is not read"
_UNREAD_PHOTO = "of a photo format that is not read"

NO_EXTENSION = "without an extension, which tells images from other files"

OF_ZARR = "of an OME-Zarr; to count those: --layout ome-zarr"
"""The reason given for files that belong to another layout."""

_LONGEST_EXTENSION = 8


@dataclass(frozen=True, slots=True)
class Ignored:
    """A file that is not an image of a field. `why` is one of a few texts; such files are tallied by it."""

    why: str


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A metadata file. It describes the plates whose files lie below `folder` (the `Parsed.folder` of their images).

    Files with the same `folder` and `name` are copies of each other, and the first is read: some instruments put a copy into each
    subfolder. A copy that says otherwise is told, unless they are not `alike`: each then states the same of the plate, and other things of
    its own. A file of more than `most_bytes` is not read.
    """

    folder: str
    name: str
    most_bytes: int = 128 * 2**20
    alike: bool = True


@dataclass(frozen=True, slots=True)
class Traits:
    """What planning must know about a kind of layout besides the names.

    `projection_plane` is the plane number under which the instrument stores its own projection of the other planes (None if it stores
    none). `slices_are_fields` says that each image of an array file is a field of its own. `reads_any_name` says that any name is
    accepted, so masks have to be recognised by the files beside them. `told_by_table` says that a table tells what each file is.
    `has_sidecars` says that `parse` may give a `Sidecar`. `holds_arrays` says that an image is an array of many objects
    (`Layout.arrays`).
    """

    projection_plane: int | None = None
    slices_are_fields: bool = False
    reads_any_name: bool = False
    told_by_table: bool = False
    has_sidecars: bool = False
    holds_arrays: bool = False


NO_TRAITS = Traits()


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a table: the key of a file, relative to the input, and what it is.

    `doubt` says, if it is not empty, why the file cannot be what the table says: its field is not counted. `page` is the page of a file that
    holds several images, from 0; -1 means the whole file.
    """

    key: str
    parsed: Parsed
    doubt: str = ""
    page: int = -1


class Table(Protocol):
    """A table with one row for each file, which says what each file is and which files are expected."""

    def entries(self, store: Store, options: StorageOptions) -> Iterator[Entry | PlateFacts]:
        """Yield the rows in the table's order, streamed, and what the table states of whole plates. Raises ConfigFault if the table cannot
        be used."""
        ...


class Layout(ABC):
    """A rule that reads a field from a key."""

    __slots__ = ()

    @abstractmethod
    def parse(self, key: str) -> Parsed | Sidecar | Ignored | None:
        """What `key` names: a file of a field, a metadata file, or a file known to be neither; None if it is an image whose name does
        not parse.

        The result depends on the key alone.
        """

    def describe(self, sidecars: Mapping[str, bytes]) -> tuple[PlateFacts, ...]:
        """What the metadata files of one folder state: a PlateFacts for each plate that they describe.

        `sidecars` holds the bytes of each file by its key. The result depends on them alone, and memory is bounded by their size. Raises
        Unreadable (layouts/metadata.py), and nothing else, if a file is not what its name promises.
        """
        return ()

    def certain(self, key: str) -> bool:
        """Whether a name that `parse` reads, or knows for something else than a field, is hardly a coincidence.

        `--layout auto` takes an input for one of this layout by such names, or by a metadata file beside others. A name of a well alone
        ("B02.tif") tells nothing about the instrument.
        """
        return True

    @property
    def table(self) -> Table | None:
        """The table that says what each file is; None if the names say it."""
        return None

    @property
    def arrays(self) -> Arrays | None:
        """What tells the images, if they are arrays of many objects; None if an image is a file."""
        return None


class LayoutSettings(Section):
    """The settings of a layout, `run.layout` of a configuration. `kind` names the layout."""

    kind: str


Settings = TypeVar("Settings", bound=LayoutSettings)


@dataclass(frozen=True, slots=True)
class LayoutKind(Generic[Settings]):
    """What a layout's module exports.

    `name` is the value of `--layout` and of `run.layout.kind`; `settings` is the section, whose docstring is the layout's
    documentation; `build` makes the layout from its settings and the name of the plate of files that lie in the input
    itself. `build` raises ConfigFault for settings that cannot be used.
    """

    name: str
    settings: type[Settings]
    build: Callable[[Settings, str], Layout]
    traits: Traits = NO_TRAITS

    def of(self, settings: LayoutSettings, root: str) -> Layout:
        """The layout of `settings`, which must be of this kind."""
        assert isinstance(settings, self.settings), f"settings of {settings.kind} given to layout {self.name}"
        return self.build(settings, root)


class AnyLayoutKind(Protocol):
    """A LayoutKind, whatever the type of its settings."""

    @property
    def name(self) -> str:
        """See LayoutKind."""
        ...

    @property
    def settings(self) -> type[LayoutSettings]:
        """See LayoutKind."""
        ...

    @property
    def traits(self) -> Traits:
        """See LayoutKind."""
        ...

    def of(self, settings: LayoutSettings, root: str) -> Layout:
        """See LayoutKind."""
        ...


def ignored_name(key: str) -> Ignored | None:
    """Why `key` cannot be an image of a field in any layout (it is hidden, not an image, or was written by cellcount); None if it can."""
    if not image_like(key) and _ZARR.search(key) is not None:
        return Ignored(OF_ZARR)
    if is_hidden(key):
        return Ignored("hidden")
    if key.lower().endswith(LABELS_SUFFIX):
        return Ignored("label image")
    if _PICTURES.search(key) is not None:
        return Ignored("picture of a run")
    if not image_like(key):
        if extension(key) in _UNREAD_EXTENSIONS:
            return Ignored(f"{_UNREAD} (.{extension(key)})")
        if extension(key) in _PHOTO_EXTENSIONS:
            return Ignored(f"{_UNREAD_PHOTO} (.{extension(key)})")
        if not extension(key) and file_name(key).lower() not in _TEXTS:
            return Ignored(NO_EXTENSION)
        return Ignored(f"not an image ({_shown_extension(key)})")
    return None


def is_hidden(key: str) -> bool:
    """Whether the file or a folder it lies in is hidden, or made by an operating system."""
    return _HIDDEN.search(key) is not None


def is_unread(why: str) -> bool:
    """Whether `why` says that a file holds an image in a format that is not read."""
    return why.startswith(_UNREAD)


def is_unread_photo(why: str) -> bool:
    """Whether `why` says that a file holds a photo in a format that is not read."""
    return why.startswith(_UNREAD_PHOTO)


def derived_name(key: str) -> Ignored | None:
    """Why the image or array file `key` is left out as made by another program (masks, outlines, flows); None unless its name says so."""
    if not _may_be_derived(key):
        return None
    name = stem(key)
    if extension(key) in STACK_EXTENSIONS and name.lower().endswith("_seg"):
        return Ignored(derived_why("_seg"))
    match = _DERIVED_NAMES.search(name)
    return None if match is None else Ignored(derived_why((match["token"] or match["before"]).strip()))


def mask_name(key: str) -> str:
    """The part of the name of `key` that may mean a mask, but also a stain or a plate ("_mask", "mask_", "masks/"); "" if there is none."""
    if not _may_be_derived(key):
        return ""
    name = stem(key)
    if (match := _MASK_NAMES.search(name)) is not None:
        return f"_{match['token'].lower()}"
    if (match := _MASK_BEFORE.search(name)) is not None:
        return f"{match['token'].lower()}_"
    match = _MASK_FOLDERS.search(file_name(parent(key)))
    return "" if match is None else f"{match['token'].lower()}/"


def mask_within(key: str) -> str:
    """The part inside the name of `key` that may mean a mask ("_labels_" of "image_labels_A01.tif"); "" if there is none.

    Inside a name it means a stain or a plate more often than at its end.
    """
    match = _MASK_WITHIN.search(stem(key)) if _may_be_derived(key) else None
    return "" if match is None else f"_{match['token'].lower()}_"


def _may_be_derived(key: str) -> bool:
    small = key.lower()
    for word in _WORDS:  # noqa: SIM110 (`any` takes three times as long, and this is asked of every file)
        if word in small:
            return True
    return False


def derived_why(what: str) -> str:
    """The reason for leaving out files that other programs made of an image; `what` is the part of their names that says so."""
    return f"{_DERIVED} ({what})"


def is_derived(why: str) -> bool:
    """Whether `why` is one of `derived_why`."""
    return why.startswith(_DERIVED)


def image_like(key: str) -> bool:
    """Whether the name has the extension of an image or array file."""
    return extension(key) in IMAGE_EXTENSIONS


def is_stack(key: str) -> bool:
    """Whether the name has the extension of an array file (.npz, .npy)."""
    return extension(key) in STACK_EXTENSIONS


def extension(key: str) -> str:
    """Lower-case extension of the file name without its dot, "" if it has none."""
    name = file_name(key)
    stem, dot, ending = name.rpartition(".")
    return ending.lower() if dot and stem else ""


def file_name(key: str) -> str:
    """The part of `key` behind the last '/'."""
    return key.rpartition("/")[2]


def parent(key: str) -> str:
    """The folder of `key`, "" for files in the input folder itself."""
    return key.rpartition("/")[0]


def stem(key: str) -> str:
    """The file name without its extension; of `x.ome.tif` that is `x`."""
    name = file_name(key)
    if extension(key):
        name = name.rpartition(".")[0]
    return name[:-4] if name.lower().endswith(".ome") and len(name) > 4 else name


def _shown_extension(key: str) -> str:
    ending = extension(key)
    if not ending:
        return "no extension"
    # Names like "x.20240501" would make one text each.
    short = len(ending) <= _LONGEST_EXTENSION and not ending.isdigit() and ending.isalnum()
    return f".{ending}" if short else "other extension"
