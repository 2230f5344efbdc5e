"""Engines that run a Keras model, by turns and on one clock: what the speed benchmarks share."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[[Any], Any]


def keep_to(threads: int) -> None:
    """Every engine to so many threads, TensorFlow on oneDNN; before TensorFlow is imported.

    By itself TensorFlow takes oneDNN where there is AVX-512 alone; with AVX2 it triples its speed.
    """
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def timed(run: Run, x: Any, threads: int) -> Callable[[], float]:
    """Seconds of a run: of CPU time with one thread, which other work hardly disturbs."""
    clock = time.process_time if threads == 1 else time.perf_counter

    def seconds() -> float:
        start = clock()
        run(x)
        return clock() - start

    return seconds


def by_turns(runs: dict[Any, Callable[[], float]], rounds: int) -> dict[Any, list[float]]:
    """Seconds of each run in every round, after three rounds to warm up.

    Of two runs a turn the second counts: the first brings back what others' turns have driven out
    of the caches.
    """
    from tqdm import trange

    times: dict[Any, list[float]] = {key: [] for key in runs}
    for number in trange(rounds + 3, leave=False, disable=None):
        for key, seconds in runs.items():
            seconds()
            passed = seconds()
            if number >= 3:
                times[key].append(passed)
    return times


def compare(engine: str, found: Any, expected: Any, most: float = 1e-3) -> None:
    """Stop where an engine computes something else."""
    import numpy as np

    error = np.abs(found - expected).max() / np.abs(expected).max()
    if not error <= most:
        raise SystemExit(f"{engine} is wrong by {error:.2g} of the largest output.")


def frozen(model: Any) -> Run:
    """TensorFlow on a graph of constants, of one example."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    spec = tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32, name="x")
    traced = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    graph = convert_variables_to_constants_v2(traced)
    return lambda x: graph(tf.constant(x))[0].numpy()


def exported(model: Any, target: str = "dense") -> bytes:
    """The model as a .tflite file."""
    import tfprune

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.tflite"
        tfprune.export_tflite(model, path, target=target)
        return path.read_bytes()


def litert(file: bytes, threads: int, delegate: bool = False) -> Run:
    """LiteRT with XNNPACK, and with our delegate in front of it."""
    from tfprune.export.verify.runtime import Runner

    runner = Runner(file, threads=threads, delegate=delegate)
    (name,) = runner.inputs
    return lambda x: next(iter(runner({name: x}).values()))


def onnxruntime(model: Any, threads: int) -> Run:
    """ONNX Runtime, in its own layout."""
    import onnx_nets
    import onnxruntime as library

    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = onnx_nets.save(model, Path(folder) / "net.onnx")
        session = library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(x: Any) -> Any:
        return channels_last(session.run(None, {given.name: x.transpose(0, 3, 1, 2).copy()})[0])

    return run


def channels_last(y: Any) -> Any:
    """An output of ONNX as Keras has it."""
    return y.transpose(0, 2, 3, 1) if y.ndim == 4 else y


class DeepSparse:
    """DeepSparse, in a process and an environment of its own (`deepsparse_worker.py`)."""

    def __init__(self, python: str, threads: int) -> None:
        worker = Path(__file__).resolve().with_name("deepsparse_worker.py")
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([python, str(worker)], env=own, **pipes)
        self.folder, self.threads = tempfile.TemporaryDirectory(), threads

    def ask(self, **question: Any) -> dict[str, Any]:
        """One line there, one back."""
        assert self.process.stdin and self.process.stdout
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def timed(self, model: Any, x: Any, most: float = 1e-3) -> Callable[[], float]:
        """Seconds of a run, measured over there; what it makes of `x` is compared first."""
        import numpy as np
        import onnx_nets

        net, given, made = (str(Path(self.folder.name) / n) for n in ("net.onnx", "x.npy", "y.npy"))
        onnx_nets.save(model, Path(net))
        number = self.ask(load=net, threads=self.threads)["number"]
        np.save(given, x.transpose(0, 3, 1, 2))
        self.ask(check=number, x=given, y=made)
        compare("DeepSparse", channels_last(np.load(made)), model.predict(x, verbose=0), most)
        clock = "cpu" if self.threads == 1 else "wall"
        return lambda: self.ask(run=number)[clock]
