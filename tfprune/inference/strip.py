"""`strip`: the ordinary Keras model in a pruned one."""

from __future__ import annotations

import keras

from tfprune.graph import _keras
from tfprune.graph.layers import own_variables, weighted_layers
from tfprune.graph.models import check_model, restart_optimizer, trained_variables, warn_of_restart
from tfprune.inference.shrink import shrunk
from tfprune.inference.stored import keep, stored_of
from tfprune.pruned import saving
from tfprune.pruned.copying import copy_model, unwrap
from tfprune.pruned.layers import effective_weights, is_pruned, pruned_layers
from tfprune.pruned.parametrize import unparametrize, unshare
from tfprune.pruned.scales import release_scales, released_scales


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
        raise ValueError(f"Model '{model.name}' has no pruned layer to strip. Received: {model!r}.")
    if shrink and in_place:
        raise ValueError(
            "`shrink=True` makes a smaller model, which cannot be done in place. Received: "
            "in_place=True."
        )
    if not in_place:
        layers = [layer for _, layer in weighted_layers(model)]
        with released_scales(model):
            plain = copy_model(model, unwrapped=True)
        for layer, (_, copy) in zip(layers, weighted_layers(plain), strict=True):
            weights = effective_weights(layer)
            for name, variable in own_variables(copy).items():
                variable.assign(weights[name])
            keep(copy, stored_of(layer, copy))
        return shrunk(plain) if shrink else plain
    trained = trained_variables(model)
    release_scales(model)
    for _, layer in pruned_layers(model):
        unparametrize(layer)
    for layer in _keras.all_layers(model):
        unshare(layer)
    unwrap(model)
    saving.unmark(model)
    _keras.forget_traces(model)
    if restart_optimizer(model, trained):
        warn_of_restart(model)
    return model
