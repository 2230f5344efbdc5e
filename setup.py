"""Builds the native kernels of custom_ops/ where that is possible; all else is in setup.cfg.

Two libraries, TensorFlow's ops and the delegate for TFLite, are plain C++ against C interfaces that
they declare themselves: neither TensorFlow nor LiteRT is needed to build them, and one build serves
every Python version. Without sources, compiler or POSIX the wheel is pure Python;
TFPRUNE_REQUIRE_NATIVE=1 turns a failed build into an error.
"""

import functools
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

# Each library, the folders of its sources in custom_ops, and a list of what it exports, if any.
LIBRARIES = {
    "tfprune.ops.libtfprune": (("core", "tf"), None),
    "tfprune.ops.libtfprune_tflite": (("core", "tflite"), "tflite/exports.map"),
}
SUFFIXES = {".c", ".cc", ".cpp"}
# A file NAME_avx2.cc is compiled for that instruction set, and only called where the CPU has it.
ISA_FLAGS = Path("custom_ops", "isa_flags.txt")
FRAMEWORK = "libtensorflow_framework.so.2"


def sources(folders: tuple[str, ...]) -> list[str]:
    """All C and C++ files in and below the folders; none where the last one has none."""
    found = [[p for p in Path("custom_ops", d).rglob("*") if p.suffix in SUFFIXES] for d in folders]
    return sorted(str(p) for part in found for p in part) if found[-1] else []


def flags(source: str) -> list[str]:
    """Compiler flags of one file."""
    path = Path(source)
    isa = path.stem.rpartition("_")[2] if platform.machine() in ("x86_64", "AMD64") else ""
    language = "-std=c11" if path.suffix == ".c" else "-std=c++17"
    return [language, "-O3", "-g0", "-pthread", *isa_flags().get(isa, [])]


@functools.cache
def isa_flags() -> dict[str, list[str]]:
    """Instruction set -> its compiler flags."""
    return {name: rest for name, *rest in map(str.split, ISA_FLAGS.read_text().splitlines())}


class BuildNative(build_ext):
    """Compiles the sources into plain shared libraries, or leaves the package pure."""

    def run(self) -> None:
        self.known: dict[str, str] = {}
        try:
            super().run()
        except (OSError, BaseError, CCompilerError) as error:
            if os.environ.get("TFPRUNE_REQUIRE_NATIVE") == "1":
                raise
            print(f"tfprune: native kernels are left out, they did not compile: {error}")
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = self.distribution.ext_modules = []

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        objects = [self.compiled(source) for source in ext.sources]
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        exports = LIBRARIES[ext.name][1]
        options = self.framework() if exports is None else self.only(f"custom_ops/{exports}")
        self.compiler.link_shared_object(
            objects, str(library), extra_postargs=["-pthread", *options], target_lang="c++"
        )

    def compiled(self, source: str) -> str:
        """The object file of a source, which several libraries may share."""
        if source not in self.known:
            (self.known[source],) = self.compiler.compile(
                [source], self.build_temp, include_dirs=["custom_ops"], extra_postargs=flags(source)
            )
        return self.known[source]

    def only(self, exports: str) -> list[str]:
        """Linker arguments that export what a list names, and keep code that has threads loaded."""
        if sys.platform == "darwin":
            return []
        return [f"-Wl,--version-script={exports}", "-Wl,-z,nodelete"]

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


extensions = [Extension(name, sources(folders)) for name, (folders, _) in LIBRARIES.items()]
setup(
    ext_modules=[e for e in extensions if e.sources and os.name == "posix"],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": Wheel},
)
