"""Train a dense net and its pruned twin from a seed, going on where an interrupted run stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import keras
import nets
import numpy as np
import tensorflow as tf
from experiments import Experiment, Training
from text import load_text

import tfprune
from tfprune.report import report
from tfprune.report.measure import measure
from tfprune.shell.data import load_data

EPOCH = 1000  # steps between backups
LAST = 4  # epochs of a thousand steps after which the error is measured
HELD_OUT = 10_000  # images of the training set that make the validation split
Pair = tuple[np.ndarray, np.ndarray]


def load(experiment: Experiment, data_dir: str | None, validate: bool) -> tuple[Pair, Pair]:
    """(training, evaluation): all training images and the test split, or parts of the former."""
    if experiment.data == "tiny_shakespeare":
        return load_text(data_dir, validate)
    data = load_data(experiment.data, data_dir)
    x, y = (np.concatenate(pair) for pair in zip(data.train, data.validation, strict=True))
    if not validate:
        return (x, y), data.test
    order = np.random.default_rng(2016).permutation(len(x))
    held, rest = order[:HELD_OUT], order[HELD_OUT:]
    return (x[rest], y[rest]), (x[held], y[held])


def run(
    experiment: Experiment,
    seed: int,
    data: tuple[Pair, Pair],
    folder: Path,
    dense_folder: Path,
    offset: float = 0.0,
) -> dict[str, Any]:
    """One seed: the dense net (shared by all that name it), the pruned net, errors and counts."""
    result = folder / f"offset{offset:+g}.json"
    if result.exists():
        return json.loads(result.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    fit_pair, evaluation = data
    dense, dense_seconds = train_dense(experiment, seed, fit_pair, dense_folder)
    keras.utils.set_random_seed(1000 + seed)
    schedule = _seeded(experiment.schedule, seed)
    start = _start(experiment, dense)
    pruned = tfprune.prune(start, experiment.method(offset), schedule)
    watch = _Watch(experiment, evaluation, folder / f"offset{offset:+g}" / "errors.json")
    seconds = _fit(
        pruned, experiment.pruning, seed + 1, fit_pair, folder / f"offset{offset:+g}", watch
    )
    counts = measure(pruned)
    pairs = report(pruned).connections.values() if prunes_connections(pruned) else ()
    row = {
        "seed": seed,
        "offset": offset,
        "dense_error": error(dense, evaluation),
        "test_error": error(_in_float32(pruned, experiment), evaluation),
        "compression": counts.compression,
        "compression_weights": counts.compression_weights,
        "compression_with_indices": counts.compression_with_indices,
        "theoretical_speedup": counts.theoretical_speedup,
        "connections": sum(p.connections for p in pairs),
        "connections_kept": sum(p.kept for p in pairs),
        "last_errors": watch.errors,
        "seconds": round(seconds if experiment.scratch else dense_seconds + seconds, 1),
        "kept": {layer.name: layer.nonzero for layer in counts.layers},
    }
    pruned.save(folder / f"offset{offset:+g}.keras")
    write_json(result, row)
    return row


def validation(
    experiment: Experiment, seed: int, data_dir: str | None, folder: Path, dense_folder: Path
) -> dict[str, float]:
    """Errors of both nets of a finished `run` on the validation split."""
    fit_pair, held_out = load(experiment, data_dir, validate=True)
    dense, _ = train_dense(experiment, seed, fit_pair, dense_folder)
    pruned = tfprune.load_model(folder / "offset+0.keras", compile=False)
    return {
        "validation_dense_error": error(dense, held_out),
        "validation_error": error(pruned, held_out),
    }


def prunes_connections(model: keras.Model) -> bool:
    """Whether synaptic strength prunes it: with others a connection is gone by chance."""
    found = [layer.prune_state.method for _, layer in tfprune.pruned.layers.pruned_layers(model)]
    return any(isinstance(method, tfprune.SynapticStrength) for method in found)


def _net(experiment: Experiment, decay: float, precision: str) -> keras.Model:
    """A fresh net that computes as the policy says, with weights in float32."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        return experiment.net(decay)
    finally:
        keras.config.set_dtype_policy(policy)


def _start(experiment: Experiment, dense: keras.Model) -> keras.Model:
    """The net that pruning starts from: the dense one, or a fresh one."""
    decay = experiment.pruning_decay
    if decay is None:
        decay = experiment.decay
    start = _net(experiment, decay, experiment.pruning.precision)
    if not experiment.scratch:
        start.set_weights(dense.get_weights())
    return start


def _in_float32(pruned: keras.Model, experiment: Experiment) -> keras.Model:
    if experiment.pruning.precision == "float32":
        return pruned
    return nets.in_float32(tfprune.strip(pruned))


def _seeded(schedule: Any, seed: int) -> Any:
    return dataclasses.replace(schedule, seed=seed) if hasattr(schedule, "seed") else schedule


def train_dense(
    experiment: Experiment, seed: int, data: Pair, folder: Path
) -> tuple[keras.Model, float]:
    """The dense net of a seed, trained or read from `folder`, and the seconds it took."""
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(seed)
    model = _net(experiment, experiment.decay, experiment.dense.precision)
    saved = folder / "dense.weights.h5"
    if not saved.exists():
        seconds = _fit(model, experiment.dense, seed, data, folder / "dense")
        temporary = folder / "partial.weights.h5"
        model.save_weights(temporary)
        write_json(folder / "dense.json", {"seconds": seconds})
        os.replace(temporary, saved)
    plain = _net(experiment, experiment.decay, "float32")
    plain.load_weights(saved, skip_mismatch=False)
    return plain, json.loads((folder / "dense.json").read_text())["seconds"]


