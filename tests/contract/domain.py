"""A method that uses what the built-in ones leave at rest: a domain, a second latent, a penalty."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from keras import ops

import tfprune
from tfprune.maths.domains import Domain


class Signed(Domain):
    """w = strength * direction, element by element."""

    masked: ClassVar[str] = "strength"

    def encode(self, weight, spec):
        """direction = sign(w) * 2, strength = |w| / 2."""
        return {"direction": ops.where(weight < 0, -2.0, 2.0), "strength": ops.abs(weight) / 2}

    def decode(self, latents, spec):
        """strength * direction."""
        return latents["strength"] * latents["direction"]


@tfprune.register
@dataclasses.dataclass(frozen=True)
class SignedStrength(tfprune.Scored):
    """The strengths are masked and penalised."""

    @property
    def domain(self):
        """Strengths and directions."""
        return Signed()

    def penalty(self, latents, spec, progress):
        """L1, until the last update."""
        return ops.where(progress < 1, 1e-3 * ops.sum(ops.abs(latents["strength"])), 0.0)

    def score(self, latent, spec):
        """|strength|."""
        return ops.abs(latent)
