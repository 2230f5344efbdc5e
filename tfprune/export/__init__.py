"""Export: strip, convert, load, compare, and only then hand out a `.tflite` file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# Name -> its module, imported when the name is first asked for: a report on a file needs no Keras.
_HOMES = {
    "ExportError": "result",
    "ExportResult": "result",
    "Verification": "verify.verification",
    "export_tflite": "tflite",
    "load_delegate": "verify.delegate",
    "predict_tflite": "verify.runtime",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
