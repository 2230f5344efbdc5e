"""Runs of a fresh file with the LiteRT of an AArch64 machine, real or emulated.

XNNPACK has a sparse mode that processors with AVX never enter, so that no run on a PC tells whether
a phone computes a file with sparse weights right (`tfprune.export.xnnpack.sparse_mode`).
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from tfprune.export.result import ExportError
from tfprune.export.verify import runtime
from tfprune.export.verify.isolated import reason
from tfprune.export.verify.runtime import Sample

VARIABLE = "TFPRUNE_ARM_PYTHON"
MACHINES = ("aarch64", "arm64")
SAMPLES = 4
SAMPLES_SECONDS = 120.0
PROBE_SECONDS, RUN_SECONDS = 120.0, 900.0
_PROBE = (
    "import importlib.metadata as m, platform;"
    "print(m.version('numpy'), m.version('ai-edge-litert'), platform.machine())"
)
_REMEDY = (
    f"Set {VARIABLE}, or `arm_python`, to the command line, with absolute paths, of a Python on "
    "AArch64 that has ai-edge-litert and numpy; tools/arm_root.py in tfprune's repository builds "
    "one for qemu."
)


@dataclasses.dataclass(frozen=True)
class Arm:
    """A Python on AArch64, as a command that was tried."""

    command: tuple[str, ...]

    def run(self, data: bytes, samples: list[Sample]) -> list[Sample]:
        """Outputs of the default delegate there, of 4 samples, of two where these are slow.

        Raises:
            ExportError: if the file doesn't load or run there.
        """
        program = f"{Path(runtime.__file__).read_text()}\nserve({SAMPLES_SECONDS})\n"
        try:
            given = runtime.to_bytes(data, samples[:SAMPLES])
            done = _call(self.command, program, given, RUN_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ExportError(
                f"The converted file was not written, it did not end on ARM within "
                f"{error.timeout:g} s. Try smaller inputs in `samples`, or a faster machine."
            ) from error
        _, separator, answer = done.stdout.partition(runtime.ANSWER)
        if done.returncode != 0 or not separator:
            raise ExportError(
                "The converted file was not written, it doesn't run on ARM: "
                f"{reason(done.returncode, done.stderr.decode(errors='replace'))} It does on this "
                "machine. Try target='dense'."
            )
        return runtime.from_bytes(answer)[1]


def find_arm(given: str | None) -> Arm:
    """Find the Python on AArch64 of a command line, by default of `TFPRUNE_ARM_PYTHON`.

    Raises:
        ValueError: if there is none, if it doesn't run, or isn't what it must be.
    """
    line = os.environ.get(VARIABLE, "") if given is None else given
    if not isinstance(line, str) or not line.strip():
        raise ValueError(f"`arm` needs a Python on AArch64. Received: {line!r}. {_REMEDY}")
    try:
        command = tuple(shlex.split(line))
        done = _call(command, _PROBE, b"", PROBE_SECONDS)
        said = reason(done.returncode, done.stderr.decode(errors="replace"))
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"`{line}` doesn't run: {error}. {_REMEDY}") from error
    answer = done.stdout.decode(errors="replace").split()
    if done.returncode != 0 or len(answer) < 3:
        raise ValueError(
            f"`{line}` must run a Python with ai-edge-litert. Received: {said} {_REMEDY}"
        )
    if answer[-1] not in MACHINES:
        raise ValueError(
            f"`{line}` must run on AArch64 ({' or '.join(MACHINES)}). Received: a machine of kind "
            f"'{answer[-1]}'. {_REMEDY}"
        )
    return Arm(command)


def _call(
    command: tuple[str, ...], program: str, given: bytes, seconds: float
) -> subprocess.CompletedProcess[bytes]:
    """Run a program there, far from the modules of this machine."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as empty:
        return subprocess.run(
            [*command, "-s", "-c", program],
            input=given,
            capture_output=True,
            cwd=empty,
            env=clean,
            timeout=seconds,
        )
