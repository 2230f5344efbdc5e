"""Figures as SVG elements of an HTML page."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

from tfprune.report.figures.output import FONT, new_figure, saved
from tfprune.report.figures.sheet import wipe
from tfprune.report.table import printable

PIXELS_PER_POINT = 96 / 72
FAMILY = f"font-family: '{FONT}'; "  # as matplotlib writes it
LEVEL = re.compile(r"rotate\(-0 [^)]*\)")


class Pen:
    """Draws the charts of one page, within `style`; no two of them share an id."""

    def __init__(self) -> None:
        self.figure, self.drawn = new_figure(), 0

    def __call__(self, label: str, draw: Callable[..., None], *arguments: Any) -> str:
        """Return the SVG of `draw(figure, *arguments)`."""
        self.drawn += 1
        draw(self.figure, *arguments)
        element = inline_svg(self.figure, label, f"chart{self.drawn}")
        wipe(self.figure)
        return element


def inline_svg(figure: Any, label: str, key: str) -> str:
    """A figure as an SVG element for an HTML page; its text is text and takes the page's font.

    Args:
        figure: made and drawn within `style`.
        label: what the drawing shows, for screen readers.
        key: another one for each drawing of the page: no two of them share an id.
    """
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.patch.set_visible(False)
        with warnings.catch_warnings():  # the browser has the letters that DejaVu lacks
            warnings.filterwarnings("ignore", "Glyph .* missing")
            data = saved(figure, "svg")
    root = ElementTree.fromstring(data)
    width = float(root.attrib["viewBox"].split()[2]) * PIXELS_PER_POINT
    size = {"viewBox": root.attrib["viewBox"], "width": f"{width:.0f}"}
    used = set(re.findall(rb'(?:href="#|url\(#)([^")]+)', data))
    element = ElementTree.Element("svg", {**size, "role": "img", "aria-label": printable(label)})
    element.extend(_plain(root, {name.decode() for name in used}))
    return ElementTree.tostring(element, "unicode")


def _plain(parent: ElementTree.Element, used: set[str]) -> Iterator[ElementTree.Element]:
    """Children as a page wants them: no namespaces, style sheets, idle groups or unused ids."""
    for node in parent:
        tag = node.tag.rpartition("}")[2]
        attributes = {name.rpartition("}")[2]: text for name, text in node.attrib.items()}
        if attributes.get("id") not in used:
            attributes.pop("id", None)
        if LEVEL.fullmatch(attributes.get("transform", "")):
            attributes.pop("transform")
        children = list(_plain(node, used))
        if tag in ("style", "metadata") or (tag in ("defs", "g") and not children):
            continue
        if tag == "g" and not attributes:
            yield from children
            continue
        plain = ElementTree.Element(
            tag, {name: _terse(name, attributes[name]) for name in attributes}
        )
        plain.text = node.text if tag == "text" else None
        plain.extend(children)
        yield plain


def _terse(name: str, value: str) -> str:
    """The value of an attribute without what a page has no use for; lengths to 0.01 points."""
    if name == "d":
        rounded = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}", value)
        parts = rounded.split()  # after M, pairs without a letter are lines
        return " ".join(parts if "C" in value or "Q" in value else (p for p in parts if p != "L"))
    if name == "href":  # lines of base64
        return value.replace(" ", "")
    return value.replace(FAMILY, "") if name == "style" else value
