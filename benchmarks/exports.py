"""Files of a trained net by target and storage: bytes, gzipped, errors on the whole test split.

    python benchmarks/exports.py net.keras --dataset cifar10 --data-dir DIR

Beside them what the converter makes by itself: plain int8, and its own sparsity option (tfmot's
route), loaded in a process of its own since some of those files end it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))

TARGETS = (
    ("dense", "float32"),
    ("dense", "int8"),
    ("smallest", "float32"),
    ("smallest", "float16"),
    ("smallest", "int8"),
    ("mobile-sparse", "float32"),
    ("mobile-sparse", "int8"),
    ("mobile-sparse-block", "float32"),
)


def main() -> int:
    """Write the table to standard output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a .keras file, pruned or with zeros")
    parser.add_argument("--dataset", default="cifar10", help="a data set of tensorflow_datasets")
    parser.add_argument("--data-dir", help="folder of tensorflow_datasets")
    parser.add_argument("--scale", type=float, default=1.0, help="of the images that the net reads")
    parser.add_argument("--limit", type=int, help="images of the test split")
    options = parser.parse_args()
    import nets
    import tensorflow as tf

    from tfprune.shell.data import load_data

    data = load_data(options.dataset, options.data_dir)
    x, y = (part[: options.limit] for part in data.test)
    x, calibration = ((part * options.scale).astype("float32") for part in (x, data.train[0][:200]))
    model = nets.load(options.model)
    keras_answers = model.predict(x, batch_size=500, verbose=0).argmax(-1)
    rows = [{"file": "Keras", "error": _error(keras_answers, y)}]
    with tempfile.TemporaryDirectory() as folder:
        for target, storage in TARGETS:
            rows.append(_export(model, folder, target, storage, calibration, x, y, keras_answers))
            print(_line(rows[-1]), flush=True)
        sparsity = tf.lite.Optimize.EXPERIMENTAL_SPARSITY
        for name, options_of in (("", [sparsity]), (", dynamic range", [sparsity, "DEFAULT"])):
            path = Path(folder) / "stock.tflite"
            converter = tf.lite.TFLiteConverter.from_keras_model(model)
            converter.optimizations = [
                tf.lite.Optimize.DEFAULT if one == "DEFAULT" else one for one in options_of
            ]
            path.write_bytes(converter.convert())
            row = {"file": f"converter's sparsity option{name}", **_sizes(path)}
            rows.append({**row, **_answers(path, x, y, keras_answers)})
            print(_line(rows[-1]), flush=True)
    print(json.dumps(rows, indent=1))
    return 0


def _export(
    model: Any,
    folder: str,
    target: str,
    storage: str,
    calibration: Any,
    x: Any,
    y: Any,
    keras_answers: Any,
) -> dict[str, Any]:
    from tfprune.export import ExportError, Verification, export_tflite

    path, name = Path(folder) / "net.tflite", f"{target}, {storage}"
    data = calibration if (target, storage) == ("dense", "int8") else None
    try:
        export_tflite(
            model,
            path,
            target=target,
            storage=storage,
            representative_data=data,
            verification=Verification(samples=x[:64]),
        )
    except ExportError as error:
        return {"file": name, "refused": str(error)}
    return {"file": name, **_sizes(path), **_answers(path, x, y, keras_answers)}


def _sizes(path: Path) -> dict[str, int]:
    data = path.read_bytes()
    return {"bytes": len(data), "gzipped": len(zlib.compress(data, 9))}


def _answers(path: Path, x: Any, y: Any, keras_answers: Any) -> dict[str, Any]:
    """Error in percent, and how many answers differ from Keras'."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        waiting = pool.apply_async(_predict, (path, x))
        try:
            answers = waiting.get(timeout=900)
        except multiprocessing.TimeoutError:
            return {"refused": "its process was ended, or does not come back"}
        except ValueError as error:
            return {"refused": " ".join(str(error).split())[:200]}
    return {"error": _error(answers, y), "differ": int((answers != keras_answers).sum())}


def _predict(path: Path, x: Any) -> Any:
    from tfprune.export import predict_tflite

    return predict_tflite(path, x).argmax(-1)


def _error(answers: Any, y: Any) -> float:
    return round(100 * float((answers != y).mean()), 3)


def _line(row: dict[str, Any]) -> str:
    if "refused" in row:
        return f"| {row['file']} | {row.get('bytes', 0):,} | refused: {row['refused'][:160]} |"
    sizes = f"{row['bytes']:,} | {row['gzipped']:,}"
    return f"| {row['file']} | {sizes} | {row['error']:.2f} | {row['differ']} |"


if __name__ == "__main__":
    sys.exit(main())
