"""The whole way on real data: train, prune by network surgery, strip, report, export, evaluate."""

from __future__ import annotations

import dataclasses
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfprune
from tfprune.export.result import ExportResult
from tfprune.export.tflite import export_tflite
from tfprune.export.verify.runtime import predict_tflite
from tfprune.export.verify.verification import Verification
from tfprune.files import write_atomically
from tfprune.maths.checks import check_sparsity
from tfprune.report.report import Report
from tfprune.shell.data import Data, load_data
from tfprune.shell.workflow import bars, compile_for, prune_and_train, quiet, save_model, score

FILES = ("summary.json", "model.keras", "model.tflite", "report.html")
FORMS = tuple(  # target and storage
    f"{target} {storage}"
    for target in ("smallest", "dense")
    for storage in ("int8", "float16", "float32")
)
MARGIN = 0.005  # validation accuracy that a smaller file may cost


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to train: epochs before and while pruning, batch size, Adam's rate while pruning."""

    dense_epochs: int
    epochs: int
    batch_size: int
    rate: float


PLANS = {
    "digits": Plan(dense_epochs=40, epochs=50, batch_size=32, rate=3e-3),
    "mnist": Plan(dense_epochs=3, epochs=6, batch_size=128, rate=3e-3),
}
# A layer keeps this many times the density of the largest layer, fc1.
SHARES = {"conv1": 6, "conv2": 3, "fc1": 1, "fc2": 3}


def lenet(shape: tuple[int, ...], classes: int = 10) -> keras.Model:
    """LeNet-5 with ReLU; for images below 16x16 its kernels are 3x3 and its convolutions padded."""
    size, padding = (5, "valid") if min(shape[:2]) >= 16 else (3, "same")
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape, name="image"),
            layers.Conv2D(20, size, padding=padding, activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(50, size, padding=padding, activation="relu", name="conv2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dense(500, activation="relu", name="fc1"),
            layers.Dense(classes, activation="softmax", name="fc2"),
        ],
        name="lenet",
    )


