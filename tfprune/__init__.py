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

from tfprune import layers
from tfprune._version import __version__
from tfprune.inference.compact import compact, compaction
from tfprune.inference.strip import strip
from tfprune.maths import bands
from tfprune.maths.spec import LayerTensors, WeightSpec
from tfprune.method import LISTENERS, Method, Scored, register
from tfprune.method import methods as registered
from tfprune.methods.frequency_domain import FrequencyDomain, FrequencySchedule
from tfprune.methods.magnitude import Magnitude
from tfprune.methods.network_surgery import NetworkSurgery, SurgerySchedule
from tfprune.methods.sensitivity_driven import SensitivityDriven, SensitivitySchedule
from tfprune.methods.synaptic_strength import SynapticSchedule, SynapticStrength
from tfprune.pruned import saving, wrappers
from tfprune.pruned.layers import is_pruned
from tfprune.pruned.loading import load_model
from tfprune.pruned.prune import prune
from tfprune.report.report import report
from tfprune.schedules import ConstantSparsity, PolynomialDecay, PruningSchedule
from tfprune.training.callback import PruningCallback
from tfprune.training.pruner import Pruner

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
    "Scored",
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

saving.install()
for _method in registered():
    wrappers.wrapper_of(_method)
LISTENERS.append(wrappers.wrapper_of)


def __getattr__(name: str) -> Any:
    if name == "SensitivityMaps":
        from tfprune.report.figures.sensitivity import SensitivityMaps

        return SensitivityMaps
    if name == "export_tflite":
        from tfprune.export.tflite import export_tflite

        return export_tflite
    if name in ("export", "ops"):
        return importlib.import_module(f"tfprune.{name}")
    raise AttributeError(f"module 'tfprune' has no attribute {name!r}")
