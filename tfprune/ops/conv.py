"""Sparse convolution as a TensorFlow function: native where it can be, else its dense twin."""

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
from tfprune.maths.transforms import dct_matrix
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
        values, columns, row_splits, bias: see `SparseWeights`; `bias` None for none.
        spec: the convolution.
        threads: at most so many; 0: as many as TensorFlow uses within an op.

    Returns:
        [n, out_h, out_w, out_channels], of the type of `x`.

    Raises:
        tf.errors.InvalidArgumentError: if indices or shapes do not fit.
    """
    x, given = _float32(x)
    if x.shape.rank == 4:
        x = tf.ensure_shape(x, (None, None, None, spec.in_channels))
    bias = tf.zeros([0]) if bias is None else tf.cast(bias, tf.float32)
    columns = tf.cast(columns, tf.int32)
    row_splits = tf.ensure_shape(tf.cast(row_splits, tf.int64), (spec.out_channels + 1,))
    values = tf.cast(values, tf.float32)
    module = native()
    if module is None:
        y = _dense(x, [values, columns, row_splits, bias], spec)
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
    return tf.cast(_shaped(y, x, spec), given)


def packed_conv2d(x: Tensor, weights: Tensor, spec: ConvSpec, threads: int = 0) -> Tensor:
    """Convolve with constant weights in one piece of bytes; they are packed for the CPU once.

    Args:
        x: [n, h, w, in_channels].
        weights: uint8 vector of `SparseWeights.to_bytes`.
        spec: that of the weights.
        threads: at most so many; 0: as many as TensorFlow uses within an op.

    Returns:
        [n, out_h, out_w, out_channels], of the type of `x`.

    Raises:
        tf.errors.InvalidArgumentError: if the weights are damaged or of another `spec`, or shapes
            do not fit.
    """
    x, given = _float32(x)
    module = native()
    if module is None:
        y = _dense(x, unpack(tf.convert_to_tensor(weights), spec), spec)
    else:
        y = module.tfprune_packed_conv2d(x, weights, conv=spec.fields(), threads=threads)
    return tf.cast(_shaped(y, x, spec), given)


def pack(
    weights: Any, mask: Any = None, basis: str = "dct", bias: Any = None, groups: int = 1
) -> SparseWeights:
    """Sparse weights of a convolution from DCT coefficients, or spatial weights, with zeros.

    Args:
        weights: [kh, kw, cin / groups, cout]; with `basis="dct"` orthonormal DCT-II coefficients.
        mask: of that shape; what is False is left out. None: zeros are.
        basis: "dct" or "spatial".
        bias: [cout], or None.
        groups: of channels.

    Raises:
        ValueError: if shapes or words do not fit.

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
    """Convolve with what `pack` made; the kernels' form of it is made once and kept.

    Args:
        x: [n, h, w, cin].
        packed: from `pack`.
        strides, dilations: one number, or (vertical, horizontal).
        padding: "same", "valid", or zeros (top, bottom, left, right).
        activation: "linear", "relu" or "relu6".
        threads: at most so many; 0: as many as TensorFlow uses within an op.
        form: "sparse", "dense" (TensorFlow's convolution with the folded kernel), or "auto": by the
            density of the weights.

    Raises:
        ValueError: for words and numbers out of range.
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
        x, given = _float32(x)
        kernel = _kept(packed, "kernel", packed.kernel)
        y = _convolved(x, tf.constant(kernel), tf.constant(packed.bias), spec)
        return tf.cast(_shaped(y, x, spec), given)
    whole = dataclasses.replace(packed, spec=spec)
    data = _kept(packed, spec, lambda: np.frombuffer(whole.to_bytes(), np.uint8))
    return packed_conv2d(x, data, spec, threads)


_KEPT: weakref.WeakKeyDictionary[SparseWeights, dict[Any, np.ndarray]] = weakref.WeakKeyDictionary()


def _kept(packed: SparseWeights, key: Any, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What was made of these weights before, or is made now."""
    found = _KEPT.setdefault(packed, {})
    if key not in found:
        found[key] = make()
    return found[key]


