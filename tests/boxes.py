"""A package of the task `boxes` that needs no training, and made-up fields for it: discs of two sizes, or of two colours.

The network is two matched filters. Each gives a peak where a disc of its own size (or colour) has its middle, which is the centre map
of a class; the sides are those of the class that answers more.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import COLOURS
from cellcount_core.models.engines import load_engine, maps_of
from cellcount_core.models.package import Package, write_package
from cellcount_core.tasks.object_size.looks import encode_diameter

SMALL, LARGE = 16, 32
CLASSES = ("small", "large")
_SIDE = 49
"""Px of the filters' sides."""

Disc = tuple[int, int, int]
"""y, x and diameter in px."""


def disc_image(
    discs: list[Disc], shape: tuple[int, int] = (160, 160), seed: int = 0, bright: int = 3000
) -> NDArray[np.uint16]:
    """Bright discs on noise."""
    image = np.random.default_rng(seed).normal(300, 12, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for top, left, diameter in discs:
        image[(y - top) ** 2 + (x - left) ** 2 < (diameter / 2) ** 2] += bright
    return np.clip(image, 0, 65535).astype(np.uint16)


def grid_of_discs(shape: tuple[int, int], diameter: int, step: int, seed: int = 0) -> list[Disc]:
    """Discs near the crossings of a grid of `step` px."""
    rng = np.random.default_rng(seed)
    places = [(y, x) for y in range(step, shape[0] - step, step) for x in range(step, shape[1] - step, step)]
    jitter = rng.integers(-step // 6, step // 6 + 1, (len(places), 2))
    return [(y + int(dy), x + int(dx), diameter) for (y, x), (dy, dx) in zip(places, jitter, strict=True)]


def box_package(folder: Path, *, roles: tuple[str, ...] = ("cells",), name: str = "discs") -> Package:
    """Write the package. With one role the classes are small and large discs; with three, red and blue ones of one size."""
    import onnx

    folder.mkdir(parents=True)
    classes = CLASSES if len(roles) == 1 else ("reds", "blues")
    sizes = (SMALL, LARGE) if len(roles) == 1 else (SMALL, SMALL)
    onnx.save_model(_graph(_filters(roles, sizes), sizes), folder / "network.onnx")
    section = {
        "classes": list(classes), "maps": [*(f"centre_{one}" for one in classes), "height", "width"], "stride": 1,
        "receptive_radius": _SIDE // 2, "thresholds": dict.fromkeys(classes, 0.5),
    }  # fmt: skip
    manifest = {
        "format": 2, "name": name, "version": "1.0.0", "family": "made_up", "task": "boxes", "object": "Cells",
        "modality": ["made_up"], "boxes": section,
        "input": {"channels": list(roles), "diameter_px": float(SMALL),
                  "normalisation": {"kind": "noise_floor", "percentile": 99.8, "floor_sigmas": 12.0, "polarity": "bright"}},
        "network": {}, "engines": {"onnxruntime": {"file": "network.onnx"}}, "golden": {"file": "golden.npz", "atol": 1e-4},
    }  # fmt: skip
    crop = np.random.default_rng(1).random((1, 64, 64, len(roles)), dtype=np.float32)
    np.savez_compressed(folder / "golden.npz", input=crop, maps=np.zeros((1, 64, 64, 4), np.float32))
    engine = load_engine(write_package(folder, manifest), "onnxruntime", 1)
    np.savez_compressed(folder / "golden.npz", input=crop, maps=maps_of(engine, crop))
    return write_package(folder, manifest)


def _filters(roles: tuple[str, ...], sizes: tuple[int, int]) -> NDArray[np.float32]:
    """(2, C, side, side): each answers 1 in the middle of its own disc of brightness 1, and 0 to a uniform field."""
    far = np.hypot(*np.mgrid[-(_SIDE // 2) : _SIDE // 2 + 1, -(_SIDE // 2) : _SIDE // 2 + 1])
    found = np.zeros((2, len(roles), _SIDE, _SIDE), np.float32)
    for number, size in enumerate(sizes):
        inside, ring = far < size / 2, (far >= size / 2) & (far < size / 2 * 1.4)
        disc = inside / inside.sum() - ring / ring.sum()
        if len(roles) == 1:
            found[number, 0] = disc
            continue
        own, other = (0, 2) if number == 0 else (2, 0)
        found[number, own], found[number, other] = disc, -disc
    return found


def _graph(filters: NDArray[np.float32], sizes: tuple[int, int]) -> object:
    from onnx import TensorProto, helper, numpy_helper

    sides = encode_diameter(np.array(sizes, np.float32)).reshape(1, 2, 1, 1)
    constants = {
        "filters": filters, "low": np.float32(0), "high": np.float32(1), "sides": sides.astype(np.float32),
        "tiny": np.float32(1e-6), "axis": np.array([1], np.int64),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
        node("Conv", ["first", "filters"], ["answer"], pads=[_SIDE // 2] * 4),
        node("Clip", ["answer", "low", "high"], ["centres"]),
        node("Pow", ["centres", "four"], ["weights"]),
        node("Mul", ["weights", "sides"], ["weighted"]),
        node("ReduceSum", ["weighted", "axis"], ["sum"], keepdims=1),
        node("ReduceSum", ["weights", "axis"], ["all"], keepdims=1),
        node("Add", ["all", "tiny"], ["more"]),
        node("Div", ["sum", "more"], ["side"]),
        node("Concat", ["centres", "side", "side"], ["joined"], axis=1),
        node("Transpose", ["joined"], ["maps"], perm=[0, 2, 3, 1]),
    ]
    constants["four"] = np.float32(8)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", "h", "w", filters.shape[1]])
    maps = helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["b", "h", "w", 4])
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    return helper.make_model(
        helper.make_graph(nodes, "discs", [image], [maps], held),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )


__all__ = ["CLASSES", "COLOURS", "LARGE", "SMALL", "box_package", "disc_image", "grid_of_discs"]
