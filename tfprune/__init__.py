"""tfprune: pruning for Keras 3 models, from four papers, to files that are smaller.

pruned = tfprune.prune(model, tfprune.NetworkSurgery(target_sparsity=0.9))
pruned.compile("adam", "sparse_categorical_crossentropy")
pruned.fit(x, y, epochs=10, callbacks=[tfprune.PruningCallback()])
print(tfprune.report(pruned))
tfprune.export_tflite(pruned, "model.tflite")
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

from tfprune import methods
from tfprune._import_hook import run_with_keras
from tfprune._version import __version__

if TYPE_CHECKING:
    from tfprune import export as export
    from tfprune import layers
    from tfprune import ops as ops
    from tfprune.export.tflite import export_tflite
    from tfprune.inference.compact import compact, compaction
    from tfprune.inference.strip import strip
    from tfprune.maths import bands
    from tfprune.maths.spec import LayerTensors, WeightSpec
    from tfprune.method import Method, Scored, register
    from tfprune.methods import *  # noqa: F403
    from tfprune.pruned.layers import is_pruned
    from tfprune.pruned.loading import load_model
    from tfprune.pruned.prune import prune
    from tfprune.report.figures.sensitivity import SensitivityMaps
    from tfprune.report.report import report
    from tfprune.schedules import ConstantSparsity, PolynomialDecay, PruningSchedule
    from tfprune.training.callback import PruningCallback
    from tfprune.training.pruner import Pruner

__all__ = [
    "ConstantSparsity",
    "LayerTensors",
    "Method",
    "PolynomialDecay",
    "Pruner",
    "PruningCallback",
    "PruningSchedule",
    "Scored",
    "SensitivityMaps",
    "WeightSpec",
    "__version__",
    "bands",
    "compact",
    "compaction",
    "export_tflite",
    "is_pruned",
    "layers",
    "load_model",
    "prune",
    "register",
    "report",
    "strip",
]
__all__ += methods.__all__

# Module -> the public names that it has; each is imported when a name is first asked for.
_NAMES = {
    "tfprune.export.tflite": ("export_tflite",),
    "tfprune.inference.compact": ("compact", "compaction"),
    "tfprune.inference.strip": ("strip",),
    "tfprune.maths.spec": ("LayerTensors", "WeightSpec"),
    "tfprune.method": ("Method", "Scored", "register"),
    "tfprune.methods": tuple(methods.__all__),
    "tfprune.pruned.layers": ("is_pruned",),
    "tfprune.pruned.loading": ("load_model",),
    "tfprune.pruned.prune": ("prune",),
    "tfprune.report.figures.sensitivity": ("SensitivityMaps",),
    "tfprune.report.report": ("report",),
    "tfprune.schedules": ("ConstantSparsity", "PolynomialDecay", "PruningSchedule"),
    "tfprune.training.callback": ("PruningCallback",),
    "tfprune.training.pruner": ("Pruner",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
_ROOMS = (
    *("compat", "export", "graph", "inference", "layers", "maths", "method", "needs"),
    *("ops", "protocols", "pruned", "schedules", "training"),
)
_MODULES = {"bands": "tfprune.maths.bands"} | {room: f"tfprune.{room}" for room in _ROOMS}


class _Package(types.ModuleType):
    """Keeps the name `report` for the function, although there is a folder of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "report" or not isinstance(value, types.ModuleType):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'tfprune' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


def _register() -> None:
    importlib.import_module("tfprune._registration").register()


sys.modules[__name__].__class__ = _Package
run_with_keras(_register)
