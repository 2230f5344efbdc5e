"""Export: strip, convert, load, compare, and only then hand out a `.tflite` file."""

from tfprune.export.delegate import load_delegate
from tfprune.export.result import ExportError, ExportResult
from tfprune.export.runtime import predict_tflite
from tfprune.export.tflite import export_tflite

__all__ = ["ExportError", "ExportResult", "export_tflite", "load_delegate", "predict_tflite"]
