"""What `strip(shrink=True)` buys: `python benchmarks/shrink.py net.keras`.

Latency and file size of the stripped net with and without its useless channels, on TensorFlow (a
compiled call) and on LiteRT (its default delegate), one thread each, one example and a batch. All
engines take turns in one run; reported are medians of CPU time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import keras
import nets
import numpy as np
import tensorflow as tf
from papers import hardware
from tqdm import trange

import tfprune
from tfprune.export.runtime import Runner

Run = Callable[[], object]


def tensorflow_call(model: keras.Model, x: np.ndarray) -> Run:
    """A compiled call on one batch."""
    call = tf.function(lambda inputs: model(inputs, training=False))
    inputs = tf.constant(x)
    return lambda: call(inputs)


def litert_call(path: Path, x: np.ndarray) -> Run:
    """LiteRT with one thread."""
    runner = Runner(path.read_bytes())
    inputs = dict.fromkeys(runner.inputs, x)
    return lambda: runner(inputs)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a pruned .keras file")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args(arguments)
    pruned = nets.load_pruned(options.model)
    models = {"stripped": tfprune.strip(pruned), "shrunk": tfprune.strip(pruned, shrink=True)}
    models = {name: nets.in_float32(model) for name, model in models.items()}
    rng = np.random.default_rng(0)
    x = rng.normal(size=(options.batch, *pruned.input_shape[1:])).astype("float32")
    runs: dict[tuple[str, str], Run] = {}
    sizes: dict[str, tuple[int, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            path = Path(folder) / f"{name}.tflite"
            tfprune.export_tflite(model, path)
            model.save(Path(folder) / f"{name}.keras")
            sizes[name] = (path.stat().st_size, (Path(folder) / f"{name}.keras").stat().st_size)
            runs["TensorFlow, one", name] = tensorflow_call(model, x[:1])
            runs[f"TensorFlow, {options.batch}", name] = tensorflow_call(model, x)
            runs["LiteRT, one", name] = litert_call(path, x[:1])
        found: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
        for number in trange(options.rounds + 5):
            for key, run in runs.items():
                before = time.process_time()
                run()
                if number >= 5:
                    found[key].append(time.process_time() - before)
    print(f"{options.model}, {hardware()}, {time.strftime('%Y-%m-%d')}, one thread, CPU medians")
    print("| | stripped | shrunk | ratio |\n|---|---|---|---|")
    counts = [model.count_params() for model in models.values()]
    rows = [("parameters", *counts)]
    for place, kind in enumerate((".tflite bytes", ".keras bytes")):
        rows.append((kind, *(sizes[name][place] for name in models)))
    for label, first, second in rows:
        print(f"| {label} | {first:,} | {second:,} | {first / second:.2f} |")
    for engine in dict.fromkeys(engine for engine, _ in runs):
        first, second = (1e3 * statistics.median(found[engine, name]) for name in models)
        print(f"| {engine}, ms | {first:.2f} | {second:.2f} | {first / second:.2f} |")


if __name__ == "__main__":
    main()
