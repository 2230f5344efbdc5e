"""What the C++ sources say of themselves: the order of the core's folders, limits in one place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tfprune.maths.sparse_weights import MOST_KERNEL

ROOT = Path(__file__).resolve().parents[2] / "custom_ops"
SOURCES = sorted(p for p in ROOT.rglob("*") if p.suffix in {".h", ".cc", ".c", ".cu", ".cuh"})
# Each folder of the core includes files of its own and of those before it.
FOLDERS = ("api", "engine", "isa", "pack", "run", "device")
DEFINITION = re.compile(r"TFP_MOST_KERNEL\s*=\s*(\d+)|#\s*define\s+TFP_MOST_KERNEL\s+(\d+)")


def test_the_largest_kernel_is_defined_once_and_python_agrees():
    found = [(p.name, m) for p in SOURCES for m in DEFINITION.finditer(p.read_text("utf-8"))]
    assert [(name, int(m[1] or m[2])) for name, m in found] == [("sparse_conv.h", MOST_KERNEL)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_of_the_core_include_those_below_them(folder):
    allowed = FOLDERS[: FOLDERS.index(folder) + 1]
    sources = [p for p in SOURCES if p.is_relative_to(ROOT / "core" / folder)]
    assert sources
    for path in sources:
        included = re.findall(r'#\s*include\s+"core/(\w+)/', path.read_text("utf-8"))
        assert set(included) <= set(allowed), path


def test_every_folder_of_the_core_has_its_rank():
    assert {p.name for p in (ROOT / "core").iterdir()} == set(FOLDERS)
