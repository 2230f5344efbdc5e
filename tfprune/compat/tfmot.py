"""The bridge to tensorflow_model_optimization (tfmot); the only file that names it or tf_keras.

Importing tfmot sets `TF_USE_LEGACY_KERAS=1` for the process and makes `tf.keras` Keras 2.
So only the module that defines `PruningSchedule` is loaded, by its path and under its own name:
1 ms, no other module, no change of environment, and the class is the same if the user imports
tfmot later.
"""

from __future__ import annotations

import abc
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

_PACKAGE = "tensorflow_model_optimization"
_MODULE = f"{_PACKAGE}.python.core.sparsity.keras.pruning_schedule"


class _OwnPruningSchedule(abc.ABC):
    """A pruning schedule of tfmot's form, where tfmot is not installed."""

    @abc.abstractmethod
    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Return whether the masks are updated at this step, and the sparsity in [0, 1)."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Settings, as `from_config` takes them."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The inverse of `get_config`."""
        return cls(**config)


def schedule_base() -> type:
    """tfmot's `PruningSchedule` where tfmot is installed, else a class of the same form."""
    if _MODULE in sys.modules:
        return sys.modules[_MODULE].PruningSchedule
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or not package.submodule_search_locations or "tensorflow" not in sys.modules:
        return _OwnPruningSchedule
    path = f"{package.submodule_search_locations[0]}/python/core/sparsity/keras/pruning_schedule.py"
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        return _OwnPruningSchedule
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except (OSError, ImportError):
        del sys.modules[_MODULE]
        return _OwnPruningSchedule
    return module.PruningSchedule


def foreign_settings(schedule: Any) -> tuple[str, dict[str, Any]]:
    """Class name and settings of a schedule of tfmot's own, ("", {}) for any other."""
    cls = type(schedule)
    if cls.__module__ != _MODULE:
        return "", {}
    return cls.__name__, dict(schedule.get_config()["config"])


def is_symbolic(step: Any) -> bool:
    """Whether `step` is a tensor or variable in a graph, as tfmot's wrappers give it."""
    tf = sys.modules.get("tensorflow")
    if tf is None or tf.executing_eagerly():
        return False
    return bool(tf.is_tensor(step)) or isinstance(step, tf.Variable)


def in_graph(schedule: Callable[[int], tuple[bool, float]], step: Any) -> tuple[Any, Any]:
    """Call a Python schedule from inside a TensorFlow graph.

    Args:
        schedule: step -> (is an update due, sparsity).
        step: integer tensor, scalar.
    """
    import tensorflow as tf

    due, sparsity = tf.numpy_function(
        lambda at: (np.bool_(schedule(int(at))[0]), np.float32(schedule(int(at))[1])),
        [step],
        [tf.bool, tf.float32],
    )
    due.set_shape(())
    sparsity.set_shape(())
    return due, sparsity


def is_legacy_keras_model(model: object) -> bool:
    """Whether `model` is a Keras 2 model or layer (tf_keras, or tf.keras under legacy Keras)."""
    return any(
        cls.__module__.split(".")[0] == "tf_keras"
        or cls.__module__.startswith("tensorflow.python.keras")
        for cls in type(model).__mro__
    )
