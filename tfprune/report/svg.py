"""Pieces of inline SVG; CSS classes give the colours, so that they follow the page's theme."""

from __future__ import annotations

import html
from collections.abc import Sequence


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
