"""Size and latency of a wide residual net by target, random masks: LiteRT, and the delegate.

    python benchmarks/file_speed.py --width 64 --sparsity 0.9 --rounds 20

XNNPACK takes its sparse mode on processors without AVX alone, such as ARM. `--litert FOLDER` times
another copy of `ai_edge_litert`, for example one that does not find AVX.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
FILES = {
    "dense, float32": ("dense", "float32"),
    "dense, int8": ("dense", "int8"),
    "smallest, int8": ("smallest", "int8"),
    "mobile-sparse, int8": ("mobile-sparse", "int8"),
    "mobile-sparse-block, float32": ("mobile-sparse-block", "float32"),
}


def main() -> int:
    """Write a table to standard output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--litert", help="folder that holds another ai_edge_litert")
    parser.add_argument("--time", nargs=2, metavar=("FOLDER", "ROUNDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.time:
        return _time(Path(options.time[0]), int(options.time[1]), options.litert is None)
    with tempfile.TemporaryDirectory() as folder:
        _export(Path(folder), options.width, options.sparsity)
        command = [sys.executable, __file__, "--time", folder, str(options.rounds)]
        command += ["--litert", options.litert] if options.litert else []
        path = os.pathsep.join(filter(None, (options.litert, os.environ.get("PYTHONPATH"))))
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode


def _export(folder: Path, width: int, sparsity: float) -> None:
    import numpy as np

    import tfprune

    x = np.random.default_rng(0).normal(size=(50, 32, 32, 3)).astype("float32")
    for name, (target, storage) in FILES.items():
        model = _net(width, 1 - sparsity, blocks=target == "mobile-sparse-block")
        path = folder / f"{name}.tflite"
        tfprune.export_tflite(
            model,
            path,
            target=target,
            storage=storage,
            representative_data=x if name == "dense, int8" else None,
        )


def _net(width: int, density: float, blocks: bool) -> Any:
    """A ResNet of three stages and seven blocks, with zeros among its DCT coefficients."""
    import keras
    import numpy as np

    from tfprune.maths.dct import dct_matrix

    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(width, 3, padding="same", activation="relu")(inputs)
    for stage in range(3):
        for block in range(3):
            channels, stride = width * 2**stage, 2 if stage and not block else 1
            y = layers.Conv2D(channels, 3, stride, padding="same", activation="relu")(x)
            y = layers.Conv2D(channels, 3, padding="same")(y)
            x = layers.Conv2D(channels, 1, 2)(x) if stride > 1 else x
            x = layers.ReLU()(layers.Add()([x, y]))
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    rng, group = np.random.default_rng(0), 4 if blocks else 1
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            *size, cin, cout = layer.kernel.shape
            kept = rng.random((*size, -(-cin // group), cout)) < density
            kept = np.repeat(kept, group, axis=2)[:, :, :cin]
            waves = kept * rng.normal(size=kept.shape) * (2 / (cin * density * size[0] ** 2)) ** 0.5
            vertical, horizontal = (np.asarray(dct_matrix(n)) for n in size)
            layer.kernel.assign(np.einsum("up,vq,uvio->pqio", vertical, horizontal, waves))
    return model


def _time(folder: Path, rounds: int, delegate: bool) -> int:
    """CPU milliseconds at batch 1 on one thread, files taking turns."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from engines import by_turns, timed

    runs: dict[str, Callable[[], float]] = {}
    for name in FILES:
        for suffix in ("", " + delegate") if delegate and "dense" not in name else ("",):
            delegates = []
            if suffix:
                from tfprune.export import load_delegate

                delegates = [load_delegate()]
            path = str(folder / f"{name}.tflite")
            one = Interpreter(path, num_threads=1, experimental_delegates=delegates)
            one.allocate_tensors()
            given = one.get_input_details()[0]
            rng = np.random.default_rng(1)
            one.set_tensor(given["index"], rng.normal(size=given["shape"]).astype("float32"))
            runs[name + suffix] = timed(lambda _, one=one: one.invoke(), None, 1)
    seconds = by_turns(runs, rounds)
    dense = statistics.median(seconds["dense, float32"])
    print("| file | bytes | ms | times faster |\n|---|---|---|---|")
    for name, times in seconds.items():
        size = (folder / f"{name.removesuffix(' + delegate')}.tflite").stat().st_size
        found = statistics.median(times)
        print(f"| {name} | {size:,} | {1000 * found:.2f} | {dense / found:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
