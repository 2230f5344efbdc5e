"""The HTML page: one file that needs nothing from outside it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfprune.files import write_atomically
from tfprune.report.findings import Findings
from tfprune.report.page import bands, charts, connections
from tfprune.report.page.style import STYLE
from tfprune.report.pictures import ABOVE, Picture, png
from tfprune.report.table import count, fraction, html_table, layer_table, ratio_table, times

CARDS = 60  # layers whose kernel is drawn, at most


def write_page(
    report: Findings, path: Path, history: Any = None, export: Any = None, title: str | None = None
) -> Path:
    """Write the page; see `Report.to_html`."""
    text = page(report, history, export, title)
    write_atomically(path, text.encode())
    return path


def page(
    report: Findings, history: Any = None, export: Any = None, title: str | None = None
) -> str:
    """The page as a string."""
    heading = html.escape(report.name if title is None else title)
    body = "\n".join(
        [
            f"<h1>{heading}</h1>",
            _summary(report),
            _section("What is left", ratio_table(report), RATIO_WORDS),
            _section("Density of each layer", _density(report), DENSITY_WORDS),
            _section("Multiply-adds of each layer", _work(report), WORK_WORDS),
            _section("Layers", layer_table(report)),
            _section("Training", _curves(history)),
            _section("Exported files", _exports(export)),
            _section("Kernels", _kernels(report), KERNEL_WORDS),
            _section("Frequency bands", _bands(report), bands.words(report.bands)),
            _section("Connections", _connections(report), connections.words(report.connections)),
            _section("Not pruned", _left_out(report)),
            _section("Notes", _notes(report)),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{heading}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


RATIO_WORDS = (
    "Three ways of counting that are easily mixed up, and the multiply-adds. With indices means "
    "that each tensor is stored in the cheaper of dense float32 and compressed rows."
)
DENSITY_WORDS = (
    "Fraction of a layer's weights and biases that is not zero; a thin line marks what was asked "
    "for."
)
WORK_WORDS = (
    "One inference on one example; pale: all, full: those whose weight is not zero. A dense "
    "runtime does all of them."
)
KERNEL_WORDS = (
    "Left: where the non-zeros of the kernel lie, with its last axis across and all others down "
    "(cells are blocks of weights; darker is denser). Right: how large the non-zeros are."
)


def _section(title: str, content: str, words: str = "") -> str:
    if not content:
        return ""
    note = f"<p>{html.escape(words)}</p>" if words else ""
    return f'<section><h2>{title}</h2>{note}<div class="scroll">{content}</div></section>'


def _summary(report: Findings) -> str:
    numbers = report.measurement
    cards = [
        (times(numbers.compression), "fewer weights and biases"),
        (count(numbers.nonzero), f"of {count(numbers.parameters)} are not zero"),
        (times(numbers.compression_with_indices), "fewer bytes, stored with indices"),
        (times(numbers.theoretical_speedup), "fewer multiply-adds, in theory"),
    ]
    inner = "".join(f"<div><b>{html.escape(a)}</b>{html.escape(b)}</div>" for a, b in cards)
    return f'<div class="cards">{inner}</div>'


def _density(report: Findings) -> str:
    rows = []
    for layer in report.measurement.layers:
        asked = report.asked.get(layer.name)
        words = f"{fraction(layer.density)} · {count(layer.nonzero)} of {count(layer.parameters)}"
        mark = None if asked is None else 1 - asked
        rows.append((layer.name, 1.0, layer.density or 0.0, words, mark))
    return charts.bars(rows, "density of each layer")


def _work(report: Findings) -> str:
    layers = [layer for layer in report.measurement.layers if layer.macs]
    most = max((layer.macs or 0 for layer in layers), default=0)
    rows = [
        (
            layer.name,
            (layer.macs or 0) / most,
            (layer.macs_kept or 0) / most,
            f"{count(layer.macs_kept)} of {count(layer.macs)}",
            None,
        )
        for layer in layers
    ]
    return charts.bars(rows, "multiply-adds of each layer") if rows else ""


def _curves(history: Any) -> str:
    values = getattr(history, "history", history) or {}
    panels: dict[str, dict[str, Sequence[float]]] = {}
    for name, line in values.items():
        if len(line):
            panels.setdefault(_panel(name), {})[name] = [float(v) for v in line]
    drawn = "".join(charts.curves(title, lines) for title, lines in panels.items())
    return f'<div class="panels">{drawn}</div>' if drawn else ""


def _panel(name: str) -> str:
    """Which curves share a panel: a metric with its `val_` twin, and all sparsities."""
    return "sparsity" if "sparsity" in name else name.removeprefix("val_")


def _exports(export: Any) -> str:
    if not export:
        return ""
    results = list(export) if isinstance(export, list | tuple) else [export]
    plain = [r if isinstance(r, Mapping) else r.to_dict() for r in results]
    keys = list(dict.fromkeys(key for row in plain for key in row))
    rows = [(key, *(_value(row.get(key, "")) for row in plain)) for key in keys]
    return html_table(("", *(str(number + 1) for number in range(len(plain)))), rows, len(keys) + 1)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_value(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _kernels(report: Findings) -> str:
    shown = [layer for layer in report.measurement.layers if layer.name in report.pictures]
    cards = [_kernel(layer.name, report.pictures[layer.name]) for layer in shown[:CARDS]]
    return f'<div class="kernels">{"".join(cards)}</div>{_more(len(shown))}' if cards else ""


def _more(layers: int) -> str:
    return f"<p>{layers - CARDS} more layers are not drawn.</p>" if layers > CARDS else ""


def _kernel(name: str, drawn: Picture) -> str:
    histogram = charts.histogram(drawn.counts, drawn.limit)
    return charts.card(name, "non-zeros", png(drawn.density, ABOVE), histogram)


def _bands(report: Findings) -> str:
    drawn = dict(list(report.bands.items())[:CARDS])
    return bands.charts(drawn) + _more(len(report.bands)) if drawn else ""


def _connections(report: Findings) -> str:
    drawn = report.connections
    return connections.drawing(drawn, CARDS) + _more(len(drawn)) if drawn else ""


def _left_out(report: Findings) -> str:
    return html_table(("layer", "reason"), list(report.left_out), 2) if report.left_out else ""


def _notes(report: Findings) -> str:
    return "".join(f"<p>{html.escape(note)}</p>" for note in report.measurement.notes)
