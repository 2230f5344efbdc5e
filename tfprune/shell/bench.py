"""Dense against compact: latency of a saved model and of its layers, by number of threads.

Each count of threads has a process of its own, since TensorFlow fixes it when it starts.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfprune.export.inspect.timing import time_calls


def bench(
    path: Path, batch: int = 1, threads: Sequence[int] = (1, 2), rounds: int = 30
) -> dict[str, Any]:
    """Measure a `.keras` file, pruned or with zeros.

    TensorFlow uses oneDNN unless the environment has TF_ENABLE_ONEDNN_OPTS=0: by itself it does so
    on processors with AVX-512 alone, and its dense convolutions are three times slower elsewhere.

    Args:
        path: the file.
        batch: examples per call.
        threads: threads within an op, >= 1; a run for each count.
        rounds: calls of the whole model that are timed, dense and compact by turns.

    Returns:
        {"model", "batch", "runs": [{"threads", "dense_ms", "compact_ms", "dense_cpu_ms",
        "compact_cpu_ms", "layers": [...]}]}: medians; layers as `tfprune.inference.compact.Choice`.

    Raises:
        ValueError: if a child process fails, with what it said.
    """
    runs = []
    for count in threads:
        environment = {
            "TF_ENABLE_ONEDNN_OPTS": "1",
            **os.environ,
            "TF_NUM_INTRAOP_THREADS": str(count),
            "TF_NUM_INTEROP_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        command = [sys.executable, "-m", "tfprune.shell.bench", str(path), str(batch), str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise ValueError(f"'{path}' cannot be measured. Received: {_last_line(done.stderr)}")
        runs.append({"threads": count, **json.loads(done.stdout.splitlines()[-1])})
    return {"model": str(path), "batch": batch, "runs": runs}


def table(measured: dict[str, Any]) -> str:
    """The measurements as text."""
    lines = []
    for run in measured["runs"]:
        lines += ["", f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}"]
        names = [layer["name"] for layer in run["layers"]]
        width = max([5, *map(len, names)])
        lines.append(f"{'layer':{width}}  form    basis    density  dense ms  sparse ms   ratio")
        for layer in run["layers"]:
            dense, sparse = layer["dense_ms"], layer["sparse_ms"]
            times = f"{dense:8.3f}   {sparse:8.3f}  {dense / sparse:5.2f}x" if dense else ""
            lines.append(
                f"{layer['name']:{width}}  {layer['form']:6}  {layer['basis']:7}  "
                f"{layer['density']:7.4f}  {times}".rstrip()
            )
        ratio = run["dense_ms"] / run["compact_ms"]
        cpu = run["dense_cpu_ms"] / run["compact_cpu_ms"]
        lines.append(
            f"whole model, batch {measured['batch']}: dense {run['dense_ms']:.3f} ms, compact "
            f"{run['compact_ms']:.3f} ms, {ratio:.2f}x ({cpu:.2f}x in CPU time)"
        )
    return "\n".join(lines[1:])


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _measure(path: Path, batch: int, rounds: int) -> dict[str, Any]:
    import dataclasses

    import numpy as np
    import tensorflow as tf

    import tfprune
    from tfprune.shell.workflow import quiet, read_model

    with quiet():
        model = read_model(path)
        plain = tfprune.strip(model) if tfprune.is_pruned(model) else model
        fast = tfprune.compact(model)
    shapes = [tuple(tensor.shape[1:]) for tensor in plain.inputs]
    if any(None in shape for shape in shapes):
        raise ValueError(f"the sizes of its inputs must be fixed, and are {shapes}")
    rng = np.random.default_rng(0)
    x = [tf.constant(rng.normal(size=(batch, *shape)).astype("float32")) for shape in shapes]
    given = x[0] if len(x) == 1 else x
    graphs = {
        name: tf.function(lambda inputs, net=net: net(inputs, training=False))
        for name, net in (("dense", plain), ("compact", fast))
    }
    calls = {name: functools.partial(graph, given) for name, graph in graphs.items()}
    times = time_calls(calls, rounds)
    medians = {f"{name}_ms": result.ms for name, result in times.items()}
    medians |= {f"{name}_cpu_ms": result.cpu_ms for name, result in times.items()}
    choices = [dataclasses.asdict(choice) for choice in tfprune.compaction(fast)]
    return {**medians, "layers": choices}


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
