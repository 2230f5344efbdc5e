"""The kernels without Python and TensorFlow: built here, and for AArch64 under qemu."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2] / "custom_ops" / "tests"
CROSS = ("aarch64-linux-gnu-g++", "qemu-aarch64")
_spec = importlib.util.spec_from_file_location("programs", TESTS / "programs.py")
programs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(programs)

pytestmark = pytest.mark.slow
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """The core's object files, and those of the programs in custom_ops/tests, by source."""
    sources = [
        *programs.core(),
        *(TESTS / f"{n}.cc" for n in ("compare", "devices", "host_device")),
    ]
    return programs.compiled("c++", sources, tmp_path_factory.mktemp("objects"), ["-O2"])


def with_host_device(objects, name, folder):
    """A program whose table of devices is that of host_device.cc."""
    names = [*programs.core(), TESTS / "host_device.cc", TESTS / f"{name}.cc"]
    used = [objects[source] for source in names if source != programs.DEVICES]
    return programs.linked("c++", used, folder / name)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_compiler
def test_kernels_agree_with_the_reference(objects, tmp_path):
    names = [*programs.core(), TESTS / "compare.cc"]
    program = programs.linked("c++", [objects[name] for name in names], tmp_path / "compare")
    assert run(program, "200", "1").endswith("portable reference\n")  # no devices in the table


@needs_compiler
def test_a_device_agrees_with_the_reference(objects, tmp_path):
    program = with_host_device(objects, "compare", tmp_path)
    assert run(program, "50", "3").endswith("portable reference host\n")


@needs_compiler
def test_devices_report_what_is_wrong(objects, tmp_path):
    assert run(with_host_device(objects, "devices", tmp_path)) == "devices: as documented\n"


@pytest.mark.skipif(not all(map(shutil.which, CROSS)), reason=f"needs {' and '.join(CROSS)}")
def test_kernels_agree_on_aarch64(tmp_path):
    sources = [*programs.core(), TESTS / "compare.cc"]
    objects = programs.compiled(CROSS[0], sources, tmp_path, ["-O3"], x86=False)
    program = programs.linked(CROSS[0], objects.values(), tmp_path / "compare", "-static")
    assert run(CROSS[1], program, "100", "2").startswith("100 cases agree: portable reference")
