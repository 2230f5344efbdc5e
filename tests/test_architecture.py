"""The rooms of the tree and who may know whom, held for every file, and each rule shown to bite."""

from __future__ import annotations

import ast
import collections
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import architecture as rules
import pytest
from architecture import Source

ROOT = Path(__file__).resolve().parents[1]
NATIVE = {".h", ".hpp", ".inc", ".c", ".cc", ".cpp", ".cu", ".cuh"}

RULES: list[Callable[[Source], Iterator[str]]] = [
    rules.arrows,
    rules.methods_stand_alone,
    rules.maths_is_pure,
    rules.layers_live_at_home,
    rules.legacy_lives_in_compat,
    rules.libraries_load_at_home,
    rules.keras_is_keras,
    rules.private_names_live_in_keras,
    rules.docstrings,
]


def read(*folders: str) -> list[Source]:
    """All Python files of the folders."""
    paths = sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))
    return [Source(p.relative_to(ROOT).as_posix(), p.read_text("utf-8")) for p in paths]


PACKAGE = read("tfprune")
AROUND = read("tests", "examples", "benchmarks", ".ci")
METHODS = rules.method_names(PACKAGE)


def complain(rule: Callable[[Source], Iterator[str]], sources: list[Source]) -> list[str]:
    """What the rule says of the files, each line led by the path."""
    return [f"{source.path}: {text}" for source in sources for text in rule(source)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package_keeps_the_rule(rule):
    assert complain(rule, PACKAGE) == []


def test_hosts_never_ask_which_method_they_hold():
    assert {"Magnitude", "NetworkSurgery"} <= METHODS
    assert complain(lambda source: rules.hosts_are_blind(source, METHODS), PACKAGE) == []


def test_nobody_around_the_package_writes_tf_keras():
    assert complain(rules.keras_is_keras, AROUND) == []


def test_core_kernels_include_no_tensorflow_header():
    core = [p for p in (ROOT / "custom_ops" / "core").rglob("*") if p.suffix in NATIVE]
    found = {p.name: rules.foreign_includes(p.read_text("utf-8")) for p in core}
    assert {name: headers for name, headers in found.items() if headers} == {}


def test_files_stay_short():
    native = [p for p in (ROOT / "custom_ops").rglob("*") if p.suffix in NATIVE]
    lengths = {s.path: len(s.text.splitlines()) for s in PACKAGE}
    lengths |= {str(p.relative_to(ROOT)): len(p.read_text("utf-8").splitlines()) for p in native}
    assert {path: n for path, n in lengths.items() if n > rules.MOST_LINES} == {}


def test_folders_stay_small():
    folders = collections.Counter(str(Path(source.path).parent) for source in PACKAGE)
    assert folders["tfprune"] <= rules.MOST_ROOT_FILES
    modules = [source for source in PACKAGE if not source.path.endswith("__init__.py")]
    folders = collections.Counter(str(Path(source.path).parent) for source in modules)
    assert {name: n for name, n in folders.items() if n > rules.MOST_FILES} == {}


def test_lengths_of_files():
    lengths = sorted(
        len(s.text.splitlines()) for s in PACKAGE if not s.path.endswith("__init__.py")
    )
    assert lengths[len(lengths) // 2] <= 120 and lengths[len(lengths) * 9 // 10] <= 240


LONGEST = {"FrequencyDomain": 150, "SensitivityDriven": 160, "SynapticStrength": 140}


def test_methods_read_like_their_papers():
    """A method is short, and what every method has fits a page: at most eight public members."""
    nodes = [n for s in PACKAGE for n in s.nodes if isinstance(n, ast.ClassDef)]
    classes = {node.name: node for node in nodes}
    lengths = {n: (classes[n].end_lineno or 0) - classes[n].lineno + 1 for n in LONGEST}
    assert {n: lines for n, lines in lengths.items() if lines > LONGEST[n]} == {}
    members = [x.name for x in classes["Method"].body if isinstance(x, ast.FunctionDef)]
    assert len([name for name in members if not name.startswith("_")]) <= 8


def test_a_new_method_is_named_in_one_table():
    """Its own file, and a row in methods/__init__.py; nothing else in the package names it."""
    named = {
        source.path
        for source in PACKAGE
        if any(
            re.search(r"\bSynapticStrength\b", name) for name in (*source.dotted, *source.imports)
        )
    }
    assert named == {"tfprune/methods/__init__.py"}


def test_no_modules_import_each_other():
    assert rules.circles(PACKAGE) == []


def test_circles_are_found():
    a = Source("tfprune/a.py", "from tfprune.b import x")
    b = Source("tfprune/b/__init__.py", "def f():\n    from tfprune import c")
    c = Source("tfprune/c.py", "import tfprune.a")
    d = Source("tfprune/d.py", "from tfprune import a, c")
    assert rules.circles([a, b, c, d]) == [["tfprune.a", "tfprune.b", "tfprune.c"]]


def test_every_folder_of_the_package_is_a_package():
    folders = {(ROOT / source.path).parent for source in PACKAGE}
    assert [
        str(f.relative_to(ROOT)) for f in sorted(folders) if not (f / "__init__.py").exists()
    ] == []


METHOD, HOST = "tfprune/methods/own.py", "tfprune/training/own.py"
BROKEN = [
    (rules.arrows, METHOD, '"""D."""\nfrom tfprune.training import prune'),
    (rules.arrows, METHOD, '"""D."""\ndef f():\n    """D."""\n    from ..export import x'),
    (rules.arrows, HOST, "import tfprune"),
    (rules.arrows, "tfprune/graph/own.py", "from tfprune.pruned.layers import STATE"),
    (rules.arrows, "tfprune/pruned/own.py", "from tfprune.training.pruner import Pruner"),
    (rules.arrows, "tfprune/pruned/own.py", "from tfprune.inference import strip"),
    (rules.arrows, HOST, "from tfprune import report"),
    (rules.arrows, "tfprune/maths/masks.py", "from tfprune.compat.tfmot import x"),
    (rules.arrows, "tfprune/cellar.py", ""),
    (rules.methods_stand_alone, METHOD, "from tfprune.methods.magnitude import Magnitude"),
    (rules.methods_stand_alone, METHOD, "from . import magnitude"),
    (rules.maths_is_pure, METHOD, "import tensorflow as tf"),
    (rules.maths_is_pure, METHOD, "import keras\nkeras.layers.Dense(1)"),
    (rules.maths_is_pure, "tfprune/maths/masks.py", "from keras.src import ops"),
    (rules.layers_live_at_home, "tfprune/report/a.py", "class A(keras.layers.Dense): pass"),
    (rules.layers_live_at_home, "tfprune/shell/cli.py", "class A(Layer): pass"),
    (
        rules.layers_live_at_home,
        "tfprune/shell/cli.py",
        "from keras.layers import B\nclass A(B): pass",
    ),
    (rules.legacy_lives_in_compat, HOST, "import tensorflow_model_optimization as tfmot"),
    (rules.legacy_lives_in_compat, HOST, "from tf_keras import layers"),
    (rules.legacy_lives_in_compat, HOST, "importlib.import_module('tf_keras.src')"),
    (rules.libraries_load_at_home, HOST, "import ctypes"),
    (rules.libraries_load_at_home, HOST, "tf.load_op_library('x.so')"),
    (rules.keras_is_keras, HOST, "tf.keras.layers.Dense(1)"),
    (rules.keras_is_keras, HOST, "from tensorflow import keras"),
    (rules.keras_is_keras, HOST, "import tensorflow.keras.layers as L"),
    (rules.private_names_live_in_keras, HOST, "layer._flatten_layers()"),
    (rules.private_names_live_in_keras, HOST, "from keras.src.models import functional"),
    (rules.docstrings, HOST, "x = 1"),
    (rules.docstrings, HOST, '"""D."""\ndef f(): pass'),
    (rules.docstrings, HOST, '"""D."""\nclass A:\n    """D."""\n    def f(self): pass'),
]


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN)
def test_rule_bites(rule, path, text):
    assert list(rule(Source(path, text)))


CLEAN = '''"""See tf_keras."""
import keras
import numpy as np
from keras import ops
from tfprune.maths import masks
from tfprune.method import Method

class Own(Method):
    """D."""

    def _f(self):
        return keras.ops.abs(1)
'''


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_lets_a_clean_method_pass(rule):
    assert list(rule(Source(METHOD, CLEAN))) == []


@pytest.mark.parametrize("text", ["isinstance(m, methods.Own)", "if m.name == 'Own': pass"])
def test_blindness_rule_bites(text):
    methods = frozenset({"Own"})
    assert list(rules.hosts_are_blind(Source(HOST, text), methods))
    assert not list(rules.hosts_are_blind(Source("tfprune/shell/demo.py", text), methods))


def test_include_rule_bites():
    text = '#include <vector>\n # include "tensorflow/c/kernels.h"\n#include "core/pack.h"\n'
    assert rules.foreign_includes(text) == ["tensorflow/c/kernels.h"]


IMPORT = """
import os, sys
import keras
before, known = dict(os.environ), set(sys.modules)
import tfprune
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
heavy = {"tensorflow_model_optimization", "tf_keras", "matplotlib", "sklearn",
         "tensorflow_datasets", "ai_edge_litert", "keras_cv", "keras_hub"}
loaded = heavy & (set(sys.modules) - known)
assert not loaded, loaded
maps = open("/proc/self/maps").read() if os.path.exists("/proc/self/maps") else ""
assert "libtfprune" not in maps
"""


def test_import_has_no_side_effect():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