def _fit(
    model: keras.Model, how: Training, seed: int, data: Pair, folder: Path, *callbacks: Any
) -> float:
    """Train, with a backup after every thousand steps; returns seconds, over all its starts."""
    rate = _Rate(how)
    optimizer: Any = keras.optimizers.SGD(rate, momentum=how.momentum, nesterov=how.nesterov)
    if how.optimizer != "SGD":
        optimizer = getattr(keras.optimizers, how.optimizer)(rate)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    clock = _Clock(folder / "seconds.json")
    resume = keras.callbacks.BackupAndRestore(str(folder / "backup"))
    pruning = [tfprune.PruningCallback()] if tfprune.is_pruned(model) else []
    model.fit(
        batches(data, how, seed),
        epochs=-(-how.steps // EPOCH),
        steps_per_epoch=min(EPOCH, how.steps),
        callbacks=[resume, clock, *pruning, *callbacks],
        verbose=1 if sys.stderr.isatty() else 2,
    )
    return clock.seconds


def batches(data: Pair, how: Training, seed: int) -> tf.data.Dataset:
    """Endless shuffled batches of what is in memory, images moved and mirrored as `how` says."""
    if data[0].ndim == 2:
        return (
            tf.data.Dataset.from_tensor_slices(data).shuffle(2**16, seed).repeat().batch(how.batch)
        )
    border = ((0, 0), (how.shift, how.shift), (how.shift, how.shift), (0, 0))
    x, y = tf.constant(np.pad(data[0], border, mode=how.border)), tf.constant(data[1])
    (height, width), size = data[0].shape[1:3], how.batch

    def pick(chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        corners = tf.random.uniform((2, size, 1), maxval=2 * how.shift + 1, dtype=tf.int64)
        rows = corners[0] + tf.range(height, dtype=tf.int64)
        columns = corners[1] + tf.range(width, dtype=tf.int64)
        if how.mirror:
            mirrored = tf.random.uniform((size, 1)) < 0.5
            columns = tf.where(mirrored, columns[:, ::-1], columns)
        grid = (chosen[:, None, None], rows[:, :, None], columns[:, None, :])
        shape = (size, height, width)
        places = tf.stack([tf.broadcast_to(one, shape) for one in grid], axis=-1)
        return tf.gather_nd(x, places), tf.gather(y, chosen)

    order = tf.data.Dataset.range(len(data[0])).shuffle(len(data[0]), seed=seed).repeat()
    return order.batch(size).map(pick, num_parallel_calls=1).prefetch(4)


def error(model: keras.Model, data: Pair) -> float:
    """Percent of wrong answers; of a text, bits per character."""
    if data[1].ndim == 2:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        scores = model.predict(data[0], batch_size=500, verbose=0)
        return round(float(loss(data[1], scores)) / np.log(2), 4)
    answers = model.predict(data[0], batch_size=500, verbose=0).argmax(-1)
    return round(100 * float(np.mean(answers != data[1])), 3)


def write_json(path: Path, value: Any) -> None:
    """Write to a temporary name, then rename."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(value, indent=1))
    os.replace(temporary, path)


@keras.saving.register_keras_serializable(package="tfprune_benchmarks")
class _Rate(keras.optimizers.schedules.LearningRateSchedule):
    """A straight line up, a constant, and a cosine down to zero, as `Training` says."""

    def __init__(self, how: Training) -> None:
        self.how = how

    def __call__(self, step: Any) -> Any:
        """The rate at an optimizer step."""
        how, step = self.how, keras.ops.cast(step, "float32")
        rising = step / max(how.warmup, 1) if how.warmup else 1.0
        start = how.warmup + how.hold
        passed = keras.ops.clip((step - start) / max(how.steps - start, 1), 0.0, 1.0)
        return how.rate * keras.ops.minimum(rising, 1.0) * (1 + keras.ops.cos(np.pi * passed)) / 2

    def get_config(self) -> dict[str, Any]:
        """The settings."""
        return dataclasses.asdict(self.how)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _Rate:
        """The inverse of `get_config`."""
        return cls(Training(**config))


class _Watch(keras.callbacks.Callback):
    """Errors in percent after each of the last epochs, which nothing is chosen by."""

    def __init__(self, experiment: Experiment, data: Pair, path: Path) -> None:
        super().__init__()
        self.experiment, self.data, self.path = experiment, data, path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.errors = json.loads(path.read_text()) if path.exists() else []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Measure, where the net is an image classifier that learns at several epochs."""
        if self.data[1].ndim == 1 and epoch >= self.params["epochs"] - LAST:
            now = error(_in_float32(self.model, self.experiment), self.data)
            self.errors = [*self.errors, now][-LAST:]
            write_json(self.path, self.errors)


class _Clock(keras.callbacks.Callback):
    """Training seconds, summed over interrupted runs."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.seconds = json.loads(path.read_text()) if path.exists() else 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds += time.perf_counter() - self._began
        write_json(self.path, self.seconds)
