"""SynapticStrength from one update to the next: what comes back, and when the penalty ends."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune

L = keras.layers
to_numpy = keras.ops.convert_to_numpy
STEPS = tfprune.SynapticSchedule(begin_step=0, end_step=4, frequency=1, rounds=2)


def pruned_net(**settings) -> keras.Model:
    """One convolution of 4 x 6 connections, half of which go in two rounds, at steps 2 and 4."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 6, 4)), L.Conv2D(6, 3, name="a")])
    method = tfprune.SynapticStrength(0.5, keep_ends=False, **settings)
    return tfprune.prune(model, method, STEPS)


def mask_and_strength(model: keras.Model) -> tuple[np.ndarray, keras.Variable]:
    state = model.get_layer("a").prune_state
    (strength,) = [v for v in state.trainable_variables if v.name == "kernel_strength"]
    return to_numpy(state.masks["kernel"]).copy(), strength


@pytest.mark.parametrize("regrow", [False, True])
def test_connections_come_back_only_with_regrow(regrow: bool) -> None:
    model = pruned_net(regrow=regrow, lam=0.0)
    pruner = tfprune.Pruner(model, total_steps=5)
    while mask_and_strength(model)[0].all():
        pruner.update()
    mask, strength = mask_and_strength(model)
    assert (~mask).sum() == 6
    raised = np.where(mask, to_numpy(strength), 100.0)  # now the strongest of all
    strength.assign(raised)
    for _ in range(3):
        pruner.update()
    again, _ = mask_and_strength(model)
    assert (~again).sum() == 12
    assert again[~mask].all() if regrow else not again[~mask].any()


def test_the_penalty_ends_with_the_update_at_the_last_step() -> None:
    model = pruned_net(lam=0.1)
    optimizer = keras.optimizers.SGD(0.0)
    optimizer.build(model.trainable_variables)
    pruner = tfprune.Pruner(model, total_steps=5, optimizer=optimizer)
    strength = mask_and_strength(model)[1]
    whole = 0.1 * float(np.abs(to_numpy(strength)).sum())
    penalties = []
    for step in range(6):
        optimizer.iterations.assign(step)
        pruner.update()
        penalties.append(sum(float(loss) for loss in model.losses))
    assert penalties == pytest.approx([whole] * 4 + [0.0] * 2)


def test_a_schedule_says_whether_an_update_is_due() -> None:
    answers = [STEPS(step) for step in range(6)]
    assert [due for due, _ in answers] == [False, False, True, False, True, False]


def test_a_direction_of_zeros_has_finite_gradients() -> None:
    model = pruned_net(lam=0.0)
    direction = model.get_layer("a").trainable_variables[0]
    values = to_numpy(direction).copy()
    values[:, :, 1, 2] = 0
    direction.assign(values)
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x))
    assert np.isfinite(float(loss))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    assert all(np.isfinite(gradient).all() for gradient in gradients)
