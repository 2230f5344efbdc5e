"""Prune in a training loop of your own, with different methods for different layers."""

import argparse

import keras
import numpy as np
import tensorflow as tf

import tfprune
from tfprune.shell.data import load_data

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
options = parser.parse_args()

x, y = load_data("digits").train
model = keras.Sequential(
    [
        keras.Input(x.shape[1:]),
        keras.layers.Conv2D(16, 3, activation="relu", name="conv"),
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu", name="hidden"),
        keras.layers.Dense(10, name="logits"),
    ]
)
pruned = tfprune.prune(
    model,
    {
        "conv": tfprune.Magnitude(target_sparsity=0.5),
        "hidden": tfprune.NetworkSurgery(target_sparsity=0.95),
        "logits": None,
    },
)
optimizer = keras.optimizers.Adam()
optimizer.build(pruned.trainable_variables)
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@tf.function
def step(images, labels):
    """One gradient step."""
    with tf.GradientTape() as tape:
        loss = loss_of(labels, pruned(images, training=True))
    gradients = tape.gradient(loss, pruned.trainable_variables)
    optimizer.apply(gradients, pruned.trainable_variables)
    return loss


pruner = tfprune.Pruner(pruned, total_steps=options.steps, optimizer=optimizer)
rng = np.random.default_rng(0)
for number in range(options.steps):
    pruner.update()  # before the optimizer's step
    chosen = rng.integers(0, len(x), 64)
    loss = step(x[chosen], y[chosen])
    if number % 100 == 0:
        print(f"step {number}: loss {float(loss):.3f}, sparsity {pruner.sparsities()['']:.3f}")
pruner.finish()
print(tfprune.report(pruned))
