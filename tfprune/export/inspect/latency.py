"""Latency of a `.tflite` file; a job of child.py, to be run in a process of its own."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np


def main(path: str, threads: str, batch: str, rounds: str, seconds: str) -> dict[str, Any]:
    """Measure a file on random inputs.

    Args:
        path: the file.
        threads: threads within an op.
        batch: examples per call; 0 for the file's own, or 1 where it is open.
        rounds: calls that are timed.
        seconds: time after which no further round begins.

    Returns:
        {"batch", "ms", "cpu_ms", "rounds"}: medians, CPU time of all threads together.

    Raises:
        ValueError: if the file does not run, or has another batch.
    """
    here = Path(__file__)
    runner = runpy.run_path(str(here.parents[1] / "verify" / "runtime.py"))["Runner"]
    time_calls = runpy.run_path(str(here.with_name("timing.py")))["time_calls"]
    loaded = runner(Path(path).read_bytes(), threads=int(threads))
    size = check_batch(loaded.inputs, int(batch))
    rng = np.random.default_rng(0)
    loaded({name: _draw(rng, name, detail, size) for name, detail in loaded.inputs.items()})
    times = time_calls({"file": loaded.again}, int(rounds), float(seconds))["file"]
    return {"batch": size, **times._asdict()}


def check_batch(inputs: dict[str, Any], asked: int) -> int:
    """Batch to run with.

    Args:
        inputs: name -> tensor details.
        asked: examples per call; 0 for the file's own, or 1 where it is open.

    Raises:
        ValueError: if the file has another batch, or other open sizes.
    """
    shapes = {name: [int(n) for n in x["shape_signature"]] for name, x in inputs.items()}
    if any(size < 1 for shape in shapes.values() for size in shape[1:]):
        raise ValueError(f"Only the batch may be open. Received: inputs of {shapes}.")
    fixed = {shape[0] for shape in shapes.values() if shape and shape[0] > 0}
    if fixed and asked and fixed != {asked}:
        raise ValueError(
            f"The batch {sorted(fixed)} is built into this file; leave out the batch size or "
            f"export another file. Received: {asked}."
        )
    return asked or min(fixed, default=1)


def _draw(rng: np.random.Generator, name: str, detail: dict[str, Any], batch: int) -> np.ndarray:
    """Random input; zeros for whole numbers, since most of those look something up."""
    shape = [int(n) for n in detail["shape_signature"]]
    if shape and shape[0] < 0:
        shape[0] = batch
    dtype = np.dtype(detail["dtype"])
    if dtype.kind not in "fiub":
        raise ValueError(f"Input '{name}' must hold numbers. Received: {dtype}.")
    if dtype.kind == "f":
        return rng.standard_normal(shape, np.float32).astype(dtype)
    if dtype.itemsize > 1 or dtype.kind == "b":
        return np.zeros(shape, dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
