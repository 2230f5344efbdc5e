"""Layers in another form for export: a convolution as DCT coefficients behind DCT filters.

    y = K (*) x = sum over frequencies (u, v) of F[u, v] . (B[u, v] * x)

B[u, v] * x is a depthwise convolution of every channel with the basis of the DCT, and F[u, v] a 1x1
convolution with the coefficients, mostly zeros. Both are builtin ops of every TFLite runtime.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

import keras
import numpy as np

from tfprune.export.dct_filters import filters_and_coefficients
from tfprune.export.flatbuffer import pack
from tfprune.export.flatbuffer.contents import op_counts
from tfprune.export.flatbuffer.encoding import smallest as stored_form
from tfprune.export.flatbuffer.file import FlatFile
from tfprune.export.flatbuffer.layer_form import LayerForm
from tfprune.export.result import ExportError
from tfprune.export.storage import STORAGES, VALUES, Storage
from tfprune.export.targets.coefficient_layer import CoefficientConv
from tfprune.export.targets.dense import dense
from tfprune.export.targets.target import Built, Target
from tfprune.export.verify.runtime import Sample
from tfprune.export.view import View
from tfprune.export.xnnpack import sparse_mode
from tfprune.graph import _keras
from tfprune.graph.layers import weighted_layers
from tfprune.graph.rebuilding import identity, rebuilt
from tfprune.inference.as_convolution import as_convolution, sparsest
from tfprune.inference.fusing import Fusion, fusions
from tfprune.maths.sparse_weights import SparseWeights

MAX_SIZE = 0.9  # bytes over those of the kernel below which coefficients are taken


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A model for conversion, the forms of its layers, and notes on it."""

    model: keras.Model
    layers: tuple[LayerForm, ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A layer that may become coefficients: how they are stored, and the DCT filters they need."""

    weights: SparseWeights
    bytes: int
    filters_key: tuple[object, ...]
    filters_bytes: int


def prepare(model: keras.Model, storage: str) -> Prepared:
    """Replace convolutions by coefficients where that makes the file smaller.

    Args:
        model: a model without masks; a subclassed model, or a model that cannot be copied, stays
            as it is.
        storage: type of the values, "float32", "float16" or "int8".
    """
    if _keras.graph_of(model) is None:
        return Prepared(model)
    paths = {id(layer): path for path, layer in weighted_layers(model)}
    all_fusions = fusions(model)
    own: dict[int, LayerForm] = {}
    candidates: dict[int, _Candidate] = {}
    for fusion in all_fusions:
        kernel, bias = fusion.arrays()
        own[id(fusion)] = _own(fusion, kernel, paths[id(fusion.layer)], storage)
        weights = _coefficients(fusion, kernel, bias)
        if weights is not None:
            candidates[id(fusion)] = _candidate(weights, storage)
    chosen = _smaller(candidates, own)
    builders: dict[int, Callable[[], keras.Layer]] = {}
    for fusion in all_fusions:
        if id(fusion) in chosen:
            builders[id(fusion.layer)] = _builder(fusion, chosen[id(fusion)].weights)
            builders.update({id(layer): identity(layer) for layer in fusion.absorbed})
    before = tuple(own[id(fusion)] for fusion in all_fusions)
    if not builders:
        return Prepared(model, before)
    try:
        changed = rebuilt(model, builders)
    except (TypeError, ValueError, NotImplementedError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        note = f"no layer was stored as coefficients, as the model cannot be copied: {reason}"
        return Prepared(model, before, (note,))
    shares = Counter(candidate.filters_key for candidate in chosen.values())
    after = tuple(
        _as_coefficients(own[id(f)], chosen[id(f)], shares) if id(f) in chosen else own[id(f)]
        for f in all_fusions
    )
    return Prepared(changed, after)


def _own(fusion: Fusion, kernel: np.ndarray, path: str, storage: str) -> LayerForm:
    """Form of a layer with its own kernel, as TFLite keeps it."""
    values, axis = _in_tflite(kernel, fusion)
    stored = stored_form(values, storage, axis)
    form = "sparse" if stored.rows else "dense"
    return LayerForm(path, form, float(np.mean(kernel != 0)), kernel.size * 4, stored.bytes)


def _in_tflite(kernel: np.ndarray, fusion: Fusion) -> tuple[np.ndarray, int]:
    """A kernel in TFLite's order of axes, and the axis of output channels."""
    if "Depthwise" in fusion.call.cls.__name__:
        return kernel.reshape(1, *kernel.shape[:-2], -1), kernel.ndim - 1
    return np.ascontiguousarray(np.moveaxis(kernel, -1, 0)), 0


def _smaller(candidates: dict[int, _Candidate], own: dict[int, LayerForm]) -> dict[int, _Candidate]:
    """The candidates that get smaller, with the DCT filters that layers of a kind share."""
    groups: dict[tuple[object, ...], dict[int, _Candidate]] = {}
    for key, candidate in candidates.items():
        if candidate.bytes < MAX_SIZE * own[key].stored_bytes:
            groups.setdefault(candidate.filters_key, {})[key] = candidate
    chosen: dict[int, _Candidate] = {}
    for group in groups.values():
        shared = next(iter(group.values())).filters_bytes
        after = shared + sum(candidate.bytes for candidate in group.values())
        if after < MAX_SIZE * sum(own[key].stored_bytes for key in group):
            chosen.update(group)
    return chosen


def _candidate(weights: SparseWeights, storage: str) -> _Candidate:
    filters, coefficients = filters_and_coefficients(weights)
    in_tflite = filters.reshape(1, *filters.shape[:2], -1)
    stored = stored_form(np.ascontiguousarray(coefficients.T), storage)
    key = (filters.shape, filters.tobytes())
    return _Candidate(weights, stored.bytes, key, stored_form(in_tflite, storage, 3).bytes)


def _as_coefficients(
    own: LayerForm, candidate: _Candidate, shares: Counter[tuple[object, ...]]
) -> LayerForm:
    size = candidate.bytes + candidate.filters_bytes // shares[candidate.filters_key]
    return LayerForm(own.name, "coefficients", candidate.weights.density, own.dense_bytes, size)


def _builder(fusion: Fusion, weights: SparseWeights) -> Callable[[], keras.Layer]:
    options = {"name": fusion.layer.name, "dtype": "float32"}
    padding, activation = fusion.layer.padding, fusion.activation
    return lambda: CoefficientConv(weights, padding, activation, **options)


def _coefficients(fusion: Fusion, kernel: np.ndarray, bias: np.ndarray) -> SparseWeights | None:
    """Coefficients of a convolution that builtin ops can compute from them, else None."""
    if fusion.call.cls is not keras.layers.Conv2D or kernel.shape[0] * kernel.shape[1] == 1:
        return None
    convolution = as_convolution(fusion, kernel)
    if convolution is None:
        return None
    spec, kernel, _ = convolution
    if spec.groups > 1 or max(spec.dilations) > 1 or len(set(spec.strides)) > 1:
        return None
    if fusion.layer.data_format != "channels_last":
        return None
    weights = sparsest(spec, kernel, bias, fusion.coefficients())
    return weights if weights.spec.basis == "dct" else None


def _smallest_graph(view: View, storage: str) -> tuple[Prepared, bytes]:
    """The model in its smallest form and its dense file, built once for a view."""
    if ("smallest", storage) not in view.built:
        prepared = prepare(view.model, storage)
        other = dataclasses.replace(view, model=prepared.model)
        plain = dense(other, STORAGES["float32"], []).data
        view.built["smallest", storage] = prepared, plain
    return view.built["smallest", storage]


def smallest(view: View, storage: Storage, calibration: list[Sample]) -> Built:
    """Convert, then store the weights as compressed rows.

    Raises:
        ExportError: where a phone's runtime would compute the sparse graph wrongly.
    """
    prepared, plain = _smallest_graph(view, storage.name)
    data = pack.store(FlatFile(plain), storage.values)
    entries, ops = sparse_mode.check(plain).entries, op_counts(data)
    ends = any(kind in ops for kind in sparse_mode.SINKS)
    if entries and ends and "DENSIFY" in ops and sparse_mode.check(data).violations:
        raise ExportError(
            f"With sparse weights, phones would compute this model wrongly: {entries[0]} begins "
            "XNNPACK's sparse mode, which the layers behind it do not fit. Use target='dense', or "
            'give that convolution another stride, padding="same", or a fourth input channel.'
        )
    return Built(data, prepared.layers, prepared.notes)


TARGET = Target("smallest", smallest, VALUES)
