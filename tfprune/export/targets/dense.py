"""The dense target: ordinary tensors, by the TFLite converter."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

from tfprune.export.flatbuffer.contents import op_counts
from tfprune.export.result import ExportError
from tfprune.export.storage import Storage
from tfprune.export.targets.target import Built, Target
from tfprune.export.verify.precision import float32_compute
from tfprune.export.verify.runtime import Sample
from tfprune.export.view import View

_SIGNATURE = "serving_default"


def dense(view: View, storage: Storage, calibration: list[Sample]) -> Built:
    """Convert with ordinary dense tensors, without the converter's sparsity option.

    Where a storage needs no calibration, the file of a view is built once and kept in the view.
    """
    if storage in view.built and not calibration:
        return view.built[storage]
    with tempfile.TemporaryDirectory() as folder, _explained(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s).*tf\.lite\.Interpreter is deprecated")
        with float32_compute(view.model):
            _save(view, folder)
        view.built[storage] = Built(_convert(folder, storage, calibration))
    return view.built[storage]


def _save(view: View, folder: str) -> None:
    """Write a SavedModel with a single signature, which keeps variables and names together."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def serve(**inputs: Any) -> dict[str, Any]:
        return {name: tf.identity(value) for name, value in view(inputs).items()}

    specs = {x.name: tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in view.inputs}
    traced = serve.get_concrete_function(**specs)
    module = tf.Module()
    module.captured = list(traced.variables)
    tf.saved_model.save(module, folder, signatures={_SIGNATURE: traced})


def _convert(folder: str, storage: Storage, calibration: list[Sample]) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[_SIGNATURE])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if storage.values != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if storage.values == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if storage.calibrated:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: iter(calibration)
    return bytes(converter.convert())


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ExportError(
            f"The model can't be converted with builtin TFLite ops: {type(error).__name__}: "
            f"{' '.join(lines[:6])[:800]}. Replace the op named there, fix open input sizes "
            "(recurrent layers need them), or export the part of the model without it."
        ) from error


def check_calibration(data: bytes) -> None:
    """Refuse a graph with loops or branches: calibrating one ends the whole process."""
    loops = {"WHILE", "IF", "CALL_ONCE"} & set(op_counts(data))
    if loops:
        raise ExportError(
            "storage='int8' can't calibrate a graph with loops or branches (recurrent layers). "
            "Build them with unroll=True, or use storage='int8_dynamic' or 'float16'. "
            f"Received: a graph with {sorted(loops)}."
        )


TARGET = Target("dense", dense)
