"""Layers in another form for export: a convolution as DCT coefficients behind a bank of filters.

    y = K (*) x = sum over frequencies (u, v) of F[u, v] . (B[u, v] * x)

B[u, v] * x is a depthwise convolution of every channel with the basis of the DCT, and F[u, v] a 1x1
convolution with the coefficients, mostly zeros. Both are builtin ops of every TFLite runtime.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from tfprune.export.sparse_file import OVERHEAD, VALUE_BYTES, csr_bytes
from tfprune.sparse_weights import ConvSpec, SparseWeights
from tfprune.training import _keras
from tfprune.training.coefficient_layers import CoefficientConv, bank_and_coefficients
from tfprune.training.convolutions import as_convolution, sparsest
from tfprune.training.fusing import Fusion, fusions
from tfprune.training.layers import weighted_layers
from tfprune.training.rebuilding import identity, rebuilt


@dataclasses.dataclass(frozen=True)
class LayerForm:
    """What became of a layer in a file.

    Attributes:
        name: path of the layer.
        form: "coefficients" (a bank of filters and a sparse 1x1 convolution), "sparse" (its own
            kernel with zeros) or "dense".
        density: of what is stored.
        dense_bytes, stored_bytes: of the kernel, as dense float32 and as it is stored; banks, which
            layers share, are not counted.
    """

    name: str
    form: str
    density: float
    dense_bytes: int
    stored_bytes: int


def smallest(model: keras.Model, storage: str) -> tuple[keras.Model, tuple[LayerForm, ...]]:
    """The model with coefficients in place of the convolutions whose files they make smaller.

    Args:
        model: without masks; a subclassed one stays as it is, since its graph is not known.
        storage: of the values, "float32", "float16" or "int8".
    """
    if _keras.graph_of(model) is None:
        return model, ()
    paths = {id(layer): path for path, layer in weighted_layers(model)}
    made: dict[int, Callable[[], keras.Layer]] = {}
    forms = []
    for fusion in fusions(model):
        form, build = _form(fusion, paths[id(fusion.layer)], VALUE_BYTES[storage])
        forms.append(form)
        if build is not None:
            made[id(fusion.layer)] = build
            made.update({id(layer): identity(layer) for layer in fusion.absorbed})
    return (rebuilt(model, made) if made else model), tuple(forms)


def _form(
    fusion: Fusion, path: str, value_bytes: int
) -> tuple[LayerForm, Callable[[], keras.Layer] | None]:
    """The smallest form of a layer, and what makes the layer that has it."""
    kernel, bias = fusion.arrays()
    dense = kernel.size * value_bytes
    sizes = {"dense": dense, "sparse": _sparse_bytes(kernel, value_bytes)}
    density = float(np.mean(kernel != 0))
    packed = _coefficients(fusion, kernel, bias)
    if packed is not None:
        _, found = bank_and_coefficients(packed)
        columns, rows = found.shape
        count = int(np.count_nonzero(found))
        sizes["coefficients"] = OVERHEAD + csr_bytes(count, rows, columns, value_bytes)
    form = min(sizes, key=lambda name: sizes[name])
    if form == "coefficients" and packed is not None:
        density = packed.density
    made = LayerForm(path, form, density, kernel.size * 4, sizes[form])
    if form != "coefficients" or packed is None:
        return made, None
    options = {"name": fusion.layer.name, "dtype": "float32"}
    word, activation = fusion.layer.padding, fusion.activation
    return made, lambda: CoefficientConv(packed, word, activation, **options)


def _sparse_bytes(kernel: np.ndarray, value_bytes: int) -> int:
    """A kernel with zeros, in the order in which TFLite keeps it: input channels are columns."""
    columns = kernel.shape[-2]
    count = int(np.count_nonzero(kernel))
    return OVERHEAD + csr_bytes(count, kernel.size // columns, columns, value_bytes)


def _coefficients(fusion: Fusion, kernel: np.ndarray, bias: np.ndarray) -> SparseWeights | None:
    """The coefficients of a convolution that builtin ops can compute from them."""
    if fusion.call.cls is not keras.layers.Conv2D or kernel.shape[0] * kernel.shape[1] == 1:
        return None
    found = as_convolution(fusion, kernel)
    if found is None:
        return None
    spec, kernel, _ = found
    plain = ConvSpec(
        spec.in_channels, spec.out_channels, spec.kernel_size, spec.strides, groups=spec.groups
    )
    if spec.groups > 1 or max(spec.dilations) > 1 or len(set(spec.strides)) > 1:
        return None
    if fusion.layer.data_format != "channels_last":
        return None
    packed = sparsest(plain, kernel, bias)
    return packed if packed.spec.basis == "dct" else None
