"""`import tfprune` costs next to nothing, and saved files load whatever is imported first."""

from __future__ import annotations

import ast
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune

ROOT = Path(__file__).resolve().parents[1]


def child(code: str, *arguments: object, path: Path = ROOT) -> str:
    """Run Python on its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=path,
        env={**os.environ, "PYTHONPATH": str(path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned model, a compact one, one with a wrapper, a pickle, a `.tflite` file."""
    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(8, 3), layers.Flatten()])
    pruned = tfprune.prune(model, tfprune.Magnitude(target_sparsity=0.5))
    pruned.compile("sgd", "mse")
    x = np.ones((8, 8, 8, 1), "float32")
    callback = tfprune.PruningCallback(per_layer=False)
    pruned.fit(x, np.zeros((8, 288)), epochs=4, verbose=0, callbacks=[callback])
    pruned.save(folder / "pruned.keras")
    tfprune.compact(pruned, choose="always").save(folder / "compact.keras")
    wrapped = [keras.Input((4,)), tfprune.layers.MagnitudePruned(layers.Dense(3))]
    keras.Sequential(wrapped).save(folder / "wrapped.keras")
    (folder / "method.pickle").write_bytes(pickle.dumps(tfprune.FrequencyDomain()))
    tfprune.export_tflite(pruned, folder / "m.tflite")
    return folder


LIGHT = """
import contextlib, io, sys
from tfprune.shell.cli import main

def run(code, *arguments):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            got = main(arguments)
        except SystemExit as ended:
            got = ended.code
    heavy = {"keras", "tensorflow", "numpy"} & set(sys.modules)
    assert got == code and not heavy, (arguments, got, heavy)

run(0, "--help")
run(0, "export", "--help")
run(2, "report")
run(2, "prune", "m.keras", "--out", "o.keras", "--sparsity", "90")
run(2, "report", "nowhere.tflite")
run(0, "report", sys.argv[1])
run(0, "bench", sys.argv[1], "--threads", "1", "--rounds", "2")
import tfprune, tfprune.maths.sparse_weights
dir(tfprune), dir(tfprune.export), tfprune.__version__
assert not {"keras", "tensorflow"} & set(sys.modules)
"""


def test_files_are_reported_and_timed_without_keras(files):
    child(LIGHT, files / "m.tflite")


ALONE = """
import os, sys
before, modules = dict(os.environ), set(sys.modules)
import tfprune
assert dict(os.environ) == before
roots = {name.split(".")[0] for name in set(sys.modules) - modules}
assert roots - set(sys.stdlib_module_names) == {"tfprune"}, roots
assert [type(finder).__module__ for finder in sys.meta_path].count("tfprune._import_hook") == 1
"""


def test_import_loads_the_standard_library_alone():
    child(ALONE)


LOAD = """
import pickle, sys
{imports}
names = [type(finder).__module__ for finder in sys.meta_path]
assert "tfprune._import_hook" not in names, names
import keras
for name, module in list(sys.modules.items()):
    if name.split(".")[0] in ("keras", "tensorflow", "tfprune"):
        loader = getattr(getattr(module, "__spec__", None), "loader", None)
        assert type(loader).__module__ != "tfprune._import_hook", name
get = keras.saving.get_registered_object
for name in {registered}:
    assert get(name) is not None, name
folder = sys.argv[1]
pruned = keras.models.load_model(f"{{folder}}/pruned.keras")
import tfprune
assert tfprune.is_pruned(pruned)
assert tfprune.report(pruned).to_dict()["nonzero"] == {nonzero}
compact = keras.models.load_model(f"{{folder}}/compact.keras")
assert [choice.form for choice in tfprune.compaction(compact)] == ["sparse"]
wrapped = keras.models.load_model(f"{{folder}}/wrapped.keras")
assert type(wrapped.layers[0]) is tfprune.layers.MagnitudePruned
assert pickle.loads(pickle.dumps(pruned.layers[0].name)) and tfprune.is_pruned(
    pickle.loads(pickle.dumps(pruned)))
"""
ORDERS = {
    "tfprune, keras": "import tfprune, keras",
    "keras, tfprune": "import keras, tfprune",
    "tfprune, tensorflow": "import tfprune, tensorflow",
    "a module of tfprune": "pickle.load(open(sys.argv[1] + '/method.pickle', 'rb'))",
}


