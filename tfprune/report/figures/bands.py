"""The frequency bands of layers: densities as a heat map, histograms, and some filters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfprune.report.bands import FILTERS, BandPicture
from tfprune.report.figures import sheet
from tfprune.report.figures.sheet import COLUMN, FAINT, SMALL, short, write
from tfprune.report.findings import Findings
from tfprune.report.table import fraction

LAYERS = 12  # of a figure in a file whose histograms or filters are drawn, at most
LINES = 60  # of a heat map in a file, at most
NAME, CELL, ROW, TALL, BANDS_LINE = 1.7, 0.58, 0.29, 0.42, 0.22  # of a heat map
PANEL_W, PANEL_H, GAP, STEP = 1.4, 0.55, 0.25, 0.97  # of the histogram of a band
NARROW, WIDE = 3, 6  # histograms beside each other: on a page, in a file
FILTER, SIDE = 0.46, 0.5  # a filter, and the margin of its line
PITCH = (COLUMN - SIDE) / FILTERS
TOP, HEADING = 0.75, 0.36


def draw_bands(figure: Any, report: Findings) -> None:
    """Draw the densities as a heat map, and below it the histograms of each layer.

    Raises:
        ValueError: where no layer has bands.
    """
    if not report.bands:
        raise ValueError(
            f"No layer of '{report.name}' has frequency bands to draw. Prune it with a method that "
            "has bands, or choose another figure. Received: 'bands'."
        )
    merged = {name: picture.merged() for name, picture in report.bands.items()}
    lines, shown = sheet.first(merged, LINES), sheet.first(merged, LAYERS)
    start = TOP + map_height(lines) + 0.85  # of the lower half
    blocks = [HEADING + panels_height(picture, WIDE) for picture in shown.values()]
    width = 2 * sheet.LEFT + WIDE * (PANEL_W + GAP) - GAP
    axes = sheet.canvas(figure, width, start + sum(blocks) + 0.1)
    title = f"{report.name}: fraction of each frequency band that is not zero"
    sheet.heading(figure, 0.42, title + sheet.of(len(lines), len(merged)))
    heat_map(axes, sheet.LEFT, TOP - 0.1, lines)
    title = "Magnitudes of the nonzero coefficients, pale: before, full: after pruning"
    sheet.heading(figure, start - 0.38, title + sheet.of(len(shown), len(merged)))
    note = f"before: {bands_before(merged)}; band 0 is the lowest frequency"
    sheet.note(figure, start - 0.17, note)
    top = start
    for (name, picture), height in zip(shown.items(), blocks, strict=True):
        axes.text(
            sheet.LEFT, top + 0.14, short(name, 80), fontsize=9.5, color=sheet.INK, weight=700
        )
        histograms(axes, sheet.LEFT, top + HEADING, picture, WIDE)
        top += height


def draw_filters(figure: Any, report: Findings) -> None:
    """Draw some filters of each layer, before above after.

    Raises:
        ValueError: where no layer has bands and 2-D kernels.
    """
    drawn = {name: p for name, p in report.bands.items() if len(p.filters_before)}
    if not drawn:
        raise ValueError(
            f"No layer of '{report.name}' has frequency bands and 2-D kernels. Prune such layers "
            "with a method that has bands, or choose another figure. Received: 'filters'."
        )
    shown = sheet.first(drawn, LAYERS)
    block = 2 * PITCH + 0.45
    axes = sheet.canvas(figure, COLUMN + 2 * sheet.LEFT, TOP + 0.2 + block * len(shown))
    title = f"{report.name}: filters before and after pruning"
    sheet.heading(figure, 0.35, title + sheet.of(len(shown), len(drawn)))
    sheet.note(figure, 0.56, "those of largest norm; blue: above zero, orange: below")
    sheet.note(figure, 0.74, f"before: {bands_before(drawn)}")
    for index, (name, picture) in enumerate(shown.items()):
        top = TOP + 0.2 + index * block
        write(axes, sheet.LEFT, top + 0.14, short(name, 60))
        filters(axes, sheet.LEFT, top + 0.24, picture)


def draw_map(figure: Any, pictures: Mapping[str, BandPicture]) -> None:
    """Draw a heat map on a figure of its own; see `heat_map`."""
    columns = max(len(picture.names) for picture in pictures.values())
    axes = sheet.canvas(figure, NAME + columns * CELL, map_height(pictures))
    heat_map(axes, 0, 0, pictures)


def draw_layer(figure: Any, picture: BandPicture) -> None:
    """Draw the histograms and the filters of one layer on a figure of its own."""
    upper = panels_height(picture, NARROW)
    lower = 2 * PITCH if len(picture.filters_before) else 0.0
    axes = sheet.canvas(figure, COLUMN, upper + lower)
    histograms(axes, 0, 0, picture, NARROW)
    filters(axes, 0, upper, picture)


def heat_map(axes: Any, left: float, top: float, pictures: Mapping[str, BandPicture]) -> None:
    """Draw layers down, bands across, the density in each cell; merged bands are named in it."""
    write(axes, left + NAME - 0.1, top + 0.14, "band", SMALL, FAINT, "right")
    columns = max((len(p.names) for p in pictures.values() if not p.is_merged), default=0)
    for band in range(columns):
        x = left + NAME + (band + 0.5) * CELL
        write(axes, x, top + 0.14, str(band), SMALL, FAINT, "center")
    y = top + BANDS_LINE
    for name, picture in pictures.items():
        height = TALL if picture.is_merged else ROW
        write(axes, left + NAME - 0.1, y + height / 2 + 0.04, short(name, 24), side="right")
        _cells(axes, left + NAME, y, height, picture)
        y += height


def map_height(pictures: Mapping[str, BandPicture]) -> float:
    """Height of `heat_map`."""
    return BANDS_LINE + sum(TALL if p.is_merged else ROW for p in pictures.values())


def _cells(axes: Any, left: float, top: float, height: float, picture: BandPicture) -> None:
    middles = left + (np.arange(len(picture.names)) + 0.5) * CELL
    colors = sheet.tinted(shade(np.array(picture.densities))) / 255
    size = {"width": CELL - 0.02, "height": height - 0.02, "bottom": top + 0.01}
    axes.bar(middles, color=colors, linewidth=0, clip_on=False, **size)
    for x, name, density in zip(middles, picture.names, picture.densities, strict=True):
        write(axes, x, top + 0.19, fraction(density), SMALL, side="center")
        if picture.is_merged:
            write(axes, x, top + 0.34, name, 6.5, FAINT, "center")


def shade(density: np.ndarray) -> np.ndarray:
    """How opaque the cells of a heat map are, so that ink on them can be read."""
    return 0.05 + 0.5 * np.sqrt(density)


def histograms(axes: Any, left: float, top: float, picture: BandPicture, per_line: int) -> None:
    """Draw the magnitudes of each band, before and after."""
    for band, name in enumerate(picture.names):
        line, column = divmod(band, per_line)
        x, y = left + column * (PANEL_W + GAP), top + line * STEP
        write(axes, x, y + 0.14, f"band {name}", SMALL)
        density = fraction(picture.densities[band])
        write(axes, x + PANEL_W, y + 0.14, density, SMALL, FAINT, "right")
        box = (x, y + 0.2, PANEL_W, PANEL_H)
        sheet.magnitudes(axes, box, picture.before[band], picture.after[band], picture.limits)


def panels_height(picture: BandPicture, per_line: int) -> float:
    """Height of `histograms`."""
    return STEP * math.ceil(len(picture.names) / per_line)


def filters(axes: Any, left: float, top: float, picture: BandPicture) -> None:
    """Draw the filters of a layer, before above after; the longer side fills its cell."""
    stages = (("before", picture.filters_before), ("after", picture.filters_after))
    for line, (stage, kernels) in enumerate(stages):
        y = top + line * PITCH
        if len(kernels):
            write(axes, left, y + FILTER / 2 + 0.04, stage, SMALL, FAINT)
        for index, (kernel, limit) in enumerate(zip(kernels, picture.filter_limits, strict=True)):
            height, width = (FILTER * side / max(kernel.shape) for side in kernel.shape)
            x = left + SIDE + index * PITCH
            sheet.image(axes, sheet.signed(kernel, limit), x, y, width, height)


def bands_before(pictures: Mapping[str, BandPicture]) -> str:
    """What "before" means in these pictures."""
    masked = "what the net holds without its mask (masked coefficients may have gone on learning)"
    return sheet.before_words(pictures, masked)
