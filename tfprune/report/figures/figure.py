"""Figures drawn with matplotlib: the density of each layer as bars, and the bands' figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfprune.report.figures.bands import draw_bands, draw_filters
from tfprune.report.figures.connections import draw_connections
from tfprune.report.figures.sheet import FAINT, INK, KEPT, TRACK, write_figure
from tfprune.report.findings import Findings
from tfprune.report.table import fraction, times


def plot(report: Findings, path: Path, what: str = "density") -> Path:
    """Write the figure; see `Report.plot`."""
    drawings = {
        "density": _density,
        "bands": draw_bands,
        "filters": draw_filters,
        "connections": draw_connections,
    }
    draw = drawings.get(what)
    if draw is None:
        raise ValueError(f"`what` must be one of {', '.join(drawings)}. Received: {what!r}.")
    return write_figure(path, lambda figure: draw(figure, report))


def _density(figure: Any, report: Findings) -> None:
    figure.set_size_inches(9, 1.5 + 0.34 * len(report.measurement.layers))
    figure.set_layout_engine("constrained", w_pad=0.2, h_pad=0.12)
    axes = figure.add_subplot()
    _bars(axes, report)
    _frame(axes, report)


def _bars(axes: Any, report: Findings) -> None:
    layers = report.measurement.layers
    places = range(len(layers))
    axes.barh(places, [1] * len(layers), height=0.62, color=TRACK)
    axes.barh(places, [layer.density or 0 for layer in layers], height=0.62, color=KEPT)
    for place, layer in zip(places, layers, strict=True):
        label = f"{fraction(layer.density)}   {layer.nonzero:,} of {layer.parameters:,}"
        axes.text(1.015, place, label, va="center", fontsize=9, color=INK)
        asked = report.asked.get(layer.name)
        if asked is not None:
            axes.plot([1 - asked] * 2, [place - 0.4, place + 0.4], color=INK, linewidth=1.2)


def _frame(axes: Any, report: Findings) -> None:
    layers, numbers = report.measurement.layers, report.measurement
    axes.set_yticks(range(len(layers)), [layer.name for layer in layers], fontsize=9, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.42)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.tick_params(length=0, colors=FAINT, labelsize=9)
    axes.tick_params(axis="y", colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    label = "density (fraction of weights and biases that is not zero"
    axes.set_xlabel(
        label + (", line = asked for)" if report.asked else ")"),
        fontsize=9,
        color=FAINT,
        loc="left",
    )
    title = f"{report.name}: {numbers.nonzero:,} of {numbers.parameters:,} parameters are not zero"
    axes.set_title(
        f"{title} ({times(numbers.compression)})", loc="left", fontsize=11, color=INK, pad=10
    )
