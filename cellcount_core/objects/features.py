"""Measured objects under the names of the tables, and their moments."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.moments import Moments
from cellcount_core.objects.measure import ObjectTable


def measured_features(table: ObjectTable, object_name: str) -> dict[str, NDArray[np.generic]]:
    """The measured columns (n,) by their full names ("Nuclei_AreaShape_Area"), as `domain.columns.measured` lists them."""
    shape = {
        "AreaShape_Area": table.area,
        "AreaShape_EquivalentDiameter": table.equivalent_diameter,
        "AreaShape_Eccentricity": table.eccentricity,
        "AreaShape_FormFactor": table.form_factor,
        "AreaShape_Solidity": table.solidity,
    }
    columns: dict[str, NDArray[np.generic]] = {
        f"{object_name}_{name}": values for name, values in shape.items()
    }
    for channel, mean in table.mean_intensity.items():
        columns[f"{object_name}_Intensity_MeanIntensity_{channel}"] = mean
        columns[f"{object_name}_Intensity_IntegratedIntensity_{channel}"] = table.integrated_intensity[
            channel
        ]
    return columns


def object_columns(table: ObjectTable, object_name: str) -> dict[str, NDArray[np.generic]]:
    """Every column of the objects table that comes from the pixels, by its full name; nan stands for unknown."""
    return {
        "Metadata_ObjectNumber": table.number,
        f"{object_name}_Location_Center_X": table.center_x,
        f"{object_name}_Location_Center_Y": table.center_y,
        f"{object_name}_AreaShape_BoundingBoxMinimum_X": table.min_x,
        f"{object_name}_AreaShape_BoundingBoxMinimum_Y": table.min_y,
        f"{object_name}_AreaShape_BoundingBoxMaximum_X": table.max_x,
        f"{object_name}_AreaShape_BoundingBoxMaximum_Y": table.max_y,
        **measured_features(table, object_name),
        "score": table.score,
        "touches_border": table.touches_border,
    }


def feature_moments(table: ObjectTable, object_name: str) -> dict[str, Moments]:
    """Moments of every measured column over the objects, nan left out. The sums are exact before they are rounded."""
    return {name: moments_of(values) for name, values in measured_features(table, object_name).items()}


def moments_of(values: NDArray[np.generic]) -> Moments:
    """Moments of the values that are not nan."""
    numbers = values.astype(np.float64)
    numbers = numbers[~np.isnan(numbers)]
    if numbers.size == 0:
        return Moments()
    mean = math.fsum(numbers.tolist()) / numbers.size
    deviations = numbers - mean
    m2 = math.fsum((deviations * deviations).tolist())
    return Moments(int(numbers.size), mean, m2, float(numbers.min()), float(numbers.max()))
