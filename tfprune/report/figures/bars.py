"""Bars of layers: the name and the counts on one line, the bar below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfprune.report.figures.sheet import (
    COLUMN,
    FAINT,
    INK,
    KEPT,
    SMALL,
    TRACK,
    canvas,
    short,
    write,
)
from tfprune.report.findings import Findings
from tfprune.report.table import count, fraction

ROW, THICK = 0.37, 0.095  # height of a bar with its words, and without, in inches
NAME = 30  # letters of a name
THIN = 0.006  # length of the shortest bar that is not empty, about two pixels


class Bar(NamedTuple):
    """One layer.

    Attributes:
        name: of the layer.
        pale, full: lengths of the bars, in [0, 1].
        label: the counts.
        mark: position of a thin line, in [0, 1]; None: no line.
    """

    name: str
    pale: float
    full: float
    label: str
    mark: float | None = None


def density_bars(report: Findings) -> list[Bar]:
    """The fraction of the weights and biases that is not zero, with what was asked for."""
    bars = []
    for layer in report.measurement.layers:
        asked = report.asked.get(layer.name)
        label = f"{fraction(layer.density)} · {count(layer.nonzero)} of {count(layer.parameters)}"
        mark = None if asked is None else 1 - asked
        bars.append(Bar(layer.name, 1.0, layer.density or 0.0, label, mark))
    return bars


def work_bars(report: Findings) -> list[Bar]:
    """The multiply-adds, all and kept, relative to the layer with most; [] if unknown."""
    layers = [layer for layer in report.measurement.layers if layer.macs]
    most = max((layer.macs or 0 for layer in layers), default=0)
    return [
        Bar(
            layer.name,
            (layer.macs or 0) / most,
            (layer.macs_kept or 0) / most,
            f"{count(layer.macs_kept)} of {count(layer.macs)}",
        )
        for layer in layers
    ]


def draw_bars(figure: Any, bars: Sequence[Bar]) -> None:
    """Draw the bars on a figure of their own."""
    add_bars(canvas(figure, COLUMN, ROW * len(bars)), 0, 0, COLUMN, bars)


def add_bars(axes: Any, left: float, top: float, width: float, bars: Sequence[Bar]) -> None:
    """Draw the bars on a canvas, downwards from `top`."""
    middles = [top + ROW * (line + 0.68) for line in range(len(bars))]
    for color, lengths in ((TRACK, [b.pale for b in bars]), (KEPT, [b.full for b in bars])):
        ends = [left + width * _seen(length) for length in lengths]
        style = {"linewidth": 72 * THICK, "capstyle": "butt", "clip_on": False}
        axes.hlines(middles, left, ends, colors=color, **style)
    marks = [
        (y, left + width * b.mark) for y, b in zip(middles, bars, strict=True) if b.mark is not None
    ]
    if marks:
        ys, xs = np.transpose(marks)
        axes.vlines(xs, ys - 0.07, ys + 0.07, colors=INK, linewidth=1.1, clip_on=False)
    for middle, bar in zip(middles, bars, strict=True):
        write(axes, left, middle - 0.115, short(bar.name, NAME))
        write(axes, left + width, middle - 0.115, bar.label, SMALL, FAINT, "right")


def _seen(length: float) -> float:
    """A length that can be seen, where there is something to see."""
    return max(length, THIN) if length > 0 else 0.0
