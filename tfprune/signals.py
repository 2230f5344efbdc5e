"""What a method may ask its host to measure in each training step, beside the gradient.

A method names what it needs in `Method.signals`; a host that cannot serve it refuses the method.
"""

from __future__ import annotations

import dataclasses

from tfprune.maths.checks import check_flag, check_step

KINDS = ("unspecific", "specific")


@dataclasses.dataclass(frozen=True)
class OutputSensitivity:
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
