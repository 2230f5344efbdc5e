"""`compact(model)`: sparse layers become inference layers on the native kernels."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.graph import _keras
from tfprune.graph.copying import clone_layer, copy_values
from tfprune.graph.layers import weighted_layers
from tfprune.graph.models import check_model
from tfprune.graph.rebuilding import identity, rebuilt
from tfprune.inference.as_convolution import as_convolution, sparsest
from tfprune.inference.fusing import FUSED, Fusion, fusions
from tfprune.inference.sparse_layers import SparseConv
from tfprune.inference.stored import hand_over
from tfprune.inference.strip import strip
from tfprune.maths.sparse_weights import DENSE_FROM, STORAGE
from tfprune.pruned.copying import copy_model
from tfprune.pruned.layers import is_pruned

CHOICES = ("measured", "modelled", "always")
CALLS, ROUNDS = 16, 11  # calls in one graph, which dilute what the call of a graph costs
_CHOICES = "_tfprune_compaction"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What `compact` did with one layer.

    Attributes:
        name: the layer's path.
        form: "sparse" or "dense".
        basis: "dct" or "spatial", whichever has fewer non-zeros.
        density: the fraction of the weights that is not zero, in that basis.
        sparse_ms, dense_ms: one call on one example, where it was measured.
        reason: why it has that form.
        absorbed: names of the layers that became part of it.
    """

    name: str
    form: str
    basis: str
    density: float
    sparse_ms: float | None
    dense_ms: float | None
    reason: str
    absorbed: tuple[str, ...]


def compact(model: keras.Model, choose: str = "measured", storage: str = "float32") -> keras.Model:
    """Put inference layers on packed constants in place of sparse convolutions and dense layers.

    Batch normalizations and ReLUs behind them become part of them, also where a layer stays dense.
    Outputs stay the same to rounding. `.keras` files and SavedModels keep the layers and need
    `import tfprune` (`import tfprune.ops` for a SavedModel) to load. `tfprune.compaction` tells
    what was done with each layer.

    Args:
        model: a pruned model, or a plain one with zeros; Functional or Sequential.
        choose: "measured": per layer whichever form is faster here, on one example, where its size
            is known; "modelled": sparse below a density of 0.4; "always": sparse wherever a kernel
            takes the layer.
        storage: type of stored weights: "float32", "bfloat16" or "float16".

    Returns:
        A copy for inference, not compiled.

    Raises:
        TypeError: if `model` is no Keras 3 model.
        ValueError: for other words, a subclassed model, or another backend than TensorFlow.
    """
    check_model(model)
    for name, value, allowed in (("choose", choose, CHOICES), ("storage", storage, STORAGE)):
        if value not in allowed:
            raise ValueError(f"`{name}` must be one of {', '.join(allowed)}. Received: {value!r}.")
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`compact` needs Keras on TensorFlow. Received: the backend "
            f"{keras.backend.backend()!r}."
        )
    if _keras.graph_of(model) is None:
        raise ValueError(
            "`compact` needs a Functional or Sequential model, without a `call` of its own. "
            f"Received: '{model.name}' of type {model.__class__.__name__}."
        )
    if is_pruned(model):
        plain = strip(model)
    else:
        plain = copy_model(model)
        hand_over(model, plain)
    paths = {id(layer): path for path, layer in weighted_layers(plain)}
    made: dict[int, Callable[[], keras.Layer]] = {}
    choices = []
    for fusion in _shown(fusions(plain)):
        choice, build = _replacement(fusion, paths[id(fusion.layer)], choose, storage)
        choices.append(choice)
        made[id(fusion.layer)] = build
        for layer in fusion.absorbed:
            made[id(layer)] = identity(layer)
    small = rebuilt(plain, made)
    small.trainable = False
    vars(small)[_CHOICES] = tuple(choices)
    return small


def _shown(candidates: Sequence[Fusion]) -> Iterable[Fusion]:
    """Layers take a second each to measure."""
    from tqdm import tqdm

    return tqdm(candidates, desc="compact", unit="layer", leave=False, disable=None)


