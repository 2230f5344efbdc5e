"""Constant weights of a `.tflite` file as compressed rows (CSR), which builtin ops unpack at load.

    float32   CSR -> DENSIFY -> weights
    float16   CSR -> DENSIFY -> DEQUANTIZE -> weights
    int8      CSR with one scale -> DENSIFY -> DEQUANTIZE -> weights;  w = scale * q, |q| <= 127

All compute in float32: no kernel of LiteRT takes sparse weights of another type and gets them
right. A row is all but the last axis; an entry takes its value and an index of 1, 2 or 4 bytes.
Weights that are small whole numbers, as the basis of the 3x3 DCT, are stored as int8 without an
error, and equal tensors once. The converter's own sparsity option is never used.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfprune.export.flat import FlatFile

WEIGHTS_OF = {"CONV_2D": 1, "FULLY_CONNECTED": 1, "DEPTHWISE_CONV_2D": 1}
VALUE_BYTES = {"float32": 4, "float16": 2, "int8": 1}
LEAST = 256  # bytes below which nothing is gained by another form
OVERHEAD = 400  # bytes of the tensors and ops that unpack weights


def csr_bytes(count: int, rows: int, columns: int, value_bytes: int) -> int:
    """What `count` entries take in `rows` rows of `columns`."""
    index = 1 if columns <= 256 else 2 if columns <= 65536 else 4
    pointer = 1 if count < 256 else 2 if count < 65536 else 4
    return count * (value_bytes + index) + (rows + 1) * pointer


def store(data: bytes, storage: str) -> bytes:
    """The file with its float32 weights stored in the smallest form that computes the same.

    Args:
        data: a `.tflite` file with float32 weights.
        storage: of the values, "float32", "float16" or "int8".
    """
    file = FlatFile(data)
    for graph in file.graphs:
        _Packer(file, graph, storage).run()
    return file.to_bytes()


@dataclasses.dataclass
class _Packer:
    """Replaces the weights of one graph."""

    file: FlatFile
    graph: Any
    storage: str

    def run(self) -> None:
        made: dict[int, int] = {}
        known: dict[tuple[Any, ...], int] = {}
        first: list[Any] = []
        for op in self.graph.operators:
            place = WEIGHTS_OF.get(self.file.kind(op))
            if place is None:
                continue
            number = int(op.inputs[place])
            values = self.file.constant(self.graph.tensors[number]) if number >= 0 else None
            if values is None or values.nbytes < LEAST:
                continue
            if number not in made:
                key = (values.shape, values.tobytes())
                known.setdefault(key, self._replace(number, values, first))
                made[number] = known[key]
            op.inputs = [made[number] if i == place else int(n) for i, n in enumerate(op.inputs)]
        self.graph.operators = first + list(self.graph.operators)
        self._shorten_names()

    def _replace(self, number: int, values: np.ndarray, ops: list[Any]) -> int:
        """The tensor that takes the place of one, or itself."""
        kind, stored, scale = _stored(values, self.storage)
        tensor = self.graph.tensors[number]
        kept = stored != 0
        kept.flat[0] |= not kept.any()  # DENSIFY does not take a tensor without entries
        count = int(kept.sum())
        rows, columns = stored.size // stored.shape[-1], stored.shape[-1]
        sparse = csr_bytes(count, rows, columns, stored.itemsize)
        best = min(sparse, stored.nbytes) + OVERHEAD
        if best >= values.nbytes:
            return number
        types = self.file.schema.TensorType
        dtype = getattr(types, kind.upper())
        quantization = self._scaled(scale) if kind == "int8" else None
        if sparse < stored.nbytes:
            packed = self.file.add_constant(
                self.graph,
                tensor,
                stored[kept],
                type=dtype,
                sparsity=self._rows(kept),
                quantization=quantization,
            )
            found = self.file.add_tensor(self.graph, tensor, type=dtype, quantization=quantization)
            ops.append(self.file.add_op("DENSIFY", 1, [packed], [found]))
        else:
            found = self.file.add_constant(
                self.graph, tensor, stored, type=dtype, quantization=quantization
            )
        if kind == "float32":
            return found
        plain = self.file.add_tensor(self.graph, tensor, type=types.FLOAT32)
        version = 5 if sparse < stored.nbytes else 3 if kind == "float16" else 2
        ops.append(self.file.add_op("DEQUANTIZE", version, [found], [plain]))
        return plain

    def _scaled(self, scale: float) -> Any:
        found = self.file.schema.QuantizationParametersT()
        found.scale, found.zeroPoint = [np.float32(scale)], [0]
        return found

    def _rows(self, kept: np.ndarray) -> Any:
        """CSR over the last axis."""
        schema = self.file.schema
        found = schema.SparsityParametersT()
        found.traversalOrder = np.arange(kept.ndim, dtype=np.int32)
        found.dimMetadata = []
        for size in kept.shape[:-1]:
            axis = schema.DimensionMetadataT()
            axis.format, axis.denseSize = schema.DimensionType.DENSE, size
            found.dimMetadata.append(axis)
        rows = kept.reshape(-1, kept.shape[-1])
        last = schema.DimensionMetadataT()
        last.format = schema.DimensionType.SPARSE_CSR
        segments = np.concatenate([[0], np.cumsum(rows.sum(1))])
        last.arraySegmentsType, last.arraySegments = self._vector(segments)
        last.arrayIndicesType, last.arrayIndices = self._vector(np.nonzero(rows)[1])
        found.dimMetadata.append(last)
        return found

    def _vector(self, numbers: np.ndarray) -> tuple[int, Any]:
        """Whole numbers in the smallest type that holds them."""
        schema, most = self.file.schema, int(numbers.max(initial=0))
        kinds = (("Uint8Vector", np.uint8), ("Uint16Vector", np.uint16), ("Int32Vector", np.int32))
        for name, dtype in kinds:
            if most <= np.iinfo(dtype).max:
                vector = getattr(schema, f"{name}T")()
                vector.values = numbers.astype(dtype)
                return getattr(schema.SparseIndexVector, name), vector
        raise ValueError(f"A tensor of more than 2^31 entries cannot be stored: {most}.")

    def _shorten_names(self) -> None:
        """Names of inputs and outputs stay."""
        kept = {int(n) for n in (*self.graph.inputs, *self.graph.outputs)}
        for number, tensor in enumerate(self.graph.tensors):
            if number not in kept:
                tensor.name = str(number).encode()


def _stored(values: np.ndarray, storage: str) -> tuple[str, np.ndarray, float]:
    """Type, stored values and scale."""
    if np.abs(values).max(initial=0.0) <= 127 and np.array_equal(values, np.round(values)):
        return "int8", values.astype(np.int8), 1.0
    if storage == "float16":
        return "float16", values.astype(np.float16), 1.0
    if storage == "int8":
        scale = float(np.abs(values).max()) / 127
        return "int8", np.round(values / scale).astype(np.int8), scale
    return "float32", values, 1.0
