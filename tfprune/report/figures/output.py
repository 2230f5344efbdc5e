"""The only door to matplotlib: figures, their style, and the files that they become."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfprune.files import write_atomically

FORMATS = (".png", ".svg", ".pdf")
MOST_PIXELS = 60_000  # of a picture's height; matplotlib draws less than 2**16
NEEDED = "Plots and pages need matplotlib and Jinja2: `pip install tfprune[plots]`."
FONT = "DejaVu Sans"  # comes with matplotlib
# Names are no formulas, and equal drawings are equal files.
SETTINGS = {
    "font.family": FONT,
    "text.parse_math": False,
    "image.composite_image": False,
    "svg.hashsalt": "tfprune",
}
UNDATED: dict[str, dict[str, Any]] = {
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "pdf": {"CreationDate": None},
}


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
        data = saved(figure, kind, dpi=dpi)
    write_atomically(path, data)
    return path


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


def saved(figure: Any, kind: str, **settings: Any) -> bytes:
    """The bytes of a file; `kind` is "png", "svg" or "pdf", `settings` those of `savefig`."""
    data = io.BytesIO()
    figure.savefig(data, format=kind, metadata=UNDATED.get(kind), **settings)
    return data.getvalue()
