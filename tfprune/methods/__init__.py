"""The pruning methods, one file each."""

from tfprune.methods.frequency_domain import FrequencyDomain, FrequencySchedule
from tfprune.methods.magnitude import Magnitude
from tfprune.methods.network_surgery import NetworkSurgery, SurgerySchedule
from tfprune.methods.sensitivity_driven import SensitivityDriven, SensitivitySchedule
from tfprune.methods.synaptic_strength import SynapticSchedule, SynapticStrength

__all__ = [
    "FrequencyDomain",
    "FrequencySchedule",
    "Magnitude",
    "NetworkSurgery",
    "SensitivityDriven",
    "SensitivitySchedule",
    "SurgerySchedule",
    "SynapticSchedule",
    "SynapticStrength",
]
