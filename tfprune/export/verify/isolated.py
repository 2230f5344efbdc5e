"""Runs of a fresh file in processes of their own: some files end the process that loads them."""

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tfprune.export.result import ExportError
from tfprune.export.verify import runtime
from tfprune.export.verify.runtime import Sample

REFERENCE_SAMPLES = 16
REFERENCE_SECONDS = 20.0
_START = "import runpy, sys; runpy.run_path(sys.argv[1])['main'](*sys.argv[2:])"


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Outputs of a file.

    Attributes:
        default: outputs of the default delegate.
        plain: outputs of the plain kernels for the first samples.
        kernels: "reference", or "builtin" where the reference kernels lack an op of the file.
    """

    default: list[Sample]
    plain: list[Sample]
    kernels: str


def run_kernels(data: bytes, samples: list[Sample]) -> Outputs:
    """Run all samples by the default delegate, and the first by the reference kernels.

    Of the latter 16, fewer where 20 seconds don't suffice, never fewer than two.

    Args:
        data: the file.
        samples: its inputs.

    Raises:
        ExportError: if the file doesn't load, doesn't run, or brings the process down.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(data)
        (folder / "samples.pickle").write_bytes(pickle.dumps(samples))
        default = _run(folder, "default", len(samples), 0.0)
        kernels, limits = "reference", (REFERENCE_SAMPLES, REFERENCE_SECONDS)
        try:
            plain = _run(folder, kernels, *limits)
        except ExportError as error:
            if "Didn't find op for builtin opcode" not in str(error):
                raise
            kernels = "builtin"
            plain = _run(folder, kernels, *limits)
    return Outputs(default, plain, kernels)


def _run(folder: Path, kernels: str, count: int, seconds: float) -> list[Sample]:
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    arguments = [str(runtime.__file__), str(folder), kernels, str(count), str(seconds)]
    done = subprocess.run(
        [sys.executable, "-c", _START, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        errors="replace",
    )
    result = folder / f"{kernels}.pickle"
    if done.returncode != 0 or not result.exists():
        raise ExportError(
            f"The converted file doesn't run with the {kernels} kernels of LiteRT: "
            f"{reason(done.returncode, done.stderr)} Try another `storage`, and for int8 "
            "representative data that moves every layer."
        )
    outputs: list[Sample] = pickle.loads(result.read_bytes())
    return outputs


def reason(code: int, stderr: str) -> str:
    """Why a process ended as it did, as text."""
    last = " ".join(stderr.strip().splitlines()[-3:])[-600:]
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}. {last}"
    return last
