"""What a method is told of a weight and of a layer: names, shapes, axes, tensors."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

Tensor = Any
UNSET = -1.0  # what an item of a state holds until it is first set


@dataclasses.dataclass(frozen=True)
class WeightSpec:
    """What a method may know of a weight: its name, shape, axes, and where it stands.

    `axes` names the dimensions in the words `kd kh kw cin cout multiplier vocabulary`; it is empty
    where they have no fixed meaning (a bias, an `EinsumDense` kernel, a user's own variable).

    Attributes:
        name: attribute of the layer: "kernel", "bias", ...
        shape, axes: of the weight as the layer holds it.
        is_bias: whether it is a bias.
        map_shape, map_axes: of the feature map (without batch) that a flatten in front of a dense
            layer turned into its `cin`, such as (4, 4, 50), ("kh", "kw", "cin"); else ().
        strides, groups: of a convolution; else (), 1.
        uses: how often one inference on one example multiplies each weight; None where not known.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...] = ()
    is_bias: bool = False
    map_shape: tuple[int, ...] = ()
    map_axes: tuple[str, ...] = ()
    strides: tuple[int, ...] = ()
    groups: int = 1
    uses: float | None = None

    @property
    def unrolled(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Shape and axes with the flatten in front undone; the weight's own where there is none."""
        if not self.map_shape:
            return self.shape, self.axes
        return (*self.map_shape, *self.shape[1:]), (*self.map_axes, *self.axes[1:])

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class LayerTensors:
    """One layer as a method sees it at a mask update; every dict has one item per pruned weight.

    Attributes:
        name: path of the layer in its model.
        specs: what is known of each weight.
        masked: the tensors that the masks multiply (the weight itself, its DCT coefficients, its
            strengths).
        masks: boolean tensors of their shapes.
        state: the method's own extra state.
        progress: scalar, 0 at the schedule's first step and 1 at its last.
        latents: all latent tensors of each weight, by the names that its domain gives them.
        inputs: calibration inputs of the layer [n, ...], where the method needs `Samples`.
    """

    name: str
    specs: dict[str, WeightSpec]
    masked: dict[str, Tensor]
    masks: dict[str, Tensor]
    state: dict[str, Tensor]
    progress: Tensor = 1.0
    latents: dict[str, dict[str, Tensor]] = dataclasses.field(default_factory=dict)
    inputs: Tensor | None = None

    @property
    def unchanged(self) -> Update:
        """The masks and the state as they are."""
        return dict(self.masks), dict(self.state)


Update = tuple[dict[str, Tensor], dict[str, Tensor]]  # new masks and new state of a layer
