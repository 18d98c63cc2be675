"""Files as automated cell counters write them, one for all wells of a run: the CSV of a Vi-CELL BLU, and Allotrope's JSON.

What is not known is left empty in the CSV, and left out in the JSON, with the reason: never a zero, never a made-up time.
"""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Iterator
from datetime import datetime

from cellcount_core import __version__
from cellcount_core.config import length
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.report.samples import Samples, WellSample

VICELL_COLUMNS = (
    "Sample ID", "Cell count", "Viable cells", "Total (x10^6) cells/mL", "Viable (x10^6) cells/mL", "Viability (%)",
    "Average diameter (μm)", "Average viable diameter (μm)", "Average circularity", "Average viable circularity",
    "Average cells per image", "Average background intensity", "Bubble count", "Cluster count", "Images for analysis", "Quality control",
    "Cell type", "Minimum Diameter (μm)", "Maximum Diameter (μm)", "Images", "Cell sharpness", "Minimum circularity", "Decluster degree",
    "Aspiration cycles", "Viable spot brightness (%)", "Viable spot area (%)", "Mixing cycles", "Analysis date/time", "Reanalysis date/time",
    "Analysis by", "Reanalysis by", "Dilution", "Wash", "Tag",
)  # fmt: skip
"""The columns of a Vi-CELL BLU's CSV. What only that instrument does (aspiration, mixing, washing, its spot settings) stays empty."""

ASM_MANIFEST = "http://purl.allotrope.org/manifests/cell-counting/REC/2024/09/cell-counting.manifest"
_NO_CELL = "no live and no dead cell was found"
_MILLION = 1e6
_SPACE = uuid.UUID("6f7c1a52-30d7-5d5e-9a38-5c8f0c2a7d11")
"""Names of measurements are made from the run's fingerprint and the well, so that the same export gives the same names."""


