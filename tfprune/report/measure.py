"""The numbers of a net, plain or pruned: parameters, non-zeros, multiply-adds, and three ratios.

Papers count compression in three ways and seldom say in which. All three are kept apart here:

- `compression`: all trainable weights and biases of the net, over those of them that are not zero.
  Scale and offset of normalisation layers are among them; running statistics, masks and whatever
  else pruning keeps beside the weights are not. A frozen layer counts like any other.
- `compression_weights`: the same ratio over the prunable kernels only.
- `compression_with_indices`: bytes of all weights and biases as dense float32, over their bytes
  when each tensor is stored in the cheaper of two forms, dense float32 or compressed rows (CSR).
  A tensor of n elements, z of them not zero, and last axis L has n / L rows and takes in CSR

      z * (4 + c) + (n / L + 1) * r  bytes,

  with column indices of c = 1, 2 or 4 bytes for L up to 2**8, up to 2**16, or above (uint8, uint16,
  int32), and row pointers of r = 2 bytes for z < 2**16, else 4 (uint16, int32).

Weights are counted in the domain in which they are pruned (DCT coefficients, for one), as a file
would hold them.

`theoretical_speedup` is multiply-adds of the dense net (see `tfprune.graph.macs`) over those that
are left: of weights that are not zero, and of the transform of a layer's inputs to the pruned
domain, but never more than the dense layer's, which can always replace the sparse one. No
hardware delivers it as it stands.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from tfprune.graph.layers import find_variable, own_variables, prunable_names, weighted_layers
from tfprune.graph.macs import Uncountable, kernel_uses
from tfprune.inference.sparse_layers import SparseConv
from tfprune.maths import dct_macs
from tfprune.maths.spec import WeightSpec
from tfprune.pruned.layers import STATE, stored_weights


@dataclasses.dataclass(frozen=True)
class LayerMeasure:
    """The numbers of one layer.

    Attributes:
        name: path of the layer in the model, joined with "/".
        kind: class name of the layer.
        shape: shape of its main kernel; a list of shapes where it has several.
        parameters: trainable weights and biases of the layer.
        nonzero: those that are not zero.
        macs: multiply-adds of one inference on one example, all calls of the layer together; None
            where they can't be told.
        macs_kept: multiply-adds left when those with a zero weight are skipped, with
            `transform_macs`; `macs` where that is less.
        transform_macs: multiply-adds that transform the inputs to the pruned domain.
        kernel_parameters, kernel_nonzero: the same counts over the prunable kernels only.
        dense_bytes, stored_bytes: the layer as dense float32, and with indices (see the module).
    """

    name: str
    kind: str
    shape: list[int] | list[list[int]]
    parameters: int
    nonzero: int
    macs: int | None
    macs_kept: int | None
    transform_macs: int | None
    kernel_parameters: int
    kernel_nonzero: int
    dense_bytes: int
    stored_bytes: int

    @property
    def density(self) -> float | None:
        """Fraction of the parameters that is not zero."""
        return _ratio(self.nonzero, self.parameters)

    def to_dict(self) -> dict[str, Any]:
        """All numbers, JSON-able."""
        return {**dataclasses.asdict(self), "density": self.density}


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The numbers of a net: `layers`, totals over them, and `notes` on what could not be counted.

    A ratio is None where it would be infinite (nothing is left) or is undefined (nothing to count).
    """

    layers: tuple[LayerMeasure, ...]
    notes: tuple[str, ...] = ()

    def _sum(self, name: str) -> int:
        return sum(getattr(layer, name) or 0 for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Trainable weights and biases of the net."""
        return self._sum("parameters")

    @property
    def nonzero(self) -> int:
        """Trainable weights and biases that are not zero."""
        return self._sum("nonzero")

    @property
    def density(self) -> float | None:
        """nonzero / parameters."""
        return _ratio(self.nonzero, self.parameters)

    @property
    def macs(self) -> int | None:
        """Multiply-adds of one inference, over the layers where they can be counted."""
        return self._sum("macs") if self._counted else None

    @property
    def macs_kept(self) -> int | None:
        """Multiply-adds of one inference that are left."""
        return self._sum("macs_kept") if self._counted else None

    @property
    def transform_macs(self) -> int | None:
        """Multiply-adds that transform inputs to the pruned domain, part of `macs_kept`."""
        return self._sum("transform_macs") if self._counted else None

    @property
    def _counted(self) -> bool:
        return any(layer.macs is not None for layer in self.layers)

    @property
    def compression(self) -> float | None:
        """All weights and biases / those that are not zero."""
        return _ratio(self.parameters, self.nonzero)

    @property
    def compression_weights(self) -> float | None:
        """Weights of the prunable kernels / those that are not zero."""
        return _ratio(self._sum("kernel_parameters"), self._sum("kernel_nonzero"))

    @property
    def compression_with_indices(self) -> float | None:
        """Bytes as dense float32 / bytes with each tensor dense or CSR, whichever is smaller."""
        return _ratio(self._sum("dense_bytes"), self._sum("stored_bytes"))

    @property
    def theoretical_speedup(self) -> float | None:
        """Multiply-adds / multiply-adds that are left."""
        return _ratio(self.macs or 0, self.macs_kept or 0)

    def to_dict(self) -> dict[str, Any]:
        """Layers, totals and ratios, JSON-able (None, never infinity)."""
        sums = ("kernel_parameters", "kernel_nonzero", "dense_bytes", "stored_bytes")
        totals = (
            *("parameters", "nonzero", "density", "macs", "macs_kept", "transform_macs"),
            *(
                "compression",
                "compression_weights",
                "compression_with_indices",
                "theoretical_speedup",
            ),
        )
        return {
            "layers": [layer.to_dict() for layer in self.layers],
            **{name: getattr(self, name) for name in totals},
            **{name: self._sum(name) for name in sums},
            "notes": list(self.notes),
        }


def measure(model: keras.Layer, input_shape: Any = None) -> Measurement:
    """Measure a built Keras 3 model or layer, plain or pruned, as its forward pass uses it.

    Args:
        model: a built model; nested, shared, subclassed and recurrent layers are seen through. A
            shared layer has its parameters once and its multiply-adds once per call.
        input_shape: shape of one example without batch axis, or such shapes in the structure of
            the model's inputs. Needed for the multiply-adds only, where the model has unknown
            dimensions or does not know its input; without it they are None, and `notes` says why.

    Raises:
        TypeError: if `model` is no Keras 3 layer.
        ValueError: if it is not built, or does not run with the `input_shape` given.
    """
    if not isinstance(model, keras.Layer):
        raise TypeError(f"`model` must be a Keras 3 model or layer. Received: {_kind(model)}.")
    layers = weighted_layers(model)
    if not model.built or not layers:
        raise ValueError(
            f"`model` must be built and have weights. Received: {model.name!r} "
            f"({_kind(model)}), {'without weights' if model.built else 'not built'}. "
            "Call it once on data, or give it an `Input`."
        )
    uses, notes = _count(model, input_shape)
    measures = [
        _measure_layer(name, layer, None if uses is None else uses.get(id(layer), 0))
        for name, layer in layers
        if own_variables(layer) or isinstance(layer, SparseConv)
    ]
    unknown = [layer.name for layer in measures if layer.macs is None] if uses is not None else []
    if unknown:
        notes.append(f"multiply-adds not known, left out of the totals: {', '.join(unknown)}")
    return Measurement(tuple(measures), tuple(notes))


def _kind(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__name__}"


def _count(model: keras.Layer, input_shape: Any) -> tuple[dict[int, Any] | None, list[str]]:
    try:
        return kernel_uses(model, input_shape), []
    except Uncountable as error:
        if input_shape is not None:
            raise ValueError(
                f"`input_shape` = {input_shape!r} does not fit: {error}. It must be the shape "
                "of one example, without batch axis."
            ) from error
        return None, [f"multiply-adds not counted: {error}"]


def _measure_layer(name: str, layer: keras.Layer, uses: Any) -> LayerMeasure:
    if isinstance(layer, SparseConv):
        return _measure_sparse(name, layer, uses)
    values = stored_weights(layer)
    prunable = {id(find_variable(layer, kernel)) for kernel in prunable_names(layer)}
    kernels = [key for key, variable in own_variables(layer).items() if id(variable) in prunable]
    nonzero = {key: int(np.count_nonzero(value)) for key, value in values.items()}
    main = [list(values[key].shape) for key in kernels or list(values)[:1]]
    size = sum(values[key].size for key in kernels)
    return LayerMeasure(
        name=name,
        kind=layer.__class__.__name__,
        shape=main[0] if len(main) == 1 else main,
        parameters=sum(value.size for value in values.values()),
        nonzero=sum(nonzero.values()),
        **_multiply_adds(layer, uses, size, sum(nonzero[key] for key in kernels)),
        kernel_parameters=size,
        kernel_nonzero=sum(nonzero[key] for key in kernels),
        dense_bytes=sum(4 * value.size for value in values.values()),
        stored_bytes=sum(stored_bytes(value.shape, nonzero[key]) for key, value in values.items()),
    )


def _measure_sparse(name: str, layer: SparseConv, uses: Any) -> LayerMeasure:
    """A layer of `tfprune.compact`, as the convolution that it computes."""
    csr = layer.sparse_weights
    kernel, spec = csr.dense(), csr.spec
    kept, biases = len(csr.values), int(np.count_nonzero(csr.bias))
    axes = ("kh", "kw", "cin", "cout")
    weight = WeightSpec("kernel", kernel.shape, axes, groups=spec.groups)
    extra = dct_macs.per_use(weight, kernel) if spec.basis == "dct" else 0.0
    return LayerMeasure(
        name=name,
        kind="SparseConv",
        shape=list(kernel.shape),
        parameters=kernel.size + csr.bias.size,
        nonzero=kept + biases,
        **_work(uses, kernel.size, kept, extra),
        kernel_parameters=kernel.size,
        kernel_nonzero=kept,
        dense_bytes=4 * (kernel.size + csr.bias.size),
        stored_bytes=stored_bytes(kernel.shape, kept) + stored_bytes(csr.bias.shape, biases),
    )


def _multiply_adds(layer: keras.Layer, uses: Any, size: int, kept: int) -> dict[str, int | None]:
    state = getattr(layer, STATE, None)
    extra = 0.0
    if state is not None:
        kernels = [(name, spec) for name, spec in state.specs.items() if not spec.is_bias]
        extra = sum(state.domain.transform_macs(s, state.stored(name)) for name, s in kernels)
    return _work(uses, size, kept, extra)


def _work(uses: Any, size: int, kept: int, extra: float) -> dict[str, int | None]:
    if uses is None:
        return {"macs": None, "macs_kept": None, "transform_macs": None}
    dense, sparse = round(uses * size), round(float(uses) * (kept + extra))
    if sparse >= dense:
        return {"macs": dense, "macs_kept": dense, "transform_macs": 0}
    return {"macs": dense, "macs_kept": sparse, "transform_macs": round(float(uses) * extra)}


def stored_bytes(shape: tuple[int, ...], nonzero: int) -> int:
    """Bytes of a float32 tensor in the cheaper of dense and CSR over the last axis."""
    size = math.prod(shape)
    if not shape or not size:
        return 4 * size
    column = 1 if shape[-1] <= 2**8 else 2 if shape[-1] <= 2**16 else 4
    pointer = 2 if nonzero < 2**16 else 4
    return min(4 * size, nonzero * (4 + column) + (size // shape[-1] + 1) * pointer)


def _ratio(top: int, bottom: int) -> float | None:
    return top / bottom if bottom else None
