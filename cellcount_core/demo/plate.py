"""A made-up fluorescence plate with known counts, written as an ImageXpress would.

Columns 1 and 12 are untreated (DMSO); columns 2 to 11 are ten rising doses of eight compounds, a compound a row, so that the
number of nuclei falls along the columns. A few wells hold no cells. One file of the counted channel is cut off and one is not
there. The true counts stand beside the images, in `truth.csv`, where no discovery of the images can find them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellcount_core.demo.optics import Instrument, Stain, build_instrument, expose
from cellcount_core.demo.scene import plant
from cellcount_core.demo.truth import FileFault, Treatment, TruthField, truth_csv
from cellcount_core.domain.plates import WellPosition

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
        """Nuclei planted on the whole plate, in damaged files too."""
        return sum(field.true_count for field in self.fields)


def render_plate(
    folder: Path, seed: int, *, wells: int = 96, sites: int = 2, size: tuple[int, int] = _FIELD_PX
) -> DemoPlate:
    """Write `folder`/Demo-Plate/TimePoint_1/Demo-Plate_A01_s1_w1.TIF … and `folder`/truth.csv.

    The first `wells` wells row by row, `sites` sites each, two channels (w1 nuclei, w2 cytoplasm), fields of `size`
    (H, W) px, 16-bit LZW TIFF with MetaSeries metadata. Equal arguments give equal bytes; a file that is already there with
    these bytes is left alone, and images of another rendering in the same folder are removed. Plates of fewer than
    four fields with cells have no damaged files. Nuclei a field at 512 x 512 px: 0, or about 5 to 250; in proportion else.

    Raises ValueError where `wells`, `sites` or `size` are out of range.
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
    """File name of one image."""
    return f"{PLATE}_{well}_s{site}_w{stain.value}.TIF"


def _design(seed: int, wells: int, sites: int, size: tuple[int, int]) -> Iterator[TruthField]:
    """The fields in key order, with the number of nuclei that is aimed at."""
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
    """Mean nuclei of a 512 x 512 px field: a Hill curve over the dose, with another EC50 in every row."""
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
