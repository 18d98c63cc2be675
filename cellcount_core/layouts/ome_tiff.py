"""OME-TIFF plates and sets of files: OME-XML says which file holds which image, in a `.companion.ome` or in the TIFFs themselves.

A Plate (SPW) names its wells, a well its samples, a sample its image, and the TiffData of an image the files that hold its planes. Names of
files are not interpreted. Rows and columns of wells count from 0; the naming conventions of a plate are not used, because wells are called alike for all layouts.
A sample has no number of its own that all writers keep: a site is its place in the well, from 1, which does not depend on the files. Time
points are TheT + 1 and planes TheZ + 1 where a file holds one alone; a file with several holds them inside. An image that is in no well of a
file that has plates is not counted; without plates each image is a well of its own name. Samples of several acquisitions show the same fields:
one acquisition has to be chosen.

`PositionX`, `PositionY` of a sample are taken, with y down as in an image, if they have a unit of length ("reference frame" is none). All files
that the XML names are expected. A file name must be that of a file beside the XML: no folder, no URL.

An OME-TIFF that no companion names is opened at its header, where it has the XML of its set, or names the companion that is not there. Of a file
that holds several images (a whole plate in one file), or several time points, each page is read by its number, which needs pages of one size.

Specification: https://docs.openmicroscopy.org/ome-model/, 2016-06; older versions have the same elements. Real metadata: tlambert03/ome-types,
glencoesoftware/bioformats2raw, hms-dbmi/viv, test data.
"""

from __future__ import annotations

import re
import struct
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import ExpectedFields, PlateFacts
from cellcount_core.layouts.base import (
    Entry,
    Ignored,
    Layout,
    LayoutKind,
    LayoutSettings,
    Sidecar,
    Table,
    Traits,
    file_name,
    ignored_name,
    is_hidden,
    parent,
    stem,
)
from cellcount_core.layouts.metadata import Unreadable, only, pixel_size
from cellcount_core.layouts.ome_xml import OME_TIFF, OmePlate, OmeXml, SetImage, read_ome_xml
from cellcount_core.stores.base import Absent, Denied, StorageOptions, Store

_COMPANION = re.compile(r".*\.companion\.ome", re.IGNORECASE)
_MOST_HEADERS = 20_000
_MOST_XML = 64 * 2**20
_HEAD = 64 * 1024
_MOST_TIMES = 10_000
"""Time points of which missing ones are told."""


class OmeTiffSettings(LayoutSettings):
    """OME-TIFF plates and sets of files: `*.companion.ome`, or the OME-XML in the TIFFs, says which file holds which well, channel and plane.

    `acquisition` is the number of the acquisition that is counted, from 0, if a plate has several, because they show the same fields.
    """

    kind: Literal["ome-tiff"] = "ome-tiff"
    acquisition: Annotated[int, Field(ge=0)] | None = None


