"""The inference layer on constant sparse weights that `tfprune.compact` puts in place of others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfprune.maths.sparse_weights import ConvSpec, SparseWeights

Tensor = Any


@keras.saving.register_keras_serializable(package="tfprune")
class SparseConv(keras.layers.Layer):
    """A convolution or dense layer on packed constant weights, with bias and activation inside.

    Inputs [n, in_channels], [n, w, in_channels] or [n, h, w, in_channels]. It computes in float32
    and cannot be trained; gradients reach its inputs. TensorFlow only; XLA leaves it out.

    Args:
        spec: the convolution, a `ConvSpec` or a dict of its fields; an axis that the inputs lack
            has size 1.
        packed_bytes: length of the packed weights.
        same: whether the input is padded as `padding="same"` does; `spec.padding` is then 0.
        activation: what follows the one in `spec`, as in any Keras layer.
    """

    def __init__(
        self,
        spec: ConvSpec | Mapping[str, Any],
        packed_bytes: int,
        same: bool = False,
        activation: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**{**options, "trainable": False})
        self.spec = spec if isinstance(spec, ConvSpec) else _spec(spec)
        self.packed_bytes, self.same = int(packed_bytes), bool(same)
        self.activation = keras.activations.get(activation)
        self.supports_jit = False
        self.packed = self.add_weight(
            (self.packed_bytes,), dtype="uint8", initializer="zeros", trainable=False, name="packed"
        )
        self.built = True

    @classmethod
    def holding(
        cls, weights: SparseWeights, storage: str = "float32", **options: Any
    ) -> SparseConv:
        """A layer with these weights, stored as float32, bfloat16 or float16."""
        data = np.frombuffer(weights.to_bytes(storage), np.uint8)
        layer = cls(weights.spec, len(data), **options)
        layer.packed.assign(data)
        return layer

    @property
    def sparse_weights(self) -> SparseWeights:
        """The weights, unpacked."""
        return SparseWeights.from_bytes(keras.ops.convert_to_numpy(self.packed).tobytes())

    def call(self, inputs: Tensor) -> Tensor:
        """Convolve the inputs, add the bias, activate."""
        from tfprune import ops
        from tfprune.ops import conv

        x = inputs
        for _ in range(4 - len(inputs.shape)):
            x = keras.ops.expand_dims(x, 1)
        x = ops.conv.pad_same(x, self.spec) if self.same else x
        y = conv.packed_conv2d(x, self.packed.value, self.spec)
        for _ in range(4 - len(inputs.shape)):
            y = keras.ops.squeeze(y, 1)
        return self.activation(y)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape that the layer gives for which it stands."""
        spatial = input_shape[1:-1]
        sizes = [
            None if size is None else self._size(2 - len(spatial) + axis, size)
            for axis, size in enumerate(spatial)
        ]
        return (input_shape[0], *sizes, self.spec.out_channels)

    def _size(self, axis: int, size: int) -> int:
        if self.same:
            return -(-size // self.spec.strides[axis])
        return self.spec.output_size(size, size)[axis]

    def uses_per_call(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> int:
        """How often one call multiplies each weight, from the shapes that go in and come out."""
        return math.prod(outputs[:-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        spec = dataclasses.asdict(self.spec)
        return {
            **super().get_config(),
            "spec": {k: list(v) if isinstance(v, tuple) else v for k, v in spec.items()},
            "packed_bytes": self.packed_bytes,
            "same": self.same,
            "activation": keras.activations.serialize(self.activation),
        }


def _spec(fields: Mapping[str, Any]) -> ConvSpec:
    lists = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    return ConvSpec(**{**fields, **lists})
