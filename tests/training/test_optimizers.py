"""The optimizer is the user's choice: the masks follow the schedule under each."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from toys import TARGET, build, data, fit, follows_the_schedule, masks_of, trained_well

import tfprune


@pytest.mark.parametrize("optimizer", ["adam", "lion", "muon"])
def test_every_optimizer(optimizer):
    if not hasattr(keras.optimizers, optimizer.capitalize()):
        pytest.skip(f"no {optimizer} in Keras {keras.__version__}")
    history, sparsity = fit(build(optimizer=optimizer))
    follows_the_schedule(sparsity, range(20))
    assert np.isfinite(history["loss"]).all()


def test_weight_averaging_leaves_the_masks_in_force():
    optimizer = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5)
    model = build(optimizer=optimizer)
    history, _ = fit(model)
    trained_well(model, history)
    assert 1 - masks_of(model)["one"].mean() == pytest.approx(TARGET)


def test_two_models_in_turns():
    """State is the model's, not the process's."""
    one, two = build(), build()
    x, y = data()
    for model, _ in itertools.product((one, two), range(2)):
        model.fit(x, y, 8, 1, verbose=0, shuffle=False, callbacks=[tfprune.PruningCallback()])
    for path, mask in masks_of(one).items():
        np.testing.assert_array_equal(mask, masks_of(two)[path])
