"""What single methods have beside `Method`: small protocols, which hosts look for.

A method that defines the function of a protocol has what it says; nothing else is to be declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from tfprune.maths.groups import Groups
from tfprune.maths.spec import LayerTensors, Update, WeightSpec

Tensor = Any


@runtime_checkable
class MasksBiases(Protocol):
    """Biases get a mask too where the flag says so."""

    prune_biases: bool


@runtime_checkable
class LeavesOut(Protocol):
    """Some layers are left out where there are no `filters`."""

    def leave_out(self, paths: Sequence[str]) -> set[str]:
        """The paths to leave out, of those of all layers that could be pruned."""


@runtime_checkable
class ChecksLayers(Protocol):
    """Settings must fit the layers."""

    def check_layers(self, paths: Sequence[str]) -> None:
        """Raise ValueError if a setting does not fit the layers to prune."""


@runtime_checkable
class Grouped(Protocol):
    """Weights are pruned in groups."""

    def groups(self, spec: WeightSpec) -> Groups:
        """The groups of a weight."""


@runtime_checkable
class Penalized(Protocol):
    """A penalty is added to the training loss."""

    def penalty(self, latents: Mapping[str, Tensor], spec: WeightSpec, progress: Tensor) -> Tensor:
        """A scalar.

        Args:
            latents: all latent tensors of a weight, without the mask.
            spec: of the weight.
            progress: scalar in [0, 1], that of the schedule at the newest step; 1 once it is over.
        """


@runtime_checkable
class Sampled(Protocol):
    """The effective weight is drawn in training, anew for each batch."""

    def sample(self, latents: Mapping[str, Tensor], spec: WeightSpec, uniform: Tensor) -> Tensor:
        """The weight for one batch, in place of `domain.decode`.

        Args:
            latents: masked latent tensors.
            spec: of the weight.
            uniform: draws in (0, 1), of the shape of the masked tensor.
        """


@runtime_checkable
class Uncertain(Protocol):
    """Each weight has a variance; in training outputs are drawn (local reparameterisation)."""

    def variance(self, latents: Mapping[str, Tensor], spec: WeightSpec) -> Tensor | None:
        """The variance of the effective weight, not negative, of its shape; None: there is none.

        Dense, convolution and depthwise layers without groups compute
        `layer(x; w) + sqrt(layer(x^2; variance)) * N(0, 1)` before their activation; elsewhere the
        weight itself is drawn, `w + sqrt(variance) * N(0, 1)`.
        """


@runtime_checkable
class StepCorrected(Protocol):
    """The latent weight is changed after the optimizer's own step, by what was measured in it."""

    def after_step(
        self, latent: Tensor, mask: Tensor, signal: Tensor, progress: Tensor, spec: WeightSpec
    ) -> Tensor:
        """The masked latent tensor after the step.

        Args:
            latent: as the optimizer left it.
            mask: boolean, of its shape.
            signal: S or dL/d latent, as `needs` asks for, of its shape.
            progress: scalar, 0 at the schedule's first step, 1 at its last, and outside [0, 1]
                before and after.
            spec: of the weight.
        """


@runtime_checkable
class Observing(Protocol):
    """The layer's state takes up what was measured in each training step."""

    def observe(
        self, state: Mapping[str, Tensor], latent: Tensor, signal: Tensor, spec: WeightSpec
    ) -> dict[str, Tensor]:
        """New values of items of the layer's state, such as a running mean of a gradient.

        Args:
            state: the layer's state, as `Method.state` began it.
            latent, signal, spec: as in `StepCorrected.after_step`.
        """


@runtime_checkable
class Validated(Protocol):
    """Masks are chosen by the validation loss, after each epoch."""

    def update_on_validation(
        self, layers: Sequence[LayerTensors], loss_of: Callable[[list[dict[str, Any]]], float]
    ) -> list[Update]:
        """New masks and states.

        Args:
            layers: all layers that share this method.
            loss_of: the validation loss with other masks, given as one dict per layer.
        """