@pytest.mark.parametrize("order", ORDERS)
def test_saved_files_load_in_any_order_of_imports(order, files):
    registered = _registered()
    assert {"tfprune>Functional", "tfprune>Magnitude", "tfprune>SparseConv"} <= set(registered)
    nonzero = tfprune.report(tfprune.load_model(files / "pruned.keras")).to_dict()["nonzero"]
    code = LOAD.format(imports=ORDERS[order], registered=registered, nonzero=nonzero)
    child(code, files)


def _registered() -> list[str]:
    """The names under which the package, and no test, registered classes."""
    objects = keras.saving.get_custom_objects().items()
    origins = [(name, getattr(cls, "method_class", cls).__module__) for name, cls in objects]
    own = [name for name, module in origins if module.split(".")[0] in ("keras", "tfprune")]
    return sorted(name for name in own if name.startswith("tfprune>"))


def test_every_file_that_registers_a_class_is_imported_with_keras():
    code = "import tfprune, keras, sys; print(*sys.modules)"
    loaded = set(child(code).split())
    marks = re.compile(r"^@(keras\.saving\.register_keras_serializable|register\b)", re.MULTILINE)
    paths = [p for p in (ROOT / "tfprune").rglob("*.py") if marks.search(p.read_text())]
    modules = {str(p.relative_to(ROOT).with_suffix("")).replace(os.sep, ".") for p in paths}
    assert "tfprune.methods.magnitude" in modules and modules <= loaded, modules - loaded


def test_names_of_the_package_resolve():
    star: dict[str, object] = {}
    exec("from tfprune import *", star)
    assert set(tfprune.__all__) <= set(star) and set(tfprune.__all__) <= set(dir(tfprune))
    assert set(tfprune.__all__) == {*tfprune._HOMES, "bands", "layers", "__version__"}
    for name in ("bands", "compat", "export", "layers", "maths", "ops", "pruned", "training"):
        assert name in dir(tfprune) and getattr(tfprune, name).__name__.startswith("tfprune.")
    for module in (tfprune, tfprune.export):
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = module.nothing
    assert set(tfprune.export.__all__) <= set(dir(tfprune.export))


