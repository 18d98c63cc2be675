"""What counting one image gives: the number, how sure it is, and every object."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cellcount_core.report.overlay import Layer


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One counted image.

    `count`: objects in the image. `interval`: between which numbers the true count lies with the probability that the model's
    package states; None where it states none, or the image is unlike those it was measured on.
    `warnings`: codes of what is doubtful, as in the tables (docs/reference/warnings.md); `notes`: the same in words, with what
    can be done about it. `diameter`: the objects' median diameter in px that the image was counted by; None where it was
    counted as it is. `um_per_px`: the pixel size, None where it is not known.
    `labels`: (H, W) int32, 0 for the background and 1 to n for the objects; `boxes`: (n, 4) float, y0 x0 y1 x1 half-open in px of the
    image; None where the model's task finds none of the kind. `objects`: an Arrow table of one row an object, as in
    `objects/` of a run; `objects.to_pandas()` where pandas is installed. `image`: the plane that was counted, (H, W), in raw units; its colours (H, W, 3) uint8 for a model of colours.
    `row`: every column of the image's row, as in `fields/` of a run. `model`: name and version of the package.

    In a notebook it shows the image with the outline or box of every object. A package whose task counts no objects gives None for
    `count`, `labels` and `objects`; what it found stands in `row`.
    """

    count: int | None
    interval: tuple[float, float] | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    diameter: float | None
    um_per_px: float | None
    model: str
    labels: NDArray[np.int32] | None = field(repr=False)
    objects: pa.Table | None = field(repr=False)
    image: NDArray[np.generic] = field(repr=False)
    row: Mapping[str, object] = field(repr=False)
    boxes: NDArray[np.float64] | None = field(default=None, repr=False)
    classes: tuple[str, ...] = field(default=(), repr=False)

    def overlay(self) -> NDArray[np.uint8]:
        """The image with the outline or box of each object, if there are any: (h, w, 3) uint8 RGB, enlarged or reduced for the screen."""
        from cellcount_core.report.overlay import overlay_image

        return overlay_image(self.image, self._layer())

    def _layer(self) -> Layer:
        from cellcount_core.report.overlay import Layer

        told = None if self.objects is None or not self.classes else self.objects.column("class").to_pylist()
        places = None if told is None else np.array([self.classes.index(one) for one in told], np.int64)
        return Layer(self.labels, self.boxes, places, self.classes)

    def _repr_png_(self) -> bytes:
        from cellcount_core.report.overlay import overlay_png

        shown = self.overlay()
        size = None if self.um_per_px is None else self.um_per_px * self.image.shape[1] / shown.shape[1]
        return overlay_png(shown, caption=self._headline(), um_per_px=size, legend=self._layer().legend())

    def _repr_html_(self) -> str:
        from cellcount_core.report.html import inline_png, render

        return render(
            "result.html",
            count="no count" if self.count is None else f"{self.count:,}",
            noun="" if self.count is None else "object" if self.count == 1 else "objects",
            about=self._about(),
            notes=self.notes,
            picture=inline_png(self._repr_png_()),
        )

    def _headline(self) -> str:
        about = self._about()
        if self.count is None:
            return self.model
        return f"{self.count:,} object{'' if self.count == 1 else 's'}{f' ({about})' if about else ''}"

    def _about(self) -> str:
        """The interval and the object size, in words."""
        told = [] if self.interval is None else [f"{self.interval[0]:.0f} to {self.interval[1]:.0f}"]
        told += [] if self.diameter is None else [f"by objects of {self.diameter:.1f} px"]
        return ", ".join(told)


_SETTING = re.compile(r"--set '?([\w.]+)=(\[[^\]]*\]|[^\s');,]+)'?")
_OPTION = re.compile(r"--(channel|model|measure|diameter|layout) ([\w./-]+)")
_AS_THEY_ARE = frozenset({"PX", "NAME", "PIXELSIZE"})


def in_python(text: str) -> str:
    """Advice that names options of the command line, in words of this module.

    >>> in_python("give the right one: --set run.um_per_px=PIXELSIZE, or --diameter 25; try --model histology")
    'give the right one: settings={"run.um_per_px": PIXELSIZE}, or diameter=25; try model="histology"'
    """
    told = _SETTING.sub(lambda found: f'settings={{"{found[1]}": {_value(found[2])}}}', text)
    told = _OPTION.sub(lambda found: f"{found[1]}={_value(found[2])}", told)
    return told.replace(" (`cellcount pictures`)", " (`overlay()` draws it)")


def _value(text: str) -> str:
    if text.startswith("["):
        return "[" + ", ".join(_value(each.strip()) for each in text[1:-1].split(",")) + "]"
    number = re.fullmatch(r"\d+(\.\d+)?", text) is not None
    return text if number or text in _AS_THEY_ARE else f'"{text}"'
