"""Builds the native kernels of custom_ops/ where that is possible; all else is in setup.cfg.

The library is plain C++ against TensorFlow's C API, so TensorFlow is not needed to build it and one
build serves every Python version. Without sources, compiler or POSIX the wheel is pure Python;
TFPRUNE_REQUIRE_NATIVE=1 turns a failed build into an error.
"""

import os
import platform
import sys
from pathlib import Path

from setuptools import Command, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools < 70.1: the command is in `wheel`, if that is installed
    try:
        from wheel.bdist_wheel import bdist_wheel
    except ImportError:
        bdist_wheel = Command

LIBRARY = "tfprune.ops.libtfprune"
SUFFIXES = {".c", ".cc", ".cpp"}
# A file NAME_avx2.cc is compiled for that instruction set, and only called where the CPU has it.
ISA_FLAGS = {"avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx512f", "-mavx512vl", "-mfma"]}
FRAMEWORK = "libtensorflow_framework.so.2"


def sources() -> list[str]:
    """All C and C++ files of the core and of the TensorFlow op."""
    folders = (Path("custom_ops/core"), Path("custom_ops/tf"))
    return sorted(str(p) for d in folders for p in d.glob("*") if p.suffix in SUFFIXES)


def flags(source: str) -> list[str]:
    """Compiler flags of one file."""
    path = Path(source)
    isa = path.stem.rpartition("_")[2] if platform.machine() in ("x86_64", "AMD64") else ""
    language = "-std=c11" if path.suffix == ".c" else "-std=c++17"
    return [language, "-O3", "-g0", "-pthread", *ISA_FLAGS.get(isa, [])]


class BuildNative(build_ext):
    """Compiles all sources into one plain shared library, or leaves the package pure."""

    def run(self) -> None:
        try:
            super().run()
        except (OSError, BaseError, CCompilerError) as error:
            if os.environ.get("TFPRUNE_REQUIRE_NATIVE") == "1":
                raise
            print(f"tfprune: native kernels are left out, they did not compile: {error}")
            self.extensions = self.distribution.ext_modules = []

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        objects = []
        for source in ext.sources:
            objects += self.compiler.compile(
                [source], self.build_temp, include_dirs=["custom_ops"], extra_postargs=flags(source)
            )
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(
            objects, str(library), extra_postargs=["-pthread", *self.framework()], target_lang="c++"
        )

    def framework(self) -> list[str]:
        """Linker arguments that make the library need TensorFlow's, through an empty stand-in."""
        if sys.platform == "darwin":
            return ["-undefined", "dynamic_lookup"]
        folder = Path(self.build_temp, "stub")
        folder.mkdir(parents=True, exist_ok=True)
        empty = folder / "empty.c"
        empty.write_text("")
        stub = folder / FRAMEWORK
        self.compiler.link_shared_object(
            self.compiler.compile([str(empty)], str(folder)),
            str(stub),
            extra_postargs=[f"-Wl,-soname,{FRAMEWORK}"],
        )
        return ["-Wl,--no-as-needed", str(stub)]


class Wheel(bdist_wheel):
    """Tags the wheel by what was really built: any Python 3, and the platform if native."""

    def run(self) -> None:
        self.run_command("build")
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", "any" if self.root_is_pure else super().get_tag()[2]


native = sources() if os.name == "posix" else []
setup(
    ext_modules=[Extension(LIBRARY, native)] if native else [],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": Wheel},
)
