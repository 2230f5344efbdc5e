"""Whatever is handed to the ops: an error that names it, or the right empty result."""

from __future__ import annotations

import contextlib
import dataclasses
import struct

import numpy as np
import pytest
import tensorflow as tf
from native.convs import close, draw_weights

from tfprune import ops
from tfprune.ops import ConvSpec, SparseWeights, conv, library

pytestmark = pytest.mark.skipif(not library.available(), reason="built without native kernels")
Invalid = tf.errors.InvalidArgumentError
SPEC = ConvSpec(4, 3, padding=(1, 1, 1, 1), basis="dct")
WEIGHTS = draw_weights(SPEC, 0.5, True, 0)
X = np.ones((1, 6, 6, 4), "float32")
OPTIONS = {"kernel_size": [3, 3], "padding": [1, 1, 1, 1], "basis": 1}


def tensors(**changes):
    names = ("values", "columns", "row_splits", "bias")
    return {**{name: getattr(WEIGHTS, name) for name in names}, **changes}


def raw(x=X, options=None, **changes):
    return library.native().tfprune_sparse_conv2d(
        x, **tensors(**changes), **{**OPTIONS, **(options or {})}
    )


def with_column(value, at=2):
    columns = WEIGHTS.columns.copy()
    columns[at] = value
    return columns


def with_split(index, value):
    splits = WEIGHTS.row_splits.copy()
    splits[index] = value
    return splits


