"""`export_tflite`: strip, convert, compare, write."""

import os
from pathlib import Path
from typing import Any

import keras

from tfprune.export.flatbuffer.contents import op_counts
from tfprune.export.progress import Begin, stages
from tfprune.export.result import ExportError, ExportResult
from tfprune.export.storage import STORAGES, Storage, check_path, find_storage
from tfprune.export.targets.dense import check_calibration
from tfprune.export.targets.registry import find_target
from tfprune.export.targets.target import Build, Built
from tfprune.export.verify.arm import Arm, find_arm
from tfprune.export.verify.compare import Verdict, compare, run_keras, still_outputs, verify
from tfprune.export.verify.precision import float32_compute
from tfprune.export.verify.runtime import Runner, Sample
from tfprune.export.verify.samples import OPEN_DIMENSION, random_samples, read_samples, take_dtypes
from tfprune.export.verify.verification import Verification
from tfprune.export.view import View, view_of
from tfprune.files import gzip_size, write_atomically

_CALIBRATION_SAMPLES = 500
_REPRESENTATIVE_CHECKED = 64
_RANDOM_CHECKED = 8
_OWN_POLICY_ERROR = 0.2
_VERIFICATION = Verification()


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    target: str = "dense",
    storage: str = "float32",
    representative_data: Any = None,
    verification: Verification = _VERIFICATION,
) -> ExportResult:
    """Write a model as a `.tflite` file that was loaded and agrees with it.

    Args:
        model: a built Keras 3 model; a pruned one is stripped first.
        path: the file to write, ending in ".tflite", in a folder that exists.
        target: form of the file: "dense" runs everywhere; `tfprune.export.targets` describes the
            others, which are smaller, or faster on phones.
        storage: type of the stored values: "float32", "float16", "int8" or "int8_dynamic". A dense
            "int8" file computes in int8 (its inputs and outputs stay as in the model); all others
            compute in float32. A target may know fewer.
        representative_data: typical inputs, in any form that `Verification.samples` takes; the
            first 500 samples set the ranges of activations. A dense "int8" file needs it.
        verification: what the file is compared on, and how near it must come.

    Raises:
        TypeError, ValueError: for arguments out of range.
        ExportError: if the model can't be converted, or the file disagrees with it. Then nothing is
            written, and an older file at `path` stays as it is.
    """
    kind = find_target(target)
    if not isinstance(verification, Verification):
        raise TypeError(
            "`verification` must be a `tfprune.export.Verification`. "
            f"Received: {type(verification).__name__}."
        )
    stored = verification.limited(find_storage(storage, kind.storages))
    checked_path = check_path(path)
    _check_model(model)
    if stored.calibrated and representative_data is None:
        raise ValueError(
            f"storage='{storage}' needs `representative_data`: an array [samples, ...], a "
            "tf.data.Dataset, an iterable of batches, or for several inputs a list or dict of "
            "arrays. Received: None."
        )
    arm = find_arm(verification.arm_python) if verification.arm else None
    plain = _plain(model)
    view, calibration, samples = _read(view_of(plain), representative_data, verification.samples)
    compared, source = _samples_to_compare(view, samples, calibration, verification.seed)
    with stages(f"export {checked_path.name}", 3 if stored.exact else 5) as begin:
        begin("running Keras")
        with float32_compute(plain) as replaced:
            expected = run_keras(view, compared)
        built, verdict = _build_verified(
            kind.build, view, stored, calibration, compared, expected, arm, begin
        )
        notes = (*built.notes, *verdict.notes, *_notes(view, compared, expected, replaced, source))
        write_atomically(checked_path, built.data)
        return _result(checked_path, target, stored, built, verdict, source, notes)


def _check_model(model: Any) -> None:
    from tfprune.graph.models import check_model

    check_model(model)
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Export needs Keras on TensorFlow; set KERAS_BACKEND=tensorflow and load the model "
            f"again. Received: backend '{keras.backend.backend()}'."
        )


def _plain(model: keras.Model) -> keras.Model:
    from tfprune.inference.strip import strip
    from tfprune.pruned.layers import is_pruned

    return strip(model) if is_pruned(model) else model


