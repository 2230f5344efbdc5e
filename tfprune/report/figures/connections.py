"""The connections between channels: how strong they are, and which are left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfprune.report.connections import ConnectionPicture
from tfprune.report.figures import sheet
from tfprune.report.figures.bars import Bar
from tfprune.report.figures.kernels import BOX, SIDE, WIDTH, density_map
from tfprune.report.findings import Findings
from tfprune.report.table import count, fraction

LAYERS = 40  # of a figure in a file, at most
BLOCK, TOP, SHEET = 1.6, 0.95, 7.6


def draw_connections(figure: Any, report: Findings) -> None:
    """Draw layers in order of depth, two beside each other.

    Raises:
        ValueError: where no layer has connections to draw.
    """
    if not report.connections:
        raise ValueError(
            f"No layer of '{report.name}' has lost a whole kernel, and no method of it prunes "
            "them. Prune whole kernels, or choose another figure. Received: 'connections'."
        )
    shown = sheet.first(report.connections, LAYERS)
    lines = -(-len(shown) // 2)
    axes = sheet.canvas(figure, SHEET, TOP + BLOCK * lines)
    more = sheet.of(len(shown), len(report.connections))
    sheet.heading(figure, 0.35, f"{report.name}: connections between channels{more}")
    before = connections_before(report.connections)
    text = "left: inputs down, outputs across; right: strengths, pale: before, full: after"
    sheet.note(figure, 0.57, text)
    sheet.note(figure, 0.74, f"before: {before}")
    for index, (name, picture) in enumerate(shown.items()):
        left, top = sheet.LEFT + SHEET / 2 * (index % 2), TOP + index // 2 * BLOCK
        words = f"{sheet.short(name, 26)}   {connection_label(picture)}"
        sheet.write(axes, left, top + 0.13, words)
        _pairs(axes, left, top + 0.22, picture)


def draw_connection(figure: Any, picture: ConnectionPicture) -> None:
    """Draw one layer on a figure of its own."""
    _pairs(sheet.canvas(figure, WIDTH, SIDE + 0.24), 0.02, 0.02, picture)


def _pairs(axes: Any, left: float, top: float, picture: ConnectionPicture) -> None:
    density_map(axes, picture.pairs, left, top)
    box = (left + BOX[0], top + BOX[1], *BOX[2:])
    sheet.magnitudes(axes, box, picture.before, picture.after, picture.limits)
    sheet.write(axes, left, top + SIDE + 0.16, dead_words(picture), sheet.SMALL, sheet.FAINT)


def connection_bars(pictures: Mapping[str, ConnectionPicture]) -> list[Bar]:
    """The fraction of the connections that is left."""
    return [Bar(name, 1.0, p.density, connection_label(p)) for name, p in pictures.items()]


def connection_label(picture: ConnectionPicture) -> str:
    """The fraction and the counts: "0.7000 · 14 of 20"."""
    share = fraction(picture.density)
    return f"{share} · {count(picture.kept)} of {count(picture.connections)}"


def dead_words(picture: ConnectionPicture) -> str:
    """Channels that are cut off: "2 of 16 inputs, 0 of 32 outputs cut off"."""
    inputs = f"{picture.dead_inputs} of {picture.inputs} inputs"
    return f"{inputs}, {picture.dead_outputs} of {picture.outputs} outputs cut off"


def connections_before(pictures: Mapping[str, ConnectionPicture]) -> str:
    """What "before" means in these pictures."""
    return sheet.before_words(pictures, "what the net holds without its mask")
