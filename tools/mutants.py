"""Mutate the package, one small change at a time, and show which changes no test notices.

Draws changes with a fixed seed (a comparison's bound, an operator, `and`/`or`, a constant, a
returned value, a condition, a removed statement), writes each into a copy of the tree, and runs
the tests of its room, first those that share rare words with the changed function, until one fails
or the budget of processor time is spent. The copy is a temporary folder; the tree itself is only
read. TensorFlow is imported once; every change is tested in a fork of that process.

    python tools/mutants.py --count 20 --seed 1 --rooms maths methods

A change that survives either needs a test or changes nothing that can be observed. Survivors are
run again by their indices, with `--only 3 17`, as long as the sources and the seed stay.
"""

from __future__ import annotations

import argparse
import ast
import collections
import copy
import dataclasses
import functools
import math
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("maths", "methods", "pruned", "export", "report")
# Room -> folders of tests beside its own that run its code.
ALSO = {
    "maths": ("methods", "contract", "report"),
    "methods": ("contract",),
    "pruned": ("contract", "training", "methods"),
}
COPIED = ("tfprune", "tests", "setup.cfg", "benchmarks", "examples", "README.md")
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
}
ENDLESS = 120  # seconds of processor time past the budget after which a single test counts as stuck


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change: `before` at a position of a file becomes `after`."""

    path: str
    line: int
    start: int
    end: int
    kind: str
    before: str
    after: str

    def text(self, source: str) -> str:
        """The file with the change."""
        data = source.encode()
        return (data[: self.start] + self.after.encode() + data[self.end :]).decode()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a mutant: "killed", "survived" or "stuck"; the test, and seconds spent."""

    state: str
    test: str
    seconds: float


