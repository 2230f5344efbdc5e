"""`prune`: put a method into the layers of a Keras model."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from tfprune.graph import _keras
from tfprune.graph.layers import has_kernel, weighted_layers
from tfprune.graph.models import (
    check_model,
    restart_optimizer,
    trained_variables,
    warn_of_restart,
)
from tfprune.needs import FoldedScales, need_of
from tfprune.pruned import saving, select
from tfprune.pruned.copying import copy_model
from tfprune.pruned.layers import STATE
from tfprune.pruned.parametrize import attach, share_cells
from tfprune.pruned.plan import Plan, check_plan, choose, complete
from tfprune.pruned.scales import fold_scales, hold_scales
from tfprune.pruned.select import Layers


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
    index = weighted_layers(model)
    layers = select.prunable(index)
    _check_layers(model, layers)
    plan = choose(select.filtered(layers, filters), method, schedule, whole=filters is None)
    if not plan:
        raise ValueError(
            "No layer is selected: `filters` and `method` together leave all out. Where there are "
            f"no filters a method may leave out layers by its settings. Received: {method!r}."
        )
    plan = complete(model, plan)
    check_plan(plan)
    if not in_place:
        model = copy_model(model)
        copies = weighted_layers(model)
        plan, index = _on_copies(plan, index, copies), copies
    trained = trained_variables(model)
    _attach_all(model, plan, index)
    if restart_optimizer(model, trained):
        warn_of_restart(model)
    return model


def _check_layers(model: keras.Model, layers: Layers) -> None:
    unbuilt = [x.name for x in _keras.all_layers(model) if has_kernel(x) and not x.built]
    if not model.built or unbuilt:
        raise ValueError(
            f"Model '{model.name}' must be built: call it on data or `model.build(input_shape)`. "
            f"Received a model with unbuilt layers: {unbuilt}."
        )
    if not layers:
        raise ValueError(
            f"Model '{model.name}' has no layer that can be pruned; one must have a kernel. "
            f"Received: {model!r}."
        )
    already = [path for path, layer in layers if hasattr(layer, STATE)]
    if already:
        raise ValueError(
            f"A layer can be pruned only once. Received a model whose layers {already} are pruned "
            "already: `tfprune.strip` it first."
        )


def _on_copies(plan: Plan, index: Layers, copies: Layers) -> Plan:
    """The plan on the layers of a copy, which stand in the same order as those of the original."""
    copy_of = {id(old): new for (_, old), (_, new) in zip(index, copies, strict=True)}
    return [dataclasses.replace(item, layer=copy_of[id(item.layer)]) for item in plan]


def _attach_all(model: keras.Model, plan: Plan, index: Layers) -> None:
    """Put a plan into force on a model.

    Args:
        index: all layers of the model with variables, by path.
    """
    folding = [item.layer for item in plan if need_of(item.method.needs, FoldedScales)]
    sources = fold_scales(model, folding, index) if folding else {}
    for item in plan:
        facts = dataclasses.replace(item.facts, scales_from=sources.get(id(item.layer), ""))
        attach(dataclasses.replace(item, facts=facts))
    hold_scales(index)
    share_cells(model)
    saving.mark(model)
    _keras.forget_traces(model)
