"""The `pooled` family: networks that look at an image (S, S, C) as a whole and give one vector.

Convolutions and pooling, then one vector of the whole image, then dense layers. The vector begins with one number for each class, softmax
or sigmoid; behind it come `features` numbers that describe the image (see `fit_features`), by which images unlike the training set are told.

Two presets fill in what a configuration leaves out. `seed` is the sequence of layers that the first networks of class folders had: nine
convolutions, 16-16-16-32-32-32-64-64-64, with pooling after each three, and a dense layer of 512 on all of their pixels. `compact` is a small
residual network at half resolution whose maps are pooled into means and maxima, so that it has 0.3 million parameters at any side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault, nearest
from cellcount_core.models.families import LOGITS
from cellcount_core.models.families.onnx_graph import Graph, Weights, checked_model
from cellcount_core.models.families.unet import fold_into, integer, integers, layer_class, one_of

if TYPE_CHECKING:
    import keras
    import onnx

FEATURES = "features"
"""Name of the layer that describes the image."""

BACKBONE = "backbone"
"""Name of the network of keras.applications within a network."""

POOLED = "pooled"
"""Name of the layer that gives the vector which the last dense layer sees."""

_STEM_KERNEL = 4

PRESETS: Mapping[str, Mapping[str, object]] = {
    "seed": {
        "stem": 1, "filters": [16, 32, 64], "convolutions": [3, 3, 3], "residual": False, "batch_norm": False, "pool": "flatten",
        "dense": [512], "dropout": 0.0,
    },
    "compact": {
        "stem": 2, "filters": [16, 32, 64, 128], "convolutions": [1, 2, 2, 2], "residual": True, "batch_norm": True, "pool": "both",
        "dense": [], "dropout": 0.2,
    },
}  # fmt: skip
"""What a configuration means by the name of a preset."""

_ENDS: Mapping[str, object] = {
    "preset": "compact", "inputs": 1, "outputs": 1, "output": "softmax", "side": 0, "features": 0, "heads": 1, "backbone": "",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PooledConfig:
    """A network of whole images.

    `output` is "softmax" (one of several) or "sigmoid" (each for itself). `stem` is 1, or 2 if the network works at half resolution.
    `filters` and `convolutions` give each level's channels and its number of 3x3 convolutions; the sides are halved between levels, and after
    the last one too if `pool` is "flatten". `residual` adds the input of a convolution to its output where both have as many channels. `pool`
    makes one vector of the last maps: all their pixels ("flatten", for images of `side` px alone), their means ("average"), or their means and
    maxima ("both"). `dense` are the widths of hidden layers. `dropout` is the share of the last vector that is left out while it trains.
    `heads` cuts the hidden layers and the outputs into so many equal groups, none of which sees the units of another. `backbone` names a network
    of keras.applications that takes the place of the convolutions; it runs by Keras alone.
    """

    inputs: int
    outputs: int
    output: str
    side: int
    stem: int
    filters: tuple[int, ...]
    convolutions: tuple[int, ...]
    residual: bool
    batch_norm: bool
    pool: str
    dense: tuple[int, ...]
    dropout: float
    features: int
    heads: int
    backbone: str

    def settings(self) -> dict[str, object]:
        """All of it by name."""
        return asdict(self)


def parse_pooled(config: Mapping[str, object]) -> PooledConfig:
    """Check a network's configuration, and fill what it leaves out from its preset.

    Raises ModelFault naming the key and what was expected.
    """
    preset = one_of(config.get("preset", _ENDS["preset"]), "preset", tuple(PRESETS))
    known = {**_ENDS, **PRESETS[preset]}
    for key in config:
        if key not in known:
            raise ModelFault(f"network.{key}: unknown{nearest(key, list(known))}")
    merged = {**known, **config}
    filters = integers(merged["filters"], "filters")
    dense = merged["dense"]
    parsed = PooledConfig(
        inputs=integer(merged["inputs"], "inputs"),
        outputs=integer(merged["outputs"], "outputs"),
        output=one_of(merged["output"], "output", ("softmax", "sigmoid")),
        side=_from_0(merged["side"], "side"),
        stem=integer(merged["stem"], "stem"),
        filters=filters,
        convolutions=integers(merged["convolutions"], "convolutions"),
        residual=bool(merged["residual"]),
        batch_norm=bool(merged["batch_norm"]),
        pool=one_of(merged["pool"], "pool", ("flatten", "average", "both")),
        dense=() if isinstance(dense, Sequence) and not dense else integers(dense, "dense"),
        dropout=_share(merged["dropout"], "dropout"),
        features=_from_0(merged["features"], "features"),
        heads=integer(merged["heads"], "heads"),
        backbone=str(merged["backbone"]),
    )
    _check_heads(parsed)
    if parsed.stem not in (1, 2):
        raise ModelFault(f"network.stem: 1 or 2 expected (got {parsed.stem})")
    if len(parsed.convolutions) != len(filters):
        raise ModelFault(
            f"network: {len(filters)} levels need as many entries in `convolutions` (got {len(parsed.convolutions)})"
        )
    if parsed.pool == "flatten" and (not parsed.side or parsed.side % _stride(parsed)):
        raise ModelFault(
            f"network.side: the side of the images in px, a multiple of {_stride(parsed)}, is needed for `pool: flatten` (got {parsed.side})"
        )
    return parsed


def _check_heads(spec: PooledConfig) -> None:
    if spec.heads == 1:
        return
    if not spec.dense:
        raise ModelFault(
            f"network.heads: {spec.heads} heads need a hidden layer to have one each: network.dense, for example [256]"
        )
    for number, what in ((spec.outputs, "outputs"), *((width, "units of `dense`") for width in spec.dense)):
        if number % spec.heads:
            raise ModelFault(
                f"network.heads: {number} {what} cannot be shared equally among {spec.heads} heads"
            )


def _stride(spec: PooledConfig) -> int:
    if spec.backbone:
        return 32
    return int(spec.stem * 2 ** (len(spec.filters) - (0 if spec.pool == "flatten" else 1)))


def pooled_stride(config: Mapping[str, object]) -> int:
    """The side of the images must be a multiple of this (px)."""
    return _stride(parse_pooled(config))


def build_pooled(config: Mapping[str, object], *, dtype: str = "float32") -> keras.Model:
    """Build the network, from (B, S, S, inputs) float32 to (B, outputs + features) float32.

    `dtype` is the Keras policy of the layers in between. Raises ModelFault if the configuration is not valid.
    """
    import keras

    spec = parse_pooled(config)
    layers = keras.layers
    side = spec.side if spec.pool == "flatten" else None
    image = keras.Input((side, side, spec.inputs), name="image")
    x = _backbone(image, spec) if spec.backbone else _convolutions(image, spec, dtype)
    x = _vector(x, spec, dtype)
    for number, width in enumerate(spec.dense):
        own = _within_heads(spec, spec.dense[number - 1], width) if number else {}
        x = layers.Dense(width, activation="relu", dtype=dtype, name=f"dense{number}", **own)(x)
    x = layers.Activation("linear", dtype="float32", name=POOLED)(x)
    seen = layers.Dropout(spec.dropout, dtype="float32", name="dropout")(x) if spec.dropout else x
    own = _within_heads(spec, spec.dense[-1], spec.outputs) if spec.dense else {}
    logits = layers.Dense(spec.outputs, dtype="float32", name=LOGITS, **own)(seen)
    told = layers.Activation(spec.output, dtype="float32", name="told")(logits)
    if not spec.features:
        return keras.Model(image, told, name="pooled")
    described = layers.Dense(spec.features, dtype="float32", name=FEATURES)(x)
    return keras.Model(
        image, layers.Concatenate(dtype="float32", name="vector")([told, described]), name="pooled"
    )


def _convolutions(x: keras.KerasTensor, spec: PooledConfig, dtype: str) -> keras.KerasTensor:
    if spec.stem == 2:
        x = _convolve(x, spec, dtype, spec.filters[0], "stem", kernel=_STEM_KERNEL, strides=2)
    for level, width in enumerate(spec.filters):
        for index in range(spec.convolutions[level]):
            x = _convolve(x, spec, dtype, width, f"down{level}_{index}")
        if level < len(spec.filters) - 1 or spec.pool == "flatten":
            x = layer_class("MaxPooling2D")(2, dtype=dtype, name=f"pool{level}")(x)
    return x


def _backbone(image: keras.KerasTensor, spec: PooledConfig) -> keras.KerasTensor:
    """The maps of a network of keras.applications. A convolution makes the three channels that it looks at of the image's."""
    import keras

    layers = keras.layers
    known = sorted(name for name in dir(keras.applications) if name[:1].isupper())
    if spec.backbone not in known:
        raise ModelFault(
            f"network.backbone: {spec.backbone!r} is no network of keras.applications{nearest(spec.backbone, known)}"
        )
    colours = layers.Conv2D(3, 1, use_bias=True, kernel_initializer=_mean_of(spec.inputs), name="colours")(
        image
    )
    colours = layers.Rescaling(255.0, name="levels")(colours)
    body = getattr(keras.applications, spec.backbone)(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    body.name = BACKBONE
    return body(colours)


def _mean_of(inputs: int) -> keras.initializers.Initializer:
    import keras

    if inputs == 3:
        return keras.initializers.Identity()
    return keras.initializers.Constant(1 / inputs)


def load_backbone(network: keras.Model, name: str, weights: str) -> None:
    """Load the weights of a backbone: from a file, or "imagenet" from the cache of Keras or from where Keras fetches them.

    Raises ModelFault in words if they cannot be had, or are those of another network.
    """
    import keras

    body = network.get_layer(BACKBONE)
    if weights != "imagenet":
        try:
            body.load_weights(weights)
        except (OSError, ValueError, KeyError) as error:
            raise ModelFault(
                f"backbone_weights: {weights}: not weights of {name}, without its last layers: {error}"
            ) from error
        return
    try:
        given = getattr(keras.applications, name)(
            include_top=False, weights="imagenet", input_shape=(None, None, 3)
        )
    except Exception as error:  # Keras raises Exception itself where a download fails, and others for what stands in its cache
        raise ModelFault(
            f"backbone_weights: those of {name} for imagenet are neither in the cache of Keras ({keras.config.keras_home()}/models) nor can they be "
            f"fetched here ({str(error).splitlines()[0]:.160}); give the path of a file of weights without the last layers (…_notop.h5)"
        ) from error
    body.set_weights(given.get_weights())


def _within_heads(spec: PooledConfig, before: int, after: int) -> dict[str, object]:
    """What keeps a dense layer's weights between units of one head, the others 0."""
    if spec.heads == 1:
        return {}
    import keras
    from keras import ops

    block = np.kron(
        np.eye(spec.heads, dtype=np.float32), np.ones((before // spec.heads, after // spec.heads), np.float32)
    )

    class Within(keras.constraints.Constraint):  # type: ignore[misc]
        def __call__(self, weights: keras.KerasTensor) -> keras.KerasTensor:
            return weights * ops.cast(ops.convert_to_tensor(block), weights.dtype)

    drawn = keras.initializers.GlorotUniform()
    return {
        "kernel_initializer": lambda shape, dtype=None: Within()(drawn(shape, dtype=dtype)),
        "kernel_constraint": Within(),
    }


def _convolve(
    x: keras.KerasTensor,
    spec: PooledConfig,
    dtype: str,
    width: int,
    name: str,
    *,
    kernel: int = 3,
    strides: int = 1,
) -> keras.KerasTensor:
    import keras

    layers = keras.layers
    y = layer_class("Conv2D")(
        width, kernel, strides=strides, padding="same", use_bias=not spec.batch_norm, kernel_initializer="he_normal", dtype=dtype, name=name
    )(x)  # fmt: skip
    if spec.batch_norm:
        y = layer_class("BatchNormalization")(momentum=0.97, dtype=dtype, name=f"{name}_norm")(y)
    if _adds(spec, x.shape[-1], width, strides):
        y = layers.Add(dtype=dtype, name=f"{name}_sum")([x, y])
    return layers.Activation("relu", dtype=dtype, name=f"{name}_relu")(y)


def _adds(spec: PooledConfig, before: int | None, width: int, strides: int) -> bool:
    return spec.residual and before == width and strides == 1


def _vector(x: keras.KerasTensor, spec: PooledConfig, dtype: str) -> keras.KerasTensor:
    import keras

    layers = keras.layers
    if spec.pool == "flatten":
        return layers.Flatten(dtype=dtype, name="flat")(x)
    mean = layers.GlobalAveragePooling2D(dtype=dtype, name="mean")(x)
    if spec.pool == "average":
        return mean
    largest = layers.GlobalMaxPooling2D(dtype=dtype, name="largest")(x)
    return layers.Concatenate(dtype=dtype, name="flat")([mean, largest])


def fold_pooled(config: Mapping[str, object], network: keras.Model) -> tuple[dict[str, object], keras.Model]:
    """The same network without batch normalisation, which is put into the convolutions, and its configuration."""
    if parse_pooled(config).backbone:
        return dict(config), network
    folded_config = {**config, "batch_norm": False}
    folded = build_pooled(folded_config)
    fold_into(folded, network)
    return folded_config, folded


def fit_features(network: keras.Model, pooled: NDArray[np.float32]) -> None:
    """Set the layer `features` from the vectors (N, F) that training images have in the layer `pooled`.

    Its numbers are the principal components of these vectors, each with mean 0 and variance 1 over the images. Components that do not vary
    are 0.
    """
    layer = network.get_layer(FEATURES)
    count = layer.units
    mean = pooled.mean(axis=0, dtype=np.float64)
    _, spread, axes = np.linalg.svd(pooled - mean, full_matrices=False)
    kernel = np.zeros((pooled.shape[1], count))
    for number in range(min(count, len(spread))):
        sd = spread[number] / math.sqrt(max(1, len(pooled) - 1))
        if sd > 1e-6 * max(1e-12, float(spread[0])):
            # The sign of a component is arbitrary: its largest part is made positive, so that equal runs give equal files.
            axis = axes[number] * np.sign(axes[number][np.argmax(np.abs(axes[number]))])
            kernel[:, number] = axis / sd
    layer.set_weights([kernel.astype(np.float32), (-mean @ kernel).astype(np.float32)])


def float_nodes(config: Mapping[str, object]) -> tuple[str, ...]:
    """Nodes that integers would not run faster, and all that comes after the convolutions."""
    dense = tuple(
        f"dense{number}{end}" for number in range(len(parse_pooled(config).dense)) for end in ("", "_linear")
    )
    return (
        "stem_linear",
        "stem",
        "mean",
        "largest",
        "flat",
        "both",
        "flat_last",
        *dense,
        LOGITS,
        FEATURES,
        "told",
        "vector",
    )


def pooled_graph(config: Mapping[str, object], weights: Weights) -> onnx.ModelProto:
    """The network in ONNX: input "image" (B, S, S, inputs) float32, output (B, outputs + features) float32.

    Raises ModelFault if the configuration keeps batch normalisation, or the weights are not those of its layers.
    """
    spec = parse_pooled(config)
    if spec.backbone:
        raise ModelFault(f"network.backbone: {spec.backbone} is not written as ONNX; it runs by Keras")
    if spec.batch_norm:
        raise ModelFault("network.batch_norm: fold it into the convolutions before the network becomes ONNX")
    graph = Graph(weights, "resize")
    x = graph.add("Transpose", ["image"], "image_first", perm=[0, 3, 1, 2])
    before = spec.inputs
    if spec.stem == 2:
        x, before = graph.convolve(x, "stem", stride=2), spec.filters[0]
    for level, width in enumerate(spec.filters):
        for index in range(spec.convolutions[level]):
            name = f"down{level}_{index}"
            if _adds(spec, before, width, 1):
                y = graph.convolve(x, name, activation=None)
                x = graph.add("Relu", [graph.add("Add", [x, y], f"{name}_sum")], f"{name}_relu")
            else:
                x = graph.convolve(x, name)
            before = width
        if level < len(spec.filters) - 1 or spec.pool == "flatten":
            x = graph.add("MaxPool", [x], f"pool{level}", kernel_shape=[2, 2], strides=[2, 2])
    x = _flat(graph, spec, x)
    for number in range(len(spec.dense)):
        x = graph.add("Relu", [graph.dense(x, f"dense{number}", f"dense{number}_linear")], f"dense{number}")
    told = graph.dense(x, LOGITS, LOGITS)
    told = (
        graph.add("Softmax", [told], "told", axis=1)
        if spec.output == "softmax"
        else graph.add("Sigmoid", [told], "told")
    )
    out = told
    if spec.features:
        out = graph.add("Concat", [told, graph.dense(x, FEATURES, FEATURES)], "vector", axis=1)
    sides: list[int | str] = [spec.side, spec.side] if spec.pool == "flatten" else ["height", "width"]
    return checked_model(
        graph, "pooled", ["batch", *sides, spec.inputs], out, ["batch", spec.outputs + spec.features]
    )


def _flat(graph: Graph, spec: PooledConfig, x: str) -> str:
    if spec.pool == "flatten":
        # Keras flattens with channels last.
        return graph.add("Flatten", [graph.add("Transpose", [x], "flat_last", perm=[0, 2, 3, 1])], "flat")
    mean = graph.add("GlobalAveragePool", [x], "mean")
    if spec.pool == "average":
        return graph.add("Flatten", [mean], "flat")
    both = graph.add("Concat", [mean, graph.add("GlobalMaxPool", [x], "largest")], "both", axis=1)
    return graph.add("Flatten", [both], "flat")


def _from_0(value: object, key: str) -> int:
    return 0 if value == 0 and not isinstance(value, bool) else integer(value, key)


def _share(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ModelFault(f"network.{key}: a number from 0 to below 1 expected (got {value!r})")
    return float(value)
