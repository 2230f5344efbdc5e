"""What becomes of a drawing: a file, or SVG inside a page. The only door to matplotlib."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tfprune.files import write_atomically
from tfprune.report.table import printable

FORMATS = (".png", ".svg", ".pdf")
MOST_PIXELS = 60_000  # of a picture's height; matplotlib draws less than 2**16
# Names are no formulas, and equal drawings are equal files.
SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "text.parse_math": False,
    "image.composite_image": False,
    "svg.hashsalt": "tfprune",
}
UNDATED: dict[str, dict[str, Any]] = {
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "pdf": {"CreationDate": None},
}
PIXELS_PER_POINT = 96 / 72
FONT = "font-family: 'DejaVu Sans'; "  # as matplotlib writes it
LEVEL = re.compile(r"rotate\(-0 [^)]*\)")


def write_figure(path: Path, draw: Callable[[Any], None]) -> Path:
    """Write what `draw` puts on an empty matplotlib figure to a `.png`, `.svg` or `.pdf` file.

    Raises:
        ImportError: without matplotlib (`pip install tfprune[plots]`).
        ValueError: for another suffix.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"`path` must end in one of {', '.join(FORMATS)}. Received: '{path}'.")
    kind = path.suffix[1:].lower()
    with style():
        figure = new_figure()
        draw(figure)
        dpi = min(160.0, MOST_PIXELS / figure.get_figheight())
        data = _saved(figure, kind, dpi=dpi)
    write_atomically(path, data)
    return path


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
            data = _saved(figure, "svg")
    root = ElementTree.fromstring(data)
    width = float(root.attrib["viewBox"].split()[2]) * PIXELS_PER_POINT
    size = {"viewBox": root.attrib["viewBox"], "width": f"{width:.0f}"}
    used = set(re.findall(rb'(?:href="#|url\(#)([^")]+)', data))
    element = ElementTree.Element("svg", {**size, "role": "img", "aria-label": printable(label)})
    element.extend(_plain(root, {name.decode() for name in used}))
    return ElementTree.tostring(element, "unicode")


@contextlib.contextmanager
def style() -> Iterator[None]:
    """matplotlib's own style and `SETTINGS`, whatever the user has set.

    Raises:
        ImportError: without matplotlib (`pip install tfprune[plots]`).
    """
    try:
        import matplotlib.style
    except ImportError as error:
        raise ImportError(NEEDED) from error
    with matplotlib.style.context(["default", SETTINGS]):
        yield


NEEDED = "Plots and pages need matplotlib and Jinja2: `pip install tfprune[plots]`."


def new_figure() -> Any:
    """An empty figure that no window knows.

    Raises:
        ImportError: without matplotlib (`pip install tfprune[plots]`).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(NEEDED) from error
    return Figure()


def _saved(figure: Any, kind: str, **settings: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format=kind, metadata=UNDATED.get(kind), **settings)
    return data.getvalue()


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
    return value.replace(FONT, "") if name == "style" else value