@dataclass(frozen=True, slots=True)
class OmeTiff(Layout):
    """See the module. `root` is the plate of images in the input itself that no Plate names."""

    root: str
    acquisition: int | None

    def parse(self, key: str) -> Parsed | Sidecar | Ignored | None:
        """What a name alone tells: metadata, or an OME-TIFF. What an OME-TIFF holds is said by `table`."""
        if _COMPANION.fullmatch(key) is not None and not is_hidden(key):
            return Sidecar(parent(key), file_name(key), _MOST_XML)
        if (ignored := ignored_name(key)) is not None:
            return ignored
        if OME_TIFF.fullmatch(key) is None:
            return None
        return Parsed(FieldKey(file_name(parent(key)) or self.root, stem(key), 1, 1), folder=parent(key))

    def certain(self, key: str) -> bool:
        """Never: a single OME-TIFF is no set."""
        return False

    def describe(self, sidecars: Mapping[str, bytes]) -> tuple[PlateFacts, ...]:
        """What the companion files of one folder state of plates."""
        return tuple(
            facts for key, body in sorted(sidecars.items()) for facts in self._plates(_read(key, body))
        )

    @property
    def table(self) -> Table:
        """The layout itself."""
        return self

    def entries(self, store: Store, options: StorageOptions) -> Iterator[Entry | PlateFacts]:
        """See `Table.entries`: a row for each file of each image, and what is stated of each plate. The input is listed for it."""
        keys = sorted(listed.key for batch in store.list() for listed in batch if not is_hidden(listed.key))
        described: set[str] = set()
        try:
            for key in keys:
                if _COMPANION.fullmatch(key) is not None:
                    yield from self._told(_read(key, store.get(key)), described)
            headers = 0
            for key in keys:
                if OME_TIFF.fullmatch(key) is None or key in described:
                    continue
                headers += 1
                if headers > _MOST_HEADERS:
                    raise ConfigFault(
                        f"{store.url}: there are more than {_MOST_HEADERS} OME-TIFFs, such as {key}, that describe themselves alone; count the folders"
                        " one by one"
                    )
                yield from self._told(_own(key, _description(store, key)), described)
        except Unreadable as fault:
            raise ConfigFault(
                f"{fault}; leave it out by moving it, or read the files with another layout"
            ) from None

    def _told(self, xml: OmeXml, described: set[str]) -> Iterator[Entry | PlateFacts]:
        """The rows of the files that an XML names, and its plates. Adds the files to `described`."""
        stated: defaultdict[str, defaultdict[tuple[str, int], set[int]]] = defaultdict(
            lambda: defaultdict(set)
        )
        times_named = Counter(file for image in xml.images.values() for file in image.files)
        for place, image in self._fields(xml):
            stated[place.plate][place.well, image.sizes["T"]].add(place.site)
            for file, held in image.files.items():
                described.add(file)
                if times_named[file] == 1 and len(held.times) == 1:
                    yield Entry(file, image.parsed(place, held, parent(xml.key)))
                    continue
                for page, plane in image.pages(held):
                    yield Entry(file, image.parsed(place, plane, parent(xml.key)), page=page)
        # Files of images that are in no well are described, and not counted.
        described.update(times_named)
        why = f"no file; {file_name(xml.key)} describes an image of this field"
        for facts in self._plates(xml):
            yield replace(facts, expected=_expected(stated[facts.plate], why))

    def _fields(self, xml: OmeXml) -> Iterator[tuple[FieldKey, SetImage]]:
        """The images that are counted, with the fields that they show."""
        if not xml.plates:
            for image in xml.images.values():
                name = image.name or stem(next(iter(image.files), xml.key))
                yield FieldKey(file_name(parent(xml.key)) or self.root, name.replace("/", "_"), 1, 1), image
            return
        names = self._names(xml)
        for plate in xml.plates:
            wanted = self._wanted(xml, plate)
            for well, samples in plate.wells.items():
                for site, sample in enumerate(
                    (each for each in samples if wanted is None or each.id in wanted), 1
                ):
                    if sample.image and sample.image not in xml.images:
                        raise Unreadable(
                            xml.key, f"well {well} names the image {sample.image!r}, which is not there"
                        )
                    if sample.image:
                        yield FieldKey(names[plate.id], well, site, 1), xml.images[sample.image]

    def _names(self, xml: OmeXml) -> dict[str, str]:
        """The names of the plates by their IDs. Plates of one name have their ID behind it."""
        called = {plate.id: plate.name or file_name(parent(xml.key)) or self.root for plate in xml.plates}
        times = Counter(called.values())
        return {each: f"{name} {each}" if times[name] > 1 else name for each, name in called.items()}

    def _wanted(self, xml: OmeXml, plate: OmePlate) -> set[str] | None:
        """The samples of the acquisition that is counted; None for all."""
        several = [each for each in plate.acquisitions if each]
        if self.acquisition is None and len(several) < 2:
            return None
        if self.acquisition is None:
            raise ConfigFault(
                f"{xml.key}: the plate {plate.name or plate.id!r} has {len(several)} acquisitions, which show the same fields; say which one is"
                " counted: --set run.layout.acquisition=0"
            )
        if self.acquisition >= len(plate.acquisitions):
            raise ConfigFault(
                f"run.layout.acquisition: is {self.acquisition}, and {xml.key} has {len(plate.acquisitions)} acquisitions of {plate.name or plate.id!r},"
                " counted from 0"
            )
        return plate.acquisitions[self.acquisition]

    def _plates(self, xml: OmeXml) -> Iterator[PlateFacts]:
        """What is stated of each plate, without its fields."""
        names = self._names(xml)
        for plate in xml.plates:
            images = [
                xml.images[s.image]
                for samples in plate.wells.values()
                for s in samples
                if s.image in xml.images
            ]
            notes: list[str] = []
            size = only(image.um_per_px for image in images if image.um_per_px is not None)
            positions = {
                (well, site): sample.position
                for well, samples in plate.wells.items()
                for site, sample in enumerate(samples, 1)
                if sample.position is not None and len(plate.acquisitions) < 2
            }
            yield PlateFacts(
                folder=parent(xml.key),
                plate=names[plate.id],
                source=xml.key,
                rows=plate.rows,
                columns=plate.columns,
                um_per_px=None if size is None else pixel_size(size, "", notes),
                image_shape=only(image.shape for image in images),
                positions=positions,
                notes=tuple(notes),
            )


