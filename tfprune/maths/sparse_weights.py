"""Sparse weights of a convolution, and the one piece of bytes that saved models hold of them."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfprune.maths.dct import idct2

BASES = ("spatial", "dct")
ACTIVATIONS = ("linear", "relu", "relu6")
STORAGE = ("float32", "bfloat16", "float16")
_MAGIC, _VERSION = b"TFPRCONV", 1
_HEAD = struct.Struct("<8sII16s")
_CONV = struct.Struct("<13q2i")
_COUNTS = struct.Struct("<2q")
KIND_AT = 12  # bytes before the type of the values
CONV_AT = _HEAD.size  # and before the convolution,
COUNTS_AT = CONV_AT + _CONV.size  # the numbers of values and of biases,
ARRAYS_AT = COUNTS_AT + _COUNTS.size  # and the arrays
MOST_KERNEL = 11
DENSE_FROM = 0.4  # from this density on a dense convolution is about as fast


@dataclasses.dataclass(frozen=True)
class ConvSpec:
    """What a two-dimensional convolution is, without its weights.

    Attributes:
        in_channels, out_channels: of the input and the output, multiples of `groups`.
        kernel_size: (height, width), 1 to 11 each.
        strides, dilations: (vertical, horizontal), at least 1.
        padding: rows and columns of zeros (top, bottom, left, right).
        groups: number of groups of channels.
        basis: "dct" if weights are orthonormal DCT-II coefficients of kernels, else "spatial".
        activation: "linear", "relu" or "relu6", after the bias.
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    basis: str = "spatial"
    activation: str = "linear"

    def __post_init__(self) -> None:
        sizes = (self.in_channels, self.out_channels, self.groups, *self.strides, *self.dilations)
        if min(sizes) < 1 or max(sizes) >= 2**31:
            raise ValueError(
                f"Channels, groups, strides, dilations must be positive. Received: {self}."
            )
        if not all(1 <= n <= MOST_KERNEL for n in self.kernel_size):
            raise ValueError(f"`kernel_size` must be 1 to {MOST_KERNEL}. Received: {self}.")
        if len(self.padding) != 4 or min(self.padding) < 0:
            raise ValueError(f"`padding` must be four numbers >= 0. Received: {self.padding!r}.")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(f"Channels must be multiples of `groups`. Received: {self}.")
        if self.basis not in BASES or self.activation not in ACTIVATIONS:
            raise ValueError(
                f"`basis` must be one of {BASES}, `activation` one of {ACTIVATIONS}. "
                f"Received: {self.basis!r}, {self.activation!r}."
            )

    def fields(self) -> tuple[int, ...]:
        """All of it in the order of `tfp_conv`, see custom_ops/core/api/sparse_conv.h."""
        return (
            *(self.in_channels, self.out_channels, self.groups, *self.kernel_size),
            *(*self.strides, *self.dilations, *self.padding),
            *(BASES.index(self.basis), ACTIVATIONS.index(self.activation)),
        )

    def to_bytes(self) -> bytes:
        """`numbers`, as `tfp_conv` lies in memory."""
        return _CONV.pack(*self.fields())

    @classmethod
    def from_fields(cls, fields: Sequence[int]) -> ConvSpec:
        """The convolution of `fields`, in the order of the method of that name."""
        return cls(
            in_channels=fields[0],
            out_channels=fields[1],
            groups=fields[2],
            kernel_size=(fields[3], fields[4]),
            strides=(fields[5], fields[6]),
            dilations=(fields[7], fields[8]),
            padding=(fields[9], fields[10], fields[11], fields[12]),
            basis=BASES[fields[13]],
            activation=ACTIVATIONS[fields[14]],
        )

    @property
    def columns(self) -> int:
        """Columns of an output channel's row: channels of a group times kernel positions."""
        return self.in_channels // self.groups * self.kernel_size[0] * self.kernel_size[1]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the output of an image of `height`, `width`; 0 where it is below the kernel."""
        sizes = []
        for axis, size in enumerate((height, width)):
            padded = size + self.padding[2 * axis] + self.padding[2 * axis + 1]
            reach = (self.kernel_size[axis] - 1) * self.dilations[axis] + 1
            fits = size > 0 and padded >= reach
            sizes.append((padded - reach) // self.strides[axis] + 1 if fits else 0)
        return sizes[0], sizes[1]


@dataclasses.dataclass(frozen=True, eq=False)
class SparseWeights:
    """Rows of non-zero weights, one per output channel (CSR), with their convolution.

    Attributes:
        spec: the convolution.
        values: float32 [n].
        columns: int32 [n], (channel * kernel_h + u) * kernel_w + v, growing within a row.
        row_splits: int64 [out_channels + 1].
        bias: float32 [out_channels], or [0] for none.
    """

    spec: ConvSpec
    values: np.ndarray
    columns: np.ndarray
    row_splits: np.ndarray
    bias: np.ndarray

    @classmethod
    def from_dense(cls, weights: np.ndarray, spec: ConvSpec, bias: Any = None) -> SparseWeights:
        """Take dense weights, whose zeros are left out.

        Args:
            weights: [kernel_h, kernel_w, in_channels / groups, out_channels] in `spec.basis`.
            spec: the convolution.
            bias: [out_channels]; None: zeros.

        Raises:
            ValueError: if shapes do not fit.
        """
        expected = (*spec.kernel_size, spec.in_channels // spec.groups, spec.out_channels)
        if np.shape(weights) != expected:
            raise ValueError(f"`weights` must be {expected}. Received: {np.shape(weights)}.")
        rows = np.asarray(weights, np.float32).transpose(3, 2, 0, 1).reshape(spec.out_channels, -1)
        kept = rows != 0
        bias = np.zeros(0, np.float32) if bias is None else np.asarray(bias, np.float32)
        if bias.shape not in ((0,), (spec.out_channels,)):
            raise ValueError(f"`bias` must be ({spec.out_channels},). Received: {bias.shape}.")
        return cls(
            spec,
            rows[kept],
            np.nonzero(kept)[1].astype(np.int32),
            np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int64),
            bias,
        )

    @property
    def density(self) -> float:
        """The fraction of weights that is not zero."""
        return len(self.values) / max(self.spec.columns * self.spec.out_channels, 1)

    def dense(self) -> np.ndarray:
        """The weights in `spec.basis`, [kernel_h, kernel_w, in_channels / groups, out_channels]."""
        spec = self.spec
        rows = np.zeros((spec.out_channels, spec.columns), np.float32)
        counts = np.diff(self.row_splits)
        rows[np.repeat(np.arange(spec.out_channels), counts), self.columns] = self.values
        return rows.reshape(spec.out_channels, -1, *spec.kernel_size).transpose(2, 3, 1, 0)

    def kernel(self) -> np.ndarray:
        """The spatial kernel, [kernel_h, kernel_w, in_channels / groups, out_channels]."""
        weights = self.dense()
        return idct2(weights).astype(np.float32) if self.spec.basis == "dct" else weights

    def to_bytes(self, storage: str = "float32") -> bytes:
        """All of it in one piece, the same on every machine; see custom_ops/core/api/blob.h.

        Args:
            storage: type of the stored values: "float32", "bfloat16" or "float16".
        """
        if storage not in STORAGE:
            raise ValueError(f"`storage` must be one of {STORAGE}. Received: {storage!r}.")
        counts = _COUNTS.pack(len(self.values), len(self.bias))
        arrays = (
            self.row_splits.astype("<i8"),
            self.bias.astype("<f4"),
            self.columns.astype("<i4"),
            _stored(self.values, storage),
        )
        body = self.spec.to_bytes() + counts + b"".join(array.tobytes() for array in arrays)
        kind = STORAGE.index(storage)
        key = hashlib.blake2b(bytes([kind]) + body, digest_size=16).digest()
        return _HEAD.pack(_MAGIC, _VERSION, kind, key) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> SparseWeights:
        """The weights in `data`, the bytes that `to_bytes` gave.

        Raises:
            ValueError: if the bytes are damaged or made by another version.
        """
        start = ARRAYS_AT
        if len(data) < start or data[:8] != _MAGIC:
            raise ValueError(
                f"The packed weights must begin with {_MAGIC!r}. Received: {bytes(data[:8])!r}, "
                f"{len(data)} bytes."
            )
        _, version, kind, key = _HEAD.unpack_from(data)
        if version != _VERSION or kind >= len(STORAGE):
            raise ValueError(
                f"These packed weights must be of version {_VERSION}. Received: {version}."
            )
        if hashlib.blake2b(bytes([kind]) + data[_HEAD.size :], digest_size=16).digest() != key:
            raise ValueError(
                "The packed weights must agree with the hash in them; these are damaged. Received: "
                f"{len(data)} bytes."
            )
        spec = ConvSpec.from_fields(_CONV.unpack_from(data, CONV_AT))
        count, biases = _COUNTS.unpack_from(data, COUNTS_AT)
        sizes = (spec.out_channels + 1, biases, count, count)
        types = ("<i8", "<f4", "<i4", "<f4" if kind == 0 else "<u2")
        arrays = []
        for count, dtype in zip(sizes, types, strict=True):
            arrays.append(np.frombuffer(data, dtype, count, start))
            start += count * np.dtype(dtype).itemsize
        values = _restored(arrays[3], STORAGE[kind])
        return cls(spec, values, arrays[2].copy(), arrays[0].copy(), arrays[1].copy())


def _stored(values: np.ndarray, storage: str) -> np.ndarray:
    if storage == "float32":
        return values.astype("<f4")
    if storage == "float16":
        return values.astype("<f2")
    bits = values.astype("<f4").view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to the nearest, ties to even
    return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2")


def _restored(stored: np.ndarray, storage: str) -> np.ndarray:
    if storage == "float32":
        return stored.astype(np.float32)
    if storage == "float16":
        return stored.view("<f2").astype(np.float32)
    return (stored.astype("<u4") << 16).view("<f4").astype(np.float32)
