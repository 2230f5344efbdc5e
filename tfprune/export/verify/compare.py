"""Comparison of a converted file with the Keras model before anyone gets it."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from tfprune.export.result import ExportError
from tfprune.export.storage import STORAGES, Storage
from tfprune.export.verify.arm import Arm
from tfprune.export.verify.isolated import run_kernels
from tfprune.export.verify.runtime import Sample
from tfprune.export.view import View

_CHUNK = 32
_STILL = 1e-6
_ARM_ADVICE = (
    "Here all agree, but phones would compute it wrongly. Use target='dense'; if that is refused "
    "too, please report the model."
)
_Pair = tuple[list[Sample], list[Sample], Storage]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Largest error and rms error of any output, and the smallest argmax agreement."""

    max_error: float
    rms_error: float
    agreement: float | None

    def within(self, storage: Storage) -> bool:
        """Whether the errors are within the limits; NaN never is."""
        return self.max_error <= storage.max_error and self.rms_error <= storage.rms_error


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The worst comparison of all pairs, and how many samples were compared where."""

    worst: Comparison
    samples: int
    reference_samples: int
    arm_samples: int = 0
    kernels: str = "reference"

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the kernels that ran."""
        note = "LiteRT's reference kernels lack an op; its others, without a delegate, stood in"
        return (note,) if self.kernels != "reference" else ()


def run_keras(view: View, samples: list[Sample]) -> list[Sample]:
    """Outputs of the Keras model per sample; samples of equal shape run together."""
    outputs: list[Sample] = []
    for chunk in _chunks(samples):
        batch = {name: np.concatenate([sample[name] for sample in chunk]) for name in chunk[0]}
        result = {name: np.asarray(value) for name, value in view(batch).items()}
        for name, value in result.items():
            if value.ndim == 0 or len(value) != len(chunk):
                raise ExportError(
                    f"Output '{name}' must have a value per sample; move what mixes samples out of "
                    f"the model. Received: shape {value.shape} for {len(chunk)} samples."
                )
        outputs += [{n: v[i : i + 1] for n, v in result.items()} for i in range(len(chunk))]
    return outputs


def verify(
    data: bytes,
    storage: Storage,
    samples: list[Sample],
    expected: list[Sample],
    arm: Arm | None = None,
) -> Verdict:
    """Compare default delegate, reference kernels, Keras and, where given, ARM pairwise.

    Args:
        data: the file.
        storage: its storage, with the limits.
        samples, expected: inputs and Keras outputs, a dict per sample.
        arm: a Python on AArch64.

    Raises:
        ExportError: if a pair disagrees, with the errors, or if the file doesn't load or run.
    """
    here = run_kernels(data, samples)
    default, plain, kernels = here.default, here.plain, f"the LiteRT {here.kernels} kernels"
    pairs: dict[str, _Pair] = {
        "Keras and the default LiteRT delegate": (expected, default, storage),
        f"Keras and {kernels}": (expected, plain, storage),
        f"{kernels} and the default delegate": (plain, default, storage),
    }
    results = _check(pairs, _advice(storage))
    there = [] if arm is None else arm.run(data, samples)
    if there:
        pairs = {
            "Keras and LiteRT on ARM": (expected, there, storage),
            f"{kernels} here and LiteRT on ARM": (
                plain,
                there,
                _between_machines(storage),
            ),
        }
        results += _check(pairs, _ARM_ADVICE)
    return Verdict(_worst(results), len(default), len(plain), len(there), here.kernels)


def _check(pairs: dict[str, _Pair], advice: str) -> list[Comparison]:
    """Compare the outputs of all pairs, to their own limits."""
    results = []
    for name, (expected, got, limit) in pairs.items():
        try:
            results.append(compare(expected, got))
        except ExportError as error:
            raise ExportError(
                f"The converted file was not written, {name} disagree: {error} {advice}"
            ) from error
        if not results[-1].within(limit):
            raise _disagreement(name, results[-1], limit, min(len(expected), len(got)), advice)
    return results


def _between_machines(storage: Storage) -> Storage:
    """Limits for a file on two machines: what rounds weights alone moves no result there."""
    if storage.exact or storage.integer:
        return storage
    plain = STORAGES["float32"]
    return dataclasses.replace(storage, max_error=plain.max_error, rms_error=plain.rms_error)


