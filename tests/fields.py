"""Count a single image held in memory, through the whole path of a field."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.fields import FieldKey, PlannedField, Selection, Source
from cellcount_core.models.engines import Engine, load_engine, resolve_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.pipeline.context import StageClock
from cellcount_core.pipeline.device import Device
from cellcount_core.pipeline.field import FieldKit, FieldResult, count_field
from cellcount_core.pipeline.files import LoadedFile
from cellcount_core.pipeline.rows import run_schema
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from cellcount_core.tasks.task import SizeEstimate, task_of

CHANNEL = Selection("nuclei", "")


@dataclass(frozen=True)
class Loaded:
    """A package with its engine running."""

    package: Package
    device: Device


@cache
def loaded(package: str) -> Loaded:
    """A package on its CPU engine, kept for the whole test process."""
    found = find_package(package)
    return Loaded(found, Device(load_engine(found, resolve_engine(found, "auto", gpus=0), threads=1)))


def tiff(image: NDArray[np.generic]) -> bytes:
    """An uncompressed TIFF."""
    sink = io.BytesIO()
    tifffile.imwrite(sink, image)
    return sink.getvalue()


def count_bytes(
    body: bytes,
    package: str = "threshold",
    output: Path | None = None,
    device: Device | None = None,
    **run: object,
) -> FieldResult:
    """Count one file, on the package's device or another one; `run` are settings of the run section."""
    model = loaded(package)
    config = RunConfig.model_validate({"model": {"package": package}, "diameter": "model", **run})
    kit = FieldKit(
        run=config,
        package=model.package,
        task=task_of(model.package),
        head=task_of(model.package).head(model.package),
        schema=run_schema(model.package, (CHANNEL.name,), (CHANNEL.name,)),
        plate_sizes={},
        usual_shapes={},
        plate_numbers={},
        shown_sizes={},
        counted=(CHANNEL,),
        measured=(CHANNEL,),
        output=open_store(str(output) if output else "memory://", StorageOptions(schemes=("file", "memory"))),
        device=device or model.device,
        clock=StageClock(),
    )
    planned = PlannedField(FieldKey("P", "A01", 1, 1), (Source("", 0, "image.tif", size=len(body)),))
    return count_field(
        kit, planned, {"image.tif": LoadedFile("image.tif", body, len(body), config.max_pixels)}
    )


def count_array(
    image: NDArray[np.generic], package: str = "threshold", device: Device | None = None, **run: object
) -> FieldResult:
    """Count one image."""
    return count_bytes(tiff(image), package, device=device, **run)


def size_of(plane: NDArray[np.generic], package: Package, engine: Engine) -> SizeEstimate:
    """What one plane says of the size of its objects."""

    def maps(canvas: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(engine.run(canvas[None].repeat(engine.batch, axis=0))[0])

    return task_of(package).head(package).size((plane,), maps)