def run_demo(
    out: str | Path,
    data: str = "digits",
    data_dir: str | None = None,
    epochs: int | None = None,
    dense_epochs: int | None = None,
    sparsity: float = 0.96,
    seed: int = 0,
    say: Callable[[str], Any] = print,
) -> dict[str, Any]:
    """Run the demo; leave `summary.json`, `model.keras`, `model.tflite`, `report.html` in `out`.

    Args:
        out: folder, made if needed; what an earlier run left in it is replaced.
        data, data_dir: see `tfprune.shell.data.load_data`.
        epochs, dense_epochs: epochs of pruning, and of the dense training before it; None: by data
            set.
        sparsity: fraction of the largest layer's weights and biases to prune, in [0, 1); the
            small layers keep more (`SHARES`).
        seed: seed of the split, the initial weights and the order of batches.
        say: takes the headings.

    Returns:
        The summary, as in `summary.json`.
    """
    start = time.monotonic()
    plan, chosen = _planned(data, epochs, dense_epochs), methods(sparsity)
    split = load_data(data, data_dir, seed)
    folder = _empty(Path(out))
    keras.utils.set_random_seed(seed)

    say(f"1/5 train a dense LeNet on {split.name} ({len(split.train[0])} images)")
    dense = _train_dense(split, plan)
    say(f"2/5 prune by network surgery, sparsity {sparsity:g} in the largest layer, and train")
    pruned, history = prune_and_train(dense, chosen, split, plan.epochs, plan.batch_size, plan.rate)
    say("3/5 strip and measure")
    plain = tfprune.strip(pruned)
    report = tfprune.report(pruned)
    say("4/5 export to TFLite and choose the smallest file that keeps the accuracy")
    with quiet():
        files = _export(plain, dense, split, folder)
    say("5/5 evaluate on the test set, write the report")
    save_model(pruned, folder / "model.keras")
    summary = _summary(split, plan, dense, plain, report, files, folder)
    summary |= {"seed": seed, "target_sparsity": sparsity}
    summary["seconds"] = round(time.monotonic() - start, 1)
    written = files["chosen"].to_dict() | {"path": "model.tflite"}
    report.to_html(folder / "report.html", history, written, f"LeNet on {split.name}, pruned")
    write_atomically(folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def _empty(folder: Path) -> Path:
    """Make the folder; an interrupted run must not be taken for an earlier complete run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    return folder


def _planned(data: str, epochs: int | None, dense_epochs: int | None) -> Plan:
    if data not in PLANS:
        raise ValueError(f"The demo's data must be 'digits' or 'mnist'. Received: '{data}'.")
    given = {"epochs": epochs, "dense_epochs": dense_epochs}
    return dataclasses.replace(PLANS[data], **{k: v for k, v in given.items() if v is not None})


def methods(sparsity: float) -> dict[str, tfprune.Method]:
    """Network surgery for each layer of `lenet`, in target-sparsity mode."""
    check_sparsity("sparsity", sparsity)
    targets = {name: max(0.0, 1 - share * (1 - sparsity)) for name, share in SHARES.items()}
    return {
        f"^{name}$": tfprune.NetworkSurgery(target_sparsity=target)
        for name, target in targets.items()
    }


def _train_dense(split: Data, plan: Plan) -> keras.Model:
    model = lenet(split.train[0].shape[1:])
    steps = plan.dense_epochs * -(-len(split.train[0]) // plan.batch_size)
    compile_for(model, split, keras.optimizers.schedules.CosineDecay(1e-3, steps))
    model.fit(
        *split.train,
        validation_data=split.validation,
        epochs=plan.dense_epochs,
        batch_size=plan.batch_size,
        verbose=bars(),
    )
    return model


def _export(plain: keras.Model, dense: keras.Model, split: Data, folder: Path) -> dict[str, Any]:
    """Try every form; keep the smallest file whose validation accuracy holds.

    Returns:
        `tried` (form -> bytes, gzip_bytes, accuracy_validation), `chosen` and `dense_file`
        (ExportResult), `accuracy_validation` of the Keras model.
    """
    x = split.validation[0]
    reached = score(plain.predict(x, verbose=0), split.validation)["accuracy"]
    tried, results = {}, {}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        for form in FORMS:
            target, storage = form.split()
            path = Path(temporary) / f"{form}.tflite"
            calibration = split.train[0]
            results[form] = export_tflite(
                plain,
                path,
                target=target,
                storage=storage,
                representative_data=calibration,
                verification=Verification(samples=x[:64]),
            )
            accuracy = score(predict_tflite(path, x), split.validation)["accuracy"]
            tried[form] = _sizes(results[form]) | {"accuracy_validation": accuracy}
        dense_file = export_tflite(
            dense, Path(temporary) / "dense.tflite", verification=Verification(samples=x[:64])
        )
        form = choose(tried, reached)
        write_atomically(folder / "model.tflite", Path(results[form].path).read_bytes())
    return {
        "tried": tried,
        "chosen": results[form],
        "dense_file": dense_file,
        "accuracy_validation": reached,
    }


def choose(tried: dict[str, dict[str, Any]], reached: float) -> str:
    """Choose the form with the fewest bytes whose accuracy is at most `MARGIN` below `reached`.

    Args:
        tried: form -> {"bytes", "accuracy_validation"}.
        reached: validation accuracy of the Keras model, a fraction.
    """
    holding = [
        form for form, result in tried.items() if result["accuracy_validation"] >= reached - MARGIN
    ]
    return min(holding or ["dense float32"], key=lambda form: tried[form]["bytes"])


def _sizes(result: ExportResult) -> dict[str, int]:
    return {"bytes": result.bytes, "gzip_bytes": result.gzip_bytes}


def _summary(
    split: Data,
    plan: Plan,
    dense: keras.Model,
    plain: keras.Model,
    report: Report,
    files: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    x = split.test[0]
    lite = predict_tflite(folder / "model.tflite", x, progress=True)
    chosen, other = _sizes(files["chosen"]), _sizes(files["dense_file"])
    measured = report.measurement.to_dict()
    ratios = ("compression", "compression_weights", "compression_with_indices")
    return {
        "dataset": split.name,
        "accuracy_dense": _accuracy(dense.predict(x, verbose=0), split),
        "accuracy_pruned": _accuracy(plain.predict(x, verbose=0), split),
        "accuracy_tflite": _accuracy(lite, split),
        **{name: measured[name] for name in (*ratios, "theoretical_speedup")},
        "parameters": measured["parameters"],
        "nonzero": measured["nonzero"],
        "tflite_target": files["chosen"].target,
        "tflite_storage": files["chosen"].storage,
        "tflite_bytes": chosen["bytes"],
        "dense_tflite_bytes": other["bytes"],
        "tflite_gzip_bytes": chosen["gzip_bytes"],
        "dense_tflite_gzip_bytes": other["gzip_bytes"],
        "forms_tried": files["tried"],
        "accuracy_validation": files["accuracy_validation"],
        "images": {part: len(getattr(split, part)[0]) for part in ("train", "validation", "test")},
        "training": dataclasses.asdict(plan),
        "versions": _versions(),
    }


def _accuracy(predicted: np.ndarray, split: Data) -> float:
    return score(predicted, split.test)["accuracy"]


def _versions() -> dict[str, str]:
    import tensorflow as tf

    return {
        "tfprune": tfprune.__version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def table(summary: dict[str, Any]) -> str:
    """The summary in five lines."""
    s = summary
    lines = [
        ("", "dense", "pruned", f"pruned .tflite ({s['tflite_target']}, {s['tflite_storage']})"),
        ("test accuracy", *(f"{s[f'accuracy_{k}']:.4f}" for k in ("dense", "pruned", "tflite"))),
        ("weights and biases", f"{s['parameters']:,}", f"{s['nonzero']:,}", ""),
        (".tflite bytes", f"{s['dense_tflite_bytes']:,}", "", f"{s['tflite_bytes']:,}"),
        ("  gzipped", f"{s['dense_tflite_gzip_bytes']:,}", "", f"{s['tflite_gzip_bytes']:,}"),
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    texts = [
        line[0].ljust(widths[0]) + "".join(f"  {line[i].rjust(widths[i])}" for i in range(1, 4))
        for line in lines
    ]
    return "\n".join(text.rstrip() for text in texts)
