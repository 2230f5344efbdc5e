"""Blobs of weights read within a graph, for what the native kernels do not compute."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfprune.maths.sparse_weights import ARRAYS_AT, CONV_AT, COUNTS_AT, KIND_AT, ConvSpec

Tensor = Any


def unpack(blob: Tensor, spec: ConvSpec) -> list[Tensor]:
    """Read values, columns, row_splits and bias from `SparseWeights.to_bytes`.

    Args:
        blob: uint8 vector, which may be a variable.
        spec: the convolution that the weights must be of.

    Raises:
        tf.errors.InvalidArgumentError: if they are of another convolution.
    """
    expected = tf.constant(list(spec.to_bytes()), tf.uint8)
    same = tf.reduce_all(blob[CONV_AT:COUNTS_AT] == expected)
    check = tf.debugging.Assert(same, [f"The packed weights must be those of {spec}."])
    with tf.control_dependencies([] if check is None else [check]):
        counts = _read(blob[COUNTS_AT:ARRAYS_AT], tf.int64)
    kind = _read(blob[KIND_AT : KIND_AT + 4], tf.int32)[0]
    splits, blob = _take(blob[ARRAYS_AT:], spec.out_channels + 1, tf.int64)
    bias, blob = _take(blob, counts[1], tf.float32)
    columns, blob = _take(blob, counts[0], tf.int32)
    types = (tf.float32, tf.bfloat16, tf.float16)
    branches = [lambda t=t: tf.cast(_read(blob, t), tf.float32) for t in types]
    return [tf.switch_case(kind, branches), columns, splits, bias]


def _take(blob: Tensor, count: Tensor | int, dtype: Any) -> tuple[Tensor, Tensor]:
    """The first `count` values of a type, and the bytes that follow them."""
    size = tf.cast(count, tf.int64) * dtype.size
    return _read(blob[:size], dtype), blob[size:]


def _read(blob: Tensor, dtype: Any) -> Tensor:
    """Values of a type, without a rest: branches for other types may be traced, but do not run."""
    size = blob.shape[0] if blob.shape[0] is not None else tf.size(blob)
    whole = blob[: size // dtype.size * dtype.size]
    return tf.bitcast(tf.reshape(whole, (-1, dtype.size)), dtype)
