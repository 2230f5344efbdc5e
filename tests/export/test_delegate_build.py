"""The delegate by CMake: for this machine, and for ARM where a cross compiler is at hand."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from export.test_delegate import conv_file

SOURCE = Path(__file__).resolve().parents[2] / "custom_ops" / "tflite"
CROSS = ("cmake", "aarch64-linux-gnu-g++", "aarch64-linux-gnu-nm")
AARCH64 = 183  # e_machine in the header of an ELF file
EXPORTS = {
    "tflite_plugin_create_delegate",
    "tflite_plugin_destroy_delegate",
    "tfprune_delegate_claimed",
}

pytestmark = pytest.mark.slow


def cmake(folder, *options):
    """The library that it builds."""
    subprocess.run(["cmake", "-S", SOURCE, "-B", folder, *options], check=True)
    subprocess.run(["cmake", "--build", folder], check=True)
    return folder / "libtfprune_tflite.so"


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
def test_cmake_builds_what_the_runtime_loads(tmp_path):
    from ai_edge_litert import interpreter as litert

    data = conv_file().to_bytes()
    loaded = litert.load_delegate(str(cmake(tmp_path / "build")), {"num_threads": 2})
    results = []
    for delegates in ([], [loaded]):
        one = litert.Interpreter(model_content=data, experimental_delegates=delegates)
        one.allocate_tensors()
        one.set_tensor(one.get_input_details()[0]["index"], np.ones((1, 8, 8, 24), np.float32))
        one.invoke()
        results.append(one.get_tensor(one.get_output_details()[0]["index"]))
    assert np.abs(results[1] - results[0]).max() <= 1e-5 * np.abs(results[0]).max()
    assert np.any(results[1] != results[0])  # as another kernel rounds in another order


@pytest.mark.skipif(not all(map(shutil.which, CROSS)), reason=f"needs {', '.join(CROSS)}")
def test_cmake_builds_for_aarch64(tmp_path):
    library = cmake(tmp_path / "build", "-DCMAKE_TOOLCHAIN_FILE=aarch64-linux.cmake")
    assert int.from_bytes(library.read_bytes()[18:20], "little") == AARCH64
    listed = subprocess.run(
        [CROSS[2], "-D", "--defined-only", library], capture_output=True, text=True, check=True
    )
    assert {line.split()[-1] for line in listed.stdout.splitlines()} == EXPORTS
