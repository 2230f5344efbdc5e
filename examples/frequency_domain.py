"""Prune DCT coefficients: high frequencies harder, in blocks, or until a net is 3 times faster."""

import argparse

import keras

import tfprune
from tfprune.shell.data import load_data

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=600)
options = parser.parse_args()

data = load_data("digits")
keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input(data.train[0].shape[1:]),
        keras.layers.Conv2D(32, 3, activation="relu", name="conv1"),
        keras.layers.Conv2D(64, 3, activation="relu", name="conv2"),
        keras.layers.Flatten(),
        keras.layers.Dense(100, activation="relu", name="fc1"),  # sees a 4x4 map: 4x4 DCT
        keras.layers.Dense(10, name="fc2"),
    ]
)
batch = 64
epochs = max(options.steps * batch // len(data.train[0]), 1)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
model.fit(*data.train, batch, epochs, verbose=0)

for name, method in {
    "every layer to 90 %": tfprune.FrequencyDomain(
        target_sparsity=0.9, band=tfprune.bands.Beta(1.5)
    ),
    "whole net to a tenth, in blocks of 4 output channels": tfprune.FrequencyDomain(
        target_compression=10.0, granularity="block4"
    ),
    "whole net to a third of its multiply-adds": tfprune.FrequencyDomain(target_speedup=3.0),
}.items():
    pruned = tfprune.prune(model, method)
    pruned.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss, metrics=["accuracy"])
    pruned.fit(*data.train, batch, epochs, verbose=0, callbacks=[tfprune.PruningCallback()])
    accuracy = pruned.evaluate(*data.test, verbose=0)[1]
    print(f"\n{name}: accuracy on the test split {accuracy:.3f}\n{tfprune.report(pruned)}")
