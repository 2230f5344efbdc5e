"""The rules of the tree as functions: one source file -> the complaints about it."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import PurePosixPath

MOST_LINES = 350

# Room (a folder or a root file of tfprune/) -> the rooms that it may import; always itself as well.
# Arrows point from hosts to maths, never back.
MATHS = frozenset(
    {
        *("_version", "checks", "masks", "method", "schedules", "transforms"),
        *("banded", "bands", "dct_macs", "groups", "signals", "sparse_weights", "thresholds"),
    }
)
HOSTS = MATHS | {"compat", "ops", "training"}
ANY = None
ROOMS: dict[str, frozenset[str] | None] = {
    **dict.fromkeys(MATHS, MATHS),
    "schedules": MATHS | {"compat"},
    "methods": MATHS,
    "compat": MATHS,
    "ops": MATHS | {"compat"},
    "training": HOSTS | {"macs"},
    "layers": HOSTS,
    "macs": HOSTS,
    "measure": HOSTS | {"macs"},
    "export": HOSTS | {"macs", "measure"},
    "report": HOSTS | {"macs", "measure", "export"},
    "data": frozenset(),
    "workflow": ANY,
    "bench": ANY,
    "demo": ANY,
    "cli": ANY,
    "arguments": frozenset(),
    "__init__": ANY,
}
# Rooms that serve any method and may therefore name none.
METHOD_BLIND = frozenset(ROOMS) - {"__init__", "methods", "workflow", "demo", "cli"}
MATHS_LIBRARIES = frozenset({"keras", "numpy", "tfprune"})
MATHS_KERAS = frozenset({"ops", "saving", "random", "config"})
LEGACY = ("tensorflow_model_optimization", "tf_keras")
LOADERS = frozenset({"load_op_library", "load_library", "LoadLibrary", "CDLL", "PyDLL", "cdll"})
KERAS_BASES = frozenset({"Layer", "Model", "Sequential", "Functional", "Wrapper"})


@dataclasses.dataclass(frozen=True)
class Source:
    """One Python file: its path from the root of the project, with "/", and its text."""

    path: str
    text: str

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the syntax tree."""
        return list(ast.walk(ast.parse(self.text, self.path)))

    @cached_property
    def room(self) -> str:
        """The folder or root file of tfprune/ that this file belongs to; "" outside tfprune/."""
        parts = PurePosixPath(self.path).parts
        return parts[1].removesuffix(".py") if parts[0] == "tfprune" else ""

    @property
    def is_maths(self) -> bool:
        """Whether the file holds maths: a method, or a root file that methods build on."""
        return self.room in MATHS or self.room == "methods"

    @cached_property
    def imports(self) -> list[str]:
        """Dotted names of all imports, anywhere in the file; relative ones made absolute."""
        package = list(PurePosixPath(self.path).parts[:-1])
        found: list[str] = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) + 1 - node.level] if node.level else []
                start = ".".join([*base, *([node.module] if node.module else [])])
                found += [f"{start}.{alias.name}" for alias in node.names]
        return found

    @cached_property
    def dotted(self) -> list[str]:
        """Every dotted name that the code uses, such as `keras.layers.Dense`."""
        return [ast.unparse(n) for n in self.nodes if isinstance(n, ast.Attribute | ast.Name)]

    @cached_property
    def strings(self) -> list[str]:
        """String constants that are names or paths; prose (docstrings, messages) has spaces."""
        values = (n.value for n in self.nodes if isinstance(n, ast.Constant))
        return [v for v in values if isinstance(v, str) and re.fullmatch(r"\S+", v)]


def within(name: str, package: str) -> bool:
    """Whether a dotted name is `package` or lies in it."""
    return name == package or name.startswith(package + ".")


def arrows(source: Source) -> Iterator[str]:
    """Rooms import only the rooms that they may know."""
    if source.room not in ROOMS:
        yield f"{source.room!r} is no known room: add it to ROOMS in tests/architecture.py"
        return
    allowed = ROOMS[source.room]
    for name in source.imports if allowed is not None else ():
        parts = name.split(".")
        target = parts[1] if len(parts) > 1 else "__init__"
        if parts[0] == "tfprune" and target not in allowed | {source.room}:
            yield f"{source.room} may not import {name}"


