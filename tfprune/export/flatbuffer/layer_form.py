"""Forms of layers in a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class LayerForm:
    """The form of one layer.

    Attributes:
        name: path of the layer, or where only the converted file is known, what it calls it.
        form: "coefficients" (DCT filters and a sparse 1x1 convolution), "filters" (several of
            these, in XNNPACK's sparse mode), "blocks" (filters and a dense layer of 1x4 blocks),
            "sparse" (its own kernel with zeros) or "dense".
        density: fraction of nonzeros in what is stored.
        dense_bytes, stored_bytes: size of the kernel as dense float32, and as it is stored, about;
            with its share of the DCT filters, where layers have them together.
        note: what the form buys, or why the layer has no other.
        macs: multiply-adds of the dense layer on a single example; 0 where nobody counted.
        time: time over that of the dense layer on a phone's 128-bit SIMD, about.
    """

    name: str
    form: str
    density: float
    dense_bytes: int
    stored_bytes: int
    note: str = ""
    macs: int = 0
    time: float = 1.0


def speedup(layers: Iterable[LayerForm]) -> float:
    """Dense time over time of all layers together, by their `time`, about."""
    counted = [layer for layer in layers if layer.macs]
    part = sum(layer.macs * layer.time for layer in counted)
    return sum(layer.macs for layer in counted) / part if part else 1.0


def layer_name(graph: Any, op: Any) -> str:
    """Name of an op's layer, from the converter's names of its weights or output.

    "net/relu/Relu;net/conv/convolution" names conv.
    """
    names = [graph.tensors[int(n)].name.decode() for n in (*op.inputs[1:2], *op.outputs[:1])]
    parts = [part.split("/") for name in names for part in name.split(";")]
    named = [part for part in parts if part[-1].lower().startswith(KERNELS)]
    path = (named or [names[-1].split(";")[0].split("/")])[0]
    return "/".join(path[1:-1]) or "/".join(path)


KERNELS = ("conv", "matmul", "depthwise")
