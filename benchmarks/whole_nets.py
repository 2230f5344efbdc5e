"""Whole networks at 90 % sparsity, end to end, against dense engines and DeepSparse.

`python benchmarks/whole_nets.py [--nets vgg16 resnet50] [--model pruned.keras] [--threads 2]`

Masks are random, of DCT coefficients for ours and of weights for DeepSparse, in all convolutions
and dense layers but the first and the last; `--model` takes a net with masks from training instead.
TensorFlow runs a frozen graph, whose normalizations it folds. Engines take turns in one process,
after their outputs are compared; with one thread the clock is CPU time. ONNX Runtime and DeepSparse
need onnx, the latter also a Python of its own (`--deepsparse`).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from engines import (
    DeepSparse,
    by_turns,
    compare,
    exported,
    frozen,
    keep_to,
    litert,
    onnxruntime,
    timed,
)

NETS = ("resnet20", "vgg16-32", "vgg16", "resnet50")


def build(name: str) -> Any:
    """A fresh Keras model with random weights."""
    import keras
    import nets

    keras.utils.set_random_seed(0)
    if name == "resnet20":
        return nets.resnet20()
    if name == "vgg16-32":
        return nets.vgg(width=64)
    applications = {"vgg16": keras.applications.VGG16, "resnet50": keras.applications.ResNet50}
    return applications[name](weights=None, classifier_activation=None)


def with_zeros(model: Any, sparsity: float, dct: bool) -> Any:
    """Random masks, on DCT coefficients or weights, scaled to keep the size of the signal."""
    import keras
    import numpy as np

    from tfprune.maths.dct import dct_matrix

    rng = np.random.default_rng(0)
    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    layers = [layer for layer in model.layers if isinstance(layer, kinds)]
    for layer in layers[1:-1]:
        shape = layer.kernel.shape
        fan_in = np.prod(shape[:-1])
        kernel = rng.normal(size=shape) * (rng.random(shape) >= sparsity)
        kernel *= (2 / (fan_in * (1 - sparsity))) ** 0.5
        if dct and len(shape) == 4:
            vertical, horizontal = (np.asarray(dct_matrix(n)) for n in shape[:2])
            kernel = np.einsum("up,vq,uvio->pqio", vertical, horizontal, kernel)
        layer.kernel.assign(kernel)
    return model


def measure(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of each engine."""
    import numpy as np

    import tfprune

    if name.endswith(".keras"):
        import nets

        model = nets.load(name)
        spatial = None
    else:
        model = with_zeros(build(name), options.sparsity, dct=True)
        spatial = with_zeros(build(name), options.sparsity, dct=False)
    fast = tfprune.compact(model)
    for choice in tfprune.compaction(fast):
        print(f"  {choice.name}: {choice.form}, {choice.basis}, density {choice.density:.3f}")
    x = np.random.default_rng(1).normal(size=(1, *model.inputs[0].shape[1:])).astype("float32")
    smallest = exported(model, "smallest")
    runs = {
        "TensorFlow": frozen(model),
        "LiteRT": litert(exported(model), options.threads),
        "LiteRT, smallest": litert(smallest, options.threads),
        "LiteRT, delegate": litert(smallest, options.threads, delegate=True),
        "tfprune": frozen(fast),
    }
    turns: dict[str, Callable[[], float]] = {}
    if importlib.util.find_spec("onnxruntime"):
        runs["ONNX Runtime"] = onnxruntime(model, options.threads)
    if options.deepsparse and spatial is not None:
        worker = DeepSparse(options.deepsparse, options.threads)
        turns["DeepSparse"] = worker.timed(spatial, x)
    del spatial
    expected = runs["TensorFlow"](x)
    for engine, run in runs.items():
        compare(engine, run(x), expected)
        turns[engine] = timed(run, x, options.threads)
    found = by_turns(turns, options.rounds)
    return {engine: 1e3 * statistics.median(values) for engine, values in found.items()}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--nets", nargs="*", default=NETS, choices=NETS)
    add("--model", action="append", default=[], help="a .keras file with masks from training")
    add("--sparsity", type=float, default=0.9)
    add("--threads", type=int, default=1)
    add("--rounds", type=int, default=30)
    add("--deepsparse", metavar="PYTHON", help="one that has deepsparse 1.8")
    options = parser.parse_args(arguments)
    keep_to(options.threads)
    from papers import hardware

    rows = {}
    for name in [*options.model, *options.nets]:
        print(name)
        rows[name] = measure(name, options)
    print(f"{hardware()}, {options.threads} thread(s), batch 1, {options.sparsity:.0%} sparse; ms")
    engines = list(dict.fromkeys(engine for row in rows.values() for engine in row))
    print(f"| net | {' | '.join(engines)} |\n|---|{'---|' * len(engines)}")
    for name, row in rows.items():
        cells = [f"{row[e]:.2f}" if e in row else "" for e in engines]
        print(f"| {Path(name).stem} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
