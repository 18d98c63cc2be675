"""Every column of every table as plain data: name, type, unit, meaning. `tables/schema.py` turns it into Arrow.

Names follow CellProfiler and pycytominer. Measured columns carry the package's object name ("Nuclei") as prefix, because
pycytominer finds features by the prefixes Nuclei_, Cells_ and Cytoplasm_.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

SCHEMA_VERSION = 3
"""Raised when a column changes its name, type, unit or meaning; stands in the metadata of every table."""


class Kind(StrEnum):
    """Storage type of a column."""

    STRING = "string"
    STRINGS = "list<string>"
    INT = "int64"
    FLOAT = "float64"
    BOOL = "bool"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `required` ones are never null; `unit` is "" for what has none."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Features:
    """What decides the measured columns: the object's name ("Nuclei") and the channels measured, in their order."""

    object_name: str
    channels: tuple[str, ...]


_S, _L, _I, _F, _B = Kind.STRING, Kind.STRINGS, Kind.INT, Kind.FLOAT, Kind.BOOL

PLATE = Column("Metadata_Plate", _S, "", "plate, as the layout names it", True)
WELL = Column("Metadata_Well", _S, "", "well ('B02'); the image's name where the layout knows no wells", True)
SITE = Column("Metadata_Site", _I, "", "site within the well, as the instrument counts", True)
TIMEPOINT = Column("timepoint", _I, "", "time point, as the instrument counts; 1 where there is none", True)
FIELD_ID = Column("field_id", _S, "", "stable hash of plate, well, site and time point", True)

_FIELD_COLUMNS = (
    PLATE,
    WELL,
    SITE,
    TIMEPOINT,
    Column("z_mode", _S, "", "how planes were joined: max, mean, first, or the number of one plane", True),
    FIELD_ID,
    Column("status", _S, "", "ok, failed, missing or skipped", True),
    Column("reason", _S, "", "reason code where the status is not ok"),
    Column("reason_detail", _S, "", "what was found and what was expected"),
    Column("source", _L, "", "files counted, relative to the input", True),
    Column(
        "channel",
        _S,
        "",
        "channel that was counted; luminance where it is that of a colour image; the role's name where files name none",
    ),
    Column(
        "planes",
        _I,
        "planes",
        "z planes that were joined into the one that was counted; 1 where there is one",
    ),
    Column(
        "count",
        _I,
        "objects",
        "objects counted; 0 only where the image was read and found empty; null unless ok",
    ),
    Column("count_low", _F, "objects", "lower end of the count's interval, where the model has one"),
    Column("count_high", _F, "objects", "upper end of the count's interval, where the model has one"),
    Column("count_border", _I, "objects", "objects that touch the field's edge"),
    Column("area_fraction", _F, "1", "part of the field covered by objects"),
    Column("width_px", _I, "px", "width of the image"),
    Column("height_px", _I, "px", "height of the image"),
    Column("um_per_px", _F, "um/px", "pixel size; null if unknown"),
    Column("scale", _F, "1", "factor by which the image was resized to the model's scale"),
    Column(
        "diameter_px",
        _F,
        "px",
        "object diameter the scale stands for; null where the image was counted as it is",
    ),
    Column(
        "diameter_source",
        _S,
        "",
        "where the scale comes from: model (as it is), given, calibration, pool (plate and image size), image, unknown",
    ),
    Column("diameter_images", _I, "images", "images that the estimated diameter rests on"),
    Column("diameter_objects", _I, "objects", "objects that the estimated diameter rests on"),
    Column(
        "sizes",
        _S,
        "",
        "objects of each size and their median diameter, where the field was counted at two scales",
    ),
    Column("focus", _F, "1", "sharpness; independent of brightness"),
    Column("saturation", _F, "1", "part of the pixels at the largest value"),
    Column("background", _F, "raw", "background level of the counted channel"),
    Column("noise", _F, "raw", "standard deviation of the noise"),
    Column("signal", _F, "raw", "bright level above the background"),
    Column("empty", _B, "", "signal does not rise above the noise floor"),
    Column("out_of_domain", _F, "1", "how unlike the training data, where the model tells"),
    Column("warnings", _L, "", "codes of what a reader should know", True),
)


def shape_features(object_name: str) -> tuple[Column, ...]:
    """The geometry columns of an object."""
    p = object_name
    return (
        Column(f"{p}_AreaShape_Area", _I, "px^2", "area in original pixels", True),
        Column(f"{p}_AreaShape_EquivalentDiameter", _F, "px", "diameter of the circle of equal area", True),
        Column(
            f"{p}_AreaShape_Eccentricity",
            _F,
            "1",
            "of the ellipse of equal second moments; 0 is a circle",
            True,
        ),
        Column(f"{p}_AreaShape_FormFactor", _F, "1", "4 pi area / perimeter^2", True),
        Column(f"{p}_AreaShape_Solidity", _F, "1", "area / area of the convex hull", True),
    )


