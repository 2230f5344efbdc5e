"""The figures that `Report.plot` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfprune.report.figures import sheet
from tfprune.report.figures.bands import draw_bands, draw_filters
from tfprune.report.figures.bars import ROW, add_bars, density_bars
from tfprune.report.figures.connections import draw_connections
from tfprune.report.figures.output import write_figure
from tfprune.report.findings import Findings
from tfprune.report.table import times

WIDTH, TOP = 7.0, 0.85


def plot(report: Findings, path: Path, what: str = "density") -> Path:
    """Write the figure; see `Report.plot`."""
    drawings = {
        "density": draw_density,
        "bands": draw_bands,
        "filters": draw_filters,
        "connections": draw_connections,
    }
    draw = drawings.get(what)
    if draw is None:
        raise ValueError(f"`what` must be one of {', '.join(drawings)}. Received: {what!r}.")
    return write_figure(path, lambda figure: draw(figure, report))


def draw_density(figure: Any, report: Findings) -> None:
    """Draw the density of each layer as a bar, below what is left of the whole net."""
    bars, measurement = density_bars(report), report.measurement
    axes = sheet.canvas(figure, WIDTH, TOP + ROW * len(bars) + 0.2)
    kept = f"{measurement.nonzero:,} of {measurement.parameters:,} parameters are not zero"
    sheet.heading(figure, 0.4, f"{report.name}: {kept} ({times(measurement.compression)})")
    line = "; line: asked for" if report.asked else ""
    sheet.note(figure, 0.62, f"density: fraction of weights and biases that is not zero{line}")
    add_bars(axes, sheet.LEFT, TOP, WIDTH - 2 * sheet.LEFT, bars)
