"""A `.tflite` file taken apart into Python objects, changed, and put together again."""

from __future__ import annotations

from typing import Any

import numpy as np

OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "CONCATENATION": "ConcatenationOptions",
    "MEAN": "ReducerOptions",
    "PAD": "PadOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
}
STORED = ("float32", "float16", "int8")


class FlatFile:
    """The objects of a file, and the edits that targets make.

    Attributes:
        model: `ModelT` of LiteRT's schema.
        graphs: its subgraphs.
    """

    def __init__(self, data: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        self.graphs: list[Any] = self.model.subgraphs
        kinds = vars(schema.BuiltinOperator).items()
        self._names = {value: name for name, value in kinds if isinstance(value, int)}

    def kind(self, op: Any) -> str:
        """Name of a builtin op, such as "CONV_2D"."""
        code = self.model.operatorCodes[op.opcodeIndex]
        return self._names[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def constant(self, tensor: Any) -> np.ndarray | None:
        """Values of a dense constant float32 tensor, else None."""
        data = self.model.buffers[tensor.buffer].data
        if data is None or not len(data) or tensor.sparsity is not None:
            return None
        if tensor.type != self.schema.TensorType.FLOAT32 or tensor.shape is None:
            return None
        return np.frombuffer(bytes(data), "<f4").reshape([int(n) for n in tensor.shape])

    def values(self, tensor: Any) -> np.ndarray:
        """Values that a constant tensor holds, flat; a sparse tensor leaves zeros out."""
        kinds = {getattr(self.schema.TensorType, k.upper()): np.dtype(k) for k in STORED}
        data = self.model.buffers[tensor.buffer].data
        return np.frombuffer(b"" if data is None else bytes(data), kinds[tensor.type])

    def integers(self, tensor: Any) -> np.ndarray | None:
        """Values of a constant int32 tensor, such as a PAD's amounts, else None."""
        data = self.model.buffers[tensor.buffer].data
        if data is None or tensor.type != self.schema.TensorType.INT32:
            return None
        return np.frombuffer(bytes(data), "<i4").reshape([int(n) for n in tensor.shape])

    def add_constant(self, graph: Any, shape: Any, values: np.ndarray, **fields: Any) -> int:
        """Add a constant tensor, and return its index.

        Args:
            graph: the subgraph.
            shape: of the tensor.
            values: its values; fewer than `shape` says for a sparse tensor.
            fields: further fields of the tensor, such as `type`; float32 without it.
        """
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return self.add_tensor(graph, shape, buffer=len(self.model.buffers) - 1, **fields)

    def add_tensor(self, graph: Any, shape: Any, buffer: int = 0, **fields: Any) -> int:
        """Add a tensor, and return its index.

        Args:
            graph: the subgraph.
            shape: of the tensor.
            buffer: index of its values; 0 for a tensor that is computed.
            fields: further fields of the tensor, such as `type`; float32 without it.
        """
        tensor = self.schema.TensorT()
        tensor.shape, tensor.name, tensor.buffer = np.array(shape, np.int32), b"", buffer
        tensor.hasRank, tensor.type = True, self.schema.TensorType.FLOAT32
        for name, value in fields.items():
            setattr(tensor, name, value)
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def add_op(
        self, kind: str, version: int, inputs: list[int], outputs: list[int], **options: Any
    ) -> Any:
        """Make an op, which is in no graph yet.

        Args:
            kind: the builtin op's name, such as "CONV_2D".
            version: of the op.
            inputs, outputs: tensors.
            options: fields of the op's options.
        """
        builtin = getattr(self.schema.BuiltinOperator, kind)
        codes = [(code.builtinCode, code.version) for code in self.model.operatorCodes]
        if (builtin, version) not in codes:
            code = self.schema.OperatorCodeT()
            code.builtinCode, code.version = builtin, version
            code.deprecatedBuiltinCode = min(builtin, 127)
            self.model.operatorCodes.append(code)
            codes.append((builtin, version))
        op = self.schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = codes.index((builtin, version)), inputs, outputs
        if options:
            self._set_options(op, kind, options)
        return op

    def _set_options(self, op: Any, kind: str, options: dict[str, Any]) -> None:
        """Set the options of an op, whose class has its name in another spelling."""
        name = OPTIONS[kind]
        op.builtinOptionsType = getattr(self.schema.BuiltinOptions, name)
        op.builtinOptions = getattr(self.schema, f"{name}T")()
        for field, value in options.items():
            if not hasattr(op.builtinOptions, field):
                raise AttributeError(f"{name} must have the field. Received: {field!r}.")
            setattr(op.builtinOptions, field, value)

    def drop_unread(self, graph: Any) -> None:
        """Drop the ops whose outputs nothing reads any more."""
        ops = list(graph.operators)
        while True:
            read = {int(n) for op in ops for n in op.inputs} | {int(n) for n in graph.outputs}
            left = [op for op in ops if read & {int(n) for n in op.outputs}]
            if len(left) == len(ops):
                graph.operators = left
                return
            ops = left

    def to_bytes(self) -> bytes:
        """Write the file, with every buffer once and none that nothing uses."""
        import flatbuffers

        for index, graph in enumerate(self.graphs):
            self._drop_unused(index, graph)
        self._gather_buffers()
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _drop_unused(self, graph_index: int, graph: Any) -> None:
        """Drop the tensors that no op, input or output names any more."""
        ops = list(graph.operators)
        lists = [graph.inputs, graph.outputs]
        lists += [part for op in ops for part in (op.inputs, op.outputs, op.intermediates)]
        used = sorted({int(n) for part in lists if part is not None for n in part if n >= 0})
        new = {old: index for index, old in enumerate(used)} | {-1: -1}

        def renumbered(part: Any) -> Any:
            return None if part is None else np.array([new[int(n)] for n in part], np.int32)

        graph.tensors = [graph.tensors[old] for old in used]
        graph.inputs, graph.outputs = renumbered(graph.inputs), renumbered(graph.outputs)
        for op in ops:
            op.inputs, op.outputs = renumbered(op.inputs), renumbered(op.outputs)
            op.intermediates = renumbered(op.intermediates)
        for signature in self.model.signatureDefs or ():
            if signature.subgraphIndex == graph_index:
                for end in (*(signature.inputs or ()), *(signature.outputs or ())):
                    end.tensorIndex = new[int(end.tensorIndex)]

    def _gather_buffers(self) -> None:
        """Merge equal buffers; buffer 0 stays the empty buffer that the format asks for."""
        users = [tensor for graph in self.graphs for tensor in graph.tensors]
        users += list(self.model.metadata or ())
        kept, indices = [self.model.buffers[0]], {b"": 0}
        for user in users:
            buffer = self.model.buffers[user.buffer]
            data = b"" if buffer.data is None else bytes(buffer.data)
            if data not in indices:
                indices[data] = len(kept)
                kept.append(buffer)
            user.buffer = indices[data]
        self.model.buffers = kept
