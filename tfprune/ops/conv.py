"""Sparse convolution as a TensorFlow function: native where it can be, else its dense reference."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfprune.maths.sparse_weights import ACTIVATIONS, BASES, DENSE_FROM, ConvSpec, SparseWeights
from tfprune.ops.dense import dense_conv2d, float32, spatial_conv2d, with_static_shape
from tfprune.ops.library import native
from tfprune.ops.unpacking import unpack

Tensor = Any
FORMS = ("auto", "sparse", "dense")


def sparse_conv2d(
    x: Tensor,
    values: Tensor,
    columns: Tensor,
    row_splits: Tensor,
    bias: Tensor | None,
    spec: ConvSpec,
    threads: int = 0,
) -> Tensor:
    """Convolve with sparse weights that may change from call to call.

        out[n, y, x, k] = act(bias[k] + sum over row k of value * T(patch)[u, v, i])

    Gradients with respect to `x`, `values` and `bias` are those of the dense convolution.

    Args:
        x: [n, h, w, in_channels]; other types than float32 are computed in float32.
        values, columns, row_splits: CSR matrix, as in `SparseWeights`.
        bias: [out_channels], or None.
        spec: the convolution.
        threads: most threads; 0: as many as TensorFlow uses within an op.

    Returns:
        [n, out_h, out_w, out_channels], of the type of `x`.

    Raises:
        tf.errors.InvalidArgumentError: if indices or shapes do not fit.
    """
    x, given = float32(x)
    if x.shape.rank == 4:
        x = tf.ensure_shape(x, (None, None, None, spec.in_channels))
    bias = tf.zeros([0]) if bias is None else tf.cast(bias, tf.float32)
    columns = tf.cast(columns, tf.int32)
    row_splits = tf.ensure_shape(tf.cast(row_splits, tf.int64), (spec.out_channels + 1,))
    values = tf.cast(values, tf.float32)
    module = native()
    if module is None:
        y = dense_conv2d(x, [values, columns, row_splits, bias], spec)
    else:
        y = module.tfprune_sparse_conv2d(
            x,
            values,
            columns,
            row_splits,
            bias,
            kernel_size=spec.kernel_size,
            strides=spec.strides,
            dilations=spec.dilations,
            padding=spec.padding,
            groups=spec.groups,
            basis=BASES.index(spec.basis),
            activation=ACTIVATIONS.index(spec.activation),
            threads=threads,
        )
    return tf.cast(with_static_shape(y, x, spec), given)


def packed_conv2d(x: Tensor, weights: Tensor, spec: ConvSpec, threads: int = 0) -> Tensor:
    """Convolve with constant weights in a blob, which is packed for the CPU once.

    Args:
        x: [n, h, w, in_channels].
        weights: uint8 vector of `SparseWeights.to_bytes`.
        spec: that of the weights.
        threads: most threads; 0: as many as TensorFlow uses within an op.

    Returns:
        [n, out_h, out_w, out_channels], of the type of `x`.

    Raises:
        tf.errors.InvalidArgumentError: if the weights are damaged or of another `spec`, or shapes
            do not fit.
    """
    x, given = float32(x)
    module = native()
    if module is None:
        y = dense_conv2d(x, unpack(tf.convert_to_tensor(weights), spec), spec)
    else:
        y = module.tfprune_packed_conv2d(x, weights, conv=spec.fields(), threads=threads)
    return tf.cast(with_static_shape(y, x, spec), given)


def pack(
    weights: Any, mask: Any = None, basis: str = "dct", bias: Any = None, groups: int = 1
) -> SparseWeights:
    """Make sparse weights of a convolution from DCT coefficients, or spatial weights, with zeros.

    Args:
        weights: [kh, kw, cin / groups, cout]; with `basis="dct"` orthonormal DCT-II coefficients.
        mask: bool, of that shape; what is False is left out. None: zeros are.
        basis: "dct" or "spatial".
        bias: [cout], or None.
        groups: groups of channels, >= 1.

    Raises:
        ValueError: if shapes do not fit, or for another basis.

    Warns:
        UserWarning: if they are so dense that a dense convolution is as fast.
    """
    weights = np.asarray(weights, np.float32)
    if weights.ndim != 4:
        raise ValueError(f"`weights` must be [kh, kw, cin, cout]. Received: {weights.shape}.")
    if mask is not None:
        if np.shape(mask) != weights.shape:
            raise ValueError(f"`mask` must be {weights.shape}. Received: {np.shape(mask)}.")
        weights = np.where(np.asarray(mask, bool), weights, 0)
    kernel, (cin, cout) = (weights.shape[0], weights.shape[1]), weights.shape[2:]
    spec = ConvSpec(cin * groups, cout, kernel, groups=groups, basis=basis)
    packed = SparseWeights.from_dense(weights, spec, bias)
    if packed.density >= DENSE_FROM:
        warnings.warn(
            f"The density of these weights is {packed.density:.2f}; from about {DENSE_FROM} on a "
            'dense convolution is as fast, which form="auto" takes.',
            stacklevel=2,
        )
    return packed


def sparse_frequency_conv2d(
    x: Tensor,
    packed: SparseWeights,
    strides: int | tuple[int, int] = 1,
    padding: str | tuple[int, int, int, int] = "same",
    dilations: int | tuple[int, int] = 1,
    activation: str = "linear",
    threads: int = 0,
    form: str = "auto",
) -> Tensor:
    """Convolve with what `pack` made; its blob is written once and kept.

    Args:
        x: [n, h, w, cin].
        packed: from `pack`.
        strides, dilations: whole numbers >= 1, or pairs (vertical, horizontal).
        padding: "same", "valid", or zeros (top, bottom, left, right).
        activation: "linear", "relu" or "relu6".
        threads: most threads; 0: as many as TensorFlow uses within an op.
        form: "sparse", "dense" (TensorFlow's convolution with the folded kernel), or "auto": by the
            density of the weights.

    Raises:
        ValueError: for settings out of range.
        tf.errors.InvalidArgumentError: if shapes do not fit.
    """
    if padding not in ("same", "valid") and (isinstance(padding, str) or len(padding) != 4):
        raise ValueError(
            f'`padding` must be "same", "valid" or four numbers. Received: {padding!r}.'
        )
    if form not in FORMS:
        raise ValueError(f"`form` must be one of {', '.join(FORMS)}. Received: {form!r}.")
    spec = dataclasses.replace(
        packed.spec,
        strides=_pair(strides),
        dilations=_pair(dilations),
        padding=(0, 0, 0, 0) if isinstance(padding, str) else tuple(padding),  # type: ignore[arg-type]
        activation=activation,
    )
    x = tf.convert_to_tensor(x)
    if padding == "same":
        if max(spec.strides) == 1:
            spec = dataclasses.replace(spec, padding=same_padding(spec))
        else:
            x = pad_same(x, spec)
    if form == "dense" or (form == "auto" and packed.density >= DENSE_FROM):
        x, given = float32(x)
        kernel = _kept(packed, "kernel", packed.kernel)
        y = spatial_conv2d(x, tf.constant(kernel), tf.constant(packed.bias), spec)
        return tf.cast(with_static_shape(y, x, spec), given)
    whole = dataclasses.replace(packed, spec=spec)
    data = _kept(packed, spec, lambda: np.frombuffer(whole.to_bytes(), np.uint8))
    return packed_conv2d(x, data, spec, threads)


_KEPT: weakref.WeakKeyDictionary[SparseWeights, dict[Any, np.ndarray]] = weakref.WeakKeyDictionary()


def _kept(packed: SparseWeights, key: Any, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array made of these weights, by `make` where it was not made before."""
    arrays = _KEPT.setdefault(packed, {})
    if key not in arrays:
        arrays[key] = make()
    return arrays[key]


def _pair(setting: int | tuple[int, int]) -> tuple[int, int]:
    pair = setting if isinstance(setting, Sequence) else (setting, setting)
    return pair[0], pair[1]


def same_padding(spec: ConvSpec) -> tuple[int, int, int, int]:
    """Zeros (top, bottom, left, right) of "same" padding where strides are 1."""
    totals = [(n - 1) * d for n, d in zip(spec.kernel_size, spec.dilations, strict=True)]
    (top, left) = (total // 2 for total in totals)
    return (top, totals[0] - top, left, totals[1] - left)


def pad_same(x: Tensor, spec: ConvSpec) -> Tensor:
    """Pad by zeros, more after than before, so that the output has ceil(size / stride)."""
    dynamic, pads = tf.shape(x), []
    for axis in (0, 1):
        stride, size = spec.strides[axis], x.shape[axis + 1]
        size = dynamic[axis + 1] if size is None else size
        reach = (spec.kernel_size[axis] - 1) * spec.dilations[axis] + 1
        total = (-(-size // stride) - 1) * stride + reach - size
        total = max(total, 0) if isinstance(total, int) else tf.maximum(total, 0)
        pads.append((total // 2, total - total // 2))
    return tf.pad(x, [(0, 0), *pads, (0, 0)])


def _gradients(x: Tensor, arrays: list[Tensor], spec: ConvSpec, dy: Tensor) -> list[Tensor]:
    """Gradients of x, values and bias, by the dense reference."""
    values, columns, row_splits, bias = arrays
    with tf.GradientTape() as tape:
        sources = [tf.identity(x), tf.identity(values), tf.identity(bias)]
        for source in sources:
            tape.watch(source)
        y = dense_conv2d(sources[0], [sources[1], columns, row_splits, sources[2]], spec)
    return tape.gradient(y, sources, dy, unconnected_gradients="zero")


def _sparse_gradient(op: Any, dy: Tensor) -> list[Tensor | None]:
    names = ("kernel_size", "strides", "dilations", "padding")
    lists = {name: tuple(op.get_attr(name)) for name in names}
    x, *arrays = op.inputs
    spec = ConvSpec(
        x.shape[-1],
        arrays[2].shape[0] - 1,
        groups=op.get_attr("groups"),
        basis=BASES[op.get_attr("basis")],
        activation=ACTIVATIONS[op.get_attr("activation")],
        **lists,
    )
    dx, dvalues, dbias = _gradients(x, arrays, spec, dy)
    return [dx, dvalues, None, None, dbias]


def _packed_gradient(op: Any, dy: Tensor) -> list[Tensor | None]:
    x, packed = op.inputs
    spec = ConvSpec.from_fields(op.get_attr("conv"))
    return [_gradients(x, unpack(packed, spec), spec, dy)[0], None]


for _name, _gradient in (
    ("TfpruneSparseConv2D", _sparse_gradient),
    ("TfprunePackedConv2D", _packed_gradient),
):
    with contextlib.suppress(KeyError):  # this module was loaded before
        tf.RegisterGradient(_name)(_gradient)
