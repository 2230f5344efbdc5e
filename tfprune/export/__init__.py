"""Export: strip, convert, load, compare, and only then hand out a `.tflite` file."""

from tfprune.export.result import ExportError, ExportResult
from tfprune.export.tflite import export_tflite
from tfprune.export.verify.delegate import load_delegate
from tfprune.export.verify.runtime import predict_tflite
from tfprune.export.verify.verification import Verification

__all__ = [
    "ExportError",
    "ExportResult",
    "Verification",
    "export_tflite",
    "load_delegate",
    "predict_tflite",
]
