"""A pruning method of your own: a score is enough."""

import argparse
import dataclasses

import keras
from keras import ops

import tfprune
from tfprune.shell.data import load_data


@tfprune.register
@dataclasses.dataclass(frozen=True)
class RelativeMagnitude(tfprune.Scored):
    """Keep the weights that are large beside the others that feed the same output."""

    def score(self, latent, spec):
        """|w| over the norm of its output's weights."""
        return ops.abs(latent) / (ops.norm(latent, axis=0, keepdims=True) + 1e-12)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
options = parser.parse_args()

x, y = load_data("digits").train
model = keras.Sequential(
    [
        keras.Input(x.shape[1:]),
        keras.layers.Flatten(),
        # One layer alone can be wrapped where it stands; the wrapper is made from the method.
        tfprune.layers.RelativeMagnitudePruned(
            keras.layers.Dense(64, activation="relu"),
            schedule=tfprune.PolynomialDecay(0.0, 0.8),
        ),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(
    x,
    y,
    batch_size=64,
    epochs=max(options.steps * 64 // len(x), 1),
    callbacks=[tfprune.PruningCallback()],
    verbose=2,
)
print(tfprune.report(tfprune.strip(model)))