def vicell_csv(samples: Samples, measured: datetime | None = None) -> str:
    """The CSV of a Vi-CELL BLU with a line for each well. `measured` is the time to state, by default when the run was counted."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, VICELL_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    when = measured or samples.measured
    for sample in samples.wells:
        values = _vicell_row(sample, samples, when)
        writer.writerow({name: "" if value is None else value for name, value in values.items()})
    return sink.getvalue()


def _vicell_row(sample: WellSample, samples: Samples, when: datetime | None) -> dict[str, object]:
    settings, images = samples.settings.viability, sample.number("fields_ok")
    counted = sample.number("viability_n") if images else None
    return {
        "Sample ID": sample.name,
        "Cell count": _whole(counted),
        "Viable cells": _whole(sample.number("live")),
        "Total (x10^6) cells/mL": _round(_millions(sample.number("cells_per_ml")), 6),
        "Viable (x10^6) cells/mL": _round(_millions(sample.number("viable_cells_per_ml")), 6),
        "Viability (%)": _round(sample.number("viability"), 2),
        "Average diameter (μm)": _round(sample.number("diameter_um"), 2),
        "Average viable diameter (μm)": _round(sample.number("diameter_um_live"), 2),
        "Average circularity": _round(sample.number("circularity"), 3),
        "Average viable circularity": _round(sample.number("circularity_live"), 3),
        "Average cells per image": _round(None if counted is None or not images else counted / images, 1),
        "Cluster count": _whole(sample.number("clusters")),
        "Images for analysis": _whole(images),
        "Cell type": samples.run.model.name,
        "Minimum Diameter (μm)": _gate(settings.min_diameter, samples),
        "Maximum Diameter (μm)": _gate(settings.max_diameter, samples),
        "Images": _whole(sample.number("fields_expected")),
        "Minimum circularity": settings.min_circularity,
        "Analysis date/time": None if when is None else when.strftime("%Y-%m-%d %H:%M:%S"),
        "Analysis by": f"cellcount {__version__}",
        "Dilution": f"{settings.dilution:g}",
        "Tag": "; ".join([*sample.told, *_edges(sample)]) or None,
    }


def _edges(sample: WellSample) -> list[str]:
    """How cells/mL were counted, which no column says: they are not the counted cells divided by the volume."""
    if sample.number("cells_per_ml") is None:
        return []
    return ["cells/mL without cells at the right and lower edges (rule of two edges)"]


def _millions(value: float | None) -> float | None:
    return None if value is None else value / _MILLION


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _gate(text: str | None, samples: Samples) -> float | None:
    """A gate of diameter in µm; None if there is none, or it was given in px and the pixel size of the run was not."""
    if text is None:
        return None
    given, um_per_px = length(text), samples.settings.um_per_px
    if given.unit == "um":
        return given.value
    return None if um_per_px is None else round(given.value * um_per_px, 3)


def left_out(samples: Samples) -> dict[tuple[str, str, int], str]:
    """The wells for which Allotrope's model takes no measurement, each with the reason in words.

    It takes none without a number. For bright-field counters the numbers that it asks for are viability and viable density; with a stain
    the count of stained cells will do.
    """
    found: dict[tuple[str, str, int], str] = {}
    for sample in samples.wells:
        if not sample.number("fields_ok"):
            found[sample.key] = "no image of it could be counted"
        elif not samples.by_picture:
            continue
        elif sample.missing_density:
            found[sample.key] = f"no cells/mL: {sample.missing_density}"
        elif sample.number("viability") is None:
            found[sample.key] = f"no viability: {_NO_CELL}"
    return found


def asm_json(samples: Samples, file_name: str, measured: datetime | None = None) -> str:
    """The run as Allotrope Simple Model `cell-counting` REC/2024/09, one measurement for each well.

    `file_name` names the file that is written, `measured` is the time to state, by default when the run was counted. A density or a viability that is not
    known is left out and stands among the errors with its reason. Wells for which the schema takes no measurement (`left_out`) stand with their
    reason among the errors of the whole document. Raises ConfigFault if no time is known, or no well is left.
    """
    when = measured or samples.measured
    if when is None:
        raise ConfigFault(
            "Allotrope's model needs a time, and the run's timings are gone: give it with --measured 2026-11-30T09:00:00+00:00"
        )
    left = left_out(samples)
    documents = [
        {"measurement aggregate document": {"measurement document": [_measurement(sample, samples, when)]}}
        for sample in samples.wells
        if sample.key not in left
    ]
    if not documents:
        raise ConfigFault(_nothing_to_write(samples))
    errors = [
        {
            "error": f"sample {sample.name} (plate {sample.plate}, well {sample.well}) left out: {left[sample.key]}",
            "error feature": "measurement",
        }
        for sample in samples.wells
        if sample.key in left
    ]
    data = {
        "$asm.manifest": ASM_MANIFEST,
        "cell counting aggregate document": {
            "device system document": {"device identifier": "N/A", "model number": samples.run.model.name},
            "data system document": {
                "ASM file identifier": file_name,
                "data system instance identifier": samples.run.fingerprint[:12],
                "file name": "wells.parquet",
                "UNC path": samples.run.input,
                "ASM converter name": "cellcount",
                "ASM converter version": __version__,
                "software name": "cellcount",
                "software version": __version__,
            },
            "cell counting document": documents,
            **({"error aggregate document": {"error document": errors}} if errors else {}),
        },
    }
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _nothing_to_write(samples: Samples) -> str:
    """Why no well can be written, and what helps, if something does."""
    counted = [sample for sample in samples.wells if sample.number("fields_ok")]
    if not counted:
        return "no well of this run could be counted: there is nothing to write"
    lacking = any(sample.missing_density for sample in counted)
    ways = (
        "count with --depth or --chamber and a pixel size, or export --to vicell"
        if lacking
        else "export --to vicell"
    )
    return (
        f"no well has what Allotrope's model for bright-field counters asks for, viability and viable density: well {counted[0].well} has "
        f"{left_out(samples)[counted[0].key]}; {ways}"
    )


def _measurement(sample: WellSample, samples: Samples, when: datetime) -> dict[str, object]:
    name = f"{samples.run.fingerprint}/{sample.plate}/{sample.well}/{sample.timepoint}"
    errors = list(_errors(sample))
    return {
        "measurement time": when.isoformat(),
        "measurement identifier": str(uuid.uuid5(_SPACE, name)),
        "sample document": {
            "sample identifier": sample.name,
            "location identifier": sample.well,
            "well plate identifier": sample.plate,
        },
        "device control aggregate document": {
            "device control document": [
                {
                    "@index": 1,
                    "device type": "microscope (cell counter)",
                    "detection type": "brightfield" if samples.by_picture else "fluorescence",
                }
            ]
        },
        "processed data aggregate document": {"processed data document": [_processed(sample, samples)]},
        **({"error aggregate document": {"error document": errors}} if errors else {}),
    }


def _errors(sample: WellSample) -> Iterator[dict[str, str]]:
    if sample.uncounted:
        yield {"error": sample.uncounted, "error feature": "viability (cell counter)"}
    if sample.missing_density:
        yield {
            "error": f"not known: {sample.missing_density}",
            "error feature": "viable cell density (cell counter)",
        }
    if sample.number("viability") is None:
        yield {
            "error": f"not known: {_NO_CELL}",
            "error feature": "viability (cell counter)",
        }
    if warning := sample.values.get("viability_warnings"):
        yield {"error": str(warning), "error feature": "viability (cell counter)"}


def _processed(sample: WellSample, samples: Samples) -> dict[str, object]:
    settings = samples.settings.viability
    processing = {
        "cell type processing method": samples.run.model.name,
        **_quantity("cell density dilution factor", settings.dilution, "(unitless)"),
        **_quantity("minimum cell diameter setting", _gate(settings.min_diameter, samples), "µm"),
        **_quantity("maximum cell diameter setting", _gate(settings.max_diameter, samples), "µm"),
    }
    cells, density = "cell", "10^6 cells/mL"
    total, live = sample.number("cells_per_ml"), sample.number("viable_cells_per_ml")
    volume, dead_inside = sample.number("sample_ml"), sample.number("dead_two_edges")
    dead = None if volume is None or dead_inside is None or not volume else dead_inside / volume
    found = {
        **_quantity("viability (cell counter)", sample.number("viability"), "%"),
        **_quantity("total cell density (cell counter)", _millions(total), density),
        **_quantity("viable cell density (cell counter)", _millions(live), density),
        **_quantity("dead cell density (cell counter)", _millions(dead), density),
        **_quantity("total cell count", sample.number("count"), cells),
        **_quantity("viable cell count", sample.number("live"), cells),
        **_quantity("dead cell count", sample.number("dead"), cells),
        **_quantity("average total cell diameter", sample.number("diameter_um"), "µm"),
        **_quantity("average live cell diameter (cell counter)", sample.number("diameter_um_live"), "µm"),
        **_quantity("average dead cell diameter (cell counter)", sample.number("diameter_um_dead"), "µm"),
        **_quantity("average total cell circularity", sample.number("circularity"), "(unitless)"),
        **_quantity("average viable cell circularity", sample.number("circularity_live"), "(unitless)"),
    }
    if "viable cell density (cell counter)" not in found or "viability (cell counter)" not in found:
        found |= _stained(sample)
    return {"data processing document": processing, **found}


def _stained(sample: WellSample) -> dict[str, object]:
    """What the schema takes in place of viability and density: the number of cells that a fluorescent stain marks."""
    marked = sum(sample.number(name) or 0.0 for name in ("dead", "both"))
    return _quantity("fluorescent tag positive cell count", marked, "cell")


def _quantity(name: str, value: float | None, unit: str) -> dict[str, object]:
    return {} if value is None else {name: {"value": value, "unit": unit}}
