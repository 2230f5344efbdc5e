"""Sparse frequency-domain convolution against dense engines, layer by layer.

`python benchmarks/conv_speed.py [--structure kernels] [--threads 2] [--layers 64x56 128x28]`

Each engine runs a chain of different layers (3x3, same padding, bias, ReLU, constant weights) in
one graph; the time of a layer is the slope between a short and a long chain, so that what a call
costs drops out. All engines take turns in one process; with one thread the clock is CPU time, which
other work on the machine hardly disturbs. Outputs are checked against TensorFlow's dense kernels.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))
SHORT, LONG = 2, 10
LAYERS = ("16x32", "64x8", "64x56", "128x28", "256x14", "512x7")
SPARSITIES = (0.8, 0.9, 0.95, 0.98)
Run = Callable[[Any], Any]


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

    from tfprune import ops

    packed = [tf.constant(np.frombuffer(one.to_bytes(), np.uint8)) for one in chain]

    @tf.function
    def call(x: Any) -> Any:
        for one, data in zip(chain, packed, strict=True):
            x = ops.packed_conv2d(x, data, one.spec)
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


def litert(chain: list[Any], size: int, threads: int) -> Run:
    """LiteRT with XNNPACK on the dense kernels."""
    import keras

    import tfprune
    from tfprune.export.runtime import Runner

    inputs = keras.Input((size, size, chain[0].spec.in_channels))
    x = inputs
    for one in chain:
        layer = keras.layers.Conv2D(one.spec.out_channels, 3, padding="same", activation="relu")
        x = layer(x)
        layer.set_weights([one.kernel(), one.bias])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chain.tflite"
        tfprune.export_tflite(keras.Model(inputs, x), path)
        runner = Runner(path.read_bytes(), threads=threads)
    (name,) = runner.inputs
    return lambda x: next(iter(runner({name: x}).values()))


def onnx_model(chain: list[Any], size: int) -> bytes:
    """The chain of dense kernels as an ONNX file."""
    import onnx as library
    from onnx import helper, numpy_helper

    nodes, tensors = [], []
    for i, one in enumerate(chain):
        kernel = one.kernel().transpose(3, 2, 0, 1).copy()
        tensors += [
            numpy_helper.from_array(v, f"{n}{i}") for n, v in (("k", kernel), ("b", one.bias))
        ]
        pads = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
        nodes.append(helper.make_node("Conv", [f"x{i}", f"k{i}", f"b{i}"], [f"c{i}"], **pads))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"]))
    shape = [1, chain[0].spec.in_channels, size, size]
    kind = library.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(n, kind, shape) for n in ("x0", f"x{len(chain)}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], tensors)
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def onnx(chain: list[Any], size: int, threads: int) -> Run:
    """ONNX Runtime on the dense kernels, in its own layout."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        onnx_model(chain, size), options, providers=["CPUExecutionProvider"]
    )

    def run(x: Any) -> Any:
        (y,) = session.run(None, {"x0": x.transpose(0, 3, 1, 2).copy()})
        return y.transpose(0, 2, 3, 1)

    return run


class DeepSparse:
    """DeepSparse, in a process and an environment of its own (`deepsparse_worker.py`)."""

    def __init__(self, python: str, threads: int) -> None:
        worker = Path(__file__).resolve().with_name("deepsparse_worker.py")
        self.process = subprocess.Popen(
            [python, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.folder, self.threads = tempfile.TemporaryDirectory(), threads

    def ask(self, **question: Any) -> dict[str, Any]:
        """One line there, one back."""
        assert self.process.stdin and self.process.stdout
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def answer(self, number: int, x: Any) -> Any:
        """What a net that is loaded over there makes of `x`, which is NHWC here."""
        import numpy as np

        x_file, y_file = (str(Path(self.folder.name) / name) for name in ("x.npy", "y.npy"))
        np.save(x_file, x.transpose(0, 3, 1, 2))
        self.ask(check=number, x=x_file, y=y_file)
        return np.load(y_file)

    def timed(self, chain: list[Any], size: int, x: Any, clock: str) -> Callable[[], float]:
        """Seconds of a run, measured over there; the outputs are checked first."""
        import numpy as np

        folder = Path(self.folder.name)
        (folder / "chain.onnx").write_bytes(onnx_model(chain, size))
        number = self.ask(load=str(folder / "chain.onnx"), threads=self.threads)["number"]
        found = self.answer(number, x).transpose(0, 2, 3, 1)
        expected = dense(chain)(x)
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
        return lambda: self.ask(run=number)[clock]


def keep_to(threads: int) -> None:
    """Every engine to so many threads; before TensorFlow is imported."""
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"


def timed(run: Run, x: Any, threads: int) -> Callable[[], float]:
    """Seconds of a run: of CPU time with one thread, which other work hardly disturbs."""
    clock = time.process_time if threads == 1 else time.perf_counter

    def seconds() -> float:
        start = clock()
        run(x)
        return clock() - start

    return seconds


def by_turns(runs: dict[Any, Callable[[], float]], rounds: int) -> dict[Any, list[float]]:
    """Seconds of each run in every round, after three rounds to warm up."""
    times: dict[Any, list[float]] = {key: [] for key in runs}
    for number in range(rounds + 3):
        for key, seconds in runs.items():
            passed = seconds()
            if number >= 3:
                times[key].append(passed)
    return times


def engines(chain: list[Any], size: int, options: argparse.Namespace) -> dict[str, Run]:
    """Name -> run, of the dense engines that are installed."""
    found = {"TensorFlow": dense(chain), "LiteRT": litert(chain, size, options.threads)}
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        found["ONNX Runtime"] = onnx(chain, size, options.threads)
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
        for name, run in engines(chains[SPARSITIES[0]][:length], size, options).items():
            runs[name, length] = timed(run, x, options.threads)
        for sparsity, chain in chains.items():
            ours, twin = sparse(chain[:length]), dense(chain[:length])
            expected = twin(x)
            assert np.abs(ours(x) - expected).max() <= 1e-4 * np.abs(expected).max()
            runs[f"{sparsity:.0%}", length] = timed(ours, x, options.threads)
            if other:
                spatial = weights(rng, channels, sparsity, options.structure, "spatial")
                name, kind = f"DeepSparse {sparsity:.0%}", "cpu" if options.threads == 1 else "wall"
                runs[name, length] = other.timed(spatial[:length], size, x, kind)
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
    from papers import hardware
    from tqdm import tqdm

    from tfprune import ops

    other = DeepSparse(options.deepsparse, options.threads) if options.deepsparse else None
    rows = {}
    for layer in tqdm(options.layers):
        channels, size = map(int, layer.split("x"))
        rows[layer] = measure(channels, size, options, other)
    print(f"{hardware()}, kernel '{ops.kernels()[0]}', {time.strftime('%Y-%m-%d')}")
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
