"""Columns and schemas as plain data: name, type, unit, meaning, and the rule by which fields are merged into wells and plates.

A `Schema` says everything that the tables of a run hold. It is made once, when the run is planned, from the columns that every task has
and those of the run's own task. It stands in run.json, and whoever reads a table asks it. `output/schema.py` turns it into Arrow;
`domain/totals.py` says what each rule of merging does.

Names follow CellProfiler and pycytominer. Measured columns start with the package's object name ("Nuclei"), because pycytominer finds
features by the prefixes Nuclei_, Cells_ and Cytoplasm_.

The end of the file holds the schema of runs that were planned by schema version 3, whose run.json holds no schema. All of them counted
objects. It is frozen: nothing in it changes when a column is added, and outputs of that version are read, reduced, verified and gone on
with by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

SCHEMA_VERSION = 4
"""Raised when a column that is there changes its type, unit or meaning, and when what a file says of its columns changes; stands in the
metadata of every table. A column that is added needs no other version: a run's schema lists its columns. Version 3 had no schema in
run.json: `schema_3` is it."""

Value = str | int | float | bool | Sequence[str] | Sequence[float] | None
"""What a cell of a table may hold."""


class Kind(StrEnum):
    """Storage type of a column."""

    STRING = "string"
    STRINGS = "list<string>"
    INT = "int64"
    INTS = "list<int64>"
    FLOAT = "float64"
    FLOATS = "list<float64>"
    BOOL = "bool"


class Null(StrEnum):
    """When a column is null."""

    NEVER = "never"
    UNLESS_OK = "unless ok"
    """Null in exactly the rows of fields that were not counted."""
    MAY_BE = "may be"


class Merge(StrEnum):
    """How the values of fields become one value of a well, a plate and the run (domain/totals.py)."""

    NONE = "none"
    """Not at all: the column is one of the fields table alone."""
    COUNT = "count"
    """Whole numbers that are added up, with mean and deviation over fields, and per mm²."""
    SUM = "sum"
    """Numbers that are added up."""
    SHARE = "share"
    """A whole number out of that of the column `of`: both added up, their ratio with its Wilson interval."""
    PERCENT = "percent"
    """The first of two whole numbers `of` in percent of both together: both added up, with the Wilson interval and the number it rests on."""
    RATIO = "ratio"
    """The first of two columns `of` over the second, both added up; not known where one of them is not."""
    BINS = "bins"
    """A list of whole numbers, added up element by element."""
    MOMENTS = "moments"
    """Mean and deviation: of an object's column over all objects, of a field's column over fields."""
    VECTOR = "vector"
    """A list of numbers, one a class of the schema: the mean over fields of each."""
    TALLY = "tally"
    """Words: how many fields have which."""
    NAMES = "names"
    """One or several of the schema's classes, by name: how many fields have each, and their share with its Wilson interval."""
    SHARED = "shared"
    """A label of the well, of whatever became of its fields: the value if all fields have the same one."""
    AREA = "area"
    """A pixel size: with the image's sides, which the two columns `of` hold, the imaged area."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `unit` is "" if it has none. `of` names the columns that the rule of merging needs beside this one.

    `watched` columns of a field are followed from night to night: by their median over a plate, or by their sum if they are added up.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    null: Null = Null.MAY_BE
    merge: Merge = Merge.NONE
    of: tuple[str, ...] = ()
    watched: bool = False

    @property
    def required(self) -> bool:
        """Whether every row must have a value."""
        return self.null is Null.NEVER


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of a run.

    `fields` are the columns of a field that stand between those of the ledger (key, status, reason, source) and its warnings. `objects` are
    the columns of an object behind its key, () for a task without objects. `results` names the columns that answer what the task asks of
    a field, the most telling first. `object_count` names the column that says how many objects a field has, "" without objects.
    `object_name` ("Nuclei") is the prefix of measured columns, `channels` are the channels measured, and `classes` are the classes that the
    task tells apart.
    """

    task: str
    object_name: str
    channels: tuple[str, ...]
    fields: tuple[Column, ...]
    objects: tuple[Column, ...] = ()
    results: tuple[str, ...] = ()
    object_count: str = ""
    classes: tuple[str, ...] = ()
    version: int = SCHEMA_VERSION

    def field(self, name: str) -> Column:
        """The column of a field with this name. Raises KeyError if there is none."""
        found = next((column for column in self.fields if column.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    @property
    def measured(self) -> tuple[Column, ...]:
        """The columns of objects that have moments in the fields table and means in the wells table."""
        return tuple(column for column in self.objects if column.merge is Merge.MOMENTS)


_S, _L, _I = Kind.STRING, Kind.STRINGS, Kind.INT

PLATE = Column("Metadata_Plate", _S, "", "plate, as the layout names it", Null.NEVER)
WELL = Column(
    "Metadata_Well", _S, "", "well ('B02'); the image's name where the layout knows no wells", Null.NEVER
)
SITE = Column("Metadata_Site", _I, "", "site within the well, as the instrument counts", Null.NEVER)
TIMEPOINT = Column(
    "timepoint", _I, "", "time point, as the instrument counts; 1 where there is none", Null.NEVER
)
FIELD_ID = Column("field_id", _S, "", "stable hash of plate, well, site and time point", Null.NEVER)
Z_MODE = Column(
    "z_mode", _S, "", "how planes were joined: max, mean, first, or the number of one plane", Null.NEVER
)
STATUS = Column("status", _S, "", "ok, failed, missing or skipped", Null.NEVER)
REASON = Column("reason", _S, "", "reason code where the status is not ok")
DETAIL = Column("reason_detail", _S, "", "what was found and what was expected")
SOURCE = Column("source", _L, "", "files counted, relative to the input", Null.NEVER)
WARNINGS = Column("warnings", _L, "", "codes of what a reader should know", Null.NEVER)
OBJECT_NUMBER = Column(
    "Metadata_ObjectNumber", _I, "", "1..n in raster order of the anchor (first pixel)", Null.NEVER
)

KEY = (PLATE, WELL, SITE, TIMEPOINT, FIELD_ID)
"""The columns that say which field a row is of."""

MOMENTS = ("n", "mean", "m2", "min", "max")
"""Prefixes of the five moment columns of a measured feature in the fields table: `mean_Nuclei_AreaShape_Area`."""


def fields_columns(schema: Schema) -> tuple[Column, ...]:
    """Columns of the fields table. It has one row for each field, sorted by plate, well, site and time point."""
    ledger = (PLATE, WELL, SITE, TIMEPOINT, Z_MODE, FIELD_ID, STATUS, REASON, DETAIL, SOURCE)
    moments: list[Column] = []
    for column in schema.measured:
        meanings = ("values", "mean", "sum of squared deviations", "minimum", "maximum")
        for moment, meaning in zip(MOMENTS, meanings, strict=True):
            kind = Kind.INT if moment == "n" else Kind.FLOAT
            unit = {"n": "objects", "m2": f"({column.unit})^2"}.get(moment, column.unit)
            moments.append(Column(f"{moment}_{column.name}", kind, unit, f"{meaning} of {column.name}"))
    return (*ledger, *schema.fields, WARNINGS, *moments)


def objects_columns(schema: Schema) -> tuple[Column, ...]:
    """Columns of the objects table, () for a task without objects. It has one row for each object, sorted as the fields are and then by number."""
    return (*KEY, OBJECT_NUMBER, *schema.objects) if schema.objects else ()


def names(columns: Sequence[Column]) -> list[str]:
    """The names of the columns, in order."""
    return [column.name for column in columns]


VERSION_3 = 3

_T, _N, _F = Kind.STRING, Kind.INT, Kind.FLOAT

_FIELD_3 = (
    Column("channel", _T, "", "channel that was counted; luminance where it is that of a colour image; the role's name where files name none"),
    Column("planes", _N, "planes", "z planes that were joined into the one that was counted; 1 where there is one"),
    Column("count", _N, "objects", "objects counted; 0 only where the image was read and found empty; null unless ok", Null.UNLESS_OK, Merge.COUNT),
    Column("count_low", _F, "objects", "lower end of the count's interval, where the model has one"),
    Column("count_high", _F, "objects", "upper end of the count's interval, where the model has one"),
    Column("count_border", _N, "objects", "objects that touch the field's edge"),
    Column("area_fraction", _F, "1", "part of the field covered by objects"),
    Column("width_px", _N, "px", "width of the image"),
    Column("height_px", _N, "px", "height of the image"),
    Column("um_per_px", _F, "um/px", "pixel size; null if unknown", merge=Merge.AREA, of=("width_px", "height_px")),
    Column("scale", _F, "1", "factor by which the image was resized to the model's scale"),
    Column("diameter_px", _F, "px", "object diameter the scale stands for; null where the image was counted as it is"),
    Column("diameter_source", _T, "", "where the scale comes from: model (as it is), given, calibration, pool (plate and image size), image, unknown"),
    Column("diameter_images", _N, "images", "images that the estimated diameter rests on"),
    Column("diameter_objects", _N, "objects", "objects that the estimated diameter rests on"),
    Column("sizes", _T, "", "objects of each size and their median diameter, where the field was counted at two scales"),
    Column("focus", _F, "1", "sharpness; independent of brightness", watched=True),
    Column("saturation", _F, "1", "part of the pixels at the largest value"),
    Column("background", _F, "raw", "background level of the counted channel", watched=True),
    Column("noise", _F, "raw", "standard deviation of the noise"),
    Column("signal", _F, "raw", "bright level above the background"),
    Column("empty", Kind.BOOL, "", "signal does not rise above the noise floor"),
    Column("out_of_domain", _F, "1", "how unlike the training data, where the model tells"),
)  # fmt: skip


def schema_3(object_name: str, channels: tuple[str, ...]) -> Schema:
    """The schema of a run that was planned by version 3, from the name of its objects ("Nuclei") and the channels measured."""
    p, always, moments = object_name, Null.NEVER, Merge.MOMENTS
    centre = "centroid in the original image, 0 at the first pixel's centre"
    intensity: list[Column] = []
    for channel in channels:
        intensity += [
            Column(f"{p}_Intensity_MeanIntensity_{channel}", _F, "raw", f"mean of channel {channel}", merge=moments),
            Column(f"{p}_Intensity_IntegratedIntensity_{channel}", _F, "raw", f"sum of channel {channel}", merge=moments),
        ]  # fmt: skip
    objects = (
        Column(f"{p}_Location_Center_X", _F, "px", centre, always),
        Column(f"{p}_Location_Center_Y", _F, "px", centre, always),
        Column(f"{p}_AreaShape_BoundingBoxMinimum_X", _N, "px", "first column of the object", always),
        Column(f"{p}_AreaShape_BoundingBoxMinimum_Y", _N, "px", "first row of the object", always),
        Column(f"{p}_AreaShape_BoundingBoxMaximum_X", _N, "px", "column after the last one (half-open)", always),
        Column(f"{p}_AreaShape_BoundingBoxMaximum_Y", _N, "px", "row after the last one (half-open)", always),
        Column(f"{p}_AreaShape_Area", _N, "px^2", "area in original pixels", always, moments),
        Column(f"{p}_AreaShape_EquivalentDiameter", _F, "px", "diameter of the circle of equal area", always, moments),
        Column(f"{p}_AreaShape_Eccentricity", _F, "1", "of the ellipse of equal second moments; 0 is a circle", always, moments),
        Column(f"{p}_AreaShape_FormFactor", _F, "1", "4 pi area / perimeter^2", always, moments),
        Column(f"{p}_AreaShape_Solidity", _F, "1", "area / area of the convex hull", always, moments),
        *intensity,
        Column("area_um2", _F, "um^2", "area; null without calibration"),
        Column("score", _F, "1", "mean foreground probability of the object"),
        Column("touches_border", Kind.BOOL, "", "touches the field's edge", always),
        Column("class", _T, "", "class; null for jobs without classes"),
        Column("class_probability", _F, "1", "probability of the class; null for jobs without classes"),
    )  # fmt: skip
    return Schema(
        "instances", object_name, channels, _FIELD_3, objects, ("count",), "count", version=VERSION_3
    )
