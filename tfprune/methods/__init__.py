"""The pruning methods, one file each."""

from tfprune.methods.magnitude import Magnitude
from tfprune.methods.network_surgery import NetworkSurgery, SurgerySchedule

__all__ = ["Magnitude", "NetworkSurgery", "SurgerySchedule"]
