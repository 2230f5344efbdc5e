"""Reproduce a row of a paper's table: `python benchmarks/papers.py --experiment dns-lenet5`.

Hyper-parameters were chosen on a validation split of the training set (`--curve` shows that); the
rows are trained on the whole training set and report the test split, which chose nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))

COUNTS = ("compression", "compression_weights", "compression_with_indices")


def main(arguments: list[str] | None = None) -> int:
    """Run the experiment, or what is left of it, and write `<out>/<experiment>.json` and `.md`."""
    options = _options(arguments)
    from experiments import EXPERIMENTS

    if options.experiment not in EXPERIMENTS:
        print(f"--experiment must be one of {', '.join(EXPERIMENTS)}.", file=sys.stderr)
        return 2
    import seeds

    experiment = EXPERIMENTS[options.experiment]
    out = Path(options.out)
    report: dict[str, Any] = {
        "experiment": experiment.name,
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "paper": experiment.paper,
        "offset_of": experiment.offset_of,
        "rows": [],
        "curve": _earlier_curve(out / f"{experiment.name}.json"),
    }
    if options.curve:
        report["curve"] = []
        data = seeds.load(experiment, options.data_dir, validate=True)
        for offset in experiment.offsets:
            folder = out / experiment.name / "validation" / "seed0"
            dense = _dense_folder(out, experiment, 0, "-validation")
            row = seeds.run(experiment, 0, data, folder, dense, offset)
            report["curve"].append({**row, "validation_error": row.pop("test_error")})
    data = seeds.load(experiment, options.data_dir, validate=False)
    for seed in range(options.seeds):
        folder = out / experiment.name / f"seed{seed}"
        dense = _dense_folder(out, experiment, seed)
        row = seeds.run(experiment, seed, data, folder, dense)
        if experiment.data == "tiny_shakespeare":  # its validation split is no part of the training
            row |= seeds.validation(experiment, seed, options.data_dir, folder, dense)
        report["rows"].append(row)
        _write(out, experiment, report)
    _write(out, experiment, report)
    print(table(experiment.title, report))
    return 0


def _dense_folder(out: Path, experiment: Any, seed: int, suffix: str = "") -> Path:
    """One dense net per network and seed, from which every method starts."""
    optimizer = (
        "" if experiment.dense.optimizer == "SGD" else f"-{experiment.dense.optimizer.lower()}"
    )
    return out / "dense" / f"{experiment.net.__name__}{optimizer}{suffix}" / f"seed{seed}"


def _earlier_curve(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["curve"] if path.exists() else []


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 on")
    parser.add_argument("--data-dir", help="folder of tensorflow_datasets")
    parser.add_argument("--out", default="build/papers", help="folder for results and backups")
    parser.add_argument("--curve", action="store_true", help="also the curve, on validation data")
    return parser.parse_args(arguments)


def hardware() -> str:
    """Processor, cores in use, Python and TensorFlow."""
    import tensorflow as tf

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [x.split(":")[1] for x in cpuinfo.read_text().splitlines() if "model name" in x]
        name = models[0].strip() if models else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {name}, TensorFlow {tf.__version__}"


def table(title: str, report: dict[str, Any]) -> str:
    """The rows beside the paper's, as Markdown."""
    lines = [
        f"### {title}",
        "",
        f"{report['hardware']}, {report['date']}.",
        "",
        "| | dense error % | error % | compression | weights only | with indices | multiply-adds "
        "| connections left % | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    paper = report["paper"]
    if paper:
        figures = (paper["dense_error"], paper["test_error"], paper["compression"])
        lines.append(f"| paper | {' | '.join(map(str, figures))} | | | | | |")
    rows = report["rows"]
    for row in rows:
        lines.append(_line(f"seed {row['seed']}", row))
    if len(rows) > 1:
        lines.append(_line("**mean**", _summary(rows, lambda v: sum(v) / len(v))))
        lines.append(_line("spread (max - min)", _summary(rows, lambda v: max(v) - min(v))))
    for row in rows:
        if "validation_error" in row:
            before, after = row["validation_dense_error"], row["validation_error"]
            lines += ["", f"Seed {row['seed']}, bits per character. Validation split: "]
            lines[-1] += f"{before} dense, {after} pruned ({100 * (after / before - 1):+.2f} %)."
        if row.get("last_errors"):
            errors = ", ".join(f"{value:.2f}" for value in row["last_errors"])
            mean = sum(row["last_errors"]) / len(row["last_errors"])
            lines += ["", f"Seed {row['seed']}, error % after each of the last epochs: {errors}"]
            lines[-1] += f" (mean {mean:.2f})."
    if report["curve"]:
        lines += ["", "Trade-off on the validation split, seed 0:", ""]
        name = report.get("offset_of", "offset of c")
        lines += [f"| {name} | validation error % | compression |", "|---|---|---|"]
        for row in report["curve"]:
            error, ratio = row["validation_error"], row["compression"]
            lines.append(f"| {row['offset']:+g} | {error:.2f} | {ratio:.1f} |")
    return "\n".join(lines) + "\n"


def _summary(rows: list[dict[str, Any]], how: Any) -> dict[str, float]:
    keys = ("dense_error", "test_error", *COUNTS, "seconds", "theoretical_speedup", "connections")
    shared = [key for key in keys if all(row.get(key) is not None for row in rows)]
    found = {key: how([row[key] for row in rows]) for key in shared}
    if found.get("connections"):
        found["connections_left"] = how([_left(row) for row in rows])
    return found


def _left(row: dict[str, Any]) -> float | None:
    """Percent of the connections that are left, of a net whose connections are pruned."""
    if "connections_left" in row:
        return row["connections_left"]
    count = row.get("connections")
    return 100 * row["connections_kept"] / count if count else None


def _line(name: str, row: dict[str, Any]) -> str:
    counts = " | ".join(f"{row[key]:.1f}" for key in COUNTS)
    errors = f"{row['dense_error']:.2f} | {row['test_error']:.2f}"
    work = "" if row.get("theoretical_speedup") is None else f"{row['theoretical_speedup']:.1f}"
    left = _left(row)
    pairs = "" if left is None else f"{left:.1f}"
    return f"| {name} | {errors} | {counts} | {work} | {pairs} | {row['seconds']:.0f} |"


def _write(out: Path, experiment: Any, report: dict[str, Any]) -> None:
    from seeds import write_json

    write_json(out / f"{experiment.name}.json", report)
    temporary = out / f"{experiment.name}.md.partial"
    temporary.write_text(table(experiment.title, report))
    os.replace(temporary, out / f"{experiment.name}.md")


if __name__ == "__main__":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by itself where there is no AVX-512
    sys.exit(main())
