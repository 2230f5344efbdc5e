"""Steps that the shell commands and the demo share: train, prune, evaluate, save."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfprune
from tfprune.methods import METHODS
from tfprune.shell.data import Data, Pair, read_arrays


def make_method(name: str, sparsity: float) -> Any:
    """Make the method of that name in the shell, with a target sparsity in [0, 1)."""
    if name not in METHODS:
        raise ValueError(f"The method must be one of {', '.join(METHODS)}. Received: '{name}'.")
    return getattr(tfprune, METHODS[name][1])(target_sparsity=sparsity)


def read_model(path: Path) -> keras.Model:
    """Load a `.keras` file, pruned or plain.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or was edited so that Keras can't rebuild it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'.")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ValueError(f"'{path}' is not a whole `.keras` file, as `model.save` writes it.")
    try:
        return tfprune.load_model(path)
    except Exception as error:  # Keras raises errors of many types for a file that was edited
        raise ValueError(f"'{path}' cannot be loaded. Received: {error}") from error


def save_model(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file whole, or leave what was there."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.keras")
    try:
        model.save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def prune_and_train(
    model: keras.Model, method: Any, data: Data, epochs: int, batch_size: int, rate: float
) -> tuple[keras.Model, keras.callbacks.History]:
    """Prune a copy of a model and train it with Adam; the rate falls to zero along a cosine.

    Args:
        model: the model, which stays as it is.
        method: what `tfprune.prune` takes.
        data: the data set.
        epochs: of training.
        batch_size: examples per step.
        rate: of Adam, at the start.
    """
    pruned = tfprune.prune(model, method)
    steps = epochs * -(-len(data.train[0]) // batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    compile_for(pruned, data, schedule)
    history = pruned.fit(
        *data.train,
        validation_data=data.validation,
        epochs=epochs,
        batch_size=batch_size,
        callbacks=[tfprune.PruningCallback(per_layer=False)],
        verbose=bars(),
    )
    return pruned, history


def bars() -> int:
    """Keras' `verbose`: progress bars on a terminal, else one line per epoch."""
    return 1 if sys.stdout.isatty() else 2


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep TensorFlow's own log lines off the terminal; on an error they are shown after all."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            log.seek(0)
            os.write(terminal, log.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def compile_for(model: keras.Model, data: Data, rate: Any) -> None:
    """Compile with Adam: classes (integers) by cross-entropy, other targets by squared error."""
    if data.train[1].dtype.kind == "f":
        model.compile(keras.optimizers.Adam(rate), "mse")
        return
    last = model.layers[-1]
    activation = getattr(last, "activation", None)
    normed = isinstance(last, keras.layers.Softmax) or activation is keras.activations.softmax
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not normed)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])


def check_fit(model: keras.Model, data: Data) -> None:
    """Raise ValueError unless the model takes the data's inputs and has an output per class."""
    x, y = data.train
    expected = getattr(model, "input_shape", None)
    if isinstance(expected, list | dict) or (
        expected is not None and not _fits(x.shape[1:], tuple(expected)[1:])
    ):
        raise ValueError(
            f"The model takes inputs {expected}; the data '{data.name}' has {(None, *x.shape[1:])}."
        )
    if y.dtype.kind == "f":
        return
    classes = int(y.max()) + 1
    outputs = keras.ops.shape(model(x[:1], training=False))
    if y.ndim != 1 or y.min() < 0 or len(outputs) != 2 or outputs[-1] < classes:
        raise ValueError(
            "Targets must be classes [n] from 0, and the model's output [n, classes]. Received: "
            f"'{data.name}' with {classes} classes, targets of shape {y.shape} from {y.min()}, and "
            f"an output of shape {tuple(outputs)}."
        )


def _fits(shape: tuple[int, ...], expected: tuple[Any, ...]) -> bool:
    return len(shape) == len(expected) and all(
        b in (None, a) for a, b in zip(shape, expected, strict=True)
    )


def score(predicted: np.ndarray, pair: Pair) -> dict[str, float]:
    """Accuracy of predictions [n, classes], a fraction; mean squared error of others."""
    y = pair[1]
    if y.dtype.kind == "f":
        return {"mse": float(np.mean(np.square(predicted.reshape(y.shape) - y)))}
    return {"accuracy": float(np.mean(np.argmax(predicted, axis=-1) == y))}


def representative(path: Path, model: keras.Model) -> Any:
    """Inputs from a `.npz` file: its only array, `x` or `x_train`, or an array per input by name.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, it is broken, or has others.
    """
    arrays = read_arrays(path)
    names = [tensor.name for tensor in getattr(model, "inputs", None) or []]
    if len(names) > 1 and set(names) <= set(arrays):
        return {name: arrays[name] for name in names}
    for name in ("x", "x_train", *(arrays if len(arrays) == 1 else ())):
        if name in arrays:
            return arrays[name]
    raise ValueError(
        f"'{path}' must have a single array, or `x` or `x_train`, or an array per input {names}. "
        f"Received: {sorted(arrays)}."
    )
