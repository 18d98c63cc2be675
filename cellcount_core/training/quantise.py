"""The int8 form of a network: every convolution but the first and the last in 8-bit integers, calibrated on training images."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.pixels import LARGEST_FACTOR, SMALLEST_FACTOR
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.engines.onnx import keep_onnxruntime_silent
from cellcount_core.models.families.onnx_graph import FLOAT_NODES, Weights, write_onnx
from cellcount_core.models.package import InputSpec
from cellcount_core.pipeline.maps import whole_canvas

Tile = NDArray[np.float32]

_TILES = 128
_TILE_PX = 256
_SCALES = (1.0, 0.7, 1.4)
"""Calibration images are brought to these multiples of the model's scale, in turn: a run's scale is never exact."""


def calibration_tiles(images: Sequence[LabelledImage], spec: InputSpec, stride: int) -> list[Tile]:
    """Up to 128 normalised tiles (h, w, 1) of training images, spread over them, at about the model's scale.

    Every image is normalised whole, as it is when it is counted, and gives its centre, of 256 px a side at most; h and w are
    multiples of the network's `stride`.
    """
    chosen = images[:: max(1, len(images) // _TILES)][:_TILES]
    tiles = []
    for number, image in enumerate(chosen):
        factor = 1.0
        if spec.diameter_px is not None and image.diameter_px > 0:
            factor = _SCALES[number % len(_SCALES)] * spec.diameter_px / image.diameter_px
            factor = float(np.clip(factor, SMALLEST_FACTOR, LARGEST_FACTOR))
        canvas = whole_canvas([image.plane], spec, stride, factor)
        top, left = (max(0, (side - _TILE_PX) // 2) for side in canvas.shape[:2])
        tiles.append(np.ascontiguousarray(canvas[top : top + _TILE_PX, left : left + _TILE_PX]))
    return tiles


def write_int8(config: Mapping[str, object], weights: Weights, tiles: Sequence[Tile], path: Path) -> None:
    """Write the network in 8-bit integers: activations unsigned by layer, weights signed by channel, within -64..64.

    Seven bits of weight keep the sum of two products within 16 bits, which is what processors without VNNI add them in:
    their integers, and so their counts, are those of processors that have it.

    Activations are scaled to their smallest and largest: with percentiles of 99.99 and 99.9, which cut outliers off, `nuclei`
    1.2.0 counted the images that thresholds are fitted on worse, and drew them no better. The extremes are taken within the
    network, tile by tile; a percentile needs every activation of every tile at once (200 MB a tile of a U-Net of 31 M
    parameters).
    """
    keep_onnxruntime_silent()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as scratch:
        plain, prepared = Path(scratch) / "plain.onnx", Path(scratch) / "prepared.onnx"
        write_onnx(config, weights, plain, growing="gather")
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        with redirect_stdout(io.StringIO()):
            # The calibrator prints its progress.
            quantize_static(
                str(prepared),
                str(path),
                _Tiles(tiles),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(FLOAT_NODES),
                calibrate_method=CalibrationMethod.MinMax,
            )


class _Tiles:
    """A calibration reader: one tile at a time."""

    def __init__(self, tiles: Sequence[Tile]) -> None:
        self._rest: Iterator[Tile] = iter(tiles)

    def get_next(self) -> dict[str, Tile] | None:
        """The next input, None where there is no more."""
        tile = next(self._rest, None)
        return None if tile is None else {"image": tile[None]}