BAD = {
    "column -1": {"columns": with_column(-1)},
    "column = bound": {"columns": with_column(36)},
    "column INT32_MAX": {"columns": with_column(2**31 - 1)},
    "column INT32_MIN": {"columns": with_column(-(2**31))},
    "duplicate": {"columns": with_column(int(WEIGHTS.columns[1]))},
    "unsorted": {"columns": np.concatenate([WEIGHTS.columns[1::-1], WEIGHTS.columns[2:]])},
    "splits decrease": {"row_splits": with_split(1, int(WEIGHTS.row_splits[2]) + 1)},
    "splits start": {"row_splits": with_split(0, 1)},
    "splits end": {"row_splits": with_split(-1, len(WEIGHTS.values) - 1)},
    "splits INT64_MIN": {"row_splits": with_split(1, -(2**63))},
    "splits INT64_MAX": {"row_splits": with_split(1, 2**63 - 1)},
    "splits too short": {"row_splits": WEIGHTS.row_splits[:-1]},
    "splits empty": {"row_splits": np.zeros(0, np.int64)},
    "one column less": {"columns": WEIGHTS.columns[:-1]},
    "one value more": {"values": np.append(WEIGHTS.values, np.float32(1))},
    "bias too short": {"bias": WEIGHTS.bias[:-1]},
    "values a matrix": {"values": WEIGHTS.values[None]},
    "input of rank 3": {"x": X[0]},
    "input of 3 channels": {"x": np.ones((1, 6, 6, 3), "float32")},
    "no channels": {"x": np.ones((1, 6, 6, 0), "float32")},
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("graph", [False, True])
def test_bad_tensors(name, graph):
    call = tf.function(lambda: raw(**BAD[name])) if graph else lambda: raw(**BAD[name])
    with pytest.raises((Invalid, ValueError)):
        call()


@pytest.mark.parametrize("kind", ["int32 values", "int64 columns", "float64 input"])
def test_bad_types(kind):
    changes = {
        "int32 values": {"values": tf.constant(WEIGHTS.values, tf.int32)},
        "int64 columns": {"columns": tf.constant(WEIGHTS.columns, tf.int64)},
        "float64 input": {"x": tf.constant(X, tf.float64)},
    }[kind]
    with pytest.raises((Invalid, TypeError, ValueError)):
        raw(**changes)


@pytest.mark.parametrize(
    "options",
    [
        {"strides": [0, 1]},
        {"strides": [1, -1]},
        {"strides": [1]},
        {"dilations": [0, 0]},
        {"dilations": [-1, 1]},
        {"padding": [1, 1, 1]},
        {"padding": [1, 1, 1, -1]},
        {"padding": [2**60] * 4},
        {"kernel_size": [0, 3]},
        {"kernel_size": [12, 3]},
        {"kernel_size": [3, 2**60]},
        {"groups": 0},
        {"groups": 3},
        {"groups": -(2**63)},
        {"basis": 2},
        {"activation": 3},
    ],
    ids=str,
)
def test_bad_attributes(options):
    with pytest.raises((Invalid, ValueError)):
        raw(options=options)


def test_messages_say_what_was_received():
    with pytest.raises(Invalid, match=r"columns must be in \[0, 36\). Received: 36 in row 0"):
        raw(**BAD["column = bound"])
    with pytest.raises(Invalid, match="row_splits must begin with 0"):
        raw(**BAD["splits start"])


def packed(data, x=X):
    """With whatever convolution the bytes name."""
    conv = struct.unpack_from("<13q2i", bytes(data).ljust(200, b"\0"), 32)
    return library.native().tfprune_packed_conv2d(
        x, np.frombuffer(bytes(data), np.uint8), conv=conv
    )


def test_an_input_of_other_channels():
    for x in (X[..., :3], np.ones((1, 6, 6, 5), "float32"), X[0], X[..., None]):
        with pytest.raises(Invalid, match=r"must be \[batch, height, width, 4\]"):
            packed(WEIGHTS.to_bytes(), x)


def test_damaged_bytes():
    data = WEIGHTS.to_bytes()
    for wrong in (
        b"",
        data[:40],
        data[:-1],
        data + b"0",
        b"X" + data[1:],
        data[:8] + b"\2" + data[9:],
    ):
        with pytest.raises(Invalid):
            packed(wrong)
        with pytest.raises(ValueError, match="packed weights"):
            SparseWeights.from_bytes(bytes(wrong))
    with pytest.raises(ValueError, match="damaged"):
        SparseWeights.from_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("native", [False, True])
def test_bytes_of_another_convolution(native, graph, monkeypatch):
    if not native:
        monkeypatch.setattr(ops.conv, "native", lambda: None)
    data = tf.Variable(np.frombuffer(WEIGHTS.to_bytes(), np.uint8))
    other = dataclasses.replace(SPEC, activation="relu6")

    def call():
        return conv.packed_conv2d(X, data.value(), other)

    with pytest.raises(Invalid, match="packed weights must be those of"):
        (tf.function(call) if graph else call)()


def test_any_byte_of_the_bytes_may_be_wrong():
    """Results may be wrong, but nothing is read or written outside the tensors."""
    rng = np.random.default_rng(0)
    data = bytearray(WEIGHTS.to_bytes())
    for _ in range(300):
        damaged = data.copy()
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        damaged[16:32] = rng.bytes(16)  # another key: the cached weights are not used
        with contextlib.suppress(Invalid, tf.errors.ResourceExhaustedError):
            packed(damaged)


@pytest.mark.parametrize("shape", [(0, 6, 6, 4), (1, 0, 6, 4), (2, 6, 0, 4)])
def test_empty_inputs(shape):
    x = tf.zeros(shape)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = conv.sparse_conv2d(x, *tensors().values(), SPEC)
    assert tuple(y.shape) == (shape[0], *SPEC.output_size(*shape[1:3]), 3)
    assert tape.gradient(y, x).shape == x.shape


def test_no_entries_give_the_bias():
    empty = SparseWeights.from_dense(np.zeros((3, 3, 4, 3)), SPEC, WEIGHTS.bias)
    y = conv.sparse_conv2d(X, *(getattr(empty, n) for n in tensors()), SPEC)
    close(y, np.broadcast_to(WEIGHTS.bias, (1, 6, 6, 3)))


def test_input_smaller_than_the_kernel():
    spec = ConvSpec(4, 3, (5, 5))
    weights = draw_weights(spec, 0.5, True, 0)
    y = conv.packed_conv2d(X[:, :3], np.frombuffer(weights.to_bytes(), np.uint8), spec)
    assert y.shape == (1, 0, 2, 3)


def test_specs_are_checked():
    for change in ({"strides": (0, 1)}, {"padding": (0, 0, 0, -1)}, {"kernel_size": (12, 1)}):
        with pytest.raises(ValueError, match="must be"):
            ConvSpec(4, 3, **change)
    with pytest.raises(ValueError, match="multiples"):
        ConvSpec(4, 3, groups=2)
    with pytest.raises(ValueError, match="`weights` must be"):
        SparseWeights.from_dense(np.zeros((3, 3, 4, 4)), SPEC)
    with pytest.raises(ValueError, match="`storage`"):
        WEIGHTS.to_bytes("int8")
