"""The rules of the tree as functions: one source file -> the complaints about it."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import PurePosixPath

MOST_LINES = 320
MOST_FILES = 14  # of a folder, beside its `__init__.py`
MOST_ROOT_FILES = 10

# Room (a folder or a root file of tfprune/) -> the rooms that it may import; always itself as well.
# Arrows point from what people call to maths, never back.
MATHS = frozenset({"maths"})
METHOD = MATHS | {"method", "needs", "protocols", "schedules"}
PRUNED = METHOD | {"graph", "compat"}
INFERENCE = PRUNED | {"pruned", "ops"}
ANY = None
ROOMS: dict[str, frozenset[str] | None] = {
    "_version": frozenset(),
    "files": frozenset(),
    "maths": frozenset(),
    "schedules": MATHS | {"compat"},
    "needs": MATHS,
    "protocols": MATHS,
    "method": METHOD,
    "methods": METHOD,
    "compat": MATHS,
    "graph": MATHS | {"compat"},
    "pruned": PRUNED,
    "layers": PRUNED | {"pruned"},
    "training": PRUNED | {"pruned"},
    "ops": MATHS,
    "inference": INFERENCE,
    "export": INFERENCE | {"inference", "files"},
    "report": INFERENCE | {"inference", "training", "files"},
    "shell": ANY,
    "_import_hook": frozenset(),
    "_registration": INFERENCE | {"inference", "methods"},
    "__init__": ANY,
}
# Rooms that serve any method and may therefore name none.
METHOD_BLIND = frozenset(ROOMS) - {"__init__", "methods", "shell"}
MATHS_LIBRARIES = frozenset({"keras", "numpy", "tfprune"})
MATHS_KERAS = frozenset({"ops", "saving", "random", "config"})
LEGACY = ("tensorflow_model_optimization", "tf_keras")
LOADERS = frozenset({"load_op_library", "load_library", "LoadLibrary", "CDLL", "PyDLL", "cdll"})
KERAS_BASES = frozenset({"Layer", "Model", "Sequential", "Functional", "Wrapper"})
# Private attributes and methods of Keras' classes that this project needs.
KERAS_PRIVATE = frozenset(
    {
        *("_flatten_layers", "_layers", "_tracker", "_functional", "_compile_config"),
        *("_inbound_nodes", "_outbound_nodes", "_keras_history", "_nodes_by_depth"),
        *("_trainable_variables", "_non_trainable_variables", "_keras_logits", "_iterations"),
    }
)


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
        """Whether the file holds maths: a method, or what methods build on."""
        return self.room in METHOD | {"methods"}

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


def module_of(path: str) -> str:
    """The dotted name of a Python file."""
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def circles(sources: list[Source]) -> list[list[str]]:
    """Groups of modules that import each other, at the top, inside functions, or for types.

    The strongly connected components of more than one module, by Tarjan's algorithm.
    """
    modules = {module_of(source.path) for source in sources}
    graph = {module_of(s.path): sorted(_targets(s, modules)) for s in sources}
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        stack.append(module)
        for target in graph[module]:
            if target not in number:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], number[target])
        if low[module] == number[module]:
            index = stack.index(module)
            component, stack[index:] = sorted(stack[index:]), []
            if len(component) > 1:
                found.append(component)

    for module in graph:
        if module not in number:
            visit(module)
    return found


def _targets(source: Source, modules: set[str]) -> set[str]:
    """The modules that a file imports, of those given."""
    own = module_of(source.path)
    names = {name if name in modules else name.rpartition(".")[0] for name in source.imports}
    return {name for name in names if name in modules and name != own}


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
    """A method never imports another method, only what several share, in a file `_name.py`."""
    if source.room == "methods" and not source.path.endswith("__init__.py"):
        own = source.path.removesuffix(".py").replace("/", ".")
        for name in source.imports:
            shared = name.startswith("tfprune.methods._")
            if within(name, "tfprune.methods") and not within(name, own) and not shared:
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


LAYER_HOMES = (
    "tfprune/pruned/state.py",
    "tfprune/pruned/wrappers.py",
    "tfprune/inference/sparse_layers.py",
    "tfprune/export/targets/coefficient_layer.py",
)


def layers_live_at_home(source: Source) -> Iterator[str]:
    """Only the files of LAYER_HOMES subclass Keras layers and models."""
    if source.path in LAYER_HOMES:
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


LIBRARY_HOMES = ("tfprune/ops/library.py", "tfprune/export/inspect/litert_profiler.py")


def libraries_load_at_home(source: Source) -> Iterator[str]:
    """Only the files of LIBRARY_HOMES load a shared library."""
    if source.path in LIBRARY_HOMES:
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


def private_names_live_in_keras(source: Source) -> Iterator[str]:
    """Only graph/_keras.py names what is private to Keras."""
    if source.path == "tfprune/graph/_keras.py":
        return
    yield from (name for name in source.imports if within(name, "keras.src"))
    for name in source.dotted:
        for part in name.split(".")[1:]:
            if part in KERAS_PRIVATE:
                yield f"uses {name}"


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
