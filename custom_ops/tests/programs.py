"""Builds programs of the core without Python: the fuzz target, and those that compare kernels."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
DEVICES = ROOT / "core" / "device" / "table.cc"
ISA_FLAGS = {
    name: flags
    for name, *flags in map(str.split, (ROOT / "isa_flags.txt").read_text().splitlines())
}
X86 = ("x86_64", "AMD64")


def core() -> list[Path]:
    """All C++ files of the core."""
    return sorted((ROOT / "core").rglob("*.cc"))


def compiled(
    compiler: str, sources: Iterable[Path], out: Path, options: list[str], x86: bool | None = None
) -> dict[Path, Path]:
    """Compile each source into an object file of its own in `out`; x86 None: as this machine."""
    x86 = os.uname().machine in X86 if x86 is None else x86
    objects = {}
    for source in sources:
        flags = ISA_FLAGS.get(source.stem.rpartition("_")[2], []) if x86 else []
        name = "-".join(source.relative_to(ROOT).with_suffix(".o").parts)
        common = ["-std=c++17", "-pthread", f"-I{ROOT}", *options, *flags]
        subprocess.run([compiler, *common, "-c", source, "-o", out / name], check=True)
        objects[source] = out / name
    return objects


def linked(compiler: str, objects: Iterable[Path], program: Path, *options: str) -> Path:
    """Link a program."""
    subprocess.run([compiler, *options, "-pthread", *objects, "-o", program], check=True)
    return program