@pytest.mark.parametrize("module", [tfprune, tfprune.export])
def test_type_checkers_see_what_python_sees(module):
    tree = ast.parse(Path(module.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    if "*" in seen:
        seen |= dict.fromkeys(tfprune.methods.__all__, seen.pop("*"))
    homes = {
        name: home if module is tfprune else f"tfprune.export.{home}"
        for name, home in module._HOMES.items()
    }
    extra = {name: seen.pop(name) for name in ("bands", "export", "layers", "ops") if name in seen}
    assert seen == homes
    assert set(extra.values()) <= {"tfprune", "tfprune.maths"}


def test_report_stays_the_function_when_its_folder_is_imported():
    code = """
import tfprune, sys
import tfprune.report.measure
assert "tfprune.report" in sys.modules
from tfprune import report
assert callable(report) and report is tfprune.report and report.__name__ == "report"
tfprune.report = len
assert tfprune.report is len
"""
    child(code)


HOOK = (ROOT / "tfprune" / "_import_hook.py").read_text()
TREE = {
    "tfprune/__init__.py": "from tfprune._import_hook import run_with_keras\n"
    "runs = []\ndef register():\n    from tfprune.saved import V\n    runs.append(V)\n"
    "run_with_keras(register)\n",
    "tfprune/_import_hook.py": HOOK,
    "tfprune/method.py": "import keras\nVALUE = keras.VALUE\n",
    "tfprune/saved.py": "from tfprune.method import VALUE as V\nimport keras.models, tensorflow\n"
    "assert tensorflow.WHOLE\n",
    "tfprune/light.py": "",
    "keras/__init__.py": "import tensorflow\nVALUE = 1\n",
    "keras/models.py": "",
    "tensorflow/__init__.py": "import keras\nWHOLE = True\n",
}
START = """
import sys, tfprune, importlib, importlib.util
def armed(): return any(type(f).__module__ == "tfprune._import_hook" for f in sys.meta_path)
assert armed() and not tfprune.runs and "keras" not in sys.modules
"""
END = """
assert tfprune.runs == [1] and not armed(), (tfprune.runs, sys.meta_path)
for name in ("keras", "tensorflow", "tfprune.method", "tfprune.saved"):
    module = sys.modules[name]
    for loader in (module.__loader__, module.__spec__.loader):
        assert type(loader).__name__ == "SourceFileLoader", (name, loader)
"""
SCRIPTS = {
    "keras": "import keras",
    "a module of keras": "import keras.models",
    "names of keras": "from keras import models",
    "tensorflow, which imports keras": "import tensorflow",
    "a module of tfprune": "import tfprune.method",
    "the last to be registered": "import tfprune.saved",
    "a light module first": "import tfprune.light\nassert armed()\nimport keras",
    "only looked for": "importlib.util.find_spec('keras.models')",
    "others in between": "import json.tool, csv\nassert armed()\nimport keras",
    "tfprune again": "importlib.reload(tfprune)\nassert sum(map(bool, [armed()])) == 1\n"
    "assert len([f for f in sys.meta_path if 'Finder' == type(f).__name__[1:]]) == 1\nimport keras",
    "keras again": "import keras\nimportlib.reload(keras)\nimportlib.reload(tfprune)\n"
    "assert tfprune.runs == [1]",
    "an import that fails": """
import pathlib
place = pathlib.Path(importlib.util.find_spec("keras").origin)
text = place.read_text()
place.write_text(text + "raise OSError('broken')")
for name in ("keras", "tfprune.method", "keras.models"):
    try:
        importlib.import_module(name)
    except OSError:
        assert armed() and not tfprune.runs
    else:
        raise AssertionError(name)
place.write_text(text + "WHOLE = True")
importlib.invalidate_caches()
import keras
""",
    "a registration that fails": """
import pathlib
place = pathlib.Path(tfprune.__file__).with_name("saved.py")
text = place.read_text()
place.write_text("raise OSError('broken')")
try:
    import keras
except OSError:
    assert armed() and not tfprune.runs
else:
    raise AssertionError
place.write_text(text + "#longer")
importlib.invalidate_caches()
import keras
""",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The hook between a Keras, a TensorFlow and a tfprune of a few lines."""
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_hook_runs_once_when_all_is_imported(script, tree):
    child(START + SCRIPTS[script] + END, path=tree)


THREADS = """
import threading, time
errors = []
def imports(name):
    try:
        importlib.import_module(name)
    except BaseException as error:
        errors.append(error)
threading.excepthook = lambda args: errors.append(args.exc_value)
threads = [threading.Thread(target=imports, args=(name,)) for name in sys.argv[2:]]
for thread in threads:
    thread.start()
    time.sleep(float(sys.argv[1]))
for thread in threads:
    thread.join(20)
assert not errors and not any(thread.is_alive() for thread in threads), errors
"""


@pytest.mark.parametrize("seconds", [0.0, 0.15, 0.4, 0.6])
@pytest.mark.parametrize(
    "names", [("keras", "tfprune.method"), ("tfprune.method", "keras"), ("tensorflow", "keras")]
)
def test_threads_that_import_at_once(names, seconds, tree):
    """Whichever thread is where in its import when another begins."""
    slow = {
        "tfprune/__init__.py": TREE["tfprune/__init__.py"].replace(
            "    from tfprune.saved import V\n", "    import time\n    time.sleep(0.4)\n"
            "    from tfprune.saved import V\n"
        ),
        "tfprune/method.py": "import time\ntime.sleep(0.1)\nimport keras\ntime.sleep(0.3)\n"
        "VALUE = keras.VALUE\n",
        "keras/__init__.py": "import time\ntime.sleep(0.2)\nVALUE = 1\nimport tensorflow\n",
    }  # fmt: skip
    for name, text in slow.items():
        (tree / name).write_text(text)
    child(START + THREADS + END, seconds, *names, path=tree)
