"""A network that tells classes of whole images made in a second without Keras, for tests of whatever counts with such a package.

Filters are drawn at random and stay; their mean and largest responses over the image are what a softmax is fitted on (random features,
Rahimi and Recht 2008), which tells textures and shapes that differ plainly.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import apply, estimate, without_debris
from cellcount_core.images.pixels import resize_to
from cellcount_core.models.manifest import FORMAT
from cellcount_core.models.package import InputSpec, Package, write_package

NETWORK = "network.onnx"
GOLDEN = "golden.npz"
LOGITS, CHANCES = "logits", "chances"
_FILTERS, _SIDE = 24, 7
_DECAY = 1e-2
_OPSET, _IR = 17, 9

Canvases = NDArray[np.float32]


def train_classes(
    folder: Path,
    name: str,
    images: Sequence[tuple[Plane, ...]],
    classes: Sequence[str],
    *,
    roles: tuple[str, ...] = ("image",),
    side_px: int = 64,
    seed: int = 0,
) -> Package:
    """Train on images (raw planes (H, W), one a role) and the class of each, and write the package into `folder`.

    The same images and seed give the same package. Raises ConfigFault for fewer than two classes, or images of other channels.
    """
    named = sorted(set(classes))
    if len(named) < 2 or len(images) != len(classes):
        raise ConfigFault(
            f"{len(images)} images of {len(named)} classes; images of at least two classes expected"
        )
    if any(len(planes) != len(roles) for planes in images):
        raise ConfigFault(f"images of {len(roles)} planes expected ({', '.join(roles)})")
    spec = InputSpec(roles, None, 99.8, 12.0)
    seen = np.stack([canvas_of(planes, spec, side_px) for planes in images])
    filters = _filters(len(roles), seed)
    weights, offset = _softmax(_responses(seen, filters), np.array([named.index(one) for one in classes]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NETWORK).write_bytes(_graph(filters, weights, offset))
    golden = seen[:: max(1, len(seen) // 2)][:2]
    np.savez_compressed(folder / GOLDEN, input=golden, maps=_run(folder / NETWORK, golden))
    return write_package(
        folder,
        {
            "format": FORMAT, "name": name, "version": "1.0.0", "family": "random_features", "task": "classes",
            "modality": ["fluorescence"],
            "input": {
                "channels": list(roles), "diameter_px": None,
                "normalisation": {"kind": "noise_floor", "percentile": spec.percentile, "floor_sigmas": spec.floor_sigmas},
            },
            "network": {"filters": _FILTERS, "side": _SIDE, "seed": seed},
            "classes": {"classes": named, "side_px": side_px},
            "engines": {"onnxruntime": {"file": NETWORK}},
            "golden": {"file": GOLDEN, "atol": 1e-4},
            "training": {"images": len(images)},
        },
    )  # fmt: skip


def canvas_of(planes: Sequence[Plane], spec: InputSpec, side_px: int) -> Canvases:
    """Raw planes (H, W) as the network's input (side, side, C), as a field that is counted is prepared."""
    shown = []
    for plane in planes:
        norm = estimate(
            plane, percentile=spec.percentile, floor_sigmas=spec.floor_sigmas, polarity=spec.polarity
        )
        shown.append(apply(resize_to(without_debris(plane, norm), (side_px, side_px)), norm))
    return np.stack(shown, axis=-1).astype(np.float32)


def _filters(channels: int, seed: int) -> NDArray[np.float32]:
    """Random filters (F, C, 7, 7) whose weights add up to 0: they see texture, and no level."""
    drawn = np.random.default_rng(seed).normal(size=(_FILTERS, channels, _SIDE, _SIDE))
    drawn -= drawn.mean(axis=(1, 2, 3), keepdims=True)
    drawn /= np.sqrt((drawn**2).sum(axis=(1, 2, 3), keepdims=True))
    return np.asarray(drawn, np.float32)


def _responses(seen: Canvases, filters: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean and largest response of each filter: (N, 2 F)."""
    identity = np.eye(2 * _FILTERS, dtype=np.float32)
    body = _graph(filters, identity, np.zeros(2 * _FILTERS, np.float32), LOGITS)
    return _run(body, seen).astype(np.float64)


def _softmax(
    responses: NDArray[np.float64], truth: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (2 F, K) and offsets (K,) of a multinomial logistic regression; responses are scaled to unit variance meanwhile."""
    mean, scale = responses.mean(axis=0), responses.std(axis=0) + 1e-6
    x = (responses - mean) / scale
    wanted = np.eye(int(truth.max()) + 1)[truth]
    shape = (x.shape[1] + 1, wanted.shape[1])
    known = np.hstack([x, np.ones((len(x), 1))])

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        given = flat.reshape(shape)
        logits = known @ given
        logits -= logits.max(axis=1, keepdims=True)
        chances = np.exp(logits)
        chances /= chances.sum(axis=1, keepdims=True)
        decay = _DECAY * given
        decay[-1] = 0
        error = -float(np.log(np.maximum(chances[wanted > 0], 1e-12)).mean()) + 0.5 * float(
            (decay * given).sum()
        )
        return error, (known.T @ (chances - wanted) / len(x) + decay).ravel()

    found = optimize.minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B").x.reshape(shape)
    weights = found[:-1] / scale[:, None]
    return weights.astype(np.float32), (found[-1] - mean @ weights).astype(np.float32)


def _graph(
    filters: NDArray[np.float32],
    weights: NDArray[np.float32],
    offset: NDArray[np.float32],
    out: str = CHANCES,
) -> bytes:
    """Image (B, H, W, C) -> filters -> mean and largest response -> one number a class (B, K), as ONNX."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "filters"], ["filtered"], pads=[_SIDE // 2] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["filtered"], ["response"]),
        helper.make_node("GlobalAveragePool", ["response"], ["mean"]),
        helper.make_node("GlobalMaxPool", ["response"], ["largest"]),
        helper.make_node("Concat", ["mean", "largest"], ["both"], axis=1),
        helper.make_node("Flatten", ["both"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "offset"], [LOGITS]),
        *([helper.make_node("Softmax", [LOGITS], [CHANCES], axis=1)] if out == CHANCES else []),
    ]
    constants = [
        numpy_helper.from_array(array, name)
        for name, array in (("filters", filters), ("weights", weights), ("offset", offset))
    ]
    image = helper.make_tensor_value_info(
        "image", TensorProto.FLOAT, ["batch", "height", "width", filters.shape[1]]
    )
    given = helper.make_tensor_value_info(out, TensorProto.FLOAT, ["batch", offset.size])
    model = helper.make_model(
        helper.make_graph(nodes, "classes", [image], [given], constants),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
        producer_name="cellcount",
    )
    body: bytes = model.SerializeToString()
    return body


def _run(model: Path | bytes, seen: Canvases) -> NDArray[np.float32]:
    from cellcount_core.models.engines.onnx import keep_onnxruntime_silent

    keep_onnxruntime_silent()
    import onnxruntime as ort

    session = ort.InferenceSession(
        model if isinstance(model, bytes) else str(model), providers=["CPUExecutionProvider"]
    )
    return np.concatenate([session.run(None, {"image": one[None]})[0] for one in seen])
