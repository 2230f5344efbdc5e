"""Data sets: splits that are whole, disjoint and repeatable, and clear refusals."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tfprune.shell.data import DataError, load_data, read_arrays


def rows(pair: tuple[np.ndarray, np.ndarray]) -> set[bytes]:
    return {x.tobytes() for x in pair[0]}


def test_digits_are_split_in_three() -> None:
    pytest.importorskip("sklearn")
    data = load_data("digits", seed=3)
    sizes = [len(pair[0]) for pair in (data.train, data.validation, data.test)]
    assert sizes == [1078, 270, 449]
    assert data.train[0].shape[1:] == (8, 8, 1)
    assert data.train[0].dtype == np.float32
    assert (data.train[0].min(), data.train[0].max()) == (0, 1)
    assert set(data.test[1].tolist()) == set(range(10))
    again, other = load_data("digits", seed=3), load_data("digits", seed=4)
    assert np.array_equal(data.test[0], again.test[0])
    assert not np.array_equal(data.test[0], other.test[0])
    assert not rows(data.train) & rows(data.test)
    assert len(rows(data.train) | rows(data.validation) | rows(data.test)) == 1797


def save(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_own_arrays(tmp_path: Path) -> None:
    x, y = np.arange(80.0).reshape(40, 2), np.arange(40)
    data = load_data(save(tmp_path / "a.npz", x=x, y=y))
    assert [len(p[0]) for p in (data.train, data.validation, data.test)] == [24, 6, 10]
    for xs, ys in (data.train, data.validation, data.test):
        assert np.array_equal(xs[:, 0], 2 * ys)
    parts = dict(x_train=x, y_train=y, x_test=x[:10] + 1, y_test=y[:10])
    data = load_data(save(tmp_path / "b.npz", **parts))
    assert np.array_equal(data.test[0], x[:10] + 1)
    assert len(data.train[0]) == 34


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.ones(3)}, r"must have the arrays .*Received: \['a'\]"),
        ({"x": np.ones((20, 2)), "y": np.ones(19)}, r"Received: \(20, 2\) and \(19,\)"),
        ({"x": np.ones((5, 2)), "y": np.ones(5)}, "at least 10"),
        ({"x": np.full((20, 2), np.nan), "y": np.ones(20)}, "`x` must be finite"),
        ({"x": np.array([["a"]]), "y": np.ones(1)}, "`x` must hold numbers"),
        ({"x": np.array([{}], dtype=object), "y": np.ones(1)}, "not a whole .npz file"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_data(save(tmp_path / "bad.npz", **arrays))


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "whole.npz"
    save(path, x=np.random.default_rng(0).random((50, 50)), y=np.ones(50))
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[: len(whole) // 2], whole[:3000] + b"!" + whole[3001:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"whole\.npz' is not a whole"):
            read_arrays(path)
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*none\.npz'"):
        load_data(str(tmp_path / "none.npz"))
    with pytest.raises(ValueError, match="Received: 'cifar'"):
        load_data("cifar")


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    for source in ("digits", "mnist"):
        with pytest.raises(ImportError, match=r"pip install tfprune\[data\]"):
            load_data(source)


def test_mnist_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    asked = {}

    def unreachable(*_: object, **options: object) -> None:
        asked.update(options)
        raise OSError("no network")

    monkeypatch.setattr(tfds, "load", unreachable)
    with pytest.raises(DataError, match=r"--data-dir .*--data digits"):
        load_data("mnist", str(tmp_path))
    assert asked["data_dir"] == str(tmp_path)


def test_mnist_keeps_its_test_set(monkeypatch: pytest.MonkeyPatch) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    images = np.random.default_rng(0).integers(0, 256, (110, 28, 28, 1), np.uint8)
    images[0, 0, 0, 0] = 255
    pairs = [(images[:100], np.arange(100)), (images[100:], np.arange(10))]
    monkeypatch.setattr(tfds, "load", lambda *_, **__: pairs)
    data = load_data("mnist")
    assert np.array_equal(data.test[0], (images[100:] / 255).astype(np.float32))
    assert sorted([*data.train[1], *data.validation[1]]) == list(range(100))
    assert data.train[0].max() == 1
