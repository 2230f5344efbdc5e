"""The sheet of all figures: colours, sizes, and pieces at positions in inches from the upper left.

Nothing here imports matplotlib; figures and axes come from `tfprune.report.figures.output`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfprune.report.table import printable

KEPT, BELOW = "#2563a8", "#d66a1e"  # what is left, or above zero; what is below zero
INK, FAINT, FRAME, TRACK = "#1c2733", "#66727f", "#cfd6dd", "#e3e8ee"
COLUMN = 4.7  # width of a chart: half of a page, or the width of a phone
LEFT = 0.3  # margin of figures in files
TEXT, SMALL = 9.0, 7.5  # points


def canvas(figure: Any, width: float, height: float) -> Any:
    """Axes over a whole figure of that size; x to the right, y down, in inches.

    A figure that was wiped gives its canvas again.
    """
    figure.set_size_inches(width, height)
    axes = figure.axes[0] if figure.axes else figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    return axes


def wipe(figure: Any) -> None:
    """Take everything off a figure but its empty canvas, which takes long to make."""
    sheet, *others = figure.axes
    drawn = [*sheet.images, *sheet.patches, *sheet.collections, *sheet.lines, *sheet.texts]
    for artist in (*others, *figure.texts, *drawn):
        artist.remove()


def axes_at(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Bare axes within a figure whose size is set."""
    across, down = figure.get_size_inches()
    box = (left / across, 1 - (top + height) / down, width / across, height / down)
    axes = figure.add_axes(box)
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False, bottom=False, colors=FAINT, labelsize=SMALL)
    axes.patch.set_visible(False)
    return axes


def heading(figure: Any, top: float, words: str) -> None:
    """Write a title whose baseline is `top` below the upper edge."""
    _line(figure, top, words, fontsize=11, color=INK)


def note(figure: Any, top: float, words: str) -> None:
    """Write a pale line below a title."""
    _line(figure, top, words, fontsize=TEXT, color=FAINT)


def _line(figure: Any, top: float, words: str, **style: Any) -> None:
    across, down = figure.get_size_inches()
    figure.text(LEFT / across, 1 - top / down, words, va="baseline", **style)


def write(
    axes: Any,
    x: float,
    y: float,
    words: str,
    size: float = TEXT,
    color: str = INK,
    side: str = "left",
) -> None:
    """Write one line of text; (x, y) is the left end, center or right end of its baseline."""
    axes.text(x, y, words, fontsize=size, color=color, ha=side, va="baseline")


def image(
    axes: Any, pixels: np.ndarray, left: float, top: float, width: float, height: float
) -> None:
    """Put a picture, uint8 [lines, columns, 4], on a canvas, with sharp edges and a thin frame."""
    right, bottom = left + width, top + height
    box = (left, right, bottom, top)
    axes.imshow(pixels, extent=box, aspect="auto", interpolation="none", clip_on=False)
    xs, ys = (left, right, right, left, left), (top, top, bottom, bottom, top)
    axes.plot(xs, ys, color=FRAME, linewidth=0.6, clip_on=False)


def steps(
    axes: Any, counts: np.ndarray, box: tuple[float, float, float, float], top: int, **style: Any
) -> None:
    """Draw a histogram into a box of a canvas.

    Args:
        axes: a canvas.
        counts: [bins].
        box: left, top, width, height.
        top: the count that is as high as the box.
        style: of the filled area, or of the outline with `fill=False`.
    """
    left, upper, width, height = box
    bottom = upper + height
    values = bottom - height * np.asarray(counts) / max(top, 1)
    edges = left + width * np.linspace(0, 1, len(counts) + 1)
    style = {"fill": True, "color": KEPT, "linewidth": 0.0, **style}
    axes.stairs(values, edges, baseline=bottom, clip_on=False, **style)


def magnitudes(
    axes: Any,
    box: tuple[float, float, float, float],
    before: np.ndarray,
    after: np.ndarray,
    limits: tuple[float, float],
) -> None:
    """Draw histograms over log10 of magnitudes, before pale and outlined, after full.

    Args:
        axes: a canvas.
        box: left, top, width, height; the limits are written 0.14 below it.
        before, after: counts, [bins].
        limits: log10 of the magnitudes at the left and at the right end.
    """
    top = max(int(before.max()), int(after.max()))
    steps(axes, before, box, top, alpha=0.3)
    steps(axes, after, box, top)
    steps(axes, before, box, top, fill=False, color=INK, alpha=0.6, linewidth=0.6)
    low, high = (f"{10**limit:.2g}" for limit in limits)
    base(axes, box, low, high)


def base(axes: Any, box: tuple[float, float, float, float], low: str, high: str) -> None:
    """Draw the base line of a histogram, and write what its ends are."""
    left, bottom, right = box[0], box[1] + box[3], box[0] + box[2]
    axes.plot((left, right), (bottom, bottom), color=FRAME, linewidth=0.7, clip_on=False)
    write(axes, left, bottom + 0.14, low, SMALL, FAINT)
    write(axes, right, bottom + 0.14, high, SMALL, FAINT, "right")


def tinted(opacity: np.ndarray, color: str = KEPT) -> np.ndarray:
    """Pixels, uint8 [..., 4], of one colour ("#rrggbb") with opacities in [0, 1]."""
    pixels = np.empty((*opacity.shape, 4), np.uint8)
    pixels[..., :3] = list(bytes.fromhex(color[1:]))
    pixels[..., 3] = np.round(255 * opacity)
    return pixels


def signed(values: np.ndarray, limit: float) -> np.ndarray:
    """Pixels, uint8 [..., 4]: blue above 0, orange below, opaque at +-limit; NaN is empty."""
    values = np.nan_to_num(values)
    opacity = np.minimum(np.abs(values) / (limit or 1.0), 1.0)
    return np.where(values[..., None] < 0, tinted(opacity, BELOW), tinted(opacity, KEPT))


def short(name: str, most: int) -> str:
    """A name that fits a column: its end where it is too long; no control characters."""
    name = printable(name)
    return name if len(name) <= most else "…" + name[1 - most :]


def first(pictures: Mapping[str, Any], most: int) -> dict[str, Any]:
    """The first layers, at most so many."""
    return dict(list(pictures.items())[:most])


def of(shown: int, total: int) -> str:
    """ " (first 2 of 3 layers)", where some are not shown."""
    return f" (first {shown} of {total} layers)" if shown < total else ""


def before_words(pictures: Mapping[str, Any], otherwise: str) -> str:
    """What "before" means in the pictures of bands or connections."""
    if any(picture.from_dense for picture in pictures.values()):
        return "the dense model that pruning started from"
    return otherwise