def methods_stand_alone(source: Source) -> Iterator[str]:
    """A method never imports another method."""
    if source.room == "methods" and not source.path.endswith("__init__.py"):
        own = source.path.removesuffix(".py").replace("/", ".")
        for name in source.imports:
            if within(name, "tfprune.methods") and not within(name, own):
                yield f"a method may not import another: {name}"


def maths_is_pure(source: Source) -> Iterator[str]:
    """Maths uses `keras.ops`, NumPy and the standard library, and no Keras layer, model or file."""
    if not source.is_maths:
        return
    known = MATHS_LIBRARIES | sys.stdlib_module_names
    yield from (f"maths imports {n}" for n in source.imports if n.split(".")[0] not in known)
    for name in {*source.imports, *source.dotted}:
        parts = name.split(".")
        if parts[0] == "keras" and len(parts) > 1 and parts[1] not in MATHS_KERAS:
            yield f"maths uses {name}"


def layers_live_in_training(source: Source) -> Iterator[str]:
    """Only tfprune/training/ subclasses Keras layers and models."""
    if source.room == "training":
        return
    homes = re.compile(r"\b(layers|models)\.")
    taken = {n.split(".")[-1] for n in source.imports if n.startswith("keras.") and homes.search(n)}
    for node in source.nodes:
        for base in node.bases if isinstance(node, ast.ClassDef) else ():
            name = ast.unparse(base)
            if name.split(".")[-1] in KERAS_BASES | taken or homes.search(name):
                yield f"class {node.name} subclasses {name}"


def legacy_lives_in_compat(source: Source) -> Iterator[str]:
    """Only compat/tfmot.py names tfmot or tf_keras, in code or in strings that are names."""
    if source.path == "tfprune/compat/tfmot.py":
        return
    for name in {*source.imports, *source.dotted, *source.strings}:
        if any(re.search(rf"(^|\W){legacy}($|\W)", name) for legacy in LEGACY):
            yield f"names {name!r}"


def libraries_load_in_ops(source: Source) -> Iterator[str]:
    """Only ops/ loads a shared library."""
    if source.room == "ops":
        return
    for name in {*source.imports, *source.dotted}:
        parts = set(name.split("."))
        if parts & LOADERS or (name in source.imports and parts & {"ctypes", "cffi"}):
            yield f"loads shared libraries: {name}"


def keras_is_keras(source: Source) -> Iterator[str]:
    """Nobody writes `tf.keras`: it is Keras 2 in some processes."""
    names = {*source.imports, *source.dotted}
    yield from (n for n in names if re.match(r"(tf|tensorflow)(\.compat\.v[12])?\.keras\b", n))


def hosts_are_blind(source: Source, methods: frozenset[str]) -> Iterator[str]:
    """A host never asks which method it holds: it neither names a method nor compares its name."""
    if source.room in METHOD_BLIND:
        used = {part for name in source.dotted for part in name.split(".")} | set(source.strings)
        yield from (f"names the method {name}" for name in sorted(methods & used))


def docstrings(source: Source) -> Iterator[str]:
    """Every module and every public class, function and method has a docstring."""

    def visit(node: ast.Module | ast.ClassDef | ast.FunctionDef, name: str) -> Iterator[str]:
        if source.text.strip() and not ast.get_docstring(node):
            yield f"{name} has no docstring"
        for child in () if isinstance(node, ast.FunctionDef) else node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
                decorators = {ast.unparse(d).split(".")[-1] for d in child.decorator_list}
                if not decorators & {"setter", "deleter", "overload"}:
                    yield from visit(child, f"{name}.{child.name}")

    yield from visit(ast.parse(source.text), PurePosixPath(source.path).stem)


def method_names(sources: list[Source]) -> frozenset[str]:
    """The classes that are registered as methods in tfprune/methods/."""
    classes = (n for s in sources if s.room == "methods" for n in s.nodes)
    return frozenset(
        node.name
        for node in classes
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(d).split(".")[-1] == "register" for d in node.decorator_list)
    )


def foreign_includes(text: str) -> list[str]:
    """Headers of TensorFlow or TFLite that a C, C++ or CUDA file includes."""
    found = re.findall(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', text, re.MULTILINE)
    return [n for n in found if re.match(r"(tensorflow|tflite|litert|xla|absl|Eigen|tsl)\b", n)]
