"""A sheet of figures: axes, headings and notes at places in inches."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.files import write_atomically
from tfprune.report.bands import BINS

KEPT, INK, FAINT, FRAME, TRACK = "#2563a8", "#1c2733", "#66727f", "#cfd6dd", "#e3e8ee"


RIGHT = 0.3


TINY = {"fontsize": 7, "color": FAINT}


def first(pictures: Mapping[str, Any], most: int) -> dict[str, Any]:
    """So many of the layers, at most."""
    return dict(list(pictures.items())[:most])


def of(shown: int, all_of: int) -> str:
    """ " (first 2 of 3 layers)", where some are not shown."""
    return f" (first {shown} of {all_of} layers)" if shown < all_of else ""


def axes_at(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Axes at a place that is measured from the upper left corner."""
    across, down = figure.get_size_inches()
    axes = figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down)
    )
    axes.tick_params(length=0, colors=FAINT, labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _words(figure: Any, top: float, words: str, **style: Any) -> None:
    across, down = figure.get_size_inches()
    figure.text(RIGHT / across, 1 - top / down, words, **style)


def heading(figure: Any, top: float, words: str) -> None:
    """A title, so far from the top."""
    _words(figure, top, words, fontsize=11, color=INK)


def note(figure: Any, top: float, words: str) -> None:
    """A pale line below a title."""
    _words(figure, top, words, fontsize=9, color=FAINT, va="center")


def stairs(axes: Any, before: np.ndarray, after: np.ndarray, limits: tuple[float, float]) -> None:
    """A histogram over log10 of magnitudes, before pale, after full."""
    low, high = limits
    edges = np.linspace(low, high, BINS + 1)
    axes.stairs(before, edges, fill=True, color=KEPT, alpha=0.3, linewidth=0)
    axes.stairs(after, edges, fill=True, color=KEPT, linewidth=0)
    axes.stairs(before, edges, color=INK, alpha=0.7, linewidth=0.7)
    axes.set_xlim(low, high)
    axes.set_ylim(0, max(int(before.max()), int(after.max()), 1) * 1.02)
    axes.set_yticks([])
    axes.set_xticks([])
    for end, (limit, side) in enumerate(((low, "left"), (high, "right"))):
        words, at = f"{10**limit:.2g}", axes.transAxes
        axes.text(end, -0.16, words, transform=at, ha=side, va="center", **TINY)
    axes.spines["bottom"].set(visible=True, color=FAINT, linewidth=0.7)


FORMATS = (".png", ".svg", ".pdf")


def write_figure(path: Path, draw: Callable[[Any], None]) -> Path:
    """Write what `draw` puts on an empty matplotlib figure to a `.png`, `.svg` or `.pdf` file.

    Raises:
        ImportError: without matplotlib (`pip install tfprune[plots]`).
        ValueError: for another suffix.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"`path` must end in one of {', '.join(FORMATS)}. Received: '{path}'.")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib: `pip install tfprune[plots]`.") from error
    figure = Figure()
    draw(figure)
    data = io.BytesIO()
    dpi = min(160.0, 60_000 / figure.get_figheight())  # the largest picture is 2**16 pixels high
    figure.savefig(data, format=path.suffix[1:].lower(), dpi=dpi)
    write_atomically(path, data.getvalue())
    return path
