"""The connections between channels as inline SVG and small pictures, for the page."""

from __future__ import annotations

from collections.abc import Mapping

from tfprune.report.connections import ConnectionPicture, words_before
from tfprune.report.page import charts, svg
from tfprune.report.page.svg import PANEL_H, PANEL_W, TITLE, histogram
from tfprune.report.pictures import ABOVE, png
from tfprune.report.table import count, fraction


def words(pictures: Mapping[str, ConnectionPicture]) -> str:
    """How to read the section."""
    return (
        "A connection is the kernel between one input and one output channel, its strength the "
        "norm. Bars: the fraction that is left. Small pictures: input channels down, output "
        "channels across, dark where a connection is left. Histograms: the strengths on a "
        f"logarithmic axis (pale and outlined: before, full: after); before is "
        f"{words_before(pictures)}."
    )


def drawing(pictures: Mapping[str, ConnectionPicture], most: int) -> str:
    """Bars of all layers in order of depth, then a card for each of the first `most`."""
    rows = [(name, 1.0, p.density, label(p), None) for name, p in pictures.items()]
    cards = [_card(name, picture) for name, picture in list(pictures.items())[:most]]
    bars = charts.bars(rows, "connections that are left in each layer")
    return f'{bars}<div class="kernels">{"".join(cards)}</div>'


def label(picture: ConnectionPicture) -> str:
    """The fraction and the counts."""
    share = fraction(picture.density)
    return f"{share} · {count(picture.kept)} of {count(picture.connections)}"


def dead_words(picture: ConnectionPicture) -> str:
    """Channels that are cut off: "2 of 16 inputs, 0 of 32 outputs cut off"."""
    inputs = f"{picture.dead_inputs} of {picture.inputs} inputs"
    return f"{inputs}, {picture.dead_outputs} of {picture.outputs} outputs cut off"


def _card(name: str, picture: ConnectionPicture) -> str:
    return charts.card(name, "connections", png(picture.pairs, ABOVE), _histogram(picture))


def _histogram(picture: ConnectionPicture) -> str:
    low, high = (f"{10**limit:.2g}" for limit in picture.limits)
    body = [
        svg.text(0, 12, dead_words(picture), "faint small"),
        *histogram(picture.before, picture.after, low, high),
    ]
    about = f"strengths between {low} and {high}, {label(picture)}"
    return svg.picture(PANEL_W + 60, TITLE + PANEL_H + 16, body, about)
