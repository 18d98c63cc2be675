"""Label images as files: their bytes, and where they stand in an output."""

from __future__ import annotations

import io
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.fields import Source

LABELS = "labels"
_SUFFIX = ".labels.tif"
_LARGEST_UINT16 = 65_535
_LONGEST_NAME = 255
_LONGEST_KEY = 800
"""Bytes; S3 takes 1,024, of which the output's own prefix needs some."""


def label_key(source: Source) -> str:
    """The key of a field's label image, where `source` is the first file that was counted: `labels/<key>.labels.tif`.

    The suffix of the file stays in the name ("A01.png.labels.tif"), so a.png and a.tif do not collide. An image of a stack also has its number
    ("X.npz.000003.labels.tif"). A name that is too long for a file system (255 bytes), or a key that is too long for a store, is cut and
    followed by a digest of the key.
    """
    part = "" if source.index < 0 else f".{source.index:06d}"
    folder, slash, name = source.key.rpartition("/")
    whole = f"{LABELS}/{folder}{slash}{name}{part}{_SUFFIX}"
    if len(f"{name}{part}{_SUFFIX}".encode()) <= _LONGEST_NAME and len(whole.encode()) <= _LONGEST_KEY:
        return whole
    ending = f"~{blake2b(source.key.encode(), digest_size=8).hexdigest()}{part}{_SUFFIX}"
    cut = name.encode()[: _LONGEST_NAME - len(ending)].decode(errors="ignore")
    kept = f"{folder}{slash}" if len(whole.encode()) <= _LONGEST_KEY else ""
    return f"{LABELS}/{kept}{cut}{ending}"


def label_tiff(labels: NDArray[np.integer]) -> bytes:
    """A label image (H, W), 0 for the background and 1..n for objects, as a TIFF with deflate compression.

    The type is uint16, or uint32 above 65,535 objects. Equal labels give equal bytes. Raises ValueError if the array is not two-dimensional,
    is empty, or holds a negative number.
    """
    if labels.ndim != 2 or labels.size == 0:
        raise ValueError(f"a label image has two axes and at least one pixel, this has shape {labels.shape}")
    if int(labels.min()) < 0:
        raise ValueError(f"labels are 0 and above, the least is {int(labels.min())}")
    dtype = np.uint16 if int(labels.max()) <= _LARGEST_UINT16 else np.uint32
    sink = io.BytesIO()
    import tifffile

    tifffile.imwrite(
        sink,
        np.ascontiguousarray(labels, dtype=dtype),
        photometric="minisblack",
        compression="zlib",
        compressionargs={"level": 6},
        predictor=True,
        software=False,
        metadata=None,
    )
    return sink.getvalue()
