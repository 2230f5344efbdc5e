"""A section of the page, and the words that say how to read it."""

from __future__ import annotations

import dataclasses

RATIO_WORDS = (
    "Three ways of counting that are easily mixed up, and the multiply-adds. With indices means "
    "that each tensor is stored in the cheaper of dense float32 and compressed rows."
)
DENSITY_WORDS = "Fraction of a layer's weights and biases that is not zero."
ASKED_WORDS = " A thin line marks what was asked for."
WORK_WORDS = (
    "One inference on one example; pale: all, full: those whose weight is not zero. A dense "
    "runtime does all of them."
)
EXPORT_WORDS = "Errors are relative to the largest output of the Keras model."
KERNEL_WORDS = (
    "Left: where the non-zeros of the kernel lie, with its last axis across and all others down "
    "(cells are blocks of weights; darker is denser). Right: how large the non-zeros are."
)
BAND_WORDS = (
    "Numerals are the fraction of a band's coefficients that is not zero; band 0 is the lowest "
    "frequency. Histograms show how large the nonzero coefficients are, on a logarithmic axis "
    "(pale and outlined: before pruning, full: after), and the small pictures the kernels of "
    "largest norm as the layer uses them (blue: above zero, orange: below); before is {}."
)
CONNECTION_WORDS = (
    "A connection is the kernel between one input and one output channel, its strength the norm. "
    "Bars: the fraction that is left. Small pictures: input channels down, output channels "
    "across, dark where a connection is left. Histograms: the strengths on a logarithmic axis "
    "(pale and outlined: before, full: after); before is {}."
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page; without tables, charts and cards it is left out.

    Attributes:
        title: its heading.
        words: how to read it.
        tables: (caption, HTML of the table).
        charts: SVG elements, on lines of their own.
        cards: (name of a layer, SVG element), beside each other.
        kind: class of the cards.
        hidden: count of the layers that are not drawn.
        notes: lines below.
        half: whether it stands beside another section where there is room.
    """

    title: str
    words: str = ""
    tables: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    charts: list[str] = dataclasses.field(default_factory=list)
    cards: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    kind: str = "kernels"
    hidden: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)
    half: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.tables or self.charts or self.cards or self.notes)