def compare(expected: list[Sample], got: list[Sample]) -> Comparison:
    """Compare outputs by name, over as many samples as the shorter list has.

    Args:
        expected: the reference, output name -> array per sample.
        got: the outputs compared with it.

    Raises:
        ExportError: if names or shapes differ.
    """
    if set(expected[0]) != set(got[0]):
        raise ExportError(
            f"The file's outputs must be the model's, {sorted(expected[0])}. "
            f"Received: {sorted(got[0])}."
        )
    count = min(len(expected), len(got))
    return _worst([_compare_output(name, expected[:count], got[:count]) for name in expected[0]])


def _compare_output(name: str, expected: list[Sample], got: list[Sample]) -> Comparison:
    of_keras, of_file = ([sample[name] for sample in samples] for samples in (expected, got))
    if [x.shape for x in of_keras] != [x.shape for x in of_file]:
        raise ExportError(
            f"Output '{name}' must have the shape {of_keras[0].shape} that it has in Keras. "
            f"Received: shape {of_file[0].shape} in the file."
        )
    a = np.concatenate([x.ravel() for x in of_keras]).astype("float64")
    b = np.concatenate([x.ravel() for x in of_file]).astype("float64")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Comparison(float("nan"), float("nan"), None)
    return Comparison(
        _ratio(float(np.abs(b - a).max(initial=0.0)), float(np.abs(a).max(initial=0.0))),
        _ratio(float(np.linalg.norm(b - a)), float(np.linalg.norm(a))),
        _agreement(of_keras, of_file),
    )


def _ratio(difference: float, scale: float) -> float:
    """Error relative to `scale`; where the reference is all zero, the error itself."""
    return float(difference / scale) if scale > 0 else float(difference)


def _agreement(of_keras: list[np.ndarray], of_file: list[np.ndarray]) -> float | None:
    if of_keras[0].ndim != 2 or of_keras[0].shape[1] < 2:
        return None
    pairs = zip(of_keras, of_file, strict=True)
    return float(np.mean([a.argmax() == b.argmax() for a, b in pairs]))


def _worst(results: list[Comparison]) -> Comparison:
    errors = [(r.max_error, r.rms_error) for r in results]
    agreements = [r.agreement for r in results if r.agreement is not None]
    largest = np.max(np.array(errors), axis=0)
    return Comparison(float(largest[0]), float(largest[1]), min(agreements, default=None))


def _disagreement(
    name: str, result: Comparison, storage: Storage, samples: int, advice: str
) -> ExportError:
    argmax = "" if result.agreement is None else f", same argmax {result.agreement:.4f}"
    return ExportError(
        f"The converted file was not written, {name} disagree: relative error "
        f"{result.max_error:.3g} (limit {storage.max_error:g}), rms {result.rms_error:.3g} (limit "
        f"{storage.rms_error:g}){argmax}, storage '{storage.name}', {samples} samples. " + advice
    )


def _advice(storage: Storage) -> str:
    if storage.calibrated:
        return (
            "Try more representative data of the kind the model meets, storage='int8_dynamic' or "
            "'float16', or, if the error is acceptable, a larger `tolerance`."
        )
    if storage.name == "float32":
        return "Try `samples=` of real inputs; if they disagree too, please report the model."
    return "Try storage='float32', real inputs in `samples=`, or a larger `tolerance`."


def still_outputs(expected: list[Sample]) -> list[str]:
    """Outputs that don't change from sample to sample: comparing those shows little."""
    same = []
    for name, first in expected[0].items():
        values = [x[name] for x in expected if x[name].shape == first.shape]
        spread = max(float(np.abs(x.astype("f8") - first).max(initial=0.0)) for x in values)
        if len(values) > 1 and spread <= _STILL * float(np.abs(first).max(initial=0.0)):
            same.append(name)
    return same


def _chunks(samples: list[Sample]) -> Iterator[list[Sample]]:
    chunk: list[Sample] = []
    for sample in samples:
        if chunk and (len(chunk) == _CHUNK or _shapes(chunk[0]) != _shapes(sample)):
            yield chunk
            chunk = []
        chunk.append(sample)
    if chunk:
        yield chunk


def _shapes(sample: Sample) -> list[tuple[int, ...]]:
    return [value.shape for value in sample.values()]
