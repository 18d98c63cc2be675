"""Made-up fluorescence plates and images with known counts, so that a first try needs no download.

A plate is written as an ImageXpress would write it. Columns 1 and 12 are untreated (DMSO); columns 2 to 11 are ten
rising doses of eight compounds, one compound per row, so that the number of nuclei falls along the columns. A few
wells hold no cells. One file of the counted channel is cut off and one is missing. The true counts stand beside the
images in `truth.csv`, where no discovery of the images can find them.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellcount_core.demo.optics import Instrument, Stain, build_instrument, expose
from cellcount_core.demo.scene import plant
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.plates import WellPosition

TRUTH_COLUMNS = ("plate", "well", "site", "true_count", "treatment", "file_fault")


class Treatment(StrEnum):
    """What is in a well."""

    DMSO = "dmso"
    DOSE = "dose"
    EMPTY = "empty"


class FileFault(StrEnum):
    """What was done to the file of the counted channel."""

    NONE = "none"
    TRUNCATED = "truncated"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class TruthField:
    """One field: where it is, how many nuclei were planted, and what was done to its file."""

    plate: str
    well: str
    site: int
    true_count: int
    treatment: Treatment
    file_fault: FileFault


def truth_csv(fields: tuple[TruthField, ...]) -> str:
    """The fields as CSV with a header, in their order."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(TRUTH_COLUMNS)
    for each in fields:
        writer.writerow(
            (each.plate, each.well, each.site, each.true_count, each.treatment.value, each.file_fault.value)
        )
    return out.getvalue()


