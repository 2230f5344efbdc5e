"""A convolution as its DCT coefficients, made of builtin TFLite ops; for export alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfprune.maths.sparse_weights import SparseWeights
from tfprune.maths.transforms import dct_matrix

Tensor = Any
WHOLE = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]])  # of three taps: sqrt(3, 2, 6) * DCT


class CoefficientConv(keras.layers.Layer):
    """Sum over frequencies f of a 1x1 convolution with F[f] on a depthwise one with the basis B[f].

    Frequencies without a coefficient are left out. It holds constants; it cannot be saved or
    trained.

    Args:
        weights: in the DCT basis, of one group.
        padding: "same" or "valid".
        activation: at the end, as in any Keras layer.
    """

    def __init__(
        self, weights: SparseWeights, padding: str, activation: Any = None, **options: Any
    ) -> None:
        super().__init__(**{**options, "trainable": False})
        self.weights_of, self.padding = weights, padding
        self.activation = keras.activations.get(activation)
        self.bank, self.coefficients = bank_and_coefficients(weights)

    def call(self, inputs: Tensor) -> Tensor:
        """See the class."""
        import tensorflow as tf

        spec = self.weights_of.spec
        strides = (1, *spec.strides, 1)
        bank, word = tf.constant(self.bank), self.padding.upper()
        waves = tf.nn.depthwise_conv2d(inputs, bank, strides, word)
        y = tf.nn.conv2d(waves, tf.constant(self.coefficients[None, None]), 1, "VALID")
        return self.activation(y + tf.constant(self.weights_of.bias))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """As the layer that it stands for."""
        spec, sizes = self.weights_of.spec, []
        for axis, size in enumerate(input_shape[1:3]):
            reach = 1 if self.padding == "same" else spec.kernel_size[axis]
            sizes.append(None if size is None else -(-(size - reach + 1) // spec.strides[axis]))
        return (input_shape[0], *sizes, spec.out_channels)


def bank_and_coefficients(weights: SparseWeights) -> tuple[np.ndarray, np.ndarray]:
    """Filters [kh, kw, cin, f] of the frequencies that are left, and coefficients [cin * f, cout].

    Filters of three taps are whole numbers, and coefficients hold their scale.
    """
    dense = weights.dense()
    kh, kw, cin, cout = dense.shape
    (vertical, down), (horizontal, across) = (whole_rows(n) for n in (kh, kw))
    basis = np.einsum("up,vq->pquv", vertical, horizontal).reshape(kh, kw, -1)
    scaled = dense * (down[:, None] * across)[..., None, None]
    found = scaled.reshape(kh * kw, cin, cout)
    left = found.any(axis=(1, 2))
    left[0] |= not left.any()
    coefficients = found[left].transpose(1, 0, 2).reshape(-1, cout)
    bank = np.repeat(basis[:, :, None, left], cin, axis=2)
    return bank.astype(np.float32), coefficients.astype(np.float32)


def whole_rows(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the transform, and what scales each to the orthonormal one."""
    rows = np.asarray(dct_matrix(size), np.float64)
    if size != 3:
        return rows, np.ones(size)
    return WHOLE.astype(np.float64), rows[:, 0] / WHOLE[:, 0]
