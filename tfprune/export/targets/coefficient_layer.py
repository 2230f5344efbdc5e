"""A convolution as its DCT coefficients, made of builtin TFLite ops; for export alone."""

from __future__ import annotations

from typing import Any

import keras

from tfprune.export.dct_filters import filters_and_coefficients
from tfprune.maths.sparse_weights import SparseWeights

Tensor = Any


class CoefficientConv(keras.layers.Layer):
    """Sum over frequencies f of a 1x1 convolution with F[f] on a depthwise one with the basis B[f].

    Frequencies without a coefficient are left out. It holds constants; it cannot be saved or
    trained.

    Args:
        weights: coefficients in the DCT basis, of a single group.
        padding: "same" or "valid".
        activation: what follows, as in any Keras layer.
    """

    def __init__(
        self, weights: SparseWeights, padding: str, activation: Any = None, **options: Any
    ) -> None:
        super().__init__(**{**options, "trainable": False})
        self.sparse_weights, self.padding = weights, padding
        self.activation = keras.activations.get(activation)
        self.filters, self.coefficients = filters_and_coefficients(weights)

    def call(self, inputs: Tensor) -> Tensor:
        """Convolve [n, h, w, cin] to [n, out_h, out_w, cout]."""
        import tensorflow as tf

        strides = (1, *self.sparse_weights.spec.strides, 1)
        filters, padding = tf.constant(self.filters), self.padding.upper()
        basis_responses = tf.nn.depthwise_conv2d(inputs, filters, strides, padding)
        coefficients = tf.constant(self.coefficients[None, None])
        y = tf.nn.conv2d(basis_responses, coefficients, 1, "VALID")
        return self.activation(y + tf.constant(self.sparse_weights.bias))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the output, None where a size is open."""
        spec, sizes = self.sparse_weights.spec, []
        for axis, size in enumerate(input_shape[1:3]):
            reach = 1 if self.padding == "same" else spec.kernel_size[axis]
            sizes.append(None if size is None else -(-(size - reach + 1) // spec.strides[axis]))
        return (input_shape[0], *sizes, spec.out_channels)
