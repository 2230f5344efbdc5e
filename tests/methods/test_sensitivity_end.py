"""SensitivityDriven: the correction of weights ends with its schedule, whenever that is."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

import tfprune

L = keras.layers


@pytest.mark.parametrize("end", [0, 1, 2])
def test_weights_are_corrected_up_to_the_last_step(end: int) -> None:
    model = keras.Sequential(
        [keras.Input((5,)), L.Dense(6, activation="relu", name="a"), L.Dense(3, name="b")]
    )
    schedule = tfprune.SensitivitySchedule(begin_step=0, end_step=end, frequency=1)
    pruned = tfprune.prune(model, tfprune.SensitivityDriven(lam=0.1), schedule)
    pruned.compile(keras.optimizers.SGD(0.0), "mse")  # which leaves weights alone
    latent = pruned.get_layer("a").trainable_variables[0]
    kernels = [np.array(latent)]
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: kernels.append(np.array(latent))
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5)), rng.normal(size=(20, 3))
    pruned.fit(x, y, 4, verbose=0, callbacks=[tfprune.PruningCallback(), watch])
    changed = [not np.array_equal(a, b) for a, b in itertools.pairwise(kernels)]
    last = max(end, 1)  # the progress of a schedule of one step is 1 in the step behind it
    assert changed == [step <= last for step in range(5)]
