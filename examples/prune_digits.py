"""Prune a small convolutional net on handwritten digits and export it."""

import argparse

import keras

import tfprune
from tfprune.shell.data import load_data

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=600, help="training steps, before and after")
parser.add_argument("--out", default="digits.tflite")
options = parser.parse_args()

data = load_data("digits")
batch = 64
epochs = max(options.steps * batch // len(data.train[0]), 1)

model = keras.Sequential(
    [
        keras.Input(data.train[0].shape[1:]),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(*data.train, batch_size=batch, epochs=epochs, verbose=2)

# The copy is compiled like the original; `model` itself stays dense.
pruned = tfprune.prune(model, tfprune.NetworkSurgery(target_sparsity=0.9))
callback = tfprune.PruningCallback()
pruned.fit(*data.train, batch_size=batch, epochs=epochs, callbacks=[callback], verbose=2)

print(tfprune.report(pruned))
print("dense ", model.evaluate(*data.test, verbose=0)[1])
print("pruned", pruned.evaluate(*data.test, verbose=0)[1])
print(
    tfprune.export_tflite(
        pruned, options.out, verification=tfprune.export.Verification(samples=data.test[0])
    )
)
