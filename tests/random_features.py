"""A package of the family `pooled` that tells classes of whole images, made in a second without Keras, for tests of whatever counts with one.

Its convolutions are drawn at random and stay; the means and maxima of their maps are what the last layer is fitted on (random features,
Rahimi and Recht 2008), which tells textures and shapes that differ plainly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import apply, estimate, without_debris
from cellcount_core.images.pixels import resize_to
from cellcount_core.models.families import LOGITS
from cellcount_core.models.families.onnx_graph import Weights
from cellcount_core.models.families.pooled import FEATURES, pooled_graph
from cellcount_core.models.manifest import FORMAT
from cellcount_core.models.package import InputSpec, Package, write_package
from cellcount_core.training.fit import fit_domain

NETWORK = "network.onnx"
GOLDEN = "golden.npz"
_LEVELS = (24, 32)
_VECTOR = 2 * _LEVELS[-1]
_DECAY = 1e-2

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
    features: int = 0,
) -> Package:
    """Train on images (raw planes (H, W), one a role) and the class of each, and write the package into `folder`. With `features`, principal
    components of what the last layer sees describe the images, and the package says what is typical of them.

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
    drawn = _drawn(len(roles), seed)
    vectors = _vectors(seen, drawn)
    last = _softmax(vectors, np.array([named.index(one) for one in classes]))
    network = _network(len(roles), len(named), features)
    described, domain = _components(vectors, features) if features else ({}, {})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NETWORK).write_bytes(
        pooled_graph(network, {**drawn, LOGITS: last, **described}).SerializeToString()
    )
    golden = seen[:: max(1, len(seen) // 2)][:2]
    np.savez_compressed(folder / GOLDEN, input=golden, maps=_run(folder / NETWORK, golden))
    return write_package(
        folder,
        {
            "format": FORMAT, "name": name, "version": "1.0.0", "family": "pooled", "task": "classes",
            "modality": ["fluorescence"],
            "input": {
                "channels": list(roles), "diameter_px": None,
                "normalisation": {"kind": "noise_floor", "percentile": spec.percentile, "floor_sigmas": spec.floor_sigmas},
            },
            "network": network,
            "classes": {"classes": named, "side_px": side_px, "features": features}, **domain,
            "engines": {"onnxruntime": {"file": NETWORK}},
            "golden": {"file": GOLDEN, "atol": 1e-4},
            "training": {"images": len(images)},
        },
    )  # fmt: skip


def _components(vectors: NDArray[np.float64], features: int) -> tuple[Weights, dict[str, object]]:
    """The last layer that describes images by their first principal components, and the manifest's domain of the images."""
    mean = vectors.mean(axis=0)
    _, spread, axes = np.linalg.svd(vectors - mean, full_matrices=False)
    kernel = axes[:features].T / spread[:features] * np.sqrt(len(vectors))
    domain = fit_domain(
        tuple(f"component_{number}" for number in range(features)),
        [tuple(row) for row in (vectors - mean) @ kernel],
        [],
    )
    assert domain is not None
    return {FEATURES: (kernel.astype(np.float32), (-mean @ kernel).astype(np.float32))}, {
        "domain": asdict(domain)
    }


def canvas_of(planes: Sequence[Plane], spec: InputSpec, side_px: int) -> Canvases:
    """Raw planes (H, W) as the network's input (side, side, C), as a field that is counted is prepared."""
    shown = []
    for plane in planes:
        norm = estimate(
            plane, percentile=spec.percentile, floor_sigmas=spec.floor_sigmas, polarity=spec.polarity
        )
        shown.append(apply(resize_to(without_debris(plane, norm), (side_px, side_px)), norm))
    return np.stack(shown, axis=-1).astype(np.float32)


def _network(channels: int, classes: int, features: int = 0) -> dict[str, object]:
    return {
        "preset": "compact", "inputs": channels, "outputs": classes, "features": features, "filters": list(_LEVELS), "convolutions": [1, 1],
        "residual": False, "batch_norm": False,
    }  # fmt: skip


def _drawn(channels: int, seed: int) -> Weights:
    """Random kernels (h, w, before, after) that give variance 1; those of the first layer add up to 0: they see texture, and no level."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    before = channels
    for name, side, after in (
        ("stem", 4, _LEVELS[0]),
        *((f"down{n}_0", 3, w) for n, w in enumerate(_LEVELS)),
    ):
        kernel = rng.normal(size=(side, side, before, after)) * np.sqrt(2 / (side * side * before))
        if name == "stem":
            kernel -= kernel.mean(axis=(0, 1, 2), keepdims=True)
        drawn[name] = kernel.astype(np.float32), np.zeros(after, np.float32)
        before = after
    return drawn


def _vectors(seen: Canvases, drawn: Weights) -> NDArray[np.float64]:
    """What the last layer sees of each image (N, F): the vector that a network gives whose features are that vector."""
    blind = np.zeros((_VECTOR, 2), np.float32), np.zeros(2, np.float32)
    itself = np.eye(_VECTOR, dtype=np.float32), np.zeros(_VECTOR, np.float32)
    body = pooled_graph(_network(seen.shape[-1], 2, _VECTOR), {**drawn, LOGITS: blind, FEATURES: itself})
    return _run(body.SerializeToString(), seen)[:, 2:].astype(np.float64)


def _softmax(
    responses: NDArray[np.float64], truth: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (F, K) and offsets (K,) of a multinomial logistic regression; responses are scaled to unit variance meanwhile."""
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


def _run(model: Path | bytes, seen: Canvases) -> NDArray[np.float32]:
    from cellcount_core.models.engines.onnx import keep_onnxruntime_silent

    keep_onnxruntime_silent()
    import onnxruntime as ort

    session = ort.InferenceSession(
        model if isinstance(model, bytes) else str(model), providers=["CPUExecutionProvider"]
    )
    return np.concatenate([session.run(None, {"image": one[None]})[0] for one in seen])
