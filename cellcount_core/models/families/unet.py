"""The `unet` family: one builder in Keras 3 for networks from the seed's five levels to the compact one.

Everything in such a network is local: convolutions with zero padding, pooling, up-sampling, batch normalisation. So a tile that is
aligned to `stride(config)` gives the same maps as the uncut image from `receptive_radius(config)` pixels away from a cut edge on.

Layers are Keras's own. On PyTorch they use its fused channels-last operations: Keras would copy every tensor to channels first and back
around each operation and compute batch normalisation term by term, which on a CPU costs about as much as the convolutions.
Variables, their names and the results are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING

from cellcount_core.domain.errors import ModelFault, nearest
from cellcount_core.models.families import LOGITS

if TYPE_CHECKING:
    import keras
    import torch


def layer_class(name: str) -> type[keras.layers.Layer]:
    """The class of `keras.layers` of that name, in the form that the present backend runs best."""
    import keras

    known: type[keras.layers.Layer] = getattr(keras.layers, name)
    return _on_torch().get(name, known) if keras.backend.backend() == "torch" else known


@cache
def _on_torch() -> dict[str, type[keras.layers.Layer]]:
    import keras
    from torch.nn import functional

    def first(x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 3, 1, 2)

    def last(x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1)

    class Conv2D(keras.layers.Conv2D):  # type: ignore[misc]
        def convolution_op(self, inputs: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
            side, step = self.kernel_size[0], self.strides[0]
            # An odd rest of padding goes to one side only, which PyTorch's symmetric padding cannot do.
            if (
                self.padding != "same"
                or (side - step) % 2
                or inputs.shape[1] % step
                or inputs.shape[2] % step
            ):
                return super().convolution_op(inputs, kernel)
            weights = keras.ops.convert_to_tensor(kernel).permute(3, 2, 0, 1)
            return last(functional.conv2d(first(inputs), weights, stride=step, padding=(side - step) // 2))

    class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
        def call(self, inputs: torch.Tensor, training: bool | None = None, mask: None = None) -> torch.Tensor:
            return last(
                functional.batch_norm(
                    first(inputs),
                    self.moving_mean.value,
                    self.moving_variance.value,
                    self.gamma.value,
                    self.beta.value,
                    training=bool(training) and self.trainable,
                    momentum=1 - self.momentum,
                    eps=self.epsilon,
                )
            )

    class MaxPooling2D(keras.layers.MaxPooling2D):  # type: ignore[misc]
        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            return last(functional.max_pool2d(first(inputs), self.pool_size, self.strides))

    class UpSampling2D(keras.layers.UpSampling2D):  # type: ignore[misc]
        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            return last(functional.interpolate(first(inputs), scale_factor=tuple(map(float, self.size))))

    return {kind.__name__: kind for kind in (Conv2D, BatchNormalization, MaxPooling2D, UpSampling2D)}


@dataclass(frozen=True, slots=True)
class UnetConfig:
    """A network, level by level from the finest.

    `stem` is 1 (full resolution) or 2 (the network works at half resolution, and its last layer doubles it). `filters`,
    `encoder` and `decoder` give each level's channels and its number of 3x3 convolutions on the way down and up (`decoder`
    has one entry less). `skip` joins by "concat" or "add". `up` is "convolve" (up-sampling, then a 2x2 convolution, as in
    Ronneberger et al. 2015 and its common Keras ports) or "project" (1x1 convolution, then up-sampling).
    """

    inputs: int
    outputs: int
    stem: int
    filters: tuple[int, ...]
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    skip: str
    up: str
    batch_norm: bool

    def settings(self) -> dict[str, object]:
        """All of it by name."""
        return asdict(self)


_DEFAULTS: dict[str, object] = {
    "inputs": 1, "outputs": 1, "stem": 1, "filters": [64, 128, 256, 512, 1024], "encoder": None, "decoder": None,
    "skip": "concat", "up": "convolve", "batch_norm": False,
}  # fmt: skip
_STEM_KERNEL = 4
_UP_KERNEL = 2


def parse_unet(config: Mapping[str, object]) -> UnetConfig:
    """Check a network's configuration, and fill what it leaves out with the seed's values.

    Raises ModelFault naming the key and what was expected.
    """
    for key in config:
        if key not in _DEFAULTS:
            raise ModelFault(f"network.{key}: unknown{nearest(key, list(_DEFAULTS))}")
    merged = {**_DEFAULTS, **config}
    filters = integers(merged["filters"], "filters")
    levels = len(filters)
    parsed = UnetConfig(
        inputs=integer(merged["inputs"], "inputs"),
        outputs=integer(merged["outputs"], "outputs"),
        stem=integer(merged["stem"], "stem"),
        filters=filters,
        encoder=(2,) * levels if merged["encoder"] is None else integers(merged["encoder"], "encoder"),
        decoder=(2,) * (levels - 1) if merged["decoder"] is None else integers(merged["decoder"], "decoder"),
        skip=one_of(merged["skip"], "skip", ("concat", "add")),
        up=one_of(merged["up"], "up", ("convolve", "project")),
        batch_norm=bool(merged["batch_norm"]),
    )
    if parsed.stem not in (1, 2):
        raise ModelFault(f"network.stem: 1 or 2 expected (got {parsed.stem})")
    if len(parsed.encoder) != levels or len(parsed.decoder) != levels - 1:
        raise ModelFault(
            f"network: {levels} levels need {levels} entries in `encoder` and {levels - 1} in `decoder` "
            f"(got {len(parsed.encoder)} and {len(parsed.decoder)})"
        )
    return parsed


def build_unet(config: Mapping[str, object], *, dtype: str = "float32") -> keras.Model:
    """Build the network, from (B, H, W, inputs) float32, H and W multiples of `stride(config)`, to (B, H, W, outputs) float32.

    The outputs are sigmoids in 0..1. `dtype` is the Keras policy of the layers in between ("mixed_bfloat16" trains faster
    on processors that have it). Raises ModelFault if the configuration is not valid.
    """
    import keras

    spec = parse_unet(config)
    layers = keras.layers
    image = keras.Input((None, None, spec.inputs), name="image")
    x = image
    if spec.stem == 2:
        x = _block(x, spec, dtype, spec.filters[0], kernel=_STEM_KERNEL, strides=2, name="stem")
    skips = []
    last = len(spec.filters) - 1
    for level, width in enumerate(spec.filters):
        for index in range(spec.encoder[level]):
            x = _block(x, spec, dtype, width, name=f"down{level}_{index}")
        if level < last:
            skips.append(x)
            x = layer_class("MaxPooling2D")(2, dtype=dtype, name=f"pool{level}")(x)
    for level in range(last - 1, -1, -1):
        x = _raise_level(x, skips[level], spec, dtype, level)
        for index in range(spec.decoder[level]):
            x = _block(x, spec, dtype, spec.filters[level], name=f"up{level}_{index}")
    if spec.stem == 2:
        logits = layers.Conv2DTranspose(spec.outputs, 2, strides=2, padding="same", dtype=dtype, name=LOGITS)(
            x
        )
    else:
        logits = layers.Conv2D(spec.outputs, 1, dtype=dtype, name=LOGITS)(x)
    maps = layers.Activation("sigmoid", dtype="float32", name="maps")(logits)
    return keras.Model(image, maps, name="unet")


def _raise_level(
    x: keras.KerasTensor, skip: keras.KerasTensor, spec: UnetConfig, dtype: str, level: int
) -> keras.KerasTensor:
    import keras

    layers = keras.layers
    width = spec.filters[level]
    grow = layer_class("UpSampling2D")(2, interpolation="nearest", dtype=dtype, name=f"grow{level}")
    if spec.up == "project":
        x = grow(_block(x, spec, dtype, width, kernel=1, name=f"project{level}"))
    else:
        x = _block(grow(x), spec, dtype, width, kernel=_UP_KERNEL, name=f"convolve{level}")
    if spec.skip == "add":
        return layers.Add(dtype=dtype, name=f"join{level}")([skip, x])
    return layers.Concatenate(dtype=dtype, name=f"join{level}")([skip, x])


def _block(
    x: keras.KerasTensor,
    spec: UnetConfig,
    dtype: str,
    width: int,
    *,
    name: str,
    kernel: int = 3,
    strides: int = 1,
) -> keras.KerasTensor:
    import keras

    layers = keras.layers
    if not spec.batch_norm:
        return layer_class("Conv2D")(
            width,
            kernel,
            strides=strides,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            dtype=dtype,
            name=name,
        )(x)
    x = layer_class("Conv2D")(
        width,
        kernel,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        dtype=dtype,
        name=name,
    )(x)
    x = layer_class("BatchNormalization")(momentum=0.97, dtype=dtype, name=f"{name}_norm")(x)
    return layers.Activation("relu", dtype=dtype, name=f"{name}_relu")(x)


def fold_batch_norm(
    config: Mapping[str, object], network: keras.Model
) -> tuple[dict[str, object], keras.Model]:
    """The same network without batch normalisation, whose scales and shifts are put into the convolutions.

    Returns the new configuration and the new network (float32). The maps differ only by rounding.
    """
    folded_config = {**config, "batch_norm": False}
    folded = build_unet(folded_config)
    fold_into(folded, network)
    return folded_config, folded


def fold_into(folded: keras.Model, network: keras.Model) -> None:
    """Give `folded` the weights of `network`, which has the same layers and, after some, batch normalisation (`<layer>_norm`), too.

    Its scales and shifts are put into the weights of the layer before it.
    """
    import numpy as np

    for layer in folded.layers:
        if not layer.weights:
            continue
        source = network.get_layer(layer.name)
        if not source.weights or f"{layer.name}_norm" not in {entry.name for entry in network.layers}:
            layer.set_weights(source.get_weights())
            continue
        norm = network.get_layer(f"{layer.name}_norm")
        gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in norm.get_weights())
        factor = gamma / np.sqrt(variance + norm.epsilon)
        kernel = np.asarray(source.get_weights()[0], np.float64) * factor
        layer.set_weights([kernel.astype(np.float32), (beta - mean * factor).astype(np.float32)])


def stride(config: Mapping[str, object]) -> int:
    """Total stride in px of the input: height and width must be multiples of it, and tiles start at multiples of it."""
    spec = parse_unet(config)
    return int(spec.stem * 2 ** (len(spec.filters) - 1))


def receptive_radius(config: Mapping[str, object]) -> int:
    """How far, in px, a change of one input pixel can reach in the maps; exact, traced back through every path."""
    spec = parse_unet(config)
    step = stride(config)
    radius = 0
    for phase in range(step):
        # Far from zero, so that integer division rounds alike for every phase.
        pixel = 1024 * step + phase
        low, high = _seen_from(spec, pixel)
        radius = max(radius, pixel - low, high - pixel)
    return radius


def _seen_from(spec: UnetConfig, pixel: int) -> tuple[int, int]:
    low = high = pixel // spec.stem
    last = len(spec.filters) - 1
    needed: list[tuple[int, int]] = []
    for level in range(last):
        low, high = low - spec.decoder[level], high + spec.decoder[level]
        needed.append((low, high))
        if spec.up == "convolve":
            # A 2x2 convolution with `same` padding looks one pixel ahead.
            high += _UP_KERNEL - 1
        low, high = low // 2, high // 2
    low, high = low - spec.encoder[last], high + spec.encoder[last]
    for level in range(last - 1, -1, -1):
        low, high = min(2 * low, needed[level][0]), max(2 * high + 1, needed[level][1])
        low, high = low - spec.encoder[level], high + spec.encoder[level]
    if spec.stem == 2:
        before = (_STEM_KERNEL - 2) // 2
        low, high = 2 * low - before, 2 * high + _STEM_KERNEL - 1 - before
    return low, high


def integer(value: object, key: str) -> int:
    """The whole number from 1 that a network's configuration has under `key`. Raises ModelFault if it is not one."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelFault(f"network.{key}: a whole number from 1 expected (got {value!r})")
    return value


def integers(value: object, key: str) -> tuple[int, ...]:
    """The whole numbers from 1, at least one, that a network's configuration has under `key`. Raises ModelFault if they are not such."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ModelFault(f"network.{key}: a list of whole numbers expected (got {value!r})")
    return tuple(integer(item, key) for item in value)


def one_of(value: object, key: str, known: Sequence[str]) -> str:
    """The word that a network's configuration has under `key`. Raises ModelFault if it is none of the known ones."""
    if value not in known:
        raise ModelFault(f"network.{key}: {value!r} is unknown{nearest(str(value), list(known))}")
    return str(value)
