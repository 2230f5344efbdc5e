"""What names, docstrings and errors have to be, as functions: one source file -> the violations."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from architecture import Source

# Names that say that a thing was found, not what it is, or that mean something else in the field.
DROPPED = frozenset(
    {
        *("found", "one", "known", "number", "numbers", "each", "both", "place", "places"),
        *("twin", "twins", "turn", "turned", "waves", "bank", "word"),
        *("complaints", "opens", "pays", "worth", "unfit"),
    }
)
# Beginnings of a docstring that is neither a sentence with a verb first nor a noun phrase.
FRAGMENTS = frozenset(
    {
        *("As", "At", "By", "Copyright", "From", "In", "It", "Likewise", "Of", "On", "See"),
        *("So", "That", "Then", "This", "Those", "With"),
    }
)
ERRORS = frozenset({"ValueError", "TypeError"})


def defined_names(source: Source) -> Iterator[tuple[str, int]]:
    """(name, line) of every variable, argument, attribute, function and class that a file makes."""
    for node in source.nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def dropped_names(source: Source) -> Iterator[str]:
    """Names that the project does not use."""
    for name, line in sorted(set(defined_names(source))):
        if name.strip("_").lower() in DROPPED:
            yield f"line {line}: {name}"


def fragments(source: Source) -> Iterator[str]:
    """Docstrings that begin neither with a verb nor with a noun phrase."""
    for node in source.nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            opening = re.match(r"\w+", text)
            if opening and opening[0] in FRAGMENTS:
                yield f"line {getattr(node, 'lineno', 1)}: {text.splitlines()[0]}"


def refusals(source: Source) -> Iterator[tuple[int, str]]:
    """(line, text) of the errors that concern an argument or a setting: they say what must hold."""
    for node in source.nodes:
        error = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(error, ast.Call) and ast.unparse(error.func) in ERRORS:
            text = ast.unparse(error)
            if re.search(r"\bmust\b|`", text):
                yield error.lineno, text


def methods_of(sources: list[Source], classes: frozenset[str]) -> frozenset[str]:
    """The methods that some classes define: what overrides them need not describe them again."""
    nodes = (node for source in sources for node in source.nodes)
    bodies = [n.body for n in nodes if isinstance(n, ast.ClassDef) and n.name in classes]
    return frozenset(x.name for body in bodies for x in body if isinstance(x, ast.FunctionDef))


def public_functions(source: Source, names: frozenset[str]) -> Iterator[tuple[str, ast.AST]]:
    """(name, node) of the functions and methods with arguments behind some public names."""
    for node in ast.parse(source.text).body:
        if isinstance(node, ast.FunctionDef) and node.name in names and _arguments(node):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and node.name in names:
            for child in node.body:
                public = isinstance(child, ast.FunctionDef) and not child.name.startswith("_")
                if public and isinstance(child, ast.FunctionDef) and _arguments(child):
                    yield f"{node.name}.{child.name}", child


def _arguments(node: ast.FunctionDef) -> list[str]:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]


def described(node: ast.AST) -> bool:
    """Whether a docstring has `Args:`, or names each argument."""
    assert isinstance(node, ast.FunctionDef)
    text = ast.get_docstring(node) or ""
    names = _arguments(node)
    return "Args:" in text or all(re.search(rf"\b{name}\b", text) for name in names)
