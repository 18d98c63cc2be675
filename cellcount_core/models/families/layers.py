"""The layers of the network: Keras's own, and on PyTorch the same ones by its fused channels-last operations.

Keras copies every tensor to channels first and back around each operation on PyTorch, and writes batch normalisation out
term by term, which on a CPU costs about as much as the convolutions. Variables, their names and the results are the same.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras
    import torch


def layer_class(name: str) -> type[keras.layers.Layer]:
    """The class of `keras.layers` of that name, as this backend runs it best."""
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
