"""Data sets for the shell commands: digits, MNIST, CIFAR-10, and the user's own arrays."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]
FETCHED = {"mnist": "MNIST", "cifar10": "CIFAR-10"}  # by tensorflow_datasets
VALIDATION, TEST = 0.15, 0.25  # fractions that are held back where a source is not split yet


class DataError(RuntimeError):
    """A data set that is not there and cannot be fetched."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Inputs and targets of the data set `name`, split in three.

    Images are float32 [n, h, w, channels] in [0, 1], classes integers [n].
    """

    name: str
    train: Pair
    validation: Pair
    test: Pair


def load_data(source: str, data_dir: str | None = None, seed: int = 0) -> Data:
    """Load the data set `digits`, `mnist` or `cifar10`, or a `.npz` file.

    Args:
        source: "digits" (1797 handwritten digits of 8x8 pixels, inside scikit-learn), "mnist"
            (70000 of 28x28, through tensorflow_datasets), "cifar10" (60000 colour images of 32x32,
            likewise), or the path of a `.npz` file with arrays `x`, `y`, or `x_train`, `y_train`,
            `x_test`, `y_test`, taken as they are.
        data_dir: where tensorflow_datasets looks for MNIST or CIFAR-10, and where it puts it.
        seed: seed of the split; what the source calls its test set stays that.

    Raises:
        ValueError: for another source, or a file that is broken or has other arrays.
        FileNotFoundError: if there is no such file.
        ImportError: if the package that has the data is missing.
        DataError: if the data cannot be fetched.
    """
    if source == "digits":
        return _split("digits", *_digits(), seed)
    if source in FETCHED:
        return _hold_back(source, *_fetched(source, data_dir), seed)
    if not source.endswith(".npz"):
        raise ValueError(
            "Data must be 'digits', 'mnist', 'cifar10' or the path of a .npz file. "
            f"Received: '{source}'."
        )
    return _from_file(Path(source), seed)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a `.npz` file, checked: numbers only, finite.

    Raises:
        FileNotFoundError, ValueError: if there is none, or it is broken.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"'{path}' is not a whole .npz file of plain arrays. Received: {error}."
        ) from error
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise ValueError(f"'{path}': `{name}` must hold numbers. Received: {array.dtype}.")
        if not np.isfinite(array).all():
            raise ValueError(f"'{path}': `{name}` must be finite. Received: NaN or infinity.")
    return arrays


def _digits() -> Pair:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn: `pip install tfprune[data]`."
        ) from error
    bunch: Any = load_digits()
    return (bunch.images[..., None] / 16).astype("float32"), bunch.target.astype("int32")


def _fetched(source: str, data_dir: str | None) -> tuple[Pair, Pair]:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"{FETCHED[source]} comes through tensorflow_datasets: `pip install tfprune[data]`."
        ) from error
    try:
        parts: Any = tfds.load(
            source, split=["train", "test"], batch_size=-1, as_supervised=True, data_dir=data_dir
        )
        train, test = (tuple(np.asarray(x) for x in part) for part in parts)
    except Exception as error:  # whatever network and disk come up with
        where = f"'{data_dir}'" if data_dir else "the default folder of tensorflow_datasets"
        raise DataError(
            f"{FETCHED[source]} is not in {where} and could not be fetched "
            f"({type(error).__name__}). Point --data-dir at a folder that has it, or use "
            "--data digits."
        ) from error
    return _scaled(train), _scaled(test)


def _scaled(pair: Any) -> Pair:
    return (pair[0] / 255).astype("float32"), pair[1].astype("int32")


def _from_file(path: Path, seed: int) -> Data:
    arrays = read_arrays(path)
    names = set(arrays)
    if {"x_train", "y_train", "x_test", "y_test"} <= names:
        train, test = [(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
    elif {"x", "y"} <= names:
        train = test = (arrays["x"], arrays["y"])
    else:
        raise ValueError(
            f"'{path}' must have the arrays `x`, `y`, or `x_train`, `y_train`, `x_test`, `y_test`. "
            f"Received: {sorted(names)}."
        )
    for x, y in (train, test):
        if x.ndim < 2 or len(x) != len(y) or len(x) < 10:
            raise ValueError(
                f"'{path}': inputs [n, ...] and targets [n, ...] must have the same n, at least "
                f"10. Received: {x.shape} and {y.shape}."
            )
    return (
        _split(path.name, *train, seed)
        if test is train
        else _hold_back(path.name, train, test, seed)
    )


def _split(name: str, x: np.ndarray, y: np.ndarray, seed: int) -> Data:
    """Draw the test set, then the validation set, from the shuffled whole."""
    order = np.random.default_rng(seed).permutation(len(x))
    at = round(len(x) * TEST)
    test, rest = order[:at], order[at:]
    held, train = np.split(rest, [round(len(x) * VALIDATION)])
    return Data(name, (x[train], y[train]), (x[held], y[held]), (x[test], y[test]))


def _hold_back(name: str, train: Pair, test: Pair, seed: int) -> Data:
    """Draw the validation set from the training set; the test set stays as it is."""
    order = np.random.default_rng(seed).permutation(len(train[0]))
    held, rest = np.split(order, [min(round(len(order) * VALIDATION), 5000)])
    x, y = train
    return Data(name, (x[rest], y[rest]), (x[held], y[held]), test)
