"""The pruning methods, one file each."""

from tfprune.methods.frequency_domain import FrequencyDomain, FrequencySchedule
from tfprune.methods.magnitude import Magnitude
from tfprune.methods.network_surgery import NetworkSurgery, SurgerySchedule

__all__ = [
    "FrequencyDomain",
    "FrequencySchedule",
    "Magnitude",
    "NetworkSurgery",
    "SurgerySchedule",
]