def read_truth(path: Path) -> tuple[TruthField, ...]:
    """Read the fields of a file written by `truth_csv`.

    Raises ConfigFault, naming file and line, if the file cannot be read or a value is not valid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigFault(f"{path}: the true counts cannot be read: {error.strerror}") from error
    rows = csv.DictReader(StringIO(text))
    if tuple(rows.fieldnames or ()) != TRUTH_COLUMNS:
        raise ConfigFault(f"{path}: columns {', '.join(TRUTH_COLUMNS)} are expected (got {rows.fieldnames})")
    fields = []
    for number, row in enumerate(rows, start=2):
        try:
            fields.append(
                TruthField(
                    plate=row["plate"],
                    well=row["well"],
                    site=int(row["site"]),
                    true_count=int(row["true_count"]),
                    treatment=Treatment(row["treatment"]),
                    file_fault=FileFault(row["file_fault"]),
                )
            )
        except (TypeError, ValueError) as error:
            raise ConfigFault(f"{path}: line {number} is not a row of true counts: {error}") from error
    return tuple(fields)


PLATE = "Demo-Plate"
UM_PER_PX = 0.65
"""Pixel size written into the files: 10x objective, 6.5 um camera pixels."""

_ROWS, _COLUMNS = 8, 12
_UNTREATED = (0, 11)
_MOST, _LEAST = 225.0, 6.0
_EC50_DOSE = (2.5, 3.5, 4.2, 5.0, 5.8, 6.6, 8.0, 14.0)
_STEEPNESS = 4.0
_WELLS_AN_EMPTY = 24
_FIELD_PX = (512, 512)
_MIN_SIDE_PX = 64
_FIELDS_FOR_FAULTS = 4


@dataclass(frozen=True, slots=True)
class DemoPlate:
    """What was written: the folder of the images, the file of the true counts, and these counts in key order."""

    name: str
    images: Path
    truth_csv: Path
    fields: tuple[TruthField, ...]

    @property
    def true_count(self) -> int:
        """Nuclei planted on the whole plate, damaged files included."""
        return sum(field.true_count for field in self.fields)


def render_plate(
    folder: Path, seed: int, *, wells: int = 96, sites: int = 2, size: tuple[int, int] = _FIELD_PX
) -> DemoPlate:
    """Write `folder`/Demo-Plate/TimePoint_1/Demo-Plate_A01_s1_w1.TIF … and `folder`/truth.csv.

    The first `wells` wells, row by row, get `sites` sites each, in two channels (w1 nuclei, w2 cytoplasm). Fields are
    `size` (H, W) px, 16-bit LZW TIFF with MetaSeries metadata. At 512 x 512 px a field holds 0 or about 5 to 250
    nuclei, and in proportion at other sizes. Plates of fewer than four fields with cells have no damaged files.

    Equal arguments give equal bytes. A file that already has these bytes is left alone, and images of another
    rendering in the same folder are removed. Raises ValueError if `wells`, `sites` or `size` is out of range.
    """
    if not 1 <= wells <= _ROWS * _COLUMNS or sites < 1 or min(size) < _MIN_SIDE_PX:
        raise ValueError(
            f"1 to 96 wells, at least 1 site and {_MIN_SIDE_PX} px a side are expected (got {wells}, {sites}, {size})"
        )
    images = folder / PLATE
    series = images / "TimePoint_1"
    series.mkdir(parents=True, exist_ok=True)
    instrument = build_instrument(np.random.default_rng((seed, 0)), size)
    fields = []
    for index, planned in enumerate(_design(seed, wells, sites, size)):
        fields.append(
            _write_field(series, instrument, planned, np.random.default_rng((seed, 2, index)), size)
        )
    _remove_others(series, fields)
    truth = folder / "truth.csv"
    _write(truth, truth_csv(tuple(fields)).encode())
    return DemoPlate(PLATE, images, truth, tuple(fields))


def image_name(well: str, site: int, stain: Stain) -> str:
    """The file name of one image."""
    return f"{PLATE}_{well}_s{site}_w{stain.value}.TIF"


def _design(seed: int, wells: int, sites: int, size: tuple[int, int]) -> Iterator[TruthField]:
    """The fields in key order, with the number of nuclei aimed at."""
    rng = np.random.default_rng((seed, 1))
    positions = [WellPosition(*divmod(index, _COLUMNS)) for index in range(wells)]
    empty = set(rng.permutation(wells)[: -(-wells // _WELLS_AN_EMPTY)].tolist()) if wells > 1 else set()
    with_cells = [(well, site) for well in range(wells) if well not in empty for site in range(sites)]
    faults = _faults(rng, with_cells)
    scale = size[0] * size[1] / (_FIELD_PX[0] * _FIELD_PX[1])
    for index, position in enumerate(positions):
        expected = _expected(position)
        treatment = Treatment.DMSO if position.column in _UNTREATED else Treatment.DOSE
        well_effect = rng.normal(1.0, 0.06)
        for site in range(sites):
            aimed = expected * well_effect * rng.normal(1.0, 0.07) * scale
            yield TruthField(
                plate=PLATE,
                well=position.name,
                site=site + 1,
                true_count=0 if index in empty else max(1, round(aimed)),
                treatment=Treatment.EMPTY if index in empty else treatment,
                file_fault=faults.get((index, site), FileFault.NONE),
            )


def _expected(position: WellPosition) -> float:
    """Mean number of nuclei in a 512 x 512 px field: a Hill curve over the dose, with another EC50 in each row."""
    if position.column in _UNTREATED:
        return _MOST
    dose: float = position.column / _EC50_DOSE[position.row]
    return _LEAST + (_MOST - _LEAST) / (1.0 + math.pow(dose, _STEEPNESS))


def _faults(rng: np.random.Generator, fields: list[tuple[int, int]]) -> dict[tuple[int, int], FileFault]:
    if len(fields) < _FIELDS_FOR_FAULTS:
        return {}
    first, second = rng.choice(len(fields), 2, replace=False)
    return {fields[first]: FileFault.TRUNCATED, fields[second]: FileFault.MISSING}


def _write_field(
    series: Path, instrument: Instrument, planned: TruthField, rng: np.random.Generator, size: tuple[int, int]
) -> TruthField:
    scene = plant(rng, size, planned.true_count)
    for stain, image in expose(rng, instrument, scene).items():
        path = series / image_name(planned.well, planned.site, stain)
        fault = planned.file_fault if stain is Stain.NUCLEI else FileFault.NONE
        body = _tiff(image, planned, stain)
        if fault is FileFault.MISSING:
            path.unlink(missing_ok=True)
        else:
            _write(path, body[: len(body) * 3 // 5] if fault is FileFault.TRUNCATED else body)
    return TruthField(
        plate=planned.plate,
        well=planned.well,
        site=planned.site,
        true_count=scene.count,
        treatment=planned.treatment,
        file_fault=planned.file_fault,
    )


def _tiff(image: NDArray[np.uint16], field: TruthField, stain: Stain) -> bytes:
    out = BytesIO()
    tifffile.imwrite(
        out,
        image,
        photometric="minisblack",
        compression="lzw",
        rowsperstrip=32,
        software="MetaSeries",
        description=_metaseries(image, field, stain),
        metadata=None,
    )
    return out.getvalue()


def _metaseries(image: NDArray[np.uint16], field: TruthField, stain: Stain) -> str:
    """The part of MetaXpress' metadata that readers look at (names as in MetaXpress 6.7 files)."""
    name, wavelength = {Stain.NUCLEI: ("DAPI", 452), Stain.CYTOPLASM: ("FITC", 520)}[stain]
    properties = (
        ("pixel-size-x", "int", image.shape[1]),
        ("pixel-size-y", "int", image.shape[0]),
        ("bits-per-pixel", "int", 16),
        ("spatial-calibration-state", "bool", "on"),
        ("spatial-calibration-x", "float", UM_PER_PX),
        ("spatial-calibration-y", "float", UM_PER_PX),
        ("spatial-calibration-units", "string", "um"),
        ("image-name", "string", name),
        ("stage-label", "string", f"{field.well} : Site {field.site}"),
        ("wavelength", "float", wavelength),
        ("_MagSetting_", "string", "10X Plan Apo Lambda"),
        ("_IllumSetting_", "string", name),
    )
    lines = "\n".join(f'<prop id="{key}" type="{kind}" value="{value}"/>' for key, kind, value in properties)
    return (
        '<MetaData>\n<prop id="ApplicationName" type="string" value="cellcount demo"/>\n'
        f"<PlaneInfo>\n{lines}\n</PlaneInfo>\n"
        '<SetInfo>\n<prop id="number-of-planes" type="int" value="1"/>\n</SetInfo>\n</MetaData>'
    )


