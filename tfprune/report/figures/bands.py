"""The frequency bands of layers drawn with matplotlib; sizes are in inches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfprune.report.bands import FILTERS, BandPicture, origin_words, shade, unmerged
from tfprune.report.figures.sheet import (
    FAINT,
    FRAME,
    INK,
    RIGHT,
    _words,
    axes_at,
    first,
    heading,
    note,
    of,
    stairs,
)
from tfprune.report.findings import Findings
from tfprune.report.page.svg import short
from tfprune.report.pictures import ABOVE, signed_pixels
from tfprune.report.table import fraction

LAYERS = 12  # whose histograms or filters are drawn, at most
ROWS = 60  # of the heat map, at most
WIDTH, LEFT, TOP, BOTTOM = 11.0, 2.0, 0.9, 0.3
ROW, CELL, PER_LINE = 0.34, 0.72, 6
PANEL_W, PANEL_H, GAP, LINE, HEADING = 1.3, 0.62, 0.16, 1.12, 0.4
FILTER, STEP = 0.62, 0.7


def draw_bands(figure: Any, report: Findings) -> None:
    """The densities as a heat map, and below it the histograms of each layer."""
    if not report.bands:
        raise ValueError(f"No layer of '{report.name}' has frequency bands to draw.")
    merged = {name: picture.merged() for name, picture in report.bands.items()}
    rows, shown = first(merged, ROWS), first(merged, LAYERS)
    lines = [math.ceil(len(picture.names) / PER_LINE) for picture in shown.values()]
    start = TOP + ROW * len(rows) + 0.75  # of the lower half
    figure.set_size_inches(WIDTH, start + sum(HEADING + LINE * n for n in lines) + BOTTOM)
    title = f"{report.name}: fraction of each frequency band that is not zero"
    heading(figure, 0.4, title + of(len(rows), len(merged)))
    _heat_map(figure, rows)
    title = "Magnitudes of the non-zero entries, pale: before, full: after pruning"
    heading(figure, start - 0.36, title + of(len(shown), len(merged)))
    note(figure, start - 0.14, f"before: {origin_words(merged)}; band 0 is the lowest frequency")
    top = start + 0.1
    for (name, picture), count in zip(shown.items(), lines, strict=True):
        _histograms(figure, top, name, picture)
        top += HEADING + LINE * count


def draw_filters(figure: Any, report: Findings) -> None:
    """Some filters of each layer, before above after."""
    found = {name: p for name, p in report.bands.items() if len(p.filters_before)}
    if not found:
        raise ValueError(f"No layer of '{report.name}' has frequency bands and 2-D kernels.")
    shown = first(found, LAYERS)
    block = 2 * STEP + 0.3
    width = LEFT + FILTERS * STEP + RIGHT + 0.4
    figure.set_size_inches(width, TOP + block * len(shown) + BOTTOM / 2)
    title = f"{report.name}: filters of largest norm, before and after pruning"
    heading(figure, 0.35, title + of(len(shown), len(found)))
    note(figure, 0.6, f"before: {origin_words(found)}\nblue: above zero, orange: below")
    for place, (name, picture) in enumerate(shown.items()):
        axes = axes_at(figure, LEFT, TOP + place * block, FILTERS * STEP, 2 * STEP)
        _filters(axes, name, picture)


def _heat_map(figure: Any, pictures: Mapping[str, BandPicture]) -> None:
    columns = max(len(picture.names) for picture in pictures.values())
    axes = axes_at(figure, LEFT, TOP, CELL * columns, ROW * len(pictures))
    pixels = np.zeros((len(pictures), columns, 4))
    pixels[..., :3] = np.divide(ABOVE, 255)
    for row, picture in enumerate(pictures.values()):
        for band, density in enumerate(picture.densities):
            pixels[row, band, 3] = shade(density)
            name = picture.names[band]
            below = f"\n{name}" if picture.is_merged else ""
            words = fraction(density) + below
            axes.text(band, row, words, ha="center", va="center", fontsize=7.5, color=INK)
    axes.imshow(pixels, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(pictures)), [short(name, 24) for name in pictures], color=INK)
    axes.set_xticks(range(unmerged(pictures)))
    axes.xaxis.tick_top()
    axes.text(-0.58, -0.84, "band", ha="right", va="center", fontsize=8, color=FAINT)
    for line in range(len(pictures) + 1):
        axes.axhline(line - 0.5, color="white", linewidth=2)
    for line in range(columns + 1):
        axes.axvline(line - 0.5, color="white", linewidth=2)


def _histograms(figure: Any, top: float, name: str, picture: BandPicture) -> None:
    _words(figure, top + 0.12, short(name, 80), fontsize=9.5, color=INK, weight="bold")
    for band in range(len(picture.names)):
        line, place = divmod(band, PER_LINE)
        left = RIGHT + 0.1 + place * (PANEL_W + GAP + 0.3)
        panel = axes_at(figure, left, top + HEADING + line * LINE, PANEL_W, PANEL_H)
        _histogram(panel, picture, band)


def _histogram(axes: Any, picture: BandPicture, band: int) -> None:
    stairs(axes, picture.before[band], picture.after[band], picture.limits)
    axes.set_title(f"band {picture.names[band]}", loc="left", fontsize=8, color=INK, pad=3)
    density = fraction(picture.densities[band])
    axes.set_title(density, loc="right", fontsize=8, color=FAINT, pad=3)


def _filters(axes: Any, name: str, picture: BandPicture) -> None:
    """Eight cells across, one unit each, before above after."""
    kernels = zip(picture.filters_before, picture.filters_after, picture.filter_limits, strict=True)
    half = FILTER / STEP / 2
    for place, (before, after, limit) in enumerate(kernels):
        for row, kernel in enumerate((before, after)):
            height, width = (half * side / max(kernel.shape) for side in kernel.shape)
            box = (place - width, place + width, row + height, row - height)
            axes.imshow(signed_pixels(kernel, limit), extent=box, interpolation="nearest")
            left, right, low, high = box
            corners = [left, right, right, left, left], [low, low, high, high, low]
            axes.plot(*corners, color=FRAME, linewidth=0.8)
    axes.set_xlim(-0.5, FILTERS - 0.5)
    axes.set_ylim(1.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([0, 1], [f"{short(name, 24)}\nbefore", "after"], color=INK)