def _pair(number: int | tuple[int, int]) -> tuple[int, int]:
    pair = number if isinstance(number, Sequence) else (number, number)
    return pair[0], pair[1]


def same_padding(spec: ConvSpec) -> tuple[int, int, int, int]:
    """The zeros of "same" padding where strides are 1."""
    totals = [(n - 1) * d for n, d in zip(spec.kernel_size, spec.dilations, strict=True)]
    (top, left) = (total // 2 for total in totals)
    return (top, totals[0] - top, left, totals[1] - left)


def pad_same(x: Tensor, spec: ConvSpec) -> Tensor:
    """With zeros around, more after than before, so that the output has ceil(size / stride)."""
    dynamic, pads = tf.shape(x), []
    for axis in (0, 1):
        stride, size = spec.strides[axis], x.shape[axis + 1]
        size = dynamic[axis + 1] if size is None else size
        reach = (spec.kernel_size[axis] - 1) * spec.dilations[axis] + 1
        total = (-(-size // stride) - 1) * stride + reach - size
        total = max(total, 0) if isinstance(total, int) else tf.maximum(total, 0)
        pads.append((total // 2, total - total // 2))
    return tf.pad(x, [(0, 0), *pads, (0, 0)])


def reference_conv2d(x: Tensor, weights: SparseWeights) -> Tensor:
    """The same by TensorFlow's dense convolution: what the native kernels are held against."""
    arrays = (weights.values, weights.columns, weights.row_splits, weights.bias)
    return _dense(tf.convert_to_tensor(x), [tf.constant(a) for a in arrays], weights.spec)


def _float32(x: Tensor) -> tuple[Tensor, Any]:
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32), x.dtype


def _dense(x: Tensor, arrays: list[Tensor], spec: ConvSpec) -> Tensor:
    values, columns, row_splits, bias = arrays
    return _convolved(x, _fold(values, columns, row_splits, spec), bias, spec)


def _convolved(x: Tensor, kernel: Tensor, bias: Tensor, spec: ConvSpec) -> Tensor:
    """TensorFlow's convolution with a spatial kernel, its bias and its activation."""
    if x.shape.rank == 4 and None not in x.shape[1:3]:
        size = spec.output_size(x.shape[1], x.shape[2])
        if 0 in size or x.shape[0] == 0:  # which TensorFlow's convolution gets wrong
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
    """The kernel with zeros between its entries."""
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
    places = tf.stack([rows, tf.cast(columns, tf.int64)], axis=1)
    shape = (spec.out_channels, spec.columns)
    weights = tf.scatter_nd(places, values, tf.constant(shape, tf.int64))
    weights = tf.reshape(weights, (spec.out_channels, -1, *spec.kernel_size))
    if spec.basis == "dct":
        vertical, horizontal = (tf.constant(dct_matrix(n), tf.float32) for n in spec.kernel_size)
        weights = tf.einsum("kiuv,vq->kiuq", weights, horizontal)
        weights = tf.einsum("kiuq,up->kipq", weights, vertical)
    return tf.transpose(weights, (2, 3, 1, 0))


def _shaped(y: Tensor, x: Tensor, spec: ConvSpec) -> Tensor:
    """With the static sizes that the op's own shape function cannot know."""
    if x.shape.rank != 4:
        return y
    sizes = []
    for axis in (0, 1):
        size = x.shape[axis + 1]
        sizes.append(None if size is None else spec.output_size(size, size)[axis])
    y.set_shape((x.shape[0], *sizes, spec.out_channels))
    return y


def _gradients(x: Tensor, arrays: list[Tensor], spec: ConvSpec, dy: Tensor) -> list[Tensor]:
    """Of x, values and bias, by the dense twin."""
    values, columns, row_splits, bias = arrays
    with tf.GradientTape() as tape:
        sources = [tf.identity(x), tf.identity(values), tf.identity(bias)]
        for source in sources:
            tape.watch(source)
        y = _dense(sources[0], [sources[1], columns, row_splits, sources[2]], spec)
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
