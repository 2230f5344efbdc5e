"""Methods that use, one each, what the built-in ones leave at rest; for these tests alone."""

from __future__ import annotations

import dataclasses

import numpy as np
from keras import ops

import tfprune
from tfprune.maths.domains import Domain
from tfprune.maths.masks import keep_largest
from tfprune.maths.updates import layer_by_layer
from tfprune.needs import LossGradient, Samples


@tfprune.register
@dataclasses.dataclass(frozen=True)
class FirstOrderTaylor(tfprune.Scored):
    """|w g|, g a running mean of the gradient of the steps that are taken anyway."""

    decay: float = 0.5

    @property
    def needs(self):
        """The gradient."""
        return (LossGradient(),)

    def state(self, specs):
        """The running mean of each weight's gradient."""
        return {f"{n}_gradient": np.zeros(s.shape, "float32") for n, s in specs.items()}

    def observe(self, state, latent, signal, spec):
        """m <- decay * m + (1 - decay) * g."""
        key = f"{spec.name}_gradient"
        return {key: self.decay * state[key] + (1 - self.decay) * signal}

    def scores(self, layer):
        """|w m|."""
        means = {name: layer.state[f"{name}_gradient"] for name in layer.specs}
        return {n: ops.abs(ops.cast(w, "float32") * means[n]) for n, w in layer.masked.items()}


@tfprune.register
@dataclasses.dataclass(frozen=True)
class SignDescent(tfprune.Scored):
    """Magnitude; after each step weights also move against the sign of their gradient."""

    rate: float = 1e-3

    @property
    def needs(self):
        """The gradient."""
        return (LossGradient(),)

    def after_step(self, latent, mask, signal, progress, spec):
        """w - rate * sign(g)."""
        return latent - ops.cast(self.rate * ops.sign(signal), latent.dtype)

    def score(self, latent, spec):
        """|w|."""
        return ops.abs(latent)


@tfprune.register
@dataclasses.dataclass(frozen=True)
class TargetedDropout(tfprune.Scored):
    """Magnitude; in training half of the weights are left out of each batch."""

    rate: float = 0.5

    def sample(self, latents, spec, uniform):
        """w where u >= rate."""
        weight = latents["latent"]
        return ops.where(uniform >= self.rate, weight, ops.zeros_like(weight))

    def score(self, latent, spec):
        """|w|."""
        return ops.abs(latent)


class Gaussian(Domain):
    """A mean and the logarithm of a variance."""

    masked = "mean"

    def encode(self, weight, spec):
        """mean = w, log_variance = -4."""
        return {"mean": weight, "log_variance": ops.full_like(weight, -4.0)}

    def decode(self, latents, spec):
        """mean + 0 * log_variance, so that both have a gradient."""
        return latents["mean"]


@tfprune.register
@dataclasses.dataclass(frozen=True)
class SignalToNoise(tfprune.Scored):
    """mean^2 / variance, with outputs that are drawn in training and a penalty on certainty."""

    @property
    def domain(self):
        """Means and variances."""
        return Gaussian()

    def variance(self, latents, spec):
        """exp(log_variance) where the mean is kept."""
        variance = ops.exp(latents["log_variance"])
        return ops.where(latents["mean"] == 0, ops.zeros_like(variance), variance)

    def penalty(self, latents, spec, progress):
        """progress * 1e-3 * sum of (log_variance + 4)^2: two latents, and a warm-up."""
        deviation = ops.cast(latents["log_variance"] + 4, "float32")
        return ops.cast(progress, "float32") * 1e-3 * ops.sum(ops.square(deviation))

    def scores(self, layer):
        """mean^2 / variance."""
        pairs = {name: layer.latents[name] for name in layer.specs}
        return {
            name: ops.cast(ops.square(pair["mean"]) / ops.exp(pair["log_variance"]), "float32")
            for name, pair in pairs.items()
        }


@tfprune.register
@dataclasses.dataclass(frozen=True)
class InputScaled(tfprune.Method):
    """|w| times the root mean square of the layer's inputs."""

    target_sparsity: float | None = None

    @property
    def needs(self):
        """Inputs of each layer."""
        return (Samples(8),)

    def update(self, layers, sparsities, due):
        """The largest products of each layer."""
        return layer_by_layer(layers, sparsities, due, self._keep)

    def _keep(self, layer, sparsity):
        scale = ops.sqrt(ops.mean(ops.square(ops.cast(layer.inputs, "float32"))) + 1e-6)
        kept = {n: keep_largest(ops.abs(w) * scale, sparsity) for n, w in layer.masked.items()}
        return kept, layer.state
