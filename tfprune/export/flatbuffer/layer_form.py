"""What became of a layer in a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class LayerForm:
    """The form of one layer.

    Attributes:
        name: path of the layer, or where only the converted file is known, what it calls it.
        form: "coefficients" (a bank of filters and a sparse 1x1 convolution), "filters" (several
            of both, in XNNPACK's sparse mode), "blocks" (filters and a dense layer of 1x4 blocks),
            "sparse" (its own kernel with zeros) or "dense".
        density: of what is stored.
        dense_bytes, stored_bytes: of the kernel, as dense float32 and as it is stored, about; with
            its share of the bank, where layers have one together.
        note: what the form buys, or why the layer has no other.
        macs: multiply-adds of the dense layer on one example; 0 where nobody counted.
        time: over that of the dense layer on a phone's 128-bit SIMD, about.
    """

    name: str
    form: str
    density: float
    dense_bytes: int
    stored_bytes: int
    note: str = ""
    macs: int = 0
    time: float = 1.0


def speed_up(layers: Iterable[LayerForm]) -> float:
    """How many times faster than dense ones layers are together, by their `time`, about."""
    known = [layer for layer in layers if layer.macs]
    part = sum(layer.macs * layer.time for layer in known)
    return sum(layer.macs for layer in known) / part if part else 1.0


def layer_name(graph: Any, op: Any) -> str:
    """The layer that the converter's names of an op's weights or output tell of.

    "net/relu/Relu;net/conv/convolution" is of conv.
    """
    names = [graph.tensors[int(n)].name.decode() for n in (*op.inputs[1:2], *op.outputs[:1])]
    parts = [part.split("/") for name in names for part in name.split(";")]
    named = [part for part in parts if part[-1].lower().startswith(KERNELS)]
    found = (named or [names[-1].split(";")[0].split("/")])[0]
    return "/".join(found[1:-1]) or "/".join(found)


KERNELS = ("conv", "matmul", "depthwise")
