"""Packed weights taken apart within a graph, for what the native kernels do not compute."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfprune.maths.sparse_weights import ARRAYS_AT, CONV_AT, COUNTS_AT, KIND_AT, ConvSpec

Tensor = Any


def unpack(packed: Tensor, spec: ConvSpec) -> list[Tensor]:
    """values, columns, row_splits and bias of `SparseWeights.to_bytes`, which may be a variable.

    Args:
        packed: uint8 vector.
        spec: what these weights must be of.

    Raises:
        tf.errors.InvalidArgumentError: if they are of another one.
    """
    expected = tf.constant(list(spec.to_bytes()), tf.uint8)
    same = tf.reduce_all(packed[CONV_AT:COUNTS_AT] == expected)
    check = tf.debugging.Assert(same, [f"The packed weights must be those of {spec}."])
    with tf.control_dependencies([] if check is None else [check]):
        counts = _read(packed[COUNTS_AT:ARRAYS_AT], tf.int64)
    kind = _read(packed[KIND_AT : KIND_AT + 4], tf.int32)[0]
    splits, packed = _take(packed[ARRAYS_AT:], spec.out_channels + 1, tf.int64)
    bias, packed = _take(packed, counts[1], tf.float32)
    columns, packed = _take(packed, counts[0], tf.int32)
    types = (tf.float32, tf.bfloat16, tf.float16)
    branches = [lambda t=t: tf.cast(_read(packed, t), tf.float32) for t in types]
    return [tf.switch_case(kind, branches), columns, splits, bias]


def _take(packed: Tensor, count: Tensor | int, dtype: Any) -> tuple[Tensor, Tensor]:
    """The first `count` numbers of a type, and the bytes that follow them."""
    size = tf.cast(count, tf.int64) * dtype.size
    return _read(packed[:size], dtype), packed[size:]


def _read(packed: Tensor, dtype: Any) -> Tensor:
    """Whole numbers alone: a branch for another type may be traced, though it is not taken."""
    size = packed.shape[0] if packed.shape[0] is not None else tf.size(packed)
    whole = packed[: size // dtype.size * dtype.size]
    return tf.bitcast(tf.reshape(whole, (-1, dtype.size)), dtype)
