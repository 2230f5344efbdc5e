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
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from engines import Run, by_turns, keep_to, litert, timed


def tensorflow_call(model: Any) -> Run:
    """A compiled call on a batch."""
    import tensorflow as tf

    call = tf.function(lambda inputs: model(inputs, training=False))
    return lambda x: call(tf.constant(x))


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a pruned .keras file")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args(arguments)
    keep_to(1)
    import nets
    import numpy as np
    from papers import hardware

    import tfprune

    pruned = nets.load_pruned(options.model)
    models = {"stripped": tfprune.strip(pruned), "shrunk": tfprune.strip(pruned, shrink=True)}
    models = {name: nets.in_float32(model) for name, model in models.items()}
    rng = np.random.default_rng(0)
    x = rng.normal(size=(options.batch, *pruned.input_shape[1:])).astype("float32")
    runs: dict[tuple[str, str], Callable[[], float]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            path = Path(folder) / f"{name}.tflite"
            tfprune.export_tflite(model, path)
            model.save(Path(folder) / f"{name}.keras")
            sizes[name] = (path.stat().st_size, (Path(folder) / f"{name}.keras").stat().st_size)
            call, lite = tensorflow_call(model), litert(path.read_bytes(), threads=1)
            runs["TensorFlow, one", name] = timed(call, x[:1], 1)
            runs[f"TensorFlow, {options.batch}", name] = timed(call, x, 1)
            runs["LiteRT, one", name] = timed(lite, x[:1], 1)
    found = by_turns(runs, options.rounds)
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
