"""What setup.cfg promises, and what the built sdist and wheels hold."""

from __future__ import annotations

import configparser
import ctypes
import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import tfprune

ROOT = Path(__file__).resolve().parents[1]
IGNORED = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", "*.egg-info", "__pycache__", "*.so", ".*_cache", "shared"
)
BUILD = "from setuptools.build_meta import __legacy__ as b; print(b.build_{kind}({folder!r}))"
LIBRARY = "tfprune/ops/libtfprune.so"
DELEGATE = "tfprune/ops/libtfprune_tflite.so"


def setup_cfg() -> configparser.ConfigParser:
    """The parsed setup.cfg."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def package_files(root: Path) -> set[str]:
    """Every file of the package that belongs in a wheel."""
    found = (p for p in (root / "tfprune").rglob("*") if p.is_file() and p.suffix != ".so")
    return {p.relative_to(root).as_posix() for p in found if "__pycache__" not in p.parts}


def build(root: Path, kind: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build the "wheel" or "sdist" of a tree into its dist/, as pip does."""
    (root / "dist").mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", BUILD.format(kind=kind, folder=str(root / "dist"))],
        cwd=root,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def only(folder: Path, pattern: str) -> Path:
    """The one file that matches."""
    (found,) = folder.glob(pattern)
    return found


def wheel_names(root: Path) -> set[str]:
    """The names in the wheel that was built from a tree."""
    with zipfile.ZipFile(only(root / "dist", "*.whl")) as wheel:
        return set(wheel.namelist())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the project without kernels, in which builds leave no trace in the real one."""
    root = tmp_path / "tree"
    shutil.copytree(ROOT, root, ignore=IGNORED)
    for folder in ("core", "tf", "tflite"):
        shutil.rmtree(root / "custom_ops" / folder, ignore_errors=True)
    return root


def add_kernels(root: Path, broken: bool = False) -> None:
    """Put in kernels: one plain, one compiled for AVX2, one that calls TensorFlow's C API, and one
    of the delegate."""
    core, op, lite = (root / "custom_ops" / name for name in ("core", "tf", "tflite"))
    for folder in (core / "isa", op, lite):
        folder.mkdir(parents=True)
    (root / "tfprune" / "ops").mkdir(exist_ok=True)
    (root / "tfprune" / "ops" / "__init__.py").touch()
    (core / "add.h").write_text('extern "C" int probe_add(int a, int b);\n')
    (core / "add.cc").write_text(
        '#include "core/add.h"\nint probe_add(int a, int b) { return a + b; }\n'
    )
    (core / "isa" / "add_avx2.cc").write_text(
        '#ifdef __AVX2__\nextern "C" int probe_isa() { return 2; }\n'
        '#else\nextern "C" int probe_isa() { return 0; }\n#endif\n'
    )
    (core / "never.cu").write_text("this is not C++\n")
    (op / "version.cc").write_text(
        'extern "C" const char* TF_Version();\n'
        'extern "C" const char* probe_version() { return TF_Version(); }\n'
    )
    (lite / "probe.cc").write_text(
        '#include "core/add.h"\nextern "C" int probe_twice(int a) { return probe_add(a, a); }\n'
    )
    (lite / "exports.map").write_text("{ global: probe_twice; local: *; };\n")
    if broken:
        (lite / "broken.cc").write_text("int x = ;\n")


def test_version_stands_in_one_place():
    assert setup_cfg()["metadata"]["version"] == "attr: tfprune._version.__version__"
    text = (ROOT / "tfprune" / "_version.py").read_text("utf-8")
    assert re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE) == [tfprune.__version__]


def test_console_script_leads_to_a_function():
    script = setup_cfg()["options.entry_points"]["console_scripts"].strip()
    name, target = (part.strip() for part in script.split("="))
    module, function = target.split(":")
    assert name == "tfprune"
    assert callable(getattr(importlib.import_module(module), function))


def test_extra_all_names_every_other_extra():
    extras = dict(setup_cfg()["options.extras_require"])
    named = re.fullmatch(r"tfprune\[(.+)\]", extras.pop("all").strip())
    assert named is not None
    assert set(named[1].split(",")) == set(extras)


def test_tensorflow_is_no_build_requirement():
    text = (ROOT / "setup.py").read_text("utf-8")
    assert not re.search(
        r"^\s*(import|from)\s+(tensorflow|keras|numpy|tfprune)", text, re.MULTILINE
    )
    assert not (ROOT / "pyproject.toml").exists()


@pytest.mark.slow
def test_pure_wheel_holds_the_package_and_nothing_else(tree):
    done = build(tree, "wheel")
    assert done.returncode == 0, done.stderr
    assert only(tree / "dist", "*.whl").name == f"tfprune-{tfprune.__version__}-py3-none-any.whl"
    names = wheel_names(tree)
    assert {n for n in names if ".dist-info/" not in n} == package_files(tree)
    assert "tfprune/py.typed" in names
    assert any(re.search(r"\.dist-info/(licenses/)?LICENSE$", n) for n in names)


@pytest.mark.slow
def test_sdist_holds_what_a_build_and_a_test_run_need(tree):
    add_kernels(tree)
    done = build(tree, "sdist")
    assert done.returncode == 0, done.stderr
    with tarfile.open(only(tree / "dist", "*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert package_files(tree) <= names
    wanted = {"setup.py", "setup.cfg", "LICENSE", "CHANGELOG.md", "Makefile", "ruff.toml"}
    wanted |= {"custom_ops/README.md", "custom_ops/core/add.h", "custom_ops/tf/version.cc"}
    wanted |= {"custom_ops/core/never.cu", "tests/conftest.py"}
    assert wanted <= names
    assert not [n for n in names if n.endswith((".so", ".pyc"))]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_kernels_become_libraries_for_any_python(tree):
    add_kernels(tree)
    done = build(tree, "wheel", TFPRUNE_REQUIRE_NATIVE="1")
    assert done.returncode == 0, done.stderr
    wheel = only(tree / "dist", "*.whl")
    assert re.search(r"-py3-none-(?!any)\w+\.whl$", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        assert (
            "Root-Is-Purelib: false"
            in archive.read(f"tfprune-{tfprune.__version__}.dist-info/WHEEL").decode()
        )
        library = archive.extract(LIBRARY, tree / "dist")
        delegate = ctypes.CDLL(archive.extract(DELEGATE, tree / "dist"))
    assert delegate.probe_twice(4) == 8
    assert os.uname().sysname != "Linux" or not hasattr(delegate, "probe_add")
    import tensorflow as tf

    tf.load_op_library(library)
    loaded = ctypes.CDLL(library)
    loaded.probe_version.restype = ctypes.c_char_p
    assert loaded.probe_add(2, 3) == 5
    assert loaded.probe_isa() == (2 if os.uname().machine == "x86_64" else 0)
    assert loaded.probe_version().decode() == tf.__version__


@pytest.mark.slow
def test_kernels_that_do_not_compile_leave_a_pure_wheel(tree):
    add_kernels(tree, broken=True)
    done = build(tree, "wheel")
    assert done.returncode == 0, done.stderr
    assert only(tree / "dist", "*.whl").name.endswith("-py3-none-any.whl")
    assert not {LIBRARY, DELEGATE} & wheel_names(tree)
    assert "native kernels are left out" in done.stdout + done.stderr


@pytest.mark.slow
def test_required_kernels_that_do_not_compile_are_an_error(tree):
    add_kernels(tree, broken=True)
    assert build(tree, "wheel", TFPRUNE_REQUIRE_NATIVE="1").returncode != 0
    assert not list((tree / "dist").glob("*.whl"))