def _write(path: Path, body: bytes) -> None:
    # A file that is already right keeps its time stamp, so that a run over the same plate can go on.
    if not path.is_file() or path.read_bytes() != body:
        path.write_bytes(body)


def _remove_others(series: Path, fields: list[TruthField]) -> None:
    wanted = {image_name(field.well, field.site, stain) for field in fields for stain in Stain}
    for path in series.glob(f"{PLATE}_*.TIF"):
        if path.name not in wanted:
            path.unlink()


_PX = (512, 512)


def made_up_image(
    objects: int = 100, *, shape: tuple[int, int] = _PX, seed: int = 0
) -> tuple[NDArray[np.uint16], int]:
    """A made-up fluorescence field (H, W) uint16 of nuclei about 18 px wide, and how many there are.

    There are fewer than `objects` if they do not fit beside each other. Equal arguments give equal pixels.

    >>> image, planted = made_up_image(objects=25)
    >>> image.shape, image.dtype.name, planted
    ((512, 512), 'uint16', 25)
    """
    rng = np.random.default_rng(seed)
    scene = plant(rng, shape, objects)
    return expose(rng, build_instrument(rng, shape), scene)[Stain.NUCLEI], scene.count


def made_up_plate(folder: str | os.PathLike[str], *, wells: int = 6, seed: int = 0) -> Path:
    """Write a made-up plate as an ImageXpress would, with two sites per well and two channels (w1 nuclei, w2
    cytoplasm).

    Returns the folder of the images. The true counts are in `truth.csv` beside it.

    >>> images = made_up_plate("made-up plate", wells=2)
    >>> len(list(images.rglob("*.TIF")))
    8
    """
    return render_plate(Path(folder), seed, wells=wells).images


def made_up_labelled(file: str | os.PathLike[str], *, images: int = 4, seed: int = 0) -> Path:
    """Write made-up images with their true label images to an `.npz` file: `X` and `y`, both (N, H, W). Returns its
    path.

    >>> import numpy
    >>> stored = numpy.load(made_up_labelled("labelled.npz", images=2))
    >>> stored["X"].shape == stored["y"].shape
    True
    """
    rng = np.random.default_rng(seed)
    instrument = build_instrument(rng, _PX)
    scenes = [plant(rng, _PX, 60) for _ in range(images)]
    pixels = np.stack([expose(rng, instrument, scene)[Stain.NUCLEI] for scene in scenes])
    path = Path(file)
    with path.open("wb") as stream:
        np.savez_compressed(stream, X=pixels, y=np.stack([scene.owners for scene in scenes]))
    return path