def _read(
    view: View, representative_data: Any, samples: Any
) -> tuple[View, list[Sample], list[Sample]]:
    """The view with its dtypes settled, samples for calibration, samples to compare on."""
    given = {"samples": samples, "representative_data": representative_data}
    limits = {"samples": None, "representative_data": _CALIBRATION_SAMPLES}
    lists: dict[str, list[Sample]] = {}
    for name, data in given.items():
        if data is not None and not view.typed:
            view, data = take_dtypes(view, data, name)
        lists[name] = [] if data is None else read_samples(data, view, limits[name], name)
    return view, lists["representative_data"], lists["samples"]


def _samples_to_compare(
    view: View, samples: list[Sample], calibration: list[Sample], seed: int
) -> tuple[list[Sample], str]:
    if samples:
        return samples, "samples"
    if calibration:
        return calibration[:_REPRESENTATIVE_CHECKED], "representative_data"
    return random_samples(view, _RANDOM_CHECKED, seed), "random"


def _build_verified(
    build: Build,
    view: View,
    storage: Storage,
    calibration: list[Sample],
    samples: list[Sample],
    expected: list[Sample],
    arm: Arm | None,
    begin: Begin,
) -> tuple[Built, Verdict]:
    """Build the file and verify it; a quantised one only after the same graph in float32."""
    if not storage.exact:
        begin("converting to float32")
        plain = build(view, storage.with_float32_values(), []).data
        begin("comparing float32 with Keras")
        verify(plain, STORAGES["float32"], samples, expected, arm)
        if storage.calibrated:
            check_calibration(plain)
    begin(f"converting to {storage.name}")
    built = build(view, storage, calibration)
    begin(f"comparing {storage.name} with Keras")
    return built, verify(built.data, storage, samples, expected, arm)


def _notes(
    view: View, samples: list[Sample], expected: list[Sample], replaced: list[str], source: str
) -> tuple[str, ...]:
    """Notes on what the errors do not tell; a half precision model is compared with itself too."""
    notes = []
    if replaced:
        own = compare(expected, run_keras(view, samples))
        if not own.max_error <= _OWN_POLICY_ERROR:
            raise ExportError(
                f"In float32 this {', '.join(replaced)} model must differ from itself by at most "
                f"{_OWN_POLICY_ERROR}; rebuild it with float32 layers and load its weights. "
                f"Received: a difference of {own.max_error:.3g}."
            )
        notes.append(
            f"computes in float32; in its own {', '.join(replaced)} Keras differs by "
            f"{own.max_error:.1e}"
        )
    if source == "random" and any(None in spec.shape for spec in view.inputs):
        notes.append(f"open sizes were checked at {OPEN_DIMENSION}; pass `samples` to choose")
    if not view.typed:
        notes.append("types of inputs were taken for float32; pass `samples` of the types meant")
    still = still_outputs(expected)
    if still:
        notes.append(f"outputs {still} are the same for all samples checked: a weak comparison")
    return tuple(notes)


def _result(
    path: Path,
    target: str,
    storage: Storage,
    built: Built,
    verdict: Verdict,
    source: str,
    notes: tuple[str, ...],
) -> ExportResult:
    data, runner = built.data, Runner(built.data)
    shapes = {name: detail["shape_signature"] for name, detail in runner.inputs.items()}
    return ExportResult(
        path=str(path),
        target=target,
        storage=storage.name,
        bytes=len(data),
        gzip_bytes=gzip_size(data),
        max_relative_error=verdict.worst.max_error,
        rms_relative_error=verdict.worst.rms_error,
        tolerance=storage.max_error,
        agreement=verdict.worst.agreement,
        samples_checked=verdict.samples,
        reference_samples_checked=verdict.reference_samples,
        data_source=source,
        inputs={n: tuple(int(x) if x >= 0 else None for x in s) for n, s in shapes.items()},
        outputs=tuple(runner.outputs),
        ops=op_counts(data),
        notes=notes,
        layers=built.layers,
        arm_samples_checked=verdict.arm_samples,
    )
