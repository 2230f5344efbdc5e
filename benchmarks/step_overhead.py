"""What pruning adds to a training step: ResNet-20, CIFAR shapes, pruned against dense.

Both nets take turns, step by step, in one process; the pruned one's mask update runs before every
step, as PruningCallback does it. Reported are medians of CPU time (all threads) and of wall time.
"""

from __future__ import annotations

import argparse
import dataclasses
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


def compiled(model: keras.Model) -> keras.Model:
    """With the optimizer and loss that both nets share."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    return model


def steps(batch: int) -> dict[str, Callable[[], object]]:
    """Name -> one training step; `pruned` refreshes every mask in every step, the worst case."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, batch)
    dense = compiled(nets.resnet20())
    runs: dict[str, Callable[[], object]] = {"dense": lambda: dense.train_on_batch(x, y)}
    frequency, beta = tfprune.FrequencyDomain, tfprune.bands.Beta(1.5)
    for name, method in {
        "surgery": tfprune.NetworkSurgery(c=1.0),
        "surgery, target mode": tfprune.NetworkSurgery(target_sparsity=0.8),
        "frequency domain": frequency(c=1.0),
        "frequency domain, band-adaptive": frequency(c=1.0, band=beta),
        "frequency domain, 1x4 blocks": frequency(c=1.0, granularity="block4"),
        "frequency domain, whole network to 5x": frequency(target_compression=5.0),
        "magnitude": tfprune.Magnitude(target_sparsity=0.8),
    }.items():
        runs[name] = _pruned(tfprune.prune(dense, method, _timing(method)), x, y)
    return runs


def _timing(method: tfprune.Method) -> tfprune.PruningSchedule:
    default = method.schedule()
    if hasattr(default, "gamma"):
        return dataclasses.replace(default, gamma=0.0, begin_step=0, end_step=10**9)
    return tfprune.ConstantSparsity(0.8, begin_step=0, end_step=10**9, frequency=100)


def _pruned(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Callable[[], object]:
    compiled(model)
    pruner = tfprune.Pruner(model, optimizer=model.optimizer)

    def step() -> object:
        pruner.update()
        return model.train_on_batch(x, y)

    return step


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    runs = steps(options.batch)
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    wall: dict[str, list[float]] = {name: [] for name in runs}
    for number in trange(options.rounds + 5):
        for name, run in runs.items():
            before = time.process_time(), time.perf_counter()
            run()
            if number >= 5:
                cpu[name].append(time.process_time() - before[0])
                wall[name].append(time.perf_counter() - before[1])
    print(f"batch {options.batch}, {hardware()}, {time.strftime('%Y-%m-%d')}")
    print("| | CPU ms | ratio | wall ms | ratio |\n|---|---|---|---|---|")
    for name in runs:
        c, w = statistics.median(cpu[name]), statistics.median(wall[name])
        c0, w0 = statistics.median(cpu["dense"]), statistics.median(wall["dense"])
        print(f"| {name} | {c * 1e3:.1f} | {c / c0:.3f} | {w * 1e3:.1f} | {w / w0:.3f} |")


if __name__ == "__main__":
    main()
