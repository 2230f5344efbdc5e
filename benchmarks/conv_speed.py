"""Sparse frequency-domain convolution against dense engines, layer by layer.

`python benchmarks/conv_speed.py [--structure kernels] [--threads 2] [--layers 64x56 128x28]`

Each engine runs a chain of different layers (3x3, same padding, bias, ReLU, constant weights) in
one graph; the time of a layer is the slope between a short and a long chain, so that what a call
costs drops out. All engines take turns in one process, two runs each, of which the second counts;
with one thread the clock is CPU time, which other work on the machine hardly disturbs. Outputs are
checked against TensorFlow's dense kernels.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from engines import (
    DeepSparse,
    Run,
    by_turns,
    compare,
    exported,
    keep_to,
    litert,
    onnxruntime,
    timed,
)

SHORT, LONG = 2, 10
LAYERS = ("16x32", "64x8", "64x56", "128x28", "256x14", "512x7")
SPARSITIES = (0.8, 0.9, 0.95, 0.98)


def masks(rng: Any, structure: str, shape: tuple[int, ...], density: float) -> Any:
    """Bool [3, 3, cin, cout]."""
    import numpy as np

    kh, kw, cin, cout = shape
    if structure == "kernels":
        return np.broadcast_to(rng.random((1, 1, cin, cout)) < density, shape)
    if structure == "blocks":
        return np.repeat(rng.random((kh, kw, cin, -(-cout // 4))) < density, 4, axis=3)[..., :cout]
    return rng.random(shape) < density


def weights(rng: Any, channels: int, sparsity: float, structure: str, basis: str) -> list[Any]:
    """Of a long chain; each keeps the size of the signal."""
    import numpy as np

    from tfprune.ops import ConvSpec, SparseWeights

    shape = (3, 3, channels, channels)
    spec = ConvSpec(channels, channels, padding=(1, 1, 1, 1), basis=basis, activation="relu")
    found = []
    for _ in range(LONG):
        values = rng.normal(size=shape) * masks(rng, structure, shape, 1 - sparsity)
        values *= (2 / (9 * channels * (1 - sparsity))) ** 0.5
        bias = 0.1 * np.abs(rng.normal(size=channels))
        found.append(SparseWeights.from_dense(values, spec, bias))
    return found


def sparse(chain: list[Any]) -> Run:
    """Ours."""
    import numpy as np
    import tensorflow as tf

    from tfprune.ops import conv

    packed = [tf.constant(np.frombuffer(one.to_bytes(), np.uint8)) for one in chain]

    @tf.function
    def call(x: Any) -> Any:
        for one, data in zip(chain, packed, strict=True):
            x = conv.packed_conv2d(x, data, one.spec)
        return x

    return lambda x: call(tf.constant(x)).numpy()


def dense(chain: list[Any]) -> Run:
    """TensorFlow's own convolution, which fuses bias and ReLU into oneDNN's."""
    import tensorflow as tf

    kernels = [(tf.constant(one.kernel()), tf.constant(one.bias)) for one in chain]

    @tf.function
    def call(x: Any) -> Any:
        for kernel, bias in kernels:
            x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias))
        return x

    return lambda x: call(tf.constant(x)).numpy()


def network(chain: list[Any], size: int) -> Any:
    """The chain of dense kernels as a Keras model."""
    import keras

    inputs = keras.Input((size, size, chain[0].spec.in_channels))
    x = inputs
    for one in chain:
        layer = keras.layers.Conv2D(one.spec.out_channels, 3, padding="same", activation="relu")
        x = layer(x)
        layer.set_weights([one.kernel(), one.bias])
    return keras.Model(inputs, x)


def dense_engines(chain: list[Any], size: int, threads: int) -> dict[str, Run]:
    """Name -> run, of those that are installed."""
    model = network(chain, size)
    found = {"TensorFlow": dense(chain), "LiteRT": litert(exported(model), threads)}
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        found["ONNX Runtime"] = onnxruntime(model, threads)
    return found


def measure(
    channels: int, size: int, options: argparse.Namespace, other: DeepSparse | None
) -> dict[str, float]:
    """Microseconds per layer of every engine, and of ours at every sparsity."""
    import numpy as np

    rng = np.random.default_rng(options.seed)
    chains = {s: weights(rng, channels, s, options.structure, options.basis) for s in SPARSITIES}
    x = rng.normal(size=(1, size, size, channels)).astype("float32")

    runs: dict[tuple[str, int], Callable[[], float]] = {}
    for length in (SHORT, LONG):
        found = dense_engines(chains[SPARSITIES[0]][:length], size, options.threads)
        expected = found["TensorFlow"](x)
        for name, run in found.items():
            compare(name, run(x), expected, 1e-4)
            runs[name, length] = timed(run, x, options.threads)
        for sparsity, chain in chains.items():
            ours, name = sparse(chain[:length]), f"{sparsity:.0%}"
            compare(name, ours(x), dense(chain[:length])(x), 1e-4)
            runs[name, length] = timed(ours, x, options.threads)
            if other:
                spatial = weights(rng, channels, sparsity, options.structure, "spatial")
                model = network(spatial[:length], size)
                runs[f"DeepSparse {sparsity:.0%}", length] = other.timed(model, x, 1e-4)
    times = by_turns(runs, options.rounds)
    names = dict.fromkeys(name for name, _ in runs)
    return {
        name: 1e6
        * statistics.median(
            (long - short) / (LONG - SHORT)
            for short, long in zip(times[name, SHORT], times[name, LONG], strict=True)
        )
        for name in names
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--layers", nargs="+", default=LAYERS, help="channels x size of a square map")
    add("--structure", choices=("unstructured", "blocks", "kernels"), default="unstructured")
    add("--basis", choices=("dct", "spatial"), default="dct")
    add("--threads", type=int, default=1)
    add("--rounds", type=int, default=60)
    add("--seed", type=int, default=0)
    add("--deepsparse", metavar="PYTHON", help="one that has deepsparse 1.8, as another engine")
    options = parser.parse_args(arguments)
    keep_to(options.threads)
    import tensorflow as tf
    from papers import hardware
    from tqdm import tqdm

    from tfprune.ops import library

    tf.get_logger().setLevel("ERROR")  # else warnings, as each chain is traced
    other = DeepSparse(options.deepsparse, options.threads) if options.deepsparse else None
    rows = {}
    for layer in tqdm(options.layers):
        channels, size = map(int, layer.split("x"))
        rows[layer] = measure(channels, size, options, other)
    print(f"{hardware()}, kernel '{library.kernels()[0]}', {time.strftime('%Y-%m-%d')}")
    print(
        f"{options.threads} thread(s), {options.structure}, {options.basis}, batch 1; microseconds,"
    )
    print("in brackets how many times faster than TensorFlow, and than the best dense engine")
    names = list(next(iter(rows.values())))
    print(f"| layer | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for layer, row in rows.items():
        channels, size = layer.split("x")
        best = min(value for name, value in row.items() if not name.endswith("%"))
        cells = []
        for name, value in row.items():
            ratios = f" ({row['TensorFlow'] / value:.2f}, {best / value:.2f})"
            cells.append(f"{value:.1f}{ratios if name.endswith('%') else ''}")
        print(f"| {channels}→{channels}@{size}² | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
