"""Families of networks: how a network is built, folded and written as ONNX from the configuration in its package.

A new family is a module here and an entry in `FAMILIES`. The manifest's `family` names it. Packages of other families (`threshold`)
have no network that Keras could build.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from cellcount_core.domain.errors import ModelFault, nearest

if TYPE_CHECKING:
    import keras
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    Weights = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]

NetworkConfig = Mapping[str, object]
"""A network's configuration, as the manifest and the settings of a training run hold it."""

Growing = Literal["resize", "gather"]
"""How a graph doubles a map: one Resize node, which is fastest in float32, or two Gather nodes, fastest in 8-bit integers."""

LOGITS = "logits"
"""Name of the layer before the sigmoid or softmax, whose output training takes. It is the last one with weights that are taught."""


class Ends(Protocol):
    """A network's configuration once it was checked."""

    @property
    def inputs(self) -> int:
        """Number of channels that the network looks at."""
        ...

    @property
    def outputs(self) -> int:
        """Number of maps, or of classes, that it tells."""
        ...

    def settings(self) -> dict[str, object]:
        """All of it by name, to be compared."""
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """What the product asks of a family of networks. Every function takes a network's configuration first.

    `parse` checks it and fills in what it leaves out; it raises ModelFault naming the key. `build` makes the Keras model, with layers
    computing in `dtype`. `fold` puts batch normalisation into the convolutions: it takes the network too and gives the new configuration and
    network. `graph` makes the ONNX graph from the weights of a folded network. `stride` is what sides of the input must be multiples of, and
    `radius` how far, in px, an input pixel reaches in a map (0 for networks without maps). `float_nodes` names the nodes of the graph that
    stay in float32 when the rest becomes 8-bit integers. `has_graph` says whether a network can be written as ONNX; one that cannot runs by
    Keras alone.
    """

    name: str
    parse: Callable[[NetworkConfig], Ends]
    build: Callable[[NetworkConfig, str], keras.Model]
    fold: Callable[[NetworkConfig, keras.Model], tuple[dict[str, object], keras.Model]]
    graph: Callable[[NetworkConfig, Weights, Growing], onnx.ModelProto]
    stride: Callable[[NetworkConfig], int]
    radius: Callable[[NetworkConfig], int]
    float_nodes: Callable[[NetworkConfig], tuple[str, ...]]
    has_graph: Callable[[NetworkConfig], bool] = lambda _: True


def _unet() -> Family:
    from cellcount_core.models.families import onnx_graph, unet

    return Family(
        "unet",
        unet.parse_unet,
        lambda config, dtype: unet.build_unet(config, dtype=dtype),
        unet.fold_batch_norm,
        lambda config, weights, growing: onnx_graph.onnx_graph(config, weights, growing=growing),
        unet.stride,
        unet.receptive_radius,
        lambda _: onnx_graph.FLOAT_NODES,
    )


def _pooled() -> Family:
    from cellcount_core.models.families import pooled

    return Family(
        "pooled",
        pooled.parse_pooled,
        lambda config, dtype: pooled.build_pooled(config, dtype=dtype),
        pooled.fold_pooled,
        lambda config, weights, _: pooled.pooled_graph(config, weights),
        pooled.pooled_stride,
        lambda _: 0,
        pooled.float_nodes,
        lambda config: not pooled.parse_pooled(config).backbone,
    )


FAMILIES: dict[str, Callable[[], Family]] = {"unet": _unet, "pooled": _pooled}
"""Every family by its name in manifests, and what makes it known."""


def family_named(name: str) -> Family:
    """The family of that name. Raises ModelFault naming the nearest one if there is none."""
    if name not in FAMILIES:
        raise ModelFault(f"family {name!r}: no family of networks has that name{nearest(name, FAMILIES)}")
    return FAMILIES[name]()
