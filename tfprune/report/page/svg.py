"""Pieces of inline SVG; CSS classes give the colours, so that they follow the page's theme."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from tfprune.report.page import svg


def picture(width: float, height: float, body: Sequence[str], label: str) -> str:
    """A whole drawing, with what it shows in words for screen readers."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'aria-label="{html.escape(label)}">{"".join(body)}</svg>'
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """One line of words; (x, y) is the `anchor` end of its baseline."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">'
        f"{html.escape(words)}</text>"
    )


def rect(
    x: float, y: float, width: float, height: float, kind: str, opacity: float | None = None
) -> str:
    """A filled rectangle with slightly round corners."""
    seen = "" if opacity is None else f' fill-opacity="{opacity:.2f}"'
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.2f}" height="{height:.1f}" '
        f'rx="2" class="{kind}"{seen}/>'
    )


def short(name: str, most: int = 25) -> str:
    """A name that fits a column: its end, where it is too long."""
    return name if len(name) <= most else "…" + name[1 - most :]


PANEL_W, PANEL_H, TITLE = 128.0, 56.0, 18.0


def histogram(before: np.ndarray, after: np.ndarray, low: str, high: str) -> list[str]:
    """The pieces of a panel below its title: before pale and outlined, after full, and the ends."""
    top = max(int(before.max()), int(after.max()), 1)
    bottom = TITLE + PANEL_H
    return [
        f'<path class="pale" d="{_steps(before, top)}"/>',
        f'<path class="kept" d="{_steps(after, top)}"/>',
        f'<path class="outline" d="{_steps(before, top)}"/>',
        f'<line x1="0" x2="{PANEL_W}" y1="{bottom}" y2="{bottom}" class="rule"/>',
        svg.text(0, bottom + 13, low, "faint small"),
        svg.text(PANEL_W, bottom + 13, high, "faint small", "end"),
    ]


def _steps(counts: np.ndarray, top: int) -> str:
    """The outline of a histogram as a path that is closed along its base."""
    bottom, width = TITLE + PANEL_H, PANEL_W / len(counts)
    moves = "".join(f"V{bottom - PANEL_H * c / top:.1f}h{width:.2f}" for c in counts)
    return f"M0 {bottom:.1f}{moves}V{bottom:.1f}z"
