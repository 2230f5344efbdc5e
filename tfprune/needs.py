"""What a method may ask its host to provide: its `needs`, values that a host serves or refuses.

| need | what the host does | where the method gets it |
|---|---|---|
| OutputSensitivity | measures S in training steps | `after_step(..., signal, ...)` |
| LossGradient | hands on the gradient of the step | `after_step`, `observe` |
| ValidationLoss | evaluates the model after each epoch | `update_on_validation` |
| KernelUses | counts how often each weight is multiplied | `WeightSpec.uses` |
| FoldedScales | moves scales of normalizations into the kernels behind them | the weights |
| Samples | runs the model on calibration data before a mask update | `LayerTensors.inputs` |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TypeVar

from tfprune.maths.checks import check_flag, check_step

KINDS = ("unspecific", "specific")


@dataclasses.dataclass(frozen=True)
class Need:
    """Base class."""


N = TypeVar("N", bound=Need)


@dataclasses.dataclass(frozen=True)
class OutputSensitivity(Need):
    """How much the outputs y of a net move with each weight, on the batch at hand.

        S = sum_k alpha_k |d y_k / d w|,   y_k the mean of output k over the batch

    with alpha_k = 1 / C over all C outputs (unspecific), or 1 for the target class of each example
    (specific): then S = |d mean_n(y_n at its target) / d w|; a single output is that of every
    example. Where the net ends in a softmax, y are its inputs, the logits. Outputs with further
    axes (sequences) are averaged over these too.

    Args:
        kind: "unspecific" or "specific".
        classes: unspecific: of how many outputs, drawn anew at each step, S is estimated; None: of
            all, with one backward pass each. The mean over draws is S itself.
        every: measured at every n-th step only.
        per_sample: absolute values before the mean over the batch, not after it. Exact, and as
            cheap, for dense layers; other layers need a backward pass per example.

    Reference: Tartaglione et al., NeurIPS 2018, eq. 4 to 6.
    """

    kind: str = "unspecific"
    classes: int | None = 1
    every: int = 1
    per_sample: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"`kind` must be one of {', '.join(KINDS)}. Received: {self.kind!r}.")
        if self.classes is not None:
            check_step("classes", self.classes, 1)
        check_step("every", self.every, 1)
        check_flag("per_sample", self.per_sample)


@dataclasses.dataclass(frozen=True)
class LossGradient(Need):
    """The gradient dL/d latent of each masked tensor, in the step that the optimizer takes anyway.

    It is the dense gradient, of pruned elements too, as the optimizer gets it: of the mean loss
    over the batch with all penalties, before clipping. It costs no further backward pass.
    """


@dataclasses.dataclass(frozen=True)
class ValidationLoss(Need):
    """The loss on data held out from training, after each epoch, also with other masks."""


@dataclasses.dataclass(frozen=True)
class KernelUses(Need):
    """How often one inference multiplies each weight; unknown kinds of layers are refused."""


@dataclasses.dataclass(frozen=True)
class FoldedScales(Need):
    """Scales of batch normalizations moved into the kernels behind them, where that is exact."""


@dataclasses.dataclass(frozen=True)
class Samples(Need):
    """The inputs of each pruned layer on calibration data, taken before each mask update.

    Args:
        count: samples of the calibration data that the model is run on, >= 1.
    """

    count: int = 128

    def __post_init__(self) -> None:
        check_step("count", self.count, 1)


def need_of(needs: Iterable[Need], kind: type[N]) -> N | None:
    """The need of a kind among those of a method, None if there is none."""
    return next((need for need in needs if isinstance(need, kind)), None)
