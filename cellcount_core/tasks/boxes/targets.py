"""What a box network is taught: maps made of boxes, and the loss that compares the network's maps with them.

A centre map holds a Gaussian of height 1 for each object, whose spread along each axis grows with the box's side; where Gaussians
overlap, the larger value counts, so that each of two crossing cells keeps its own peak. Height and width are taught near centres.
The loss is CenterNet's (Zhou et al. 2019, "Objects as points", eq. 1): a focal loss in which pixels near a centre, which are hardly
wrong, count little as background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cellcount_core.domain.settings import Section
from cellcount_core.tasks.object_size.looks import encode_diameter
from cellcount_core.tasks.task import Shape

if TYPE_CHECKING:
    from collections.abc import Callable

    import keras

    Loss = Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]

BoxArray = NDArray[np.float64]

_REACH = 3.0
"""Sigmas around a centre in which its Gaussian is drawn."""

_SIZED = 0.6
"""Height and width are taught where an object's Gaussian is at least this high."""

_FOUND = 0.3
"""Score from which on the curves of a training show an object as found."""

_OCTAVES = 5.0
"""Octaves that the maps of height and width span (tasks/object_size/looks.py)."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledBoxes:
    """Boxes that a person drew in an image: `boxes` (n, 4) float64, y0 x0 y1 x1 half-open in px, and the index of each one's class.

    `unlabelled` are the indices of classes that the image may hold without boxes: their absence teaches nothing. `ignored` (m, 4) are
    parts of the image in which nothing is taught, because what is there is only half seen.
    """

    boxes: BoxArray
    classes: NDArray[np.int64]
    unlabelled: tuple[int, ...] = ()
    ignored: BoxArray | None = None


class BoxLossConfig(Section):
    """Weights of the parts of the loss: centres, and the error of the sides in octaves.

    `spread` is a Gaussian's sigma as a share of the box's side, `least_spread` (px) is added to it. `background` weighs
    the pixels without a centre: less than 1 where objects of a data set often lack a box.
    """

    centre: float = Field(1.0, ge=0)
    size: float = Field(0.5, ge=0)
    spread: float = Field(0.07, gt=0, le=0.5)
    least_spread: float = Field(0.3, gt=0)
    background: float = Field(1.0, gt=0, le=1)


def stack_targets(
    labelled: LabelledBoxes, shape: Shape, classes: int, config: BoxLossConfig
) -> NDArray[np.float32]:
    """Targets (H, W, 2 C + 3) float32 for C classes: centre maps, height, width, the weights of the centre maps, that of the sides.

    A centre map is exactly 1 at the pixel of each object's centre and nowhere else. The weight of a centre is 1, that of a pixel around
    it (1 - its value in the map)^4 times that of the background. The weights of the sides add up to 1 an object.
    """
    height, width = shape
    out = np.zeros((height, width, 2 * classes + 3), np.float32)
    weights = out[..., classes + 2 : 2 * classes + 2]
    weights[...] = config.background
    for y0, x0, y1, x1 in labelled.ignored if labelled.ignored is not None else ():
        weights[_inside(y0, y1, height), _inside(x0, x1, width)] = 0
    weights[..., list(labelled.unlabelled)] = 0
    owner = np.zeros(shape, np.int32)
    owned = np.zeros(shape, np.float32)
    pixels = []
    for number, (box, kind) in enumerate(zip(labelled.boxes, labelled.classes, strict=True)):
        (y, x), sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        pixel = (min(height - 1, max(0, int(y))), min(width - 1, max(0, int(x))))
        pixels.append((*pixel, int(kind)))
        sigma = config.spread * sides + config.least_spread
        rows, columns = (
            _inside(centre - _REACH * s - 1, centre + _REACH * s + 1, length)
            for centre, s, length in zip((y, x), sigma, shape, strict=True)
        )
        down = np.exp(-((np.arange(rows.start, rows.stop) + 0.5 - y) ** 2) / (2 * sigma[0] ** 2))
        across = np.exp(-((np.arange(columns.start, columns.stop) + 0.5 - x) ** 2) / (2 * sigma[1] ** 2))
        drawn = np.outer(down, across).astype(np.float32)
        here = out[rows, columns, kind]
        np.maximum(here, np.minimum(drawn, np.float32(0.999)), out=here)
        mine = (drawn > owned[rows, columns]) & (drawn >= _SIZED)
        mine[pixel[0] - rows.start, pixel[1] - columns.start] = True
        owned[rows, columns][mine] = drawn[mine]
        owner[rows, columns][mine] = number + 1
    weights *= np.square(np.square(1 - out[..., :classes]))
    for y, x, kind in pixels:
        out[y, x, kind] = 1
        weights[y, x, kind] = 1
    if pixels:
        given = encode_diameter((labelled.boxes[:, 2:] - labelled.boxes[:, :2]).astype(np.float32))
        share = 1 / np.maximum(1, np.bincount(owner.ravel(), minlength=len(pixels) + 1))
        share[0] = 0
        out[..., classes : classes + 2] = np.concatenate([np.zeros((1, 2), np.float32), given])[owner]
        out[..., -1] = share[owner]
    return out


def _inside(low: float, high: float, length: int) -> slice:
    """The pixels from `low` to `high` that lie within a side of `length` px: at least one of them."""
    start = min(length - 1, max(0, int(np.floor(low))))
    return slice(start, max(start + 1, min(length, int(np.ceil(high)))))


def make_loss(config: BoxLossConfig, classes: int, parts: int = 1) -> Loss:
    """The loss of targets (B, H, W, 2 C + 3) against logits (B, H, W, C + 2): a function that gives a scalar.

    It adds up the focal loss of the centres, (1 - p)^2 times the cross-entropy, p being the chance given to what is right, and the
    absolute error of the sides in octaves. Both parts are means over the batch's objects. The sum is divided by `parts`, for batches whose parts' losses are added up.
    """
    from keras import ops

    def loss(targets: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
        logits = ops.cast(logits, "float32")
        centre, wanted = logits[..., :classes], targets[..., :classes]
        weights = targets[..., classes + 2 : 2 * classes + 2]
        # Of a right answer the sign: log(1 + e^-x) is the cross-entropy then, of centres and of background alike.
        peak = ops.cast(wanted >= 1.0, "float32")
        right = centre * (2.0 * peak - 1.0)
        wrong = ops.square(ops.sigmoid(-right)) * ops.softplus(-right)
        objects = ops.sum(peak) + 1.0
        total = config.centre * ops.sum(weights * wrong) / objects
        error = ops.abs(ops.sigmoid(logits[..., classes:]) - targets[..., classes : classes + 2])
        total = total + config.size * _OCTAVES * ops.sum(targets[..., -1:] * error) / objects
        return total / parts if parts > 1 else total

    return loss


def found_share(targets: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """The share of the objects whose centre has at least a score of 0.3 in the map of their class, 0..1."""
    from keras import ops

    classes = logits.shape[-1] - 2
    peak = ops.cast(targets[..., :classes] >= 1.0, "float32")
    found = ops.cast(ops.sigmoid(ops.cast(logits[..., :classes], "float32")) >= _FOUND, "float32")
    return ops.sum(peak * found) / (ops.sum(peak) + 1e-6)
