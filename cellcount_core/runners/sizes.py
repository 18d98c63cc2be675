"""Finding the object sizes of a run while it is planned: a sample of its fields is read and looked at in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cellcount_core.domain.config import RunConfig
from cellcount_core.domain.errors import FieldFault
from cellcount_core.domain.fields import PlannedField, Selection
from cellcount_core.domain.scales import PoolScale
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.golden import check_golden
from cellcount_core.models.package import Package
from cellcount_core.pipeline.files import read_fields
from cellcount_core.pipeline.pixels import load_pixels
from cellcount_core.pipeline.sizing import estimate_size, tells_sizes
from cellcount_core.plan.channels import ChannelChoice
from cellcount_core.plan.planner import Measure, no_scales
from cellcount_core.plan.scales import ImageSize, pool_sizes
from cellcount_core.stores.base import Store

_AHEAD = 8


def measure_of(
    run: RunConfig, package: Package, source: Store, threads: int, say: Callable[[str], None]
) -> Measure:
    """What finds the object sizes of a run, or `no_scales` where they are given or the model tells no sizes.

    Images that state their pixel size go by it where the package does. A field that cannot be read says nothing here; it
    gets its row when it is counted. Raises StorageFault, CredentialsFault, ModelFault where the engine fails
    its golden tensors, and ConfigFault as `pool_sizes` does.
    """
    if run.diameter != "auto" or not tells_sizes(package):
        return no_scales

    def measure(sample: Sequence[PlannedField], choice: ChannelChoice) -> tuple[PoolScale, ...]:
        if not sample:
            return ()
        say(f"estimating the size of objects from {len(sample)} fields")
        engine = load_engine(package, resolve_engine(package, "auto", gpus=0), threads)
        check_golden(package, engine)
        counted = [Selection(channel, channel) for channel in choice.counted[:1]]
        images: list[ImageSize] = []
        for planned, files in read_fields(source, sample, ahead=_AHEAD, max_pixels=run.max_pixels):
            try:
                pixels = load_pixels(planned, files, counted, (), run)
            except FieldFault:
                continue
            plane = pixels.planes[counted[0].name]
            if package.input.um_per_px is not None and pixels.um_per_px is not None:
                continue
            found = estimate_size(plane, package, engine)
            height, width = plane.shape
            images.append(ImageSize(planned.key.plate, height, width, found.diameter_px, found.objects))
        return pool_sizes(images)

    return measure
