"""The numbers of a net, plain or pruned: parameters, non-zeros, multiply-adds, and three ratios.

Papers count compression in three ways and seldom say in which. All three are kept apart here:

- `compression`: all trainable weights and biases of the net, over those of them that are not zero.
  Scale and offset of normalisation layers are among them; running statistics, masks and whatever
  else pruning keeps beside the weights are not. A frozen layer counts like any other.
- `compression_weights`: the same ratio over the prunable kernels only.
- `compression_with_indices`: bytes of all weights and biases as dense float32, over their bytes
  when each tensor is stored in the cheaper of two forms, dense float32 or compressed rows (CSR).
  A tensor of n elements, z of them not zero, and last axis L has n / L rows and takes in CSR

      z * (4 + c) + (n / L + 1) * r  bytes,

  with column indices of c = 1, 2 or 4 bytes for L up to 2**8, up to 2**16, or above (uint8, uint16,
  int32), and row pointers of r = 2 bytes for z < 2**16, else 4 (uint16, int32).

Weights are counted in the domain in which they are pruned (DCT coefficients, for one), as a file
would hold them.

`theoretical_speedup` is multiply-adds of the dense net (see `tfprune.graph.macs`) over those that
are left: of weights that are not zero, and of the transform of a layer's inputs to the pruned
domain, but never more than the dense layer's, which can always replace the sparse one. No
hardware delivers it as it stands.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class LayerMeasure:
    """The numbers of one layer.

    Attributes:
        name: path of the layer in the model, joined with "/".
        kind: class name of the layer.
        shape: shape of its main kernel; a list of shapes where it has several.
        parameters: trainable weights and biases of the layer.
        nonzero: those that are not zero.
        macs: multiply-adds of one inference on one example, all calls of the layer together; None
            where they can't be told.
        macs_kept: multiply-adds left when those with a zero weight are skipped, with
            `transform_macs`; `macs` where that is less.
        transform_macs: multiply-adds that transform the inputs to the pruned domain.
        kernel_parameters, kernel_nonzero: the same counts over the prunable kernels only.
        dense_bytes, stored_bytes: the layer as dense float32, and with indices (see the module).
    """

    name: str
    kind: str
    shape: list[int] | list[list[int]]
    parameters: int
    nonzero: int
    macs: int | None
    macs_kept: int | None
    transform_macs: int | None
    kernel_parameters: int
    kernel_nonzero: int
    dense_bytes: int
    stored_bytes: int

    @property
    def density(self) -> float | None:
        """Fraction of the parameters that is not zero."""
        return ratio(self.nonzero, self.parameters)

    def to_dict(self) -> dict[str, Any]:
        """All numbers, JSON-able."""
        return {**dataclasses.asdict(self), "density": self.density}


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The numbers of a net: `layers`, totals over them, and `notes` on what could not be counted.

    A ratio is None where it would be infinite (nothing is left) or is undefined (nothing to count).
    """

    layers: tuple[LayerMeasure, ...]
    notes: tuple[str, ...] = ()

    def _sum(self, name: str) -> int:
        return sum(getattr(layer, name) or 0 for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Trainable weights and biases of the net."""
        return self._sum("parameters")

    @property
    def nonzero(self) -> int:
        """Trainable weights and biases that are not zero."""
        return self._sum("nonzero")

    @property
    def density(self) -> float | None:
        """nonzero / parameters."""
        return ratio(self.nonzero, self.parameters)

    @property
    def macs(self) -> int | None:
        """Multiply-adds of one inference, over the layers where they can be counted."""
        return self._sum("macs") if self._counted else None

    @property
    def macs_kept(self) -> int | None:
        """Multiply-adds of one inference that are left."""
        return self._sum("macs_kept") if self._counted else None

    @property
    def transform_macs(self) -> int | None:
        """Multiply-adds that transform inputs to the pruned domain, part of `macs_kept`."""
        return self._sum("transform_macs") if self._counted else None

    @property
    def _counted(self) -> bool:
        return any(layer.macs is not None for layer in self.layers)

    @property
    def compression(self) -> float | None:
        """All weights and biases / those that are not zero."""
        return ratio(self.parameters, self.nonzero)

    @property
    def compression_weights(self) -> float | None:
        """Weights of the prunable kernels / those that are not zero."""
        return ratio(self._sum("kernel_parameters"), self._sum("kernel_nonzero"))

    @property
    def compression_with_indices(self) -> float | None:
        """Bytes as dense float32 / bytes with each tensor dense or CSR, whichever is smaller."""
        return ratio(self._sum("dense_bytes"), self._sum("stored_bytes"))

    @property
    def theoretical_speedup(self) -> float | None:
        """Multiply-adds / multiply-adds that are left."""
        return ratio(self.macs or 0, self.macs_kept or 0)

    def to_dict(self) -> dict[str, Any]:
        """Layers, totals and ratios, JSON-able (None, never infinity)."""
        sums = ("kernel_parameters", "kernel_nonzero", "dense_bytes", "stored_bytes")
        totals = (
            *("parameters", "nonzero", "density", "macs", "macs_kept", "transform_macs"),
            *(
                "compression",
                "compression_weights",
                "compression_with_indices",
                "theoretical_speedup",
            ),
        )
        return {
            "layers": [layer.to_dict() for layer in self.layers],
            **{name: getattr(self, name) for name in totals},
            **{name: self._sum(name) for name in sums},
            "notes": list(self.notes),
        }


def ratio(top: int, bottom: int) -> float | None:
    """top / bottom; None where it is infinite or undefined."""
    return top / bottom if bottom else None