def intensity_features(features: Features) -> tuple[Column, ...]:
    """Mean and integrated intensity of each measured channel, in raw units."""
    p = features.object_name
    columns: list[Column] = []
    for channel in features.channels:
        columns.append(
            Column(f"{p}_Intensity_MeanIntensity_{channel}", _F, "raw", f"mean of channel {channel}")
        )
        columns.append(
            Column(f"{p}_Intensity_IntegratedIntensity_{channel}", _F, "raw", f"sum of channel {channel}")
        )
    return tuple(columns)


def measured(features: Features) -> tuple[Column, ...]:
    """The columns whose moments stand in the fields table and whose means stand in the wells table."""
    return (*shape_features(features.object_name), *intensity_features(features))


MOMENTS = ("n", "mean", "m2", "min", "max")
"""Prefixes of the five moment columns of a measured feature in the fields table: `mean_Nuclei_AreaShape_Area`."""


def fields_columns(features: Features) -> tuple[Column, ...]:
    """One row a field, sorted by plate, well, site, time point."""
    moments: list[Column] = []
    for column in measured(features):
        meanings = ("values", "mean", "sum of squared deviations", "minimum", "maximum")
        for moment, meaning in zip(MOMENTS, meanings, strict=True):
            kind = _I if moment == "n" else _F
            unit = {"n": "objects", "m2": f"({column.unit})^2"}.get(moment, column.unit)
            moments.append(Column(f"{moment}_{column.name}", kind, unit, f"{meaning} of {column.name}"))
    return (*_FIELD_COLUMNS, *moments)


def objects_columns(features: Features) -> tuple[Column, ...]:
    """One row an object, sorted as the fields are, then by number."""
    p = features.object_name
    return (
        PLATE,
        WELL,
        SITE,
        TIMEPOINT,
        FIELD_ID,
        Column("Metadata_ObjectNumber", _I, "", "1..n in raster order of the anchor (first pixel)", True),
        Column(
            f"{p}_Location_Center_X",
            _F,
            "px",
            "centroid in the original image, 0 at the first pixel's centre",
            True,
        ),
        Column(
            f"{p}_Location_Center_Y",
            _F,
            "px",
            "centroid in the original image, 0 at the first pixel's centre",
            True,
        ),
        Column(f"{p}_AreaShape_BoundingBoxMinimum_X", _I, "px", "first column of the object", True),
        Column(f"{p}_AreaShape_BoundingBoxMinimum_Y", _I, "px", "first row of the object", True),
        Column(
            f"{p}_AreaShape_BoundingBoxMaximum_X", _I, "px", "column after the last one (half-open)", True
        ),
        Column(f"{p}_AreaShape_BoundingBoxMaximum_Y", _I, "px", "row after the last one (half-open)", True),
        *measured(features),
        Column("area_um2", _F, "um^2", "area; null without calibration"),
        Column("score", _F, "1", "mean foreground probability of the object"),
        Column("touches_border", _B, "", "touches the field's edge", True),
        Column("class", _S, "", "class; null for jobs without classes"),
        Column("class_probability", _F, "1", "probability of the class; null for jobs without classes"),
    )


_TALLY = (
    Column("fields_expected", _I, "fields", "fields planned", True),
    Column("fields_ok", _I, "fields", "fields counted", True),
    Column("fields_failed", _I, "fields", "fields that could not be counted", True),
    Column("fields_missing", _I, "fields", "fields whose files are not there", True),
    Column("fields_skipped", _I, "fields", "fields left out by the configuration", True),
    Column("fields_warned", _I, "fields", "counted fields with a warning", True),
    Column("warnings", _S, "", "fields by the code of their warnings as JSON; {} where no field warns", True),
    Column(
        "count", _I, "objects", "sum over counted fields, never scaled up; null where no field was counted"
    ),
    Column("count_per_field_mean", _F, "objects", "mean over counted fields"),
    Column(
        "count_per_field_sd", _F, "objects", "sample standard deviation over counted fields; null below two"
    ),
    Column("area_mm2", _F, "mm^2", "imaged area of the counted fields; null without calibration"),
    Column("count_per_mm2", _F, "1/mm^2", "count / area; null without calibration"),
)


def _merged(features: Features) -> tuple[Column, ...]:
    columns = measured(features)
    means = [Column(each.name, _F, each.unit, f"mean over objects of {each.name}") for each in columns]
    deviations = [
        Column(f"sd_{each.name}", _F, each.unit, f"standard deviation over objects of {each.name}")
        for each in columns
    ]
    return (*means, *deviations)


def wells_columns(features: Features) -> tuple[Column, ...]:
    """One row a well and time point."""
    return (PLATE, WELL, TIMEPOINT, *_TALLY, *_merged(features))


def plates_columns(features: Features) -> tuple[Column, ...]:
    """One row a plate."""
    return (
        PLATE,
        Column("wells_expected", _I, "wells", "wells planned", True),
        Column("wells_complete", _I, "wells", "wells in which every field was counted", True),
        *_TALLY,
        Column("reasons", _S, "", "fields by reason as JSON; {} where every field was counted", True),
        Column("doubt", _S, "", "code of what is doubtful about the plate as a whole; null where nothing is"),
        *_merged(features),
    )


def names(columns: Sequence[Column]) -> list[str]:
    """Column names in order."""
    return [column.name for column in columns]
