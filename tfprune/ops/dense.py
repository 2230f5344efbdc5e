"""Sparse convolutions by TensorFlow's dense convolution: the reference, and the replacement."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfprune.maths.dct import dct_matrix
from tfprune.maths.sparse_weights import ConvSpec, SparseWeights

Tensor = Any


def reference_conv2d(x: Tensor, weights: SparseWeights) -> Tensor:
    """Convolve by TensorFlow's dense convolution, the reference of the native kernels.

    Args:
        x: [n, h, w, in_channels].
        weights: the weights, and the convolution that they are of.

    Returns:
        [n, out_h, out_w, out_channels].
    """
    arrays = (weights.values, weights.columns, weights.row_splits, weights.bias)
    return dense_conv2d(tf.convert_to_tensor(x), [tf.constant(a) for a in arrays], weights.spec)


def float32(x: Tensor) -> tuple[Tensor, Any]:
    """`x` in float32, and its own type."""
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32), x.dtype


def dense_conv2d(x: Tensor, arrays: list[Tensor], spec: ConvSpec) -> Tensor:
    """Convolve with CSR weights made dense.

    Args:
        x: [n, h, w, in_channels], float32.
        arrays: values, columns, row_splits and bias, as in `SparseWeights`.
        spec: the convolution.
    """
    values, columns, row_splits, bias = arrays
    return spatial_conv2d(x, _fold(values, columns, row_splits, spec), bias, spec)


def spatial_conv2d(x: Tensor, kernel: Tensor, bias: Tensor, spec: ConvSpec) -> Tensor:
    """Convolve with a spatial kernel, add the bias, activate.

    Args:
        x: [n, h, w, in_channels], float32.
        kernel: [kernel_h, kernel_w, in_channels / groups, out_channels].
        bias: [out_channels], or [0] for none.
        spec: strides, dilations, padding and activation.
    """
    if x.shape.rank == 4 and None not in x.shape[1:3]:
        size = spec.output_size(x.shape[1], x.shape[2])
        if 0 in size or x.shape[0] == 0:  # which TensorFlow's convolution computes wrongly
            return tf.zeros((tf.shape(x)[0], *size, spec.out_channels))
    vertical, horizontal = spec.padding[:2], spec.padding[2:]
    x = tf.pad(x, [(0, 0), vertical, horizontal, (0, 0)])
    dilations = spec.dilations
    if max(dilations) > 1 and max(spec.strides) > 1:  # TensorFlow does not do both
        kernel, dilations = _dilated(kernel, dilations), (1, 1)
    y = tf.nn.convolution(x, kernel, spec.strides, "VALID", dilations=dilations)
    if bias.shape.rank != 1 or bias.shape[0] != 0:
        y = tf.cond(tf.size(bias) > 0, lambda: y + bias, lambda: y)
    if spec.activation == "relu":
        return tf.nn.relu(y)
    return tf.nn.relu6(y) if spec.activation == "relu6" else y


def _dilated(kernel: Tensor, dilations: tuple[int, int]) -> Tensor:
    """The kernel with zeros between its taps."""
    for axis, dilation in enumerate(dilations):
        size = kernel.shape[axis]
        kernel = tf.expand_dims(kernel, axis + 1)
        zeros = tf.repeat(tf.zeros_like(kernel), dilation - 1, axis=axis + 1)
        kernel = tf.concat([kernel, zeros], axis + 1)
        shape = [*kernel.shape[:axis], size * dilation, *kernel.shape[axis + 2 :]]
        kernel = tf.gather(tf.reshape(kernel, shape), range((size - 1) * dilation + 1), axis=axis)
    return kernel


def _fold(values: Tensor, columns: Tensor, row_splits: Tensor, spec: ConvSpec) -> Tensor:
    """The spatial kernel [kernel_h, kernel_w, in_channels / groups, out_channels]."""
    counts = row_splits[1:] - row_splits[:-1]
    rows = tf.repeat(tf.range(spec.out_channels, dtype=tf.int64), counts)
    indices = tf.stack([rows, tf.cast(columns, tf.int64)], axis=1)
    shape = (spec.out_channels, spec.columns)
    weights = tf.scatter_nd(indices, values, tf.constant(shape, tf.int64))
    weights = tf.reshape(weights, (spec.out_channels, -1, *spec.kernel_size))
    if spec.basis == "dct":
        vertical, horizontal = (tf.constant(dct_matrix(n), tf.float32) for n in spec.kernel_size)
        weights = tf.einsum("kiuv,vq->kiuq", weights, horizontal)
        weights = tf.einsum("kiuq,up->kipq", weights, vertical)
    return tf.transpose(weights, (2, 3, 1, 0))


def with_static_shape(y: Tensor, x: Tensor, spec: ConvSpec) -> Tensor:
    """`y` with the static sizes that the op's own shape function cannot tell."""
    if x.shape.rank != 4:
        return y
    sizes = []
    for axis in (0, 1):
        size = x.shape[axis + 1]
        sizes.append(None if size is None else spec.output_size(size, size)[axis])
    y.set_shape((x.shape[0], *sizes, spec.out_channels))
    return y
