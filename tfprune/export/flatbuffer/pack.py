"""Constant weights of a `.tflite` file as compressed rows (CSR), which builtin ops unpack at load.

    float32   CSR -> DENSIFY -> weights
    float16   CSR -> DENSIFY -> DEQUANTIZE -> weights
    int8      CSR with scales -> DENSIFY -> DEQUANTIZE -> weights

All compute in float32: no kernel of LiteRT takes sparse weights of another type and gets them
right. Equal tensors are stored once. The converter's own sparsity option is never used.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfprune.export.flatbuffer.encoding import Stored, smallest
from tfprune.export.flatbuffer.file import FlatFile

WEIGHTS_OF = {"CONV_2D": 1, "FULLY_CONNECTED": 1, "DEPTHWISE_CONV_2D": 1}
CHANNELS_OF = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": 3}


def store(file: FlatFile, storage: str, norms: Mapping[int, np.ndarray] | None = None) -> bytes:
    """The file with the weights of its convolutions and dense layers in their smallest form.

    Args:
        file: with float32 weights; it is changed.
        storage: of the values, "float32", "float16" or "int8".
        norms: tensor of weights -> see `stored.smallest`; of a file with one graph.
    """
    for graph in file.graphs:
        _Packer(file, graph, storage, norms or {}).run()
    return file.to_bytes()


@dataclasses.dataclass
class _Packer:
    """Replaces the weights of one graph."""

    file: FlatFile
    graph: Any
    storage: str
    norms: Mapping[int, np.ndarray]

    def run(self) -> None:
        made: dict[int, int] = {}
        known: dict[tuple[Any, ...], int] = {}
        first: list[Any] = []
        readers = Counter(int(n) for op in self.graph.operators for n in op.inputs)
        uses = [op for op in self.graph.operators if self.file.kind(op) in WEIGHTS_OF]
        as_weights = Counter(int(op.inputs[WEIGHTS_OF[self.file.kind(op)]]) for op in uses)
        for op in uses:
            kind = self.file.kind(op)
            place = WEIGHTS_OF[kind]
            number = int(op.inputs[place])
            if number < 0 or readers[number] > as_weights[number]:
                continue
            values = self.file.constant(self.graph.tensors[number])
            if values is None:
                continue
            if number not in made:
                key = (CHANNELS_OF[kind], values.shape, values.tobytes())
                if key not in known:
                    stored = smallest(
                        values, self.storage, CHANNELS_OF[kind], self.norms.get(number)
                    )
                    known[key] = self._replace(number, stored, first)
                made[number] = known[key]
            op.inputs = [made[number] if i == place else int(n) for i, n in enumerate(op.inputs)]
        self.graph.operators = first + list(self.graph.operators)
        self._shorten_names()

    def _replace(self, number: int, stored: Stored, ops: list[Any]) -> int:
        """The tensor that takes the place of one, or itself."""
        if stored.kind == "float32" and not stored.rows:
            return number
        shape, types = self.graph.tensors[number].shape, self.file.schema.TensorType
        dtype = getattr(types, stored.kind.upper())
        quantization = self._scaled(stored) if stored.kind == "int8" else None
        fields: dict[str, Any] = {"type": dtype, "quantization": quantization}
        if stored.rows:
            kept = stored.kept
            rows = {**fields, "sparsity": self._rows(kept)}
            packed = self.file.add_constant(self.graph, shape, stored.values[kept], **rows)
            found = self.file.add_tensor(self.graph, shape, **fields)
            ops.append(self.file.add_op("DENSIFY", 1, [packed], [found]))
        else:
            found = self.file.add_constant(self.graph, shape, stored.values, **fields)
        if stored.kind == "float32":
            return found
        plain = self.file.add_tensor(self.graph, shape)
        per_channel = len(stored.scales) > 1
        version = 5 if stored.rows or per_channel else 3 if stored.kind == "float16" else 2
        ops.append(self.file.add_op("DEQUANTIZE", version, [found], [plain]))
        return plain

    def _scaled(self, stored: Stored) -> Any:
        found = self.file.schema.QuantizationParametersT()
        found.scale = stored.scales.astype(np.float32)
        found.zeroPoint = np.zeros(len(stored.scales), np.int64)
        found.quantizedDimension = stored.axis if len(stored.scales) > 1 else 0
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
        last.arraySegmentsType, last.arraySegments = index_vector(schema, segments)
        last.arrayIndicesType, last.arrayIndices = index_vector(schema, np.nonzero(rows)[1])
        found.dimMetadata.append(last)
        return found

    def _shorten_names(self) -> None:
        """Names of inputs and outputs stay."""
        kept = {int(n) for n in (*self.graph.inputs, *self.graph.outputs)}
        for number, tensor in enumerate(self.graph.tensors):
            if number not in kept:
                tensor.name = str(number).encode()


def index_vector(schema: Any, numbers: np.ndarray) -> tuple[int, Any]:
    """Whole numbers in the smallest type that holds them, and that type."""
    most = int(numbers.max(initial=0))
    kinds = (("Uint8Vector", np.uint8), ("Uint16Vector", np.uint16), ("Int32Vector", np.int32))
    for name, dtype in kinds:
        if most <= np.iinfo(dtype).max:
            vector = getattr(schema, f"{name}T")()
            vector.values = numbers.astype(dtype)
            return getattr(schema.SparseIndexVector, name), vector
    raise ValueError(f"A tensor of more than 2^31 entries cannot be stored: {most}.")
