"""`export_tflite`: the door of this package."""

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
from tfprune.export.verify.runtime import Row, Runner
from tfprune.export.verify.samples import OPEN_DIMENSION, random_rows, read_rows, take_dtypes
from tfprune.export.view import View, view_of
from tfprune.files import gzip_size, write_atomically

_CALIBRATION_SAMPLES = 500
_REPRESENTATIVE_CHECKED = 64
_RANDOM_CHECKED = 8
_OWN_POLICY_ERROR = 0.2


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    target: str = "dense",
    storage: str = "float32",
    representative_data: Any = None,
    samples: Any = None,
    tolerance: float | None = None,
    seed: int = 0,
    verify_arm: bool = False,
    arm_python: str | None = None,
) -> ExportResult:
    """Write `model` as a `.tflite` file that was loaded and agrees with it; pruned models are
    stripped first.

    target: "dense" runs everywhere. "smallest" keeps what is sparse as compressed rows, of DCT
    coefficients where these are fewer, for a small file that computes at the speed of a dense one
    or somewhat slower, and faster with `tfprune.export.load_delegate`. "mobile-sparse" is small and
    fast on phones' CPUs: filters and sparse 1x1 convolutions that LiteRT computes in XNNPACK's
    sparse mode, from an image to a global average pooling; refused, with every reason, where not
    all in between has a form there. "mobile-sparse-block" computes layers with 1x4 blocks of zeros
    along their inputs (see `FrequencyDomain(granularity="input4")`) by TFLite's block kernel, in
    any graph, float32 only. "auto" takes the one that is fastest on phones, if any is, else
    "smallest", and says why.

    storage: "float32", "float16" (weights), "int8" (weights and activations; inputs and outputs
    stay as in the model), "int8_dynamic" (weights); with all but "dense" "float32",
    "float16" or "int8", of the weights alone.

    `representative_data`, needed by "int8" of a dense file, sets the activation ranges (first 500
    samples); `samples` are compared, else the first 64 of `representative_data`, else 8 random
    inputs from `seed`. Both take an array [n, ...], a tf.data.Dataset (also of (x, y)), an iterable
    of batches, or nested arrays for several inputs. `tolerance` replaces the limit on
    max|d|/max|ref| of the storage.

    `verify_arm` compares the first 4 samples on AArch64 too, because LiteRT has kernels for sparse
    weights that PCs never use. `arm_python`, else the environment's TFPRUNE_ARM_PYTHON, is the
    command line of a Python there.

    Raises ValueError or TypeError for bad arguments, ExportError for a model that can't be
    converted or a file that disagrees with Keras. Then nothing is written and an older file at
    `path` stays as it is.
    """
    kind = find_target(target)
    stored = find_storage(storage, tolerance, kind.storages)
    place = check_path(path)
    _check_model(model)
    if stored.calibrated and representative_data is None:
        raise ValueError(
            f"storage='{storage}' needs `representative_data`: an array [samples, ...], a "
            "tf.data.Dataset, an iterable of batches, or for several inputs a list or dict of "
            "arrays. Received: None."
        )
    arm = find_arm(arm_python) if verify_arm else None
    plain = _plain(model)
    view, calibration, samples = _read(view_of(plain), representative_data, samples)
    rows, source = _rows_to_check(view, samples, calibration, seed)
    with stages(f"export {place.name}", 3 if stored.exact else 5) as begin:
        begin("running Keras")
        with float32_compute(plain) as replaced:
            expected = run_keras(view, rows)
        built, verdict = _build_verified(
            kind.build, view, stored, calibration, rows, expected, arm, begin
        )
        notes = (*built.notes, *verdict.notes, *_notes(view, rows, expected, replaced, source))
        write_atomically(place, built.data)
        return _result(place, target, stored, built, verdict, source, notes)


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


def _read(view: View, representative_data: Any, samples: Any) -> tuple[View, list[Row], list[Row]]:
    """Return the view with its dtypes settled, the calibration rows and the sample rows."""
    given = {"samples": samples, "representative_data": representative_data}
    limits = {"samples": None, "representative_data": _CALIBRATION_SAMPLES}
    rows: dict[str, list[Row]] = {}
    for name, data in given.items():
        if data is not None and not view.typed:
            view, data = take_dtypes(view, data, name)
        rows[name] = [] if data is None else read_rows(data, view, limits[name], name)
    return view, rows["representative_data"], rows["samples"]


def _rows_to_check(
    view: View, samples: list[Row], calibration: list[Row], seed: int
) -> tuple[list[Row], str]:
    if samples:
        return samples, "samples"
    if calibration:
        return calibration[:_REPRESENTATIVE_CHECKED], "representative_data"
    return random_rows(view, _RANDOM_CHECKED, seed), "random"


def _build_verified(
    build: Build,
    view: View,
    storage: Storage,
    calibration: list[Row],
    rows: list[Row],
    expected: list[Row],
    arm: Arm | None,
    begin: Begin,
) -> tuple[Built, Verdict]:
    """Build the file and verify it; a quantised one only after the same graph in float32."""
    if not storage.exact:
        begin("converting to float32")
        plain = build(view, storage.twin(), []).data
        begin("comparing float32 with Keras")
        verify(plain, STORAGES["float32"], rows, expected, arm)
        if storage.calibrated:
            check_calibration(plain)
    begin(f"converting to {storage.name}")
    built = build(view, storage, calibration)
    begin(f"comparing {storage.name} with Keras")
    return built, verify(built.data, storage, rows, expected, arm)


def _notes(
    view: View, rows: list[Row], expected: list[Row], replaced: list[str], source: str
) -> tuple[str, ...]:
    """Say what the numbers don't; a half precision model is also held against itself."""
    notes = []
    if replaced:
        own = compare(expected, run_keras(view, rows))
        if not own.max_error <= _OWN_POLICY_ERROR:
            raise ExportError(
                f"In float32 this {', '.join(replaced)} model differs from itself by "
                f"{own.max_error:.3g} (limit {_OWN_POLICY_ERROR}). Rebuild it with float32 layers "
                "and load its weights."
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
    place: Path,
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
        path=str(place),
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
