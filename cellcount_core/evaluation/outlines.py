"""True and counted outlines over an image, and where they agree."""

from __future__ import annotations

from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.objects.labels import inner_edge
from cellcount_core.report.overlay import grey_image

TRUE, COUNTED, BOTH = (255, 158, 27), (64, 170, 255), (255, 255, 255)
"""Colours (R, G, B) of outlines that are true alone, counted alone, and both: orange, blue and white differ for readers with
any colour vision (after Okabe and Ito 2008), brightened for dark images."""

_SMALLEST, _LARGEST = 480, 960
_DIMMED = 0.72
"""The image is shown this much darker, so that outlines stand out where it is white."""


def outlines_png(
    plane: NDArray[np.generic], true: NDArray[np.int32], counted: NDArray[np.int32]
) -> tuple[bytes, int, int]:
    """The plane (H, W) in grey with both outlines as PNG, and the picture's width and height in px.

    `true` and `counted` are (H, W), 0 the background. Each outline lies inside its object. Small images are enlarged by a
    whole factor to about 480 px, large ones reduced to 960 px. Raises ValueError where the shapes differ.
    """
    if not plane.shape == true.shape == counted.shape:
        raise ValueError(
            f"plane and labels must have one shape (got {plane.shape}, {true.shape} and {counted.shape})"
        )
    height, width = _size((plane.shape[0], plane.shape[1]))
    method = cv2.INTER_AREA if width < plane.shape[1] else cv2.INTER_CUBIC
    grey = cv2.resize(grey_image(plane), (width, height), interpolation=method)
    image = np.repeat((_DIMMED * np.asarray(grey, np.float32)).astype(np.uint8)[:, :, None], 3, axis=2)
    line = 2 if width > plane.shape[1] else 1
    is_true, is_counted = (inner_edge(_enlarged(labels, width, height), line) for labels in (true, counted))
    image[is_true], image[is_counted], image[is_true & is_counted] = TRUE, COUNTED, BOTH
    done, encoded = cv2.imencode(".png", image[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise ValueError(f"an image of shape {image.shape} could not be written as PNG")
    return encoded.tobytes(), width, height


def _size(shape: tuple[int, int]) -> tuple[int, int]:
    longest = max(shape)
    factor = _LARGEST / longest if longest > _LARGEST else float(ceil(_SMALLEST / longest))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _enlarged(labels: NDArray[np.int32], width: int, height: int) -> NDArray[np.int32]:
    return np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST), np.int32)
