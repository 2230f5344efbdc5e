"""The contents of a `.tflite` file; a job of child.py, to be run in a process of its own.

LiteRT's own loader checks every offset and length first: nothing here reads past the file.
"""

from __future__ import annotations

import math
import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_DTYPES = {
    "FLOAT64": "<f8",
    "FLOAT32": "<f4",
    "FLOAT16": "<f2",
    "INT64": "<i8",
    "INT32": "<i4",
    "INT16": "<i2",
    "INT8": "<i1",
    "UINT32": "<u4",
    "UINT16": "<u2",
    "UINT8": "<u1",
    "BOOL": "<u1",
}
_NO_WEIGHTS = {"int32", "int64", "uint32", "uint64", "bool", "string"}  # sizes, axes, indices


def main(path: str) -> dict[str, Any]:
    """Describe a file.

    Args:
        path: the file.

    Returns:
        {"ops", "inputs", "outputs", "storage", "tensors"}. ops: {name: count} over all subgraphs.
        inputs, outputs: {name: {"shape", "type"}}, -1 where a size is open. storage: {type:
        {"bytes", "tensors"}} of all constants. tensors: the weights with two axes or more, {"name",
        "shape", "type", "form", "density", "bytes"}; form "dense" or "rows" (CSR), bytes with
        indices, density None for types whose zeros cannot be told.

    Raises:
        ValueError: for anything but a whole `.tflite` file.
    """
    data = Path(path).read_bytes()
    _check(data)
    flat = Path(__file__).with_name("file.py")
    file = runpy.run_path(str(flat))["FlatFile"](data)
    kinds = vars(file.schema.TensorType).items()
    types = {value: name for name, value in kinds if isinstance(value, int)}
    constants = [
        _constant(file, data, tensor, types[tensor.type])
        for graph in file.graphs
        for tensor in graph.tensors
        if _values_of(file, data, tensor).size
    ]
    storage: dict[str, dict[str, int]] = {}
    for constant in constants:
        total = storage.setdefault(constant["type"], {"bytes": 0, "tensors": 0})
        total["bytes"] += constant["bytes"]
        total["tensors"] += 1
    ops = Counter(_op(file, op) for graph in file.graphs for op in graph.operators)
    return {
        "ops": dict(sorted(ops.items())),
        "inputs": _ends(file, "inputs", types),
        "outputs": _ends(file, "outputs", types),
        "storage": dict(sorted(storage.items())),
        "tensors": [
            constant
            for constant in constants
            if len(constant["shape"]) > 1 and constant["type"] not in _NO_WEIGHTS
        ],
    }


def _check(data: bytes) -> None:
    from ai_edge_litert import interpreter as litert

    if data[4:8] != b"TFL3":
        raise ValueError(
            "This is not a .tflite file, its bytes 4 to 8 must be 'TFL3'. "
            f"Received: {data[4:8]!r} in a file of {len(data)} bytes."
        )
    plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        litert.Interpreter(model_content=data, experimental_op_resolver_type=plain)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"This is not a .tflite file that this LiteRT can load: {error}") from None


def _op(file: Any, op: Any) -> str:
    kind = str(file.kind(op))
    if kind != "CUSTOM":
        return kind
    return _text(file.model.operatorCodes[op.opcodeIndex].customCode)


def _ends(file: Any, side: str, types: dict[int, str]) -> dict[str, dict[str, Any]]:
    """The inputs or outputs, by the first signature's names, or by those of the tensors."""
    graph, signatures = file.graphs[0], file.model.signatureDefs
    if signatures:
        graph = file.graphs[signatures[0].subgraphIndex]
        named = [(x.name, int(x.tensorIndex)) for x in getattr(signatures[0], side) or ()]
    else:
        named = [(graph.tensors[n].name, int(n)) for n in getattr(graph, side)]
    ends = {}
    for name, index in named:
        tensor = graph.tensors[index]
        shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        sizes = [] if shape is None else [int(n) for n in shape]
        ends[_text(name)] = {"shape": sizes, "type": types[tensor.type].lower()}
    return ends


def _values_of(file: Any, data: bytes, tensor: Any) -> np.ndarray:
    """Bytes of a tensor's values, in the file's table or behind it; none if it is computed."""
    buffer = file.model.buffers[tensor.buffer]
    start, size = getattr(buffer, "offset", 0), getattr(buffer, "size", 0)
    if start > 1:
        if start + size > len(data):
            raise ValueError(
                f"Its buffers must lie within {len(data)} bytes. Received: bytes {start} to "
                f"{start + size}."
            )
        return np.frombuffer(data, np.uint8, size, start)
    return np.zeros(0, np.uint8) if buffer.data is None else np.asarray(buffer.data, np.uint8)


def _constant(file: Any, data: bytes, tensor: Any, kind: str) -> dict[str, Any]:
    raw, name = _values_of(file, data, tensor), _text(tensor.name)
    shape = [] if tensor.shape is None else [int(n) for n in tensor.shape]
    size, sparse = math.prod(shape), tensor.sparsity is not None
    used = _nonzero(raw, kind, size, tensor.quantization)
    if used is not None:
        fits = used[1] <= size if sparse else used[1] == size
        if min(shape, default=1) < 0 or not fits:
            raise ValueError(
                f"Tensor '{name}' must have {size} values, or fewer where it is sparse, for its "
                f"shape {shape}. Received: {used[1]}."
            )
    return {
        "name": name,
        "shape": shape,
        "type": kind.lower(),
        "form": "rows" if sparse else "dense",
        "density": used[0] / size if used and size else None,
        "bytes": len(raw) + (_index_bytes(tensor.sparsity) if sparse else 0),
    }


def _nonzero(raw: np.ndarray, kind: str, size: int, scaled: Any) -> tuple[int, int] | None:
    """Nonzero values and all values of a tensor, as counts; None for types that are not read."""
    points = None if scaled is None else scaled.zeroPoint
    zero = 0 if points is None or not len(points) else int(points[0])
    if points is not None and any(int(point) != zero for point in points):
        return None
    if kind == "INT4":
        nibbles = np.stack([raw & 15, raw >> 4], 1).reshape(-1)[:size]
        return int(np.count_nonzero(nibbles != zero % 16)), len(nibbles)
    if kind not in _DTYPES:
        return None
    dtype = np.dtype(_DTYPES[kind])
    if len(raw) % dtype.itemsize:
        raise ValueError(
            f"Values of type {kind} must take {dtype.itemsize} bytes. Received: {len(raw)} bytes."
        )
    values = np.frombuffer(raw.tobytes(), dtype)
    return int(np.count_nonzero(values != zero)), len(values)


def _index_bytes(sparsity: Any) -> int:
    parts = [x for level in sparsity.dimMetadata for x in (level.arraySegments, level.arrayIndices)]
    return sum(np.asarray(part.values).nbytes for part in parts if part is not None)


def _text(name: Any) -> str:
    """A name from the file, as printable characters."""
    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]


def op_counts(data: bytes) -> dict[str, int]:
    """Count each builtin op of a file, all subgraphs together: name -> count."""
    counts: Counter[str] = Counter()
    for name in _op_names(data):
        counts[name] += 1
    return dict(sorted(counts.items()))


def _op_names(data: bytes) -> Iterator[str]:
    from ai_edge_litert import schema_py_generated as schema

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = schema.Model.GetRootAs(data, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    kinds = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for position in range(graph.OperatorsLength()):
            yield names[kinds[graph.Operators(position).OpcodeIndex()]]
