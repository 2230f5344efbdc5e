"""tfprune: pruning for Keras 3 models, from four papers, to files that are smaller.

pruned = tfprune.prune(model, tfprune.NetworkSurgery(target_sparsity=0.9))
pruned.compile("adam", "sparse_categorical_crossentropy")
pruned.fit(x, y, epochs=10, callbacks=[tfprune.PruningCallback()])
print(tfprune.report(pruned))
tfprune.export_tflite(pruned, "model.tflite")
"""

from __future__ import annotations

import importlib
from typing import Any

from tfprune import bands, layers
from tfprune._version import __version__
from tfprune.method import LayerTensors, Method, WeightSpec, register
from tfprune.methods import (
    FrequencyDomain,
    FrequencySchedule,
    Magnitude,
    NetworkSurgery,
    SensitivityDriven,
    SensitivitySchedule,
    SurgerySchedule,
    SynapticSchedule,
    SynapticStrength,
)
from tfprune.report import report
from tfprune.schedules import ConstantSparsity, PolynomialDecay, PruningSchedule
from tfprune.training import (
    Pruner,
    PruningCallback,
    compact,
    compaction,
    is_pruned,
    load_model,
    prune,
    strip,
)

__all__ = [
    "ConstantSparsity",
    "FrequencyDomain",
    "FrequencySchedule",
    "LayerTensors",
    "Magnitude",
    "Method",
    "NetworkSurgery",
    "PolynomialDecay",
    "Pruner",
    "PruningCallback",
    "PruningSchedule",
    "SensitivityDriven",
    "SensitivityMaps",
    "SensitivitySchedule",
    "SurgerySchedule",
    "SynapticSchedule",
    "SynapticStrength",
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


def __getattr__(name: str) -> Any:
    if name == "SensitivityMaps":
        from tfprune.report.sensitivity_maps import SensitivityMaps

        return SensitivityMaps
    if name == "export_tflite":
        from tfprune.export import export_tflite

        return export_tflite
    if name in ("export", "ops"):
        return importlib.import_module(f"tfprune.{name}")
    raise AttributeError(f"module 'tfprune' has no attribute {name!r}")
