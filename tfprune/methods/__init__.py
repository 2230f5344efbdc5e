"""The pruning methods, one file each; the table below is all that has to name a new one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfprune.methods.frequency_domain import FrequencyDomain as FrequencyDomain
    from tfprune.methods.frequency_domain import FrequencySchedule as FrequencySchedule
    from tfprune.methods.magnitude import Magnitude as Magnitude
    from tfprune.methods.network_surgery import NetworkSurgery as NetworkSurgery
    from tfprune.methods.network_surgery import SurgerySchedule as SurgerySchedule
    from tfprune.methods.sensitivity_driven import SensitivityDriven as SensitivityDriven
    from tfprune.methods.sensitivity_driven import SensitivitySchedule as SensitivitySchedule
    from tfprune.methods.synaptic_strength import SynapticSchedule as SynapticSchedule
    from tfprune.methods.synaptic_strength import SynapticStrength as SynapticStrength

# Name in the shell -> module, the method, and its schedule where it has one of its own.
METHODS = {
    "surgery": ("network_surgery", "NetworkSurgery", "SurgerySchedule"),
    "frequency": ("frequency_domain", "FrequencyDomain", "FrequencySchedule"),
    "synaptic": ("synaptic_strength", "SynapticStrength", "SynapticSchedule"),
    "sensitivity": ("sensitivity_driven", "SensitivityDriven", "SensitivitySchedule"),
    "magnitude": ("magnitude", "Magnitude"),
}
_HOMES = {name: row[0] for row in METHODS.values() for name in row[1:]}
if not TYPE_CHECKING:
    __all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tfprune.methods' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tfprune.methods.{_HOMES[name]}"), name)
