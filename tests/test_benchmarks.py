"""`benchmarks/papers.py` in small: the form of its results, resuming, and what it refuses."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfprune
from tfprune.shell.data import Data

BENCHMARKS = str(Path(__file__).resolve().parent.parent / "benchmarks")
COUNTS = ("compression", "compression_weights", "compression_with_indices")
KEYS = {"seed", "dense_error", "test_error", *COUNTS, "seconds"}


def fake_mnist(source: str, data_dir: str | None) -> Data:
    """Images whose class is where they are bright; enough to hold validation images out of."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 600)
    x = rng.uniform(0, 0.3, (600, 28, 28, 1)).astype("float32")
    x[np.arange(600), 2 * y, 10:20] = 1.0
    return Data("mnist", (x[:300], y[:300]), (x[300:400], y[300:400]), (x[400:], y[400:]))


@pytest.fixture
def papers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    modules = {name: importlib.import_module(name) for name in ("papers", "seeds", "experiments")}
    seeds, experiments = modules["seeds"], modules["experiments"]
    monkeypatch.setattr(seeds, "load_data", fake_mnist)
    monkeypatch.setattr(seeds, "EPOCH", 10)
    monkeypatch.setattr(seeds, "HELD_OUT", 100)
    one = experiments.EXPERIMENTS["dns-lenet300"]
    small = dataclasses.replace(
        one,
        dense=dataclasses.replace(one.dense, steps=30, batch=20),
        pruning=dataclasses.replace(one.pruning, steps=30, batch=20),
        schedule=dataclasses.replace(one.schedule, end_step=20),
        offsets=(-5.0, 0.0),
    )
    monkeypatch.setitem(experiments.EXPERIMENTS, "dns-lenet300", small)
    yield modules["papers"]
    for name in modules:
        sys.modules.pop(name)


def test_rows_curve_and_resuming(papers: Any, tmp_path: Path, capsys: Any) -> None:
    command = ["--experiment", "dns-lenet300", "--out", str(tmp_path), "--seeds"]
    assert papers.main([*command, "1", "--curve"]) == 0
    first = json.loads((tmp_path / "dns-lenet300.json").read_text())
    assert [row["seed"] for row in first["rows"]] == [0] and set(first["rows"][0]) >= KEYS
    assert first["rows"][0]["compression"] > 2
    sparse, denser = (row["compression"] for row in reversed(first["curve"]))
    assert sparse > denser and "validation_error" in first["curve"][0]

    assert papers.main([*command, "2"]) == 0
    dense = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("dense.weights.h5"))
    assert dense == [f"dense/lenet300{part}" for part in (
        "-validation/seed0/dense.weights.h5", "/seed0/dense.weights.h5", "/seed1/dense.weights.h5"
    )], "one dense net per seed, shared by all experiments on that network"  # fmt: skip
    second = json.loads((tmp_path / "dns-lenet300.json").read_text())
    assert second["rows"][0] == first["rows"][0] and len(second["rows"]) == 2
    assert second["curve"] == first["curve"]
    markdown = (tmp_path / "dns-lenet300.md").read_text()
    assert "| paper | 2.28 | 1.99 | 56.0 |" in markdown and "**mean**" in markdown
    assert markdown in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.partial"))


def test_of_a_text_the_validation_split_is_reported_too(
    papers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def windows(data_dir: str | None, validate: bool) -> Any:
        train, held = (np.random.default_rng(s).integers(0, 65, (40, 9)) for s in (0, 1 + validate))
        return (train[:, :-1], train[:, 1:]), (held[:, :-1], held[:, 1:])

    seeds, experiments = sys.modules["seeds"], sys.modules["experiments"].EXPERIMENTS
    monkeypatch.setattr(seeds, "load_text", windows)
    one = experiments["sensitivity-chargru-adam"]
    small = dataclasses.replace(
        one,
        dense=dataclasses.replace(one.dense, steps=3, batch=5),
        pruning=dataclasses.replace(one.pruning, steps=4, batch=5, hold=0),
        schedule=tfprune.SensitivitySchedule(begin_step=0, end_step=2, frequency=1),
    )
    monkeypatch.setitem(experiments, one.name, small)
    command = ["--experiment", one.name, "--out", str(tmp_path), "--seeds", "1"]
    assert papers.main(command) == 0
    (row,) = json.loads((tmp_path / f"{one.name}.json").read_text())["rows"]
    for key in ("validation_error", "validation_dense_error"):
        assert 5 < row[key] < 8 and row[key] not in (row["test_error"], row["dense_error"])
    assert f"{row['validation_error']} pruned" in (tmp_path / f"{one.name}.md").read_text()


def test_an_unknown_experiment_is_named(papers: Any, capsys: Any) -> None:
    assert papers.main(["--experiment", "dns-lenet6"]) == 2
    assert "dns-lenet5, dns-lenet5-sparser, dns-lenet300" in capsys.readouterr().err


def test_batches_hold_shifted_and_mirrored_images(papers: Any) -> None:
    seeds, training = sys.modules["seeds"], sys.modules["experiments"].Training
    image = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    how = training(steps=1, batch=64, rate=0.1, shift=1, border="reflect", mirror=True)
    x, y = next(iter(seeds.batches((np.repeat(image, 70, 0), np.zeros(70)), how, seed=0)))
    padded = np.pad(image[0, :, :, 0], 1, mode="reflect")
    moved = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    possible = {one.tobytes() for each in moved for one in (each, each[:, ::-1].copy())}
    found = {one.numpy()[:, :, 0].tobytes() for one in x}
    assert found <= possible and len(found) > 9 and y.shape == (64,)


@pytest.mark.parametrize(
    "names", ["lenet", pytest.param("", marks=pytest.mark.slow)], ids=["small nets", "all"]
)
def test_every_experiment_can_be_pruned(papers: Any, names: str) -> None:
    models: dict[Any, Any] = {}
    experiments = sys.modules["experiments"].EXPERIMENTS
    chosen = [experiment for name, experiment in experiments.items() if names in name]
    assert len(chosen) > 2
    for experiment in chosen:
        if experiment.net not in models:
            models[experiment.net] = experiment.net(experiment.decay)
        method = experiment.method(experiment.offsets[-1])
        assert tfprune.is_pruned(tfprune.prune(models[experiment.net], method, experiment.schedule))
