"""Methods of a user's own: what `prune` checks of them."""

from __future__ import annotations

import dataclasses

import keras
import pytest

import tfprune
from tfprune.maths.domains import Domain


class TransposedWeights(Domain):
    """The transposed weight, which doesn't fit the layer's own variable."""

    def encode(self, weight, spec):
        return {"latent": keras.ops.transpose(weight)}

    def decode(self, latents, spec):
        return keras.ops.transpose(latents["latent"])


@dataclasses.dataclass(frozen=True)
class Transposed(tfprune.Scored):
    """Keeps the largest of the transposed weight."""

    domain = TransposedWeights()

    def score(self, latent, spec):
        return keras.ops.abs(latent)


def test_the_first_latent_tensor_must_fit_the_layers_own_variable():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, name="a")])
    with pytest.raises(
        ValueError, match=r"domain of Transposed must .*\(5, 3\)\. Received: \(3, 5\)"
    ):
        tfprune.prune(model, Transposed())
    square = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="a")])
    assert tfprune.is_pruned(tfprune.prune(square, Transposed()))
