"""Training that is killed and started again ends as the unbroken training does, bit for bit."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path

import keras
import numpy as np
import processes
import pytest

import tfprune
from tfprune.pruned.layers import pruned_layers

EPOCHS, BATCHES, KILLED_AT = 4, 10, 17
# case: made by prune() or of wrappers, save_freq of the backup, backup before PruningCallback
CASES = {
    "pruned-epoch-before": (False, "epoch", True),
    "pruned-batches-after": (False, 3, False),
    "wrapped-batches-before": (True, 3, True),
    "wrapped-epoch-after": (True, "epoch", False),
}
SCHEDULE = tfprune.SurgerySchedule(gamma=0.05, seed=3)  # open steps: the plan must survive too
METHOD = tfprune.NetworkSurgery(c={"one": 0.2, "two": -0.3})


def build(wrapped=False, schedule=SCHEDULE, method=METHOD):
    keras.utils.set_random_seed(7)
    layers = [
        keras.layers.Dense(12, activation="tanh", name="one"),
        keras.layers.Dense(3, name="two"),
    ]
    if wrapped:
        wrap = tfprune.layers.NetworkSurgeryPruned
        layers = [wrap(layer, method, schedule, name=layer.name + "_w") for layer in layers]
    model = keras.Sequential([keras.layers.Input((6,)), *layers])
    model = model if wrapped else tfprune.prune(model, method, schedule)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


def data(save_freq):
    """Batches that differ; but all alike where Keras starts an epoch again in its middle."""
    rng = np.random.default_rng(1)
    rows = 8 if save_freq != "epoch" else 8 * BATCHES
    x, y = rng.normal(size=(rows, 6)), rng.normal(size=(rows, 3))
    repeats = 8 * BATCHES // rows
    return np.tile(x, (repeats, 1)).astype("float32"), np.tile(y, (repeats, 1)).astype("float32")


class Watch(keras.callbacks.Callback):
    """Everything there is to know of each step, by the optimizer's iterations."""

    def on_train_begin(self, logs=None):
        self.rows = {}

    def on_train_batch_begin(self, batch, logs=None):
        row = {}
        for path, layer in pruned_layers(self.model):
            state = layer.prune_state
            tensors = {f"{name}_mask": mask for name, mask in state.masks.items()}
            tensors |= state.scalars
            for name in state.specs:
                tensors[f"{name}_latent"] = state.latents(name)["latent"]
            tensors |= {k: v for k, v in state.counters.items() if k != "last_step"}
            for name, tensor in tensors.items():
                row[f"{path} {name}"] = np.array(keras.ops.convert_to_numpy(tensor))
        self.rows[int(self.model.optimizer.iterations)] = row


class KillItself(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder, case, *more):
    wrapped, save_freq, before = CASES[case]
    backup = keras.callbacks.BackupAndRestore(folder, save_freq=save_freq)
    both = [backup, tfprune.PruningCallback()]
    watch, (x, y) = Watch(), data(save_freq)
    build(wrapped).fit(
        x, y, 8, EPOCHS, verbose=0, shuffle=False,
        callbacks=[*(both if before else both[::-1]), watch, *more],
    )  # fmt: skip
    return watch.rows


def same(row, other):
    assert row.keys() == other.keys()
    for key, value in row.items():
        np.testing.assert_array_equal(value, other[key], err_msg=key)


