"""Measures a net, plain or pruned; what is counted, and how, is in `tfprune.report.measurement`."""

from __future__ import annotations

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
from tfprune.report.measurement import LayerMeasure, Measurement


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
