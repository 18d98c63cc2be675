"""What readers that are not ours find in a file, to compare a count with."""

from __future__ import annotations

import io

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image


def read_otherwise(body: bytes) -> NDArray[np.generic]:
    """The first image of a file, (H, W), by tifffile, NumPy or Pillow; the luminance of a colour image."""
    if body[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        with tifffile.TiffFile(io.BytesIO(body)) as tif:
            pixels = tif.pages.first.asarray()
            inverted = tif.pages.first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        return np.iinfo(pixels.dtype).max - pixels if inverted else pixels
    if body.startswith((b"\x93NUMPY", b"PK")):
        found = np.load(io.BytesIO(body), allow_pickle=False)
        pixels = found if isinstance(found, np.ndarray) else found[found.files[0]]
        return pixels.reshape(pixels.shape[-2:])
    with Image.open(io.BytesIO(body)) as image:
        image.load()
        if image.mode in ("L", "I;16", "I"):
            pixels = np.asarray(image)
            return pixels.astype(np.uint16) if image.mode == "I" else pixels
        return np.asarray(cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2GRAY))
