"""The tables of runs that were planned by schema version 3, whose run.json does not hold a schema: all of them counted objects.

Frozen: nothing here is changed when a column is added. Outputs of that version are read, reduced, verified and gone on with by it.
"""

from __future__ import annotations

from cellcount_core.domain.columns import Column, Kind, Merge, Null, Schema

VERSION = 3

_S, _I, _F = Kind.STRING, Kind.INT, Kind.FLOAT

_FIELD = (
    Column("channel", _S, "", "channel that was counted; luminance where it is that of a colour image; the role's name where files name none"),
    Column("planes", _I, "planes", "z planes that were joined into the one that was counted; 1 where there is one"),
    Column("count", _I, "objects", "objects counted; 0 only where the image was read and found empty; null unless ok", Null.UNLESS_OK, Merge.COUNT),
    Column("count_low", _F, "objects", "lower end of the count's interval, where the model has one"),
    Column("count_high", _F, "objects", "upper end of the count's interval, where the model has one"),
    Column("count_border", _I, "objects", "objects that touch the field's edge"),
    Column("area_fraction", _F, "1", "part of the field covered by objects"),
    Column("width_px", _I, "px", "width of the image"),
    Column("height_px", _I, "px", "height of the image"),
    Column("um_per_px", _F, "um/px", "pixel size; null if unknown", merge=Merge.AREA, of=("width_px", "height_px")),
    Column("scale", _F, "1", "factor by which the image was resized to the model's scale"),
    Column("diameter_px", _F, "px", "object diameter the scale stands for; null where the image was counted as it is"),
    Column("diameter_source", _S, "", "where the scale comes from: model (as it is), given, calibration, pool (plate and image size), image, unknown"),
    Column("diameter_images", _I, "images", "images that the estimated diameter rests on"),
    Column("diameter_objects", _I, "objects", "objects that the estimated diameter rests on"),
    Column("sizes", _S, "", "objects of each size and their median diameter, where the field was counted at two scales"),
    Column("focus", _F, "1", "sharpness; independent of brightness", watched=True),
    Column("saturation", _F, "1", "part of the pixels at the largest value"),
    Column("background", _F, "raw", "background level of the counted channel", watched=True),
    Column("noise", _F, "raw", "standard deviation of the noise"),
    Column("signal", _F, "raw", "bright level above the background"),
    Column("empty", Kind.BOOL, "", "signal does not rise above the noise floor"),
    Column("out_of_domain", _F, "1", "how unlike the training data, where the model tells"),
)  # fmt: skip


def schema_3(object_name: str, channels: tuple[str, ...]) -> Schema:
    """The schema of a run of version 3, from the name of its objects ("Nuclei") and the channels measured."""
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
        Column(f"{p}_AreaShape_BoundingBoxMinimum_X", _I, "px", "first column of the object", always),
        Column(f"{p}_AreaShape_BoundingBoxMinimum_Y", _I, "px", "first row of the object", always),
        Column(f"{p}_AreaShape_BoundingBoxMaximum_X", _I, "px", "column after the last one (half-open)", always),
        Column(f"{p}_AreaShape_BoundingBoxMaximum_Y", _I, "px", "row after the last one (half-open)", always),
        Column(f"{p}_AreaShape_Area", _I, "px^2", "area in original pixels", always, moments),
        Column(f"{p}_AreaShape_EquivalentDiameter", _F, "px", "diameter of the circle of equal area", always, moments),
        Column(f"{p}_AreaShape_Eccentricity", _F, "1", "of the ellipse of equal second moments; 0 is a circle", always, moments),
        Column(f"{p}_AreaShape_FormFactor", _F, "1", "4 pi area / perimeter^2", always, moments),
        Column(f"{p}_AreaShape_Solidity", _F, "1", "area / area of the convex hull", always, moments),
        *intensity,
        Column("area_um2", _F, "um^2", "area; null without calibration"),
        Column("score", _F, "1", "mean foreground probability of the object"),
        Column("touches_border", Kind.BOOL, "", "touches the field's edge", always),
        Column("class", _S, "", "class; null for jobs without classes"),
        Column("class_probability", _F, "1", "probability of the class; null for jobs without classes"),
    )  # fmt: skip
    return Schema("instances", object_name, channels, _FIELD, objects, ("count",), "count", version=VERSION)
