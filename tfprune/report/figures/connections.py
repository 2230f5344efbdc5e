"""The connections between channels drawn with matplotlib; sizes are in inches."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfprune.report.connections import ConnectionPicture, words_before
from tfprune.report.figures import sheet
from tfprune.report.findings import Findings
from tfprune.report.page.connections import dead_words, label
from tfprune.report.page.svg import short
from tfprune.report.pictures import ABOVE

LAYERS = 40
ROW, PAIRS, HISTOGRAM, WIDTH, TOP = 1.2, 0.95, 3.4, 9.4, 0.95


def draw_connections(figure: Any, report: Findings) -> None:
    """Layers in order of depth: strengths before and after, and which channel pairs are left."""
    if not report.connections:
        raise ValueError(
            f"No layer of '{report.name}' has lost a whole kernel, and no method of it prunes them."
        )
    shown = sheet.first(report.connections, LAYERS)
    figure.set_size_inches(WIDTH, TOP + ROW * len(shown) + 0.2)
    more = sheet.of(len(shown), len(report.connections))
    sheet.heading(figure, 0.35, f"{report.name}: connections between channels{more}")
    before = words_before(report.connections)
    text = f"strengths, pale: before ({before}), full: after\nright: inputs down, outputs across"
    sheet.note(figure, 0.66, text)
    for place, (name, picture) in enumerate(shown.items()):
        _row(figure, TOP + place * ROW, name, picture)


def _row(figure: Any, top: float, name: str, picture: ConnectionPicture) -> None:
    across, down = figure.get_size_inches()
    words = f"{short(name, 24)}\n{label(picture)}"
    figure.text(0.3 / across, 1 - (top + 0.2) / down, words, fontsize=9, color=sheet.INK, va="top")
    sheet.stairs(
        sheet.axes_at(figure, 2.6, top + 0.1, HISTOGRAM, 0.7),
        picture.before,
        picture.after,
        picture.limits,
    )
    pixels = np.zeros((*picture.pairs.shape, 4))
    pixels[..., :3] = np.divide(ABOVE, 255)
    pixels[..., 3] = np.sqrt(picture.pairs)
    axes = sheet.axes_at(figure, 2.9 + HISTOGRAM, top + 0.05, PAIRS, PAIRS)
    axes.set_facecolor(sheet.TRACK)
    axes.imshow(pixels, aspect="auto", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    words = dead_words(picture).replace(", ", "\n")
    left = (3.05 + HISTOGRAM + PAIRS) / across
    figure.text(left, 1 - (top + 0.2) / down, words, fontsize=8, color=sheet.FAINT, va="top")
