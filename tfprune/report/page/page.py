"""The HTML page: one file that needs nothing from outside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tfprune.files import write_atomically
from tfprune.report.figures import bands, bars, connections, curves, kernels
from tfprune.report.figures.output import NEEDED, style
from tfprune.report.findings import Findings
from tfprune.report.page import exports
from tfprune.report.page.inline import Pen
from tfprune.report.page.section import (
    ASKED_WORDS,
    BAND_WORDS,
    CONNECTION_WORDS,
    DENSITY_WORDS,
    EXPORT_WORDS,
    KERNEL_WORDS,
    RATIO_WORDS,
    WORK_WORDS,
    Section,
)
from tfprune.report.table import count, html_table, layer_table, ratio_table, times

CARDS = 60  # layers whose kernel, bands or connections are drawn, at most


def write_page(
    report: Findings, path: Path, history: Any = None, export: Any = None, title: str | None = None
) -> Path:
    """Write the page; see `Report.to_html`."""
    text = page(report, history, export, title)
    write_atomically(path, text.encode("utf-8", "replace"))
    return path


def page(
    report: Findings, history: Any = None, export: Any = None, title: str | None = None
) -> str:
    """The page as a string; see `Report.to_html`."""
    template = _template()
    with style():
        pen = Pen()
        sections = [
            Section("What is left", RATIO_WORDS, [("", ratio_table(report))]),
            _density(report, pen),
            _work(report, pen),
            Section("Layers", tables=[("", layer_table(report))]),
            _training(history, pen),
            _exports(export),
            _kernels(report, pen),
            _bands(report, pen),
            _connections(report, pen),
            _left_out(report),
            Section("Notes", notes=list(report.measurement.notes)),
        ]
    return template.render(
        title=report.name if title is None else title,
        summary=_summary(report),
        sections=[section for section in sections if not section.is_empty],
    )


def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(NEEDED) from error
    loader = jinja2.PackageLoader("tfprune.report.page", ".")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")


def _summary(report: Findings) -> list[tuple[str, str]]:
    """The cards on top: (ratio or count, what it is)."""
    measurement = report.measurement
    return [
        (times(measurement.compression), "fewer weights and biases"),
        (count(measurement.nonzero), f"of {count(measurement.parameters)} are not zero"),
        (times(measurement.compression_with_indices), "fewer bytes, stored with indices"),
        (times(measurement.theoretical_speedup), "fewer multiply-adds, in theory"),
    ]


def _density(report: Findings, pen: Pen) -> Section:
    words = DENSITY_WORDS + (ASKED_WORDS if report.asked else "")
    lines = bars.density_bars(report)
    charts = [pen("density of each layer", bars.draw_bars, lines)] if lines else []
    return Section("Density of each layer", words, charts=charts, half=True)


def _work(report: Findings, pen: Pen) -> Section:
    lines = bars.work_bars(report)
    charts = [pen("multiply-adds of each layer", bars.draw_bars, lines)] if lines else []
    return Section("Multiply-adds of each layer", WORK_WORDS, charts=charts, half=True)


def _training(history: Any, pen: Pen) -> Section:
    panels = curves.panels(history)
    charts = [pen(title, curves.draw_curves, title, lines) for title, lines in panels.items()]
    return Section("Training", charts=charts)


def _exports(export: Any) -> Section:
    files = exports.results(export)
    if not files:
        return Section("Exported files")
    tables = [("", exports.file_table(files))]
    for result in files:
        layers = exports.layer_table(result)
        name = exports.file_name(result)
        tables += [(f"Layers of {name}" if name else "Layers", layers)] if layers else []
    notes = [note for result in files for note in exports.notes(result)]
    return Section("Exported files", EXPORT_WORDS, tables, notes=notes)


def _kernels(report: Findings, pen: Pen) -> Section:
    pictures = report.pictures
    cards, hidden = _cards(pictures, lambda p: pen(kernels.kernel_label(p), kernels.draw_kernel, p))
    return Section("Kernels", KERNEL_WORDS, cards=cards, hidden=hidden)


def _bands(report: Findings, pen: Pen) -> Section:
    merged = {name: picture.merged() for name, picture in list(report.bands.items())[:CARDS]}
    if not merged:
        return Section("Frequency bands")
    charts = [pen("density of each band of each layer", bands.draw_map, merged)]
    label = "magnitudes in each band, before and after pruning"
    cards, _ = _cards(merged, partial(pen, label, bands.draw_layer))
    words = BAND_WORDS.format(bands.bands_before(report.bands))
    hidden = max(len(report.bands) - CARDS, 0)
    return Section(
        "Frequency bands", words, charts=charts, cards=cards, kind="bands", hidden=hidden
    )


def _connections(report: Findings, pen: Pen) -> Section:
    pictures = report.connections
    if not pictures:
        return Section("Connections")
    lines = connections.connection_bars(pictures)
    charts = [pen("connections that are left in each layer", bars.draw_bars, lines)]
    cards, hidden = _cards(
        pictures,
        lambda p: pen(connections.connection_label(p), connections.draw_connection, p),
    )
    words = CONNECTION_WORDS.format(connections.connections_before(pictures))
    return Section("Connections", words, charts=charts, cards=cards, hidden=hidden)


def _cards(
    pictures: Mapping[str, Any], draw: Callable[[Any], str]
) -> tuple[list[tuple[str, str]], int]:
    """(name, SVG) of the first layers, and the count of the others."""
    shown = list(pictures.items())[:CARDS]
    return [(name, draw(picture)) for name, picture in shown], len(pictures) - len(shown)


def _left_out(report: Findings) -> Section:
    lines = list(report.left_out)
    tables = [("", html_table(("layer", "reason"), lines, {0, 1}))] if lines else []
    return Section("Not pruned", tables=tables)
