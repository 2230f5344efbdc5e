"""Keras models as such: what they train, and compiling one as another."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from tfprune.compat.tfmot import is_legacy_keras_model
from tfprune.graph import _keras


def trained_variables(model: keras.Model) -> set[int]:
    """ids of the variables that a model trains."""
    return {id(variable) for variable in model.trainable_variables}


def restart_optimizer(model: keras.Model, trained: set[int]) -> bool:
    """Compile a model anew if its optimizer was made for other variables than it has now."""
    needed = model.compiled and model.optimizer.built and trained_variables(model) != trained
    if needed:
        compile_like(model, model)
    return needed


def warn_of_restart(model: keras.Model) -> None:
    """Warn that a model trains other variables now, so that its optimizer starts afresh."""
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


def compile_like(model: keras.Model, copy: keras.Model) -> None:
    """Compile a copy, or the model itself, with the settings of the model, by a new optimizer."""
    try:
        arguments = _keras.compile_arguments(model)
        optimizer = model.optimizer
        arguments["optimizer"] = type(optimizer).from_config(optimizer.get_config())
        for key in ("metrics", "weighted_metrics"):
            arguments[key] = keras.tree.map_structure(_fresh_metric, arguments.get(key))
        copy.compile(**arguments)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        warnings.warn(
            f"Model '{copy.name}' is not compiled; call `compile` on it. ({error})",
            stacklevel=4,
        )


def _fresh_metric(metric: Any) -> Any:
    if isinstance(metric, keras.metrics.Metric):
        return type(metric).from_config(metric.get_config())
    return metric
