"""What a package of counted objects says of itself in its manifest, in the section `instances`."""

from __future__ import annotations

from pydantic import Field

from cellcount_core.models.package import Package
from cellcount_core.tasks.task import TaskSection, read_section


class InstancesSection(TaskSection):
    """`maps` names the network's output channels, `stride` (px) is what a canvas is padded to, and a tile's map is valid
    `receptive_radius` px away from a cut edge. `separator` is a kind of separator with its numbers, `sizing` those of its numbers that
    differ where objects are looked at for their size alone.
    """

    maps: tuple[str, ...]
    stride: int
    receptive_radius: int
    separator: dict[str, object]
    sizing: dict[str, object] = Field(default_factory=dict)


def section_of(package: Package) -> InstancesSection:
    """The section of a package. Raises ModelFault naming the key that is wrong."""
    return read_section(InstancesSection, package)
