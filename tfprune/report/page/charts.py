"""Inline SVG charts, coloured by the page's CSS classes, so that they follow its theme."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tfprune.report.page import svg
from tfprune.report.table import count, fraction

ROW, NAME, TRACK, LABEL = 24, 190, 380, 230
WIDTH = NAME + TRACK + LABEL
PANEL_W, PANEL_H, MARGIN = 380, 190, 56


def bars(rows: Sequence[tuple[str, float, float, str, float | None]], label: str) -> str:
    """Horizontal bars, one row each.

    Args:
        rows: (name, length of the pale bar, length of the full bar, words at its end, mark), with
            lengths and mark in [0, 1]; the mark is a thin line, or None.
        label: what the chart shows, for screen readers.
    """
    body = []
    for place, (name, pale, full, words, mark) in enumerate(rows):
        y = place * ROW
        body.append(svg.text(NAME - 10, y + 16, svg.short(name), "ink", "end"))
        body.append(svg.rect(NAME, y + 4, TRACK * pale, ROW - 8, "track"))
        body.append(svg.rect(NAME, y + 4, TRACK * full, ROW - 8, "kept"))
        if mark is not None:
            body.append(svg.rect(NAME + TRACK * mark - 0.75, y + 1, 1.5, ROW - 2, "mark"))
        body.append(svg.text(NAME + TRACK + 10, y + 16, words, "faint"))
    return svg.picture(WIDTH, ROW * len(rows), body, label)


def curves(title: str, lines: Mapping[str, Sequence[float]]) -> str:
    """Curves over epochs in one panel; values that are not finite leave a gap.

    Args:
        title: heading of the panel.
        lines: name -> values per epoch; the first is drawn full, `val_` ones dashed.
    """
    finite = [v for values in lines.values() for v in values if math.isfinite(v)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    span = (high - low) or abs(high) or 1.0
    last = max(len(values) for values in lines.values()) - 1

    def at(epoch: int, value: float) -> str:
        x = MARGIN + (PANEL_W - MARGIN - 12) * (epoch / last if last else 0.5)
        return f"{x:.1f},{PANEL_H - 26 - (PANEL_H - 60) * (value - low) / span:.1f}"

    body = [svg.text(0, 14, title, "ink"), _axis(low, high, last + 1)]
    for number, (name, values) in enumerate(lines.items()):
        kind = "dashed" if name.startswith("val_") else "line"
        many = " thin" if len(lines) > 4 else ""
        points = [(e, float(v)) for e, v in enumerate(values)]
        body += [
            f'<polyline class="{kind}{many}" points="{" ".join(at(e, v) for e, v in run)}">'
            f"<title>{html.escape(name)}</title></polyline>"
            for run in _runs(points)
        ]
        if len(lines) <= 4:
            ending = f"{name} {fraction(values[-1])}"
            body.append(svg.text(PANEL_W - 12, 14 + 14 * number, ending, "faint", "end"))
    return svg.picture(PANEL_W, PANEL_H, body, title)


def _runs(points: list[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """Split at values that are not finite; a lone point becomes a short stroke."""
    runs: list[list[tuple[int, float]]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run if len(run) > 1 else run * 2 for run in runs if run]


def _axis(low: float, high: float, epochs: int) -> str:
    bottom, top = PANEL_H - 26, 34
    rules = "".join(
        f'<line x1="{MARGIN}" x2="{PANEL_W - 12}" y1="{y}" y2="{y}" class="rule"/>'
        for y in (bottom, top)
    )
    ends = svg.text(MARGIN - 6, bottom + 4, f"{low:.3g}", "faint", "end")
    if high > low:
        ends += svg.text(MARGIN - 6, top + 4, f"{high:.3g}", "faint", "end")
    ends += svg.text(MARGIN, PANEL_H - 8, "1", "faint")
    return rules + ends + svg.text(PANEL_W - 12, PANEL_H - 8, f"epoch {epochs}", "faint", "end")


def histogram(counts: np.ndarray, limit: float) -> str:
    """How large the non-zero weights are: bars over [-limit, limit]."""
    width, height = 246.0, 84.0
    top = max(int(counts.max()), 1)
    step = width / len(counts)
    body = [
        svg.rect(i * step, height * (1 - c / top), step - 1, height * c / top, "kept")
        for i, c in enumerate(counts)
        if c
    ]
    body.append(f'<line x1="0" x2="{width}" y1="{height}" y2="{height}" class="rule"/>')
    body.append(svg.text(0, height + 15, f"{-limit:.3g}", "faint"))
    body.append(svg.text(width / 2, height + 15, "0", "faint", "middle"))
    body.append(svg.text(width, height + 15, f"{limit:.3g}", "faint", "end"))
    label = f"{count(int(counts.sum()))} non-zero weights between {-limit:.3g} and {limit:.3g}"
    return svg.picture(width, height + 20, body, label)


def card(name: str, what: str, picture: bytes, chart: str) -> str:
    """A figure of one layer: its name, a PNG that shows `what`, and a chart beside it."""
    data = base64.b64encode(picture).decode()
    return (
        f"<figure><figcaption>{html.escape(name)}</figcaption>"
        f'<img alt="{what} of {html.escape(name)}" src="data:image/png;base64,{data}">'
        f"{chart}</figure>"
    )
