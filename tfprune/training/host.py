"""`prune` and `strip`: put a method into a Keras model, and take it out again."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.compat.tfmot import is_legacy_keras_model
from tfprune.method import Method, WeightSpec
from tfprune.schedules import check_schedule
from tfprune.signals import OutputSensitivity
from tfprune.training import _keras, saving, select
from tfprune.training.copying import compile_like, copy_model, unwrap
from tfprune.training.graphs import has_own_kernel
from tfprune.training.layers import (
    STATE,
    effective_weights,
    has_kernel,
    own_variables,
    variable_of,
    weighted_layers,
)
from tfprune.training.parametrize import parametrize, share_in_loops, unparametrize, unshare
from tfprune.training.scales import fold_scales, hold_scales, release_scales, released_scales
from tfprune.training.shrinking import shrunk
from tfprune.training.specs import Facts, adapted_specs, facts_of, with_uses
from tfprune.training.state import PruneState

SIGNALS = (OutputSensitivity,)  # what the hosts can measure for methods that ask for it


def pruned_layers(model: keras.Layer) -> list[tuple[str, keras.Layer]]:
    """(path, layer) of the layers of a model that are pruned."""
    return [(path, layer) for path, layer in weighted_layers(model) if hasattr(layer, STATE)]


def is_pruned(model: keras.Layer) -> bool:
    """Whether any layer of a model is pruned (and not stripped yet)."""
    return bool(pruned_layers(model))


def prune(
    model: keras.Model,
    method: Any,
    schedule: Any = None,
    filters: Any = None,
    in_place: bool = False,
) -> keras.Model:
    """Return a copy of a built Keras model whose layers are pruned while it trains.

    Args:
        model: a built `keras.Model` of any kind: Sequential, Functional, subclassed, nested.
        method: a `Method`, or a dict from layer keys to a method or None (leave out). A key is a
            regular expression searched in the layer's path, a layer class, a layer or a callable
            `layer -> bool`; the first that fits decides.
        schedule: a `PruningSchedule`, tfmot's too, or a dict from layer keys to one. None: the
            method's own.
        filters: which layers to prune: None (all that have a kernel), a key, a list of keys, or a
            dict from keys to bool. What is left out, and why, is in `tfprune.report`.
        in_place: change `model` itself; the only way for subclassed models without `get_config`.
            Other models that share its layers change with it. Where the method trains variables of
            its own, a compiled model gets a new optimizer.

    Returns:
        The pruned model, which computes the same function until its masks change. It is compiled as
        `model` was, if it was. Train it with `tfprune.PruningCallback`.

    Raises:
        TypeError: if an argument has the wrong type, or `model` is a Keras 2 model.
        ValueError: if the model is not built or pruned already, weights are not finite, a filter
            selects nothing, or a subclassed model cannot be copied.
    """
    check_model(model)
    layers = select.prunable(model)
    _check_layers(model, layers)
    chosen = select.filtered(layers, filters)
    plans = _plans(chosen, method, schedule, whole=filters is None)
    if not plans:
        raise ValueError(
            "No layer is selected: `filters` and `method` together leave all out. Where there are "
            f"no filters a method may leave out layers by its settings. Received: {method!r}."
        )
    facts = _checked_facts(model, plans)
    if not in_place:
        model, plans = _copied(model, layers, plans)
    trained = trained_variables(model)
    folding = [(path, layer) for path, layer, one, _ in plans if one.folds_scales]
    moved = fold_scales(model, folding) if folding else {}
    for path, layer, one, timing in plans:
        known = dataclasses.replace(facts[path], scales_from=moved.get(path, ""))
        attach(layer, one, timing, path, known)
    hold_scales(model)
    share_cells(model)
    saving.mark(model)
    _keras.forget_traces(model)
    if restart_optimizer(model, trained):
        _warn_of_restart(model)
    return model


def trained_variables(model: keras.Model) -> set[int]:
    """ids of the variables that a model trains."""
    return {id(variable) for variable in model.trainable_variables}


def restart_optimizer(model: keras.Model, trained: set[int]) -> bool:
    """Compile a model anew if its optimizer was made for other variables than it has now."""
    needed = model.compiled and model.optimizer.built and trained_variables(model) != trained
    if needed:
        compile_like(model, model)
    return needed


def _warn_of_restart(model: keras.Model) -> None:
    warnings.warn(
        f"The trainable variables of model '{model.name}' were changed in place, so its "
        "optimizer starts afresh.",
        stacklevel=3,
    )


def check_model(model: Any) -> None:
    """Raise TypeError unless `model` is a Keras 3 model."""
    if is_legacy_keras_model(model):
        raise TypeError(
            "tfprune needs a Keras 3 model. Received a Keras 2 model (tf_keras, which TensorFlow "
            f"hands out where TF_USE_LEGACY_KERAS is set): {model!r}. Build it with `import keras`."
        )
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras 3 model, a keras.Model. Received: {model!r}.")


def _check_layers(model: keras.Model, layers: select.Layers) -> None:
    unbuilt = [x.name for x in model._flatten_layers() if has_kernel(x) and not x.built]
    if not model.built or unbuilt:
        raise ValueError(
            f"Model '{model.name}' must be built: call it on data or `model.build(input_shape)`. "
            f"Received a model with unbuilt layers: {unbuilt}."
        )
    if not layers:
        raise ValueError(f"Model '{model.name}' has no layer that can be pruned.")
    already = [path for path, layer in layers if hasattr(layer, STATE)]
    if already:
        raise ValueError(
            f"A layer can be pruned only once; pruned already: {already}. `tfprune.strip` first."
        )


def _plans(
    layers: select.Layers, method: Any, schedule: Any, whole: bool
) -> list[tuple[str, Any, Any, Any]]:
    """(path, layer, method, schedule); `whole`: methods may leave out layers of `layers`."""
    paths = [path for path, _ in layers]
    methods = select.assigned(layers, method, "method")
    timings = select.assigned(layers, schedule, "schedule")
    plans = []
    for (path, layer), one, timing in zip(layers, methods, timings, strict=True):
        if one is None and method is not None:
            continue
        if not isinstance(one, Method):
            raise TypeError(
                "`method` must be an instance of a tfprune method, such as NetworkSurgery(), "
                f"or a dict of these. Received: {one!r}."
            )
        if whole and path in one.leave_out(paths):
            continue
        _check_served(one)
        timing = one.default_schedule() if timing is None else check_schedule(timing)
        plans.append((path, layer, *one.adopt(timing)))
    return plans


def _checked_facts(model: keras.Model, plans: list[tuple[str, Any, Any, Any]]) -> dict[str, Facts]:
    """Path -> what is known of each layer, after each method has checked it with its settings."""
    facts = facts_of([(path, layer) for path, layer, _, _ in plans])
    needy = [(path, layer) for path, layer, method, _ in plans if method.needs_uses]
    if needy:
        facts |= with_uses(model, facts, needy)
    groups: list[list[tuple[str, Any, Any, Any]]] = []
    for plan in plans:
        same = [group for group in groups if group[0][2] == plan[2]]
        if same:
            same[0].append(plan)
        else:
            groups.append([plan])
    for group in groups:
        paths, layers, methods, timings = zip(*group, strict=True)
        specs = [
            {spec.name: spec for spec in adapted_specs(layer, methods[0], path, facts[path])}
            for path, layer in zip(paths, layers, strict=True)
        ]
        for path, layer, each in zip(paths, layers, specs, strict=True):
            check_weights(path, layer, methods[0], each.values())
        methods[0].check_layers(paths, timings, specs)
    return facts


def _check_served(method: Method) -> None:
    missing = [signal for signal in method.signals if not isinstance(signal, SIGNALS)]
    if missing:
        raise ValueError(
            f"{type(method).__name__} needs signals that this host does not serve: {missing}."
        )
    if method.signals and keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{type(method).__name__} needs Keras on TensorFlow, whose tapes measure its signals. "
            f"Received: the backend {keras.backend.backend()!r}."
        )


def check_weights(
    path: str, layer: keras.Layer, method: Method, specs: Iterable[WeightSpec]
) -> None:
    """Raise ValueError unless a layer computes with its variables, and these suit the method."""
    if not has_own_kernel(layer):
        raise ValueError(
            f"A layer to prune must compute with its own float weights; '{path}' has LoRA adapters "
            "or quantized weights. Prune before `enable_lora` and `quantize`, or leave the layer "
            "out with `filters`."
        )
    for spec in specs:
        variable = variable_of(layer, spec.name)
        if variable.constraint is not None and _changes(method, spec):
            raise ValueError(
                f"{type(method).__name__} trains `{spec.name}` of layer '{path}' in another form, "
                f"which its constraint {variable.constraint!r} was not made for. Build the layer "
                "without it, leave it out with `filters`, or take a method that prunes weights as "
                "they are, such as NetworkSurgery."
            )
        value = ops.convert_to_numpy(variable)
        if not np.isfinite(value.astype("float32")).all():
            raise ValueError(
                f"Weights must be finite to be pruned; `{spec.name}` of layer '{path}' has NaN or "
                "infinite entries."
            )


def _changes(method: Method, spec: WeightSpec) -> bool:
    """Whether a method's latent tensors are something else than the weight."""
    weight = np.linspace(1, 2, math.prod(spec.shape), dtype="float32").reshape(spec.shape)
    first, *others = method.encode(ops.convert_to_tensor(weight), spec).values()
    return bool(others) or not np.array_equal(ops.convert_to_numpy(first), weight)


