"""A method of six lines, which gets the whole contract suite by being registered."""

import dataclasses

from keras import ops

import tfprune


@tfprune.register
@dataclasses.dataclass(frozen=True)
class EveryOtherSquare(tfprune.Scored):
    """Squares, so that the smallest weights go; nothing else is said."""

    def score(self, latent, spec):
        return ops.square(latent)