def alternatives(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Kinds of changes to a node, with the node that takes its place."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for operator in COMPARISONS[type(node.ops[0])]:
            yield "comparison", _with(node, ops=[operator()])
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        if not _is_text(node.left) and not _is_text(node.right):
            yield "arithmetic", _with(node, op=OPERATORS[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield "boolean", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "boolean" if isinstance(node.op, ast.Not) else "arithmetic", node.operand
    elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        value = node.value
        changed = not value if isinstance(value, bool) else value + 1 if value == 0 else 2 * value
        yield "constant", ast.Constant(changed)
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield "return", ast.Return(ast.Constant(None))
    elif isinstance(node, ast.If | ast.IfExp) and not isinstance(node.test, ast.Constant):
        for value in (True, False):
            yield "condition", _Test(node.test, ast.Constant(value))
    elif isinstance(node, ast.Raise | ast.AugAssign | ast.Continue | ast.Break) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield "statement", ast.Pass()


class _Test(ast.AST):
    """The condition of a statement in place of the statement."""

    def __init__(self, old: ast.expr, new: ast.expr) -> None:
        self.old, self.new = old, new


def mutants(path: str, source: str) -> Iterator[Mutant]:
    """All changes to a file, in its order; none in annotations, decorators and messages."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in _code(ast.parse(source)):
        for kind, other in alternatives(node):
            old, new = (other.old, other.new) if isinstance(other, _Test) else (node, other)
            begin = starts[old.lineno - 1] + old.col_offset  # type: ignore[attr-defined]
            end = starts[old.end_lineno - 1] + old.end_col_offset  # type: ignore[attr-defined]
            after = ast.unparse(ast.fix_missing_locations(new))
            after = f"({after})" if isinstance(new, ast.expr) else after
            before = source.encode()[begin:end].decode()
            yield Mutant(path, old.lineno, begin, end, kind, before, after)  # type: ignore[attr-defined]


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes whose change could change a result."""
    yield node
    if isinstance(node, ast.Raise):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            skipped = not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr)
            if not skipped and not _is_declaration(child):
                yield from _code(child)


def _is_declaration(node: ast.AST) -> bool:
    """Whether a statement only names types: an alias, or imports for a type checker."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test).endswith("TYPE_CHECKING")
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Global | ast.Nonlocal)


def _with(node: Any, **fields: Any) -> Any:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def draw(count: int, seed: int, rooms: list[str]) -> list[Mutant]:
    """Mutants of the rooms of tfprune/, kinds drawn alike, at most one a line."""
    by_kind: dict[str, list[Mutant]] = collections.defaultdict(list)
    for room in rooms:
        for path in sorted((ROOT / "tfprune" / room).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for mutant in mutants(name, path.read_text("utf-8")):
                by_kind[mutant.kind].append(mutant)
    rng = random.Random(seed)
    drawn: dict[tuple[str, int], Mutant] = {}
    while len(drawn) < count and by_kind:
        kind = rng.choice(sorted(by_kind))
        mutant = by_kind[kind].pop(rng.randrange(len(by_kind[kind])))
        if not by_kind[kind]:
            del by_kind[kind]
        drawn.setdefault((mutant.path, mutant.line), mutant)
    return list(drawn.values())


def words(text: str) -> set[str]:
    """The words of names and prose, lower case, of three letters at least."""
    return {word.lower() for word in re.findall(r"[A-Za-z][a-z]{2,}", text)}


@dataclasses.dataclass(frozen=True)
class TestFunction:
    """A test: its id without parameters, its folder, its words, and the text of its file."""

    name: str
    folder: str
    words: frozenset[str]
    file: str

    __test__ = False  # for pytest


@functools.cache
def all_tests() -> tuple[TestFunction, ...]:
    """All test functions of tests/."""
    tests = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text, relative = path.read_text("utf-8"), path.relative_to(ROOT)
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                source = " ".join(map(ast.unparse, [*node.decorator_list, node]))
                name, folder = f"{relative.as_posix()}::{node.name}", relative.parts[1]
                tests.append(TestFunction(name, folder, frozenset(words(source)), text))
    return tuple(tests)


def tests_for(mutant: Mutant, source: str) -> list[str]:
    """The tests that could notice a mutant, those first that share rare words with its function."""
    module = mutant.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    package, _, stem = module.rpartition(".")
    room = mutant.path.split("/")[1]
    folders = (room, *ALSO.get(room, ()))
    tests = [test for test in all_tests() if test.folder in folders]
    counts = collections.Counter(word for test in tests for word in test.words)
    own = words(stem) | words(_function_of(mutant, source))
    names = (module, f"from {package} import {stem}", f"{stem}.")

    def likeness(test: TestFunction) -> float:
        shared = sum(math.log(1 + len(tests) / counts[word]) for word in own & test.words)
        named = 2 if any(name in test.file for name in names) else 1
        return named * shared / math.sqrt(len(test.words))

    return [test.name for test in sorted(tests, key=likeness, reverse=True)]


def _function_of(mutant: Mutant, source: str) -> str:
    """The text of the innermost function or class around a mutant, after the names around it."""
    text = ""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.lineno <= mutant.line:
            inside = mutant.line <= (node.end_lineno or 0)
            text = f"{' '.join(text.split()[:2])} {ast.unparse(node)}" if inside else text
    return text


class _Watch:
    """A pytest plugin: names the test that failed, and ends the run when the budget is spent."""

    def __init__(self, budget: float) -> None:
        self.budget, self.failed = budget, ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Remember the first failure."""
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        """Remember a file that can't be imported."""
        if report.failed and not self.failed:
            self.failed = f"{report.nodeid} (import)"

    def pytest_runtest_teardown(self, item: Any, nextitem: Any) -> None:
        """Stop between two tests."""
        if nextitem is not None and _seconds() > self.budget:
            item.session.shouldstop = "budget"


def _seconds() -> float:
    """Processor time of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Bench:
    """A copy of the tree in which mutants are tested.

    Args:
        folder: an empty folder.
        budget: seconds of processor time for the tests of one mutant.
    """

    def __init__(self, folder: Path, budget: float) -> None:
        self.folder, self.budget = folder, budget
        self.green: set[str] = set()
        self.broken: set[str] = set()
        copy_tree(folder)

    def run(self, mutant: Mutant) -> Outcome:
        """Test a mutant; a test counts as its killer only where it passes without the mutant."""
        while True:
            outcome = self._mutated(mutant)
            if outcome.state != "killed" or not self._is_broken(outcome.test):
                return outcome

    def _mutated(self, mutant: Mutant) -> Outcome:
        """Write the mutant into the copy, fork, test, and put the source back."""
        target = self.folder / mutant.path
        source = target.read_text("utf-8")
        target.write_text(mutant.text(source), "utf-8")
        try:
            return _forked(self.folder, tests_for(mutant, source), self.budget, self.broken)
        finally:
            target.write_text(source, "utf-8")

    def _is_broken(self, test: str) -> bool:
        """Whether a test fails on the sources as they are; it is left out from then on."""
        if test not in self.green and "::" in test:
            if _forked(self.folder, [test], self.budget, set()).state == "survived":
                self.green.add(test)
            else:
                self.broken.add(test)
        return test in self.broken


def _forked(folder: Path, tests: list[str], budget: float, left_out: set[str]) -> Outcome:
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        os.close(receiver)
        _child(folder, [*tests, *(f"--deselect={test}" for test in left_out)], budget, sender)
    os.close(sender)
    with os.fdopen(receiver) as stream:
        failed = stream.read()
    _, status, used = os.wait4(child, 0)
    seconds = used.ru_utime + used.ru_stime
    if os.WIFSIGNALED(status):
        stuck = os.WTERMSIG(status) == signal.SIGXCPU
        return Outcome("stuck" if stuck else "killed", f"signal {os.WTERMSIG(status)}", seconds)
    return Outcome("killed" if failed else "survived", failed, seconds)


def _child(folder: Path, arguments: list[str], budget: float, sender: int) -> None:
    """Run the tests in this process and end it; the name of the test that failed goes out."""
    import pytest

    limit = int(budget) + ENDLESS
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    os.chdir(folder)
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    watch = _Watch(budget)
    options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    try:
        code = int(pytest.main([*options, *arguments], plugins=[watch]))
        if code not in (0, 2) and not watch.failed:
            watch.failed = f"pytest ended with {code}"
    except BaseException as error:
        watch.failed = f"{type(error).__name__}: {error}"[:200]
    os.write(sender, watch.failed.encode())
    os._exit(0)


def copy_tree(folder: Path) -> None:
    """Copy what the tests need; the copy's package is the one that is imported."""
    ignored = shutil.ignore_patterns("__pycache__", "build")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        elif source.is_file():
            shutil.copy(source, folder / name)


def _prepare(folder: Path) -> None:
    """Import what is slow and no mutant changes; nothing of tfprune, no TensorFlow op."""
    sys.dont_write_bytecode = True
    sys.path[:] = [str(folder), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
    os.environ |= {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    for name in ("tensorflow", "keras", "hypothesis", "pytest"):
        __import__(name)
    assert not any(name.split(".")[0] == "tfprune" for name in sys.modules)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--count", type=int, default=20, help="mutants to draw")
    add("--seed", type=int, default=0, help="same seed and sources, same mutants")
    add("--rooms", nargs="+", default=list(ROOMS), help="folders of tfprune/")
    add("--budget", type=float, default=60.0, help="processor seconds of tests a mutant")
    add("--only", type=int, nargs="+", help="run these of the drawn ones, by index")
    add("--list", action="store_true", help="show the mutants, run nothing")
    return parser.parse_args()


def _line(index: int, mutant: Mutant, outcome: Outcome | None) -> str:
    """A line of a Markdown table."""
    before, after = (
        " ".join(text.split()).replace("|", "\\|") for text in (mutant.before, mutant.after)
    )
    cells = [str(index), f"{mutant.path}:{mutant.line}", mutant.kind, f"`{before}` → `{after}`"]
    if outcome is not None:
        cells += [outcome.state, outcome.test, f"{outcome.seconds:.0f} s"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Draw, run, and print a table as it grows."""
    options = _options()
    drawn = draw(options.count, options.seed, options.rooms)
    chosen = [(i, m) for i, m in enumerate(drawn) if options.only is None or i in options.only]
    print("| | position | kind | change | outcome | test | processor |\n|" + "---|" * 7, flush=True)
    if options.list:
        print("\n".join(_line(i, mutant, None) for i, mutant in chosen))
        return
    states: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        bench = Bench(Path(name), options.budget)
        _prepare(Path(name))
        for index, mutant in chosen:
            outcome = bench.run(mutant)
            states[outcome.state] += 1
            print(_line(index, mutant, outcome), flush=True)
    print("\n" + ", ".join(f"{count} {state}" for state, count in sorted(states.items())))
    if bench.broken:
        print("Left out, as they fail without any mutant:", *sorted(bench.broken))


if __name__ == "__main__":
    main()
