"""The kernels without Python and TensorFlow: built here, and for AArch64 under qemu."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "custom_ops"
ISA_LINES = (ROOT / "isa_flags.txt").read_text().splitlines()
ISA = {name: flags for name, *flags in map(str.split, ISA_LINES)}
CROSS = ("aarch64-linux-gnu-g++", "qemu-aarch64")

pytestmark = pytest.mark.slow


def build(compiler: str, out: Path, x86: bool) -> Path:
    """tests/compare.cc with all kernels."""
    objects = []
    for source in (*sorted((ROOT / "core").glob("*.cc")), ROOT / "tests" / "compare.cc"):
        flags = ISA.get(source.stem.rpartition("_")[2], []) if x86 else []
        objects.append(out / f"{source.stem}.o")
        options = ["-std=c++17", "-O3", "-pthread", f"-I{ROOT}", *flags]
        subprocess.run([compiler, *options, "-c", source, "-o", objects[-1]], check=True)
    program = out / "compare"
    static = [] if x86 else ["-static"]
    subprocess.run([compiler, *static, "-pthread", *objects, "-o", program], check=True)
    return program


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_kernels_agree_with_the_reference(tmp_path):
    import platform

    program = build("c++", tmp_path, platform.machine() == "x86_64")
    done = subprocess.run([program, "300", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "portable reference" in done.stdout


@pytest.mark.skipif(not all(map(shutil.which, CROSS)), reason=f"needs {' and '.join(CROSS)}")
def test_kernels_agree_on_aarch64(tmp_path):
    program = build(CROSS[0], tmp_path, x86=False)
    done = subprocess.run([CROSS[1], program, "100", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("100 cases agree: portable reference")