def _copied(model: keras.Model, layers: select.Layers, plans: list) -> tuple[keras.Model, list]:
    copy = copy_model(model)
    twins = {
        id(old): (path, new)
        for (_, old), (path, new) in zip(layers, select.prunable(copy), strict=True)
    }
    return copy, [(path, twins[id(layer)][1], one, timing) for path, layer, one, timing in plans]


def attach(
    layer: keras.Layer,
    method: Method,
    schedule: Any,
    path: str,
    facts: Facts | None = None,
    wrapped: bool = False,
) -> None:
    """Parametrise one built layer."""
    specs = adapted_specs(layer, method, path, facts)
    parametrize(layer, PruneState(layer, specs, method, schedule, path, facts, wrapped))


def share_cells(model: keras.Layer) -> None:
    """Let the recurrent layers of a model compute their pruned cells' weights once per call."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.RNN) and is_pruned(layer):
            share_in_loops(layer)


def strip(model: keras.Model, in_place: bool = False, shrink: bool = False) -> keras.Model:
    """Return an ordinary Keras model with the zeros baked in; same outputs, no trace of tfprune.

    Args:
        model: a pruned model, or one that contains layers of `tfprune.layers`.
        in_place: turn `model` itself back, the only way for subclassed models without `get_config`.
        shrink: also remove the channels that nothing reads, or that are the same for every input,
            so that the dense model itself gets smaller and faster; through sums and concatenations.
            For Functional and Sequential models, not in place. Layers of unusual kinds, layers
            called more than once and nested models keep all their channels; so do your subclasses
            of Keras layers, unless a class attribute `computes_as = keras.layers.Conv2D` says what
            they compute. Of a subclass of `keras.Model` with a constructor of its own it makes a
            plain Functional model.

    Raises:
        TypeError: if `model` is no Keras 3 model.
        ValueError: if it has no pruned layer, or cannot be shrunk.
    """
    check_model(model)
    if not is_pruned(model):
        raise ValueError(f"Model '{model.name}' has no pruned layer to strip.")
    if shrink and in_place:
        raise ValueError("`shrink=True` makes a smaller model; it cannot be done in place.")
    if not in_place:
        values = [effective_weights(layer) for _, layer in weighted_layers(model)]
        with released_scales(model):
            plain = copy_model(model, unwrapped=True)
        for (_, layer), weights in zip(weighted_layers(plain), values, strict=True):
            for name, variable in own_variables(layer).items():
                variable.assign(weights[name])
        return shrunk(plain) if shrink else plain
    trained = trained_variables(model)
    release_scales(model)
    for _, layer in pruned_layers(model):
        unparametrize(layer)
    for layer in model._flatten_layers():
        unshare(layer)
    unwrap(model)
    saving.unmark(model)
    _keras.forget_traces(model)
    if restart_optimizer(model, trained):
        _warn_of_restart(model)
    return model