KILLED = """
import sys
from pruned.test_resume import KillItself, train
train(sys.argv[1], sys.argv[2], KillItself())
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folders = {case: tmp_path_factory.mktemp(case) for case in CASES}
    for case, folder in folders.items():
        done = processes.run(KILLED, folder, case)
        assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    return folders


@pytest.mark.parametrize("case", CASES)
def test_a_killed_training_goes_on_where_it_was(killed, case, tmp_path):
    assert any(Path(killed[case]).iterdir())
    resumed, unbroken = train(killed[case], case), train(tmp_path / "none", case)
    assert min(unbroken) == 0 and 10 <= min(resumed) <= KILLED_AT
    common = sorted(resumed.keys() & unbroken.keys())
    assert len(common) == EPOCHS * BATCHES - min(resumed)
    for step in common:
        same(resumed[step], unbroken[step])
    masks = [unbroken[step][key] for step in (0, 39) for key in unbroken[0] if "mask" in key]
    assert not all(mask.all() for mask in masks)


def fit(model, callbacks=(), epochs=EPOCHS, **settings):
    x, y = data("epoch")
    watch = Watch()
    callbacks = [*callbacks, tfprune.PruningCallback(), watch]
    model.fit(x, y, 8, epochs, verbose=0, shuffle=False, callbacks=callbacks, **settings)
    return watch.rows


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoints = [
        keras.callbacks.ModelCheckpoint(str(folder / "{epoch}.keras")),
        keras.callbacks.ModelCheckpoint(str(folder / "{epoch}.weights.h5"), save_weights_only=True),
    ]
    return folder, fit(build(), checkpoints)


@pytest.mark.parametrize("load", [tfprune.load_model, keras.models.load_model])
def test_a_checkpoint_with_its_optimizer_goes_on_bit_for_bit(unbroken, load):
    folder, rows = unbroken
    again = fit(load(folder / "2.keras"), initial_epoch=2)
    assert sorted(again) == list(range(20, 40))
    for step, row in again.items():
        same(row, rows[step])


def test_weights_alone_go_on_where_the_schedule_was(unbroken):
    """A new optimizer has no momentum, but step 20 stays step 20: same plan, masks, thresholds."""
    folder, rows = unbroken
    model = build()
    model.load_weights(folder / "2.weights.h5")
    again = fit(model, initial_epoch=2)
    same(without_counters(again[min(again)]), without_counters(rows[20]))
    for _, layer in pruned_layers(model):
        state = layer.prune_state
        assert (state.count("begin_step"), state.count("end_step")) == (0, 27)
        assert state.count("last_step") == 39


def without_counters(row):
    return {key: value for key, value in row.items() if not key.endswith("offset")}


def test_a_mid_epoch_save_goes_on():
    """Between two mask updates nothing but the optimizer says which step it is."""
    schedule = tfprune.ConstantSparsity(0.5, 5, 35, 10)
    method = tfprune.Magnitude()
    whole = fit(build(schedule=schedule, method=method), steps_per_epoch=10)

    class Save(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 13:
                self.model.save("half.keras")
                self.model.stop_training = True

    fit(build(schedule=schedule, method=method), [Save()])
    model = tfprune.load_model("half.keras")
    again = fit(model, epochs=3)
    assert min(again) == 13
    for step in (15, 16, 25, 35):
        mask = [again[step][key].mean() for key in again[step] if key.endswith("kernel_mask")]
        assert mask == [whole[step][k].mean() for k in whole[step] if k.endswith("kernel_mask")]
    first = next(step for step in again if not same_masks(again[step], again[13]))
    assert first == 15


def same_masks(row, other):
    return all((row[key] == other[key]).all() for key in row if key.endswith("mask"))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("fits", [2, 4])
def test_several_fits_in_a_row_go_on(fits):
    schedule = tfprune.PolynomialDecay(0.0, 0.8, 0, 35, frequency=1)
    model = build(schedule=schedule, method=tfprune.Magnitude())
    whole = fit(build(schedule=schedule, method=tfprune.Magnitude()))
    rows = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "Target missed" until the last of the fits
        for _ in range(fits):
            rows |= fit(model, epochs=EPOCHS // fits)
    for step in range(40):
        same(rows[step], whole[step])


def sparsity_by_step(model, total):
    """Fit and return the kernels' sparsity at each of the steps."""
    rows = fit(model, epochs=total // BATCHES)
    return [1 - row["one kernel_mask"].mean() for row in rows.values()]


def test_a_new_optimizer_goes_on():
    schedule = tfprune.PolynomialDecay(0.0, 0.8, 0, 35, frequency=1)
    whole = sparsity_by_step(build(schedule=schedule, method=tfprune.Magnitude()), 40)
    model = build(schedule=schedule, method=tfprune.Magnitude())
    parts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(4):
            model.compile("adam", "mse")
            parts += sparsity_by_step(model, 10)
    assert parts == whole


def test_an_optimizer_that_has_trained_before_counts_from_where_pruning_began():
    keras.utils.set_random_seed(1)
    dense = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(12, name="one")])
    dense.add(keras.layers.Dense(3, name="two"))
    dense.compile("sgd", "mse")
    x, y = data("epoch")
    dense.fit(x, y, 8, 3, verbose=0)
    schedule = tfprune.ConstantSparsity(0.5, 2, 12, 5)
    model = tfprune.prune(dense, tfprune.Magnitude(), schedule, in_place=True)
    rows = list(fit(model, epochs=2).items())
    assert rows[0][0] == 30
    changed = [n for n, (_, row) in enumerate(rows) if not same_masks(row, rows[0][1])]
    assert changed[0] == 2
