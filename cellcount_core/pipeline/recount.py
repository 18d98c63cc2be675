"""Count a few fields again to look at them: pixels and label image of each, nothing written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.domain.fields import PlannedField
from cellcount_core.images.imagefile import Plane
from cellcount_core.pipeline.context import RunContext
from cellcount_core.pipeline.field import decode, examine
from cellcount_core.pipeline.files import read_fields
from cellcount_core.pipeline.kit import open_kit
from cellcount_core.stores.open import open_store


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A field as it was counted: the first counted channel (H, W) in raw units, its label image (H, W) int32 if its task draws one, the
    pixel size if it is known."""

    planned: PlannedField
    plane: Plane
    labels: NDArray[np.int32] | None
    um_per_px: float | None


def recount(context: RunContext, fields: Sequence[PlannedField]) -> Iterator[Seen | FieldFault]:
    """The fields one after the other, as the run counted them; a field that cannot be counted gives its fault."""
    with_labels = replace(context, run=context.run.model_copy(update={"labels": "tiff"}))
    kit = open_kit(with_labels)
    store = open_store(context.input_url, context.input_options)
    try:
        for planned, files in read_fields(store, fields, ahead=2, run=context.run):
            try:
                if planned.reason is not None:
                    raise FieldFault(planned.reason, planned.detail)
                seen = examine(kit, decode(kit, planned, files), planned.key.plate)
            except FieldFault as fault:
                yield fault
                continue
            except MemoryError as error:
                yield FieldFault(Reason.OUT_OF_MEMORY, str(error) or "no memory left for this field")
                continue
            plane = seen.pixels.planes[kit.counted[0].name]
            labels = None if seen.found.labels is None else seen.found.labels.astype(np.int32)
            yield Seen(planned, plane, labels, seen.pixels.um_per_px)
    finally:
        kit.close()
