"""What the shell does between reading and writing: losses, seeds, and files that stay whole."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L

from tfprune.shell.cli import main

CLASSES = 4


def data_file(folder: Path) -> Path:
    """120 samples of 6 numbers; the class is the largest of the first 4."""
    x = np.random.default_rng(0).normal(size=(120, 6)).astype("float32")
    np.savez(folder / "data.npz", x=x, y=np.argmax(x[:, :CLASSES], axis=1))
    return folder / "data.npz"


def net(*ends: keras.Layer) -> keras.Model:
    """A small classifier with logits far from 0, so that the losses differ."""
    model = keras.Sequential([keras.Input((6,)), L.Dense(8, activation="relu"), *ends])
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(np.random.default_rng(1).normal(size=variable.shape))
    return model


def prune(folder: Path, out: Path, *options: object) -> int:
    """`tfprune prune` of the folder's model for one epoch."""
    arguments = ["prune", folder / "model.keras", "--out", out, "--method", "magnitude"]
    arguments += ["--data", data_file(folder), "--epochs", 1, *options]
    return main([str(argument) for argument in arguments])


ENDS = {
    "softmax": lambda: [L.Dense(CLASSES, activation="softmax")],
    "Softmax": lambda: [L.Dense(CLASSES), L.Softmax()],
    "linear": lambda: [L.Dense(CLASSES)],
}


@pytest.mark.parametrize("end", ENDS)
def test_the_loss_is_the_cross_entropy_of_the_classes(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    original = keras.Model.compile

    def spy(self: keras.Model, optimizer: object, loss: object, **settings: object) -> None:
        used.append(loss)
        original(self, optimizer, loss, **settings)

    net(*ENDS[end]()).save(tmp_path / "model.keras")
    monkeypatch.setattr(keras.Model, "compile", spy)
    assert prune(tmp_path, tmp_path / "out.keras") == 0
    logits = np.random.default_rng(2).normal(size=(5, CLASSES)).astype("float32")
    y = np.array([0, 3, 1, 2, 2])
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    outputs = logits if end.startswith("linear") else chances
    wanted = -np.log(chances[np.arange(5), y]).mean()
    assert [float(loss(y, outputs)) for loss in used] == pytest.approx([wanted] * len(used))
    assert used


def weights(path: Path) -> list[np.ndarray]:
    """All variables of a file."""
    return [np.asarray(v) for v in keras.models.load_model(path).weights]


def test_a_seed_repeats_a_run_and_another_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, original = [], keras.utils.set_random_seed

    def spy(seed: int) -> None:
        seeds.append(seed)
        original(seed)

    monkeypatch.setattr(keras.utils, "set_random_seed", spy)
    net(L.Dropout(0.5), L.Dense(CLASSES, activation="softmax")).save(tmp_path / "model.keras")
    numbers, files = [], []
    for i, seed in enumerate((3, 3, 4)):
        out = tmp_path / f"{i}.keras"
        capsys.readouterr()
        assert prune(tmp_path, out, "--seed", seed, "--json") == 0
        numbers.append({**json.loads(capsys.readouterr().out), "path": ""})
        files.append(weights(out))
    assert seeds == [3, 3, 4]  # of the training, beside that of the data's split
    assert numbers[0] == numbers[1] != numbers[2]
    assert all(np.array_equal(a, b) for a, b in zip(files[0], files[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(files[0], files[2], strict=True))


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [(OSError("disk full"), 1, "disk full"), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_a_save_that_fails_leaves_the_old_file_alone(
    error: BaseException,
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    net(L.Dense(CLASSES, activation="softmax")).save(tmp_path / "model.keras")
    out = tmp_path / "out.keras"
    out.write_bytes(b"the old file")
    data_file(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}

    def broken(self: keras.Model, path: object, *_: object, **__: object) -> None:
        Path(str(path)).write_bytes(b"half of a fi")
        raise error

    monkeypatch.setattr(keras.Model, "save", broken)
    assert prune(tmp_path, out) == code
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("tfprune: ")]
    assert said == [f"tfprune: error: {words}"]
    assert out.read_bytes() == b"the old file"
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_save_that_works_leaves_one_file(tmp_path: Path) -> None:
    net(L.Dense(CLASSES, activation="softmax")).save(tmp_path / "model.keras")
    (tmp_path / "out.keras").write_bytes(b"the old file")
    assert prune(tmp_path, tmp_path / "out.keras") == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model.keras", "out.keras", "data.npz"}
    assert weights(tmp_path / "out.keras")