def _expected(stated: Mapping[tuple[str, int], set[int]], why: str) -> tuple[ExpectedFields, ...]:
    """The fields of images, given as the sites of each well and number of time points: one for all wells that are alike."""
    alike: defaultdict[tuple[int, tuple[int, ...]], list[str]] = defaultdict(list)
    for (well, times), sites in stated.items():
        alike[times, tuple(sorted(sites))].append(well)
    return tuple(
        ExpectedFields(tuple(sorted(wells)), sites, why, tuple(range(1, min(times, _MOST_TIMES) + 1)))
        for (times, sites), wells in sorted(alike.items())
    )


def _read(key: str, body: bytes) -> OmeXml:
    """Read a companion file. Raises Unreadable."""
    xml = read_ome_xml(key, body)
    if not xml.images:
        raise Unreadable(key, "describes no image")
    return xml


def _own(key: str, description: bytes) -> OmeXml:
    """What the header of an OME-TIFF says. A file without OME-XML is an image of its own."""
    xml = read_ome_xml(key, description) if description.lstrip().startswith(b"<") else OmeXml(key)
    if xml.elsewhere:
        raise Unreadable(
            key, f"is described by {xml.elsewhere[:80]!r}, which is not beside it or does not name it"
        )
    if not xml.images:
        xml.images[""] = SetImage(stem(key))
    if len(xml.images) == 1 and not any(image.files for image in xml.images.values()):
        for image in xml.images.values():
            image.hold(key, {"C": 0, "Z": 0, "T": 0}, 0, None)
    return xml


def _description(store: Store, key: str) -> bytes:
    """The ImageDescription of the first page of a TIFF or BigTIFF (TIFF 6.0, section 2); b"" if it has none, or is not a TIFF."""
    try:
        head = store.get_range(key, 0, _HEAD).body
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None:
            return b""
        big = struct.unpack_from(f"{order}H", head, 2)[0] == 43
        at = struct.unpack_from(f"{order}{'Q' if big else 'I'}", head, 8 if big else 4)[0]
        directory = head[at:] if at + _HEAD // 2 <= len(head) else store.get_range(key, at, at + _HEAD).body
        number = struct.unpack_from(f"{order}{'Q' if big else 'H'}", directory, 0)[0]
        entry = f"{order}HHQQ" if big else f"{order}HHII"
        for each in range(min(number, 4096)):
            tag, _, count, offset = struct.unpack_from(
                entry, directory, (8 if big else 2) + each * struct.calcsize(entry)
            )
            if tag == 270:
                return (
                    store.get_range(key, offset, offset + min(count, _MOST_XML)).body.rstrip(b"\0")
                    if count > 8
                    else b""
                )
    except (struct.error, ValueError, Absent, Denied):
        return b""
    return b""


def _build(settings: OmeTiffSettings, root: str) -> OmeTiff:
    return OmeTiff(root, settings.acquisition)


KIND = LayoutKind("ome-tiff", OmeTiffSettings, _build, Traits(told_by_table=True, has_sidecars=True))