def compaction(model: keras.Model) -> list[Choice]:
    """What `compact` decided for each layer; of a model read from a file only what is sparse."""
    if _CHOICES in vars(model):
        return list(vars(model)[_CHOICES])
    choices = []
    for path, layer in weighted_layers(model):
        if isinstance(layer, SparseConv):
            density = layer.sparse_weights.density
            basis = layer.spec.basis
            choices.append(Choice(path, "sparse", basis, density, None, None, "from a file", ()))
    return choices


def _replacement(
    fusion: Fusion, path: str, choose: str, storage: str
) -> tuple[Choice, Callable[[], keras.Layer]]:
    """What becomes of a layer, and a function that makes the layer that takes its place."""
    kernel, bias = fusion.arrays()
    dense = _dense(fusion, kernel, bias)
    names = tuple(layer.name for layer in fusion.absorbed)

    def choice(form: str, basis: str, density: float, reason: str, *times: float) -> Choice:
        sparse_ms, dense_ms = times or (None, None)
        return Choice(path, form, basis, density, sparse_ms, dense_ms, reason, names)

    convolution = as_convolution(fusion, kernel)
    if convolution is None:
        density = float(np.mean(kernel != 0))
        return choice("dense", "spatial", density, "no sparse kernel takes it"), dense
    spec, weights, same = convolution
    activation = fusion.activation if fusion.activation in FUSED else "linear"
    spec = dataclasses.replace(spec, activation=activation)
    packed = sparsest(spec, weights, bias, fusion.coefficients())
    basis, density = packed.spec.basis, packed.density
    rest = None if fusion.activation in FUSED else fusion.activation

    def sparse() -> keras.Layer:
        policy = fusion.layer.dtype_policy
        options = {"name": fusion.layer.name, "dtype": policy}
        return SparseConv.holding(packed, storage, same=same, activation=rest, **options)

    sizes = tuple(fusion.call.inputs[0].shape[1:])
    if density == 1.0:
        return choice("dense", basis, density, "it has no zeros"), dense
    if choose == "always":
        return choice("sparse", basis, density, "as asked for"), sparse
    if choose == "modelled" or None in sizes:
        form = "sparse" if density < DENSE_FROM else "dense"
        reason = f"by its density, dense from {DENSE_FROM} on"
        return choice(form, basis, density, reason), sparse if form == "sparse" else dense
    times = _milliseconds([sparse(), dense()], sizes)
    form = "sparse" if times[0] < times[1] else "dense"
    return choice(form, basis, density, "measured", *times), sparse if form == "sparse" else dense


def _dense(fusion: Fusion, kernel: np.ndarray, bias: np.ndarray) -> Callable[[], keras.Layer]:
    """The layer itself, with what follows it."""

    def build() -> keras.Layer:
        layer = fusion.layer
        if not fusion.absorbed:
            copy = clone_layer(layer)
            copy.build(fusion.call.inputs[0].shape)
            copy_values(layer, copy)
            return copy
        config = {**layer.get_config(), "use_bias": True}
        config["activation"] = keras.activations.serialize(keras.activations.get(fusion.activation))
        copy = layer.__class__.from_config(config)
        copy.build(fusion.call.inputs[0].shape)
        copy.kernel.assign(kernel)
        copy.bias.assign(bias)
        return copy

    return build


def _milliseconds(layers: list[keras.Layer], sizes: tuple[int, ...]) -> list[float]:
    """Least time of a call of each on one example, by turns; other work disturbs it little."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    inputs = [tf.constant(rng.normal(size=(1, *sizes)).astype("float32")) for _ in range(CALLS)]
    graphs = [_calling(layer) for layer in layers]
    for graph in graphs:
        graph(inputs)
        graph(inputs)
    times: list[list[float]] = [[] for _ in graphs]
    for _ in range(ROUNDS):
        for graph, durations in zip(graphs, times, strict=True):
            start = time.perf_counter()
            graph(inputs)
            durations.append((time.perf_counter() - start) / CALLS * 1e3)
    return [min(durations) for durations in times]


def _calling(layer: keras.Layer) -> Any:
    """A compiled function of a list of inputs."""
    import tensorflow as tf

    return tf.function(lambda inputs: [layer(x) for x in inputs])
