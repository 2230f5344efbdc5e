"""`prune` and `strip`: put a method into a Keras model, and take it out again."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from tfprune.graph import _keras
from tfprune.graph.layers import has_kernel
from tfprune.graph.models import (
    check_model,
    restart_optimizer,
    trained_variables,
    warn_of_restart,
)
from tfprune.method import Method
from tfprune.pruned import saving, select
from tfprune.pruned.attach import attach, check_weights, share_cells
from tfprune.pruned.copying import copy_model
from tfprune.pruned.layers import STATE
from tfprune.pruned.scales import fold_scales, hold_scales
from tfprune.pruned.specs import Facts, adapted_specs, facts_of, with_uses
from tfprune.schedules import check_schedule
from tfprune.signals import OutputSensitivity

SIGNALS = (OutputSensitivity,)  # what the hosts can measure for methods that ask for it


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
        warn_of_restart(model)
    return model


def _check_layers(model: keras.Model, layers: select.Layers) -> None:
    unbuilt = [x.name for x in _keras.all_layers(model) if has_kernel(x) and not x.built]
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


def _copied(model: keras.Model, layers: select.Layers, plans: list) -> tuple[keras.Model, list]:
    copy = copy_model(model)
    twins = {
        id(old): (path, new)
        for (_, old), (path, new) in zip(layers, select.prunable(copy), strict=True)
    }
    return copy, [(path, twins[id(layer)][1], one, timing) for path, layer, one, timing in plans]
