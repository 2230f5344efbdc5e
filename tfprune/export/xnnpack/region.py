"""The part of a graph that is to run in XNNPACK's sparse mode, from an image to its global mean."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfprune.export.flatbuffer.file import FlatFile
from tfprune.export.flatbuffer.layer_form import layer_name

ENTRY_CHANNELS = 3  # what the mode's entry takes, and no other count
PADS = ("PAD", "PADV2")


@dataclasses.dataclass
class Region:
    """Ops between an image of up to three channels and the means over height and width.

    Attributes:
        source: the tensor that the region reads.
        ops: its ops in order, the means among them.
        made_by: tensor -> the op that makes it, of the whole graph.
        read_by: tensor -> the ops that read it, likewise.
        violations: sentences on what stands in the way.
    """

    source: int
    ops: list[Any]
    made_by: dict[int, Any]
    read_by: dict[int, list[Any]]
    violations: list[str]


def links(graph: Any) -> tuple[dict[int, Any], dict[int, list[Any]]]:
    """Tensor -> the op that makes it, and tensor -> the ops that read it, without repetition."""
    made_by = {int(n): op for op in graph.operators for n in op.outputs}
    read_by: dict[int, list[Any]] = {}
    for op in graph.operators:
        for tensor in {int(n) for n in op.inputs if n >= 0}:
            read_by.setdefault(tensor, []).append(op)
    return made_by, read_by


def describe(file: FlatFile, graph: Any, op: Any) -> str:
    """Kind and layer of an op, as text."""
    return f"{file.kind(op)} '{layer_name(graph, op)}'"


def is_image(graph: Any, tensor: int) -> bool:
    """Whether a tensor has four axes, all of fixed size but for the first."""
    shape = graph.tensors[tensor].shape
    return shape is not None and len(shape) == 4 and not _is_open(graph.tensors[tensor])


def _is_open(tensor: Any) -> bool:
    sizes = tensor.shapeSignature
    return sizes is not None and any(int(n) < 0 for n in sizes[1:])


def is_global_mean(file: FlatFile, graph: Any, op: Any) -> bool:
    """Whether an op is a mean over height and width alone, or a pool of all pixels."""
    if not is_image(graph, int(op.inputs[0])):
        return False
    if file.kind(op) == "AVERAGE_POOL_2D":
        options, size = op.builtinOptions, graph.tensors[int(op.inputs[0])].shape[1:3]
        pooled = graph.tensors[int(op.outputs[0])].shape[1:3]
        window = [options.filterHeight, options.filterWidth]
        return [int(n) for n in size] == window and [int(n) for n in pooled] == [1, 1]
    if file.kind(op) != "MEAN":
        return False
    axes = file.integers(graph.tensors[int(op.inputs[1])])
    return axes is not None and sorted(int(n) % 4 for n in axes.ravel()) == [1, 2]


def find_region(file: FlatFile, graph: Any) -> Region | str:
    """The region of a dense graph, or a sentence on why it has none."""
    if any(_is_open(graph.tensors[int(n)]) for n in graph.inputs):
        return "the size of the image must be known: build the model for a single size"
    made_by, read_by = links(graph)
    means = [op for op in graph.operators if is_global_mean(file, graph, op)]
    if not means:
        return "the sparse mode ends in a global average pooling, and the model has none"
    above = _ancestors(means, made_by)
    first = next((op for op in graph.operators if _begins(file, graph, op, above)), None)
    if first is None:
        return (
            f"the sparse mode begins at an image of at most {ENTRY_CHANNELS} channels, and no "
            "convolution in front of the global average pooling reads one"
        )
    source = int(first.inputs[0])
    if source in made_by and file.kind(made_by[source]) in PADS:
        source = int(made_by[source].inputs[0])
    ops = _behind(file, graph, source)
    region = Region(source, ops, made_by, read_by, [])
    region.violations = _violations(file, graph, region, above)
    return region


def _ancestors(ops: list[Any], made_by: dict[int, Any]) -> set[int]:
    """ids of the ops that lead to `ops`, these included."""
    ancestors: set[int] = set()
    waiting = list(ops)
    while waiting:
        op = waiting.pop()
        if id(op) not in ancestors:
            ancestors.add(id(op))
            waiting += [made_by[int(n)] for n in op.inputs if int(n) in made_by]
    return ancestors


def _begins(file: FlatFile, graph: Any, op: Any, above: set[int]) -> bool:
    if id(op) not in above or file.kind(op) not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return False
    tensor = int(op.inputs[0])
    return is_image(graph, tensor) and int(graph.tensors[tensor].shape[3]) <= ENTRY_CHANNELS


def _behind(file: FlatFile, graph: Any, source: int) -> list[Any]:
    """Ops that a tensor leads to, as far as the means."""
    reached, ops = {source}, []
    for op in graph.operators:
        if any(int(n) in reached for n in op.inputs):
            ops.append(op)
            if not is_global_mean(file, graph, op):
                reached |= {int(n) for n in op.outputs}
    return ops


def _violations(file: FlatFile, graph: Any, region: Region, above: set[int]) -> list[str]:
    inside = {int(n) for op in region.ops for n in op.outputs} | {region.source}
    results = {int(n) for n in graph.outputs}
    violations = []
    for op in region.ops:
        name = describe(file, graph, op)
        mean = is_global_mean(file, graph, op)
        if id(op) not in above:
            violations.append(f"{name} does not lead to a global average pooling")
        elif not mean and results & {int(n) for n in op.outputs}:
            violations.append(
                f"{name} is an output of the model in front of the global average pooling"
            )
        for tensor in (int(n) for n in op.inputs if n >= 0):
            held = file.model.buffers[graph.tensors[tensor].buffer].data
            if tensor not in inside and (held is None or not len(held)):
                violations.append(f"{name} also reads what does not come from the image")
    return violations
