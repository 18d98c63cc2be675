"""A package that tells two patterns, made in a moment without Keras, and the settings of a tiny training on made-up images of 28."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cellcount_core.demo.patterns import CHANNELS, NAMES, PatternScene, write_patterns
from cellcount_core.models.manifest import FORMAT
from cellcount_core.models.package import Package, write_package
from cellcount_core.tasks.patterns.learn import PatternsConfig

SIDE = 100


def pattern_package(folder: Path, channels: tuple[str, ...] = ("image",)) -> Package:
    """By the first of its channels: "bright" where the brightest pixel is bright, "broad" where a fifth of an image is."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("GlobalMaxPool", ["first"], ["largest"]),
        helper.make_node("GlobalAveragePool", ["first"], ["mean"]),
        helper.make_node("Concat", ["largest", "mean"], ["both"], axis=1),
        helper.make_node("Flatten", ["both"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "offset"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["chances"]),
    ]
    count = len(channels)
    weights = np.zeros((2 * count, 2), np.float32)
    weights[0, 0], weights[count, 1] = 20.0, 40.0
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.array([-14.0, -9.0], np.float32), "offset"),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "patterns",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", "height", "width", count])],
            [helper.make_tensor_value_info("chances", TensorProto.FLOAT, ["batch", 2])],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    folder.mkdir(parents=True, exist_ok=True)
    body = model.SerializeToString()
    (folder / "network.onnx").write_bytes(body)
    seen = np.random.default_rng(0).random((2, SIDE, SIDE, count), dtype=np.float32)
    session = ort.InferenceSession(body, providers=["CPUExecutionProvider"])
    np.savez_compressed(folder / "golden.npz", input=seen, maps=session.run(None, {"image": seen})[0])
    return write_package(
        folder,
        {
            "format": FORMAT, "name": "bright", "version": "1.0.0", "family": "made_up", "task": "patterns", "modality": ["fluorescence"],
            "input": {
                "channels": list(channels), "diameter_px": None,
                "normalisation": {"kind": "noise_floor", "percentile": 99.8, "floor_sigmas": 12.0},
            },
            "network": {}, "patterns": {"patterns": ["bright", "broad"], "thresholds": [0.5, 0.5], "side_px": SIDE},
            "engines": {"onnxruntime": {"file": "network.onnx"}}, "golden": {"file": "golden.npz", "atol": 1e-4}, "training": {},
        },
    )  # fmt: skip


def tiny_patterns(folder: Path, images: int = 80, **changes: object) -> PatternsConfig:
    """A training on made-up images in `folder`, which are written unless they are there, of a network that has a few filters."""
    if not (folder / "made").exists():
        write_patterns(folder / "made", images, PatternScene(common=0.4, rarest=4), 0)
    tree: dict[str, object] = {
        "name": "tiny", "task": "patterns", "patterns": str(folder / "made" / NAMES), "input": {"channels": list(CHANNELS)},
        "data": {"path": str(folder / "made"), "validation_share": 0.25, "fit_share": 0.25},
        "network": {"preset": "compact", "stem": 1, "filters": [4, 8], "convolutions": [1, 1], "dropout": 0.0}, "features": 2,
        "steps": 12, "batch": 8, "crop_px": 24, "checkpoint_every": 4, "validate_every": 8, "threads": 1, "int8": "off",
        "optimiser": {"learning_rate": 0.01, "ema": 0.9, "schedule": "constant"},
        "work_dir": str(folder / "work"), "package_dir": str(folder / "package"),
    }  # fmt: skip
    return PatternsConfig.model_validate({**tree, **changes})
