"""What measuring the sensitivity adds to a training step: LeNet-5, batch 100, in `fit`'s own step.

All variants take turns, step by step, in one process, beside the plain dense step. Reported are
means of CPU time (all threads) and of wall time, as some variants measure at every 4th step only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import keras
import nets
import numpy as np
from papers import hardware
from tqdm import trange

import tfprune
from tfprune.pruned.layers import pruned_layers
from tfprune.training.sensitivity import serve

VARIANTS = {
    "unspecific, all 10 outputs": {"classes": None},
    "unspecific, 1 drawn output (default)": {},
    "unspecific, 1 drawn output, every 4th step": {"every": 4},
    "specific": {"kind": "specific"},
    "specific, every 4th step": {"kind": "specific", "every": 4},
}


def steps(batch: int) -> dict[str, Callable[[], object]]:
    """Name -> one training step."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 28, 28, 1)).astype("float32")
    y = rng.integers(0, 10, batch)

    def compiled(model: keras.Model) -> keras.Model:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01), loss)
        return model

    dense = compiled(nets.lenet5(0.0))
    runs: dict[str, Callable[[], object]] = {"plain": lambda: dense.train_on_batch(x, y)}
    for name, settings in VARIANTS.items():
        model = compiled(tfprune.prune(dense, tfprune.SensitivityDriven(**settings)))
        serve.serve(model, [layer.prune_state for _, layer in pruned_layers(model)])
        runs[name] = lambda model=model: model.train_on_batch(x, y)
    return runs


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    runs = steps(options.batch)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in trange(options.rounds + 8):
        for name, run in runs.items():
            before = time.process_time(), time.perf_counter()
            run()
            if number >= 8:
                spent = time.process_time() - before[0], time.perf_counter() - before[1]
                times[name].append(spent)
    print(f"LeNet-5, batch {options.batch}, {hardware()}, {time.strftime('%Y-%m-%d')}")
    print("| | CPU ms | ratio | wall ms | ratio |\n|---|---|---|---|---|")
    middle = {
        name: [statistics.mean(column) for column in zip(*values, strict=True)]
        for name, values in times.items()
    }
    for name, (cpu, wall) in middle.items():
        base = middle["plain"]
        ratios = cpu / base[0], wall / base[1]
        print(
            f"| {name} | {cpu * 1e3:.1f} | {ratios[0]:.2f} | {wall * 1e3:.1f} | {ratios[1]:.2f} |"
        )


if __name__ == "__main__":
    main()
