"""A method that uses what the built-in ones leave at rest: a domain, a second latent, a penalty."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from keras import ops

import tfprune


@tfprune.register
@dataclasses.dataclass(frozen=True)
class SignedStrength(tfprune.Method):
    """w = strength * direction, entry by entry; the strengths are masked and penalised."""

    masked: ClassVar[str] = "strength"

    def encode(self, weight, spec):
        """direction = sign(w) * 2, strength = |w| / 2."""
        return {"direction": ops.where(weight < 0, -2.0, 2.0), "strength": ops.abs(weight) / 2}

    def decode(self, latents, spec):
        """strength * direction."""
        return latents["strength"] * latents["direction"]

    def penalty(self, latent, spec):
        """L1."""
        return 1e-3 * ops.sum(ops.abs(latent))

    def score(self, latent, spec):
        """|strength|."""
        return ops.abs(latent)
