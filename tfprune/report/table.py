"""The numbers in words: cells, totals, the text table, and a small HTML table for notebooks."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence

from tfprune.report.findings import Findings
from tfprune.report.measurement import LayerMeasure

HEADERS = ("layer", "kind", "shape", "parameters", "nonzero", "density", "asked", "MACs", "kept")
LEFT = 3  # the first columns are text, the others numerals


def cells(report: Findings) -> list[tuple[str, ...]]:
    """One line of strings per layer, in the order of `HEADERS`."""
    return [_line(layer, report.asked.get(layer.name)) for layer in report.measurement.layers]


def total_cells(report: Findings) -> tuple[str, ...]:
    """The line of sums."""
    m = report.measurement
    counts = (count(m.parameters), count(m.nonzero), fraction(m.density))
    return ("total", "", "", *counts, "", count(m.macs), count(m.macs_kept))


def headers(report: Findings) -> tuple[str, ...]:
    """`HEADERS`, with what `asked` means."""
    return tuple("asked sparsity" if name == "asked" else name for name in HEADERS)


def ratios(report: Findings) -> list[tuple[str, str, str, str]]:
    """(what is counted, from, to, ratio), each of the four ratios named in full."""
    data = report.measurement.to_dict()
    lines = (
        ("compression", "all weights and biases", "parameters", "nonzero", ""),
        ("compression_weights", "prunable kernels only", "kernel_parameters", "kernel_nonzero", ""),
        ("compression_with_indices", "bytes, with indices", "dense_bytes", "stored_bytes", " B"),
        ("theoretical_speedup", "multiply-adds", "macs", "macs_kept", ""),
    )
    return [
        (f"{name} ({what})", count(data[a]) + unit, count(data[b]) + unit, times(data[name]))
        for name, what, a, b, unit in lines
    ]


def _line(layer: LayerMeasure, asked: float | None) -> tuple[str, ...]:
    return (
        layer.name,
        layer.kind,
        shape(layer.shape),
        count(layer.parameters),
        count(layer.nonzero),
        fraction(layer.density),
        "" if asked is None else fraction(asked),
        count(layer.macs),
        count(layer.macs_kept),
    )


def count(value: int | None) -> str:
    """A count with commas: 1234567 -> "1,234,567", None -> "?"."""
    return "?" if value is None else f"{value:,}"


def fraction(value: float | None) -> str:
    """A density or sparsity; four digits after the point, more where they would all be zero."""
    if value is None:
        return "?"
    return f"{value:.4f}" if value >= 1e-4 or value == 0 else f"{value:.1e}"


def times(ratio: float | None) -> str:
    """A ratio; undefined or infinite ones as a dash."""
    return "-" if ratio is None else f"{ratio:,.2f}x"


def printable(text: str) -> str:
    """A text whose control characters and lone surrogates, which XML has not, are replaced."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def shape(dims: list[int] | list[list[int]]) -> str:
    """A shape in short: [5, 5, 1, 20] -> 5x5x1x20; several shapes are joined with a plus sign."""
    several = [part for part in dims if isinstance(part, list)]
    return " + ".join("x".join(map(str, part)) or "scalar" for part in several or (dims,))


def text_table(report: Findings) -> str:
    """The whole report as plain text."""
    layers = [headers(report), *cells(report), total_cells(report)]
    table = _columns(_without_empty(layers), LEFT)
    rule = "-" * max(map(len, table))
    lines = [f"Report on '{report.name}'", "", table[0], rule, *table[1:-1], rule, table[-1], ""]
    lines += _columns([("", "dense", "kept", "ratio"), *ratios(report)], 1)
    if report.left_out:
        lines += ["", "Not pruned:"]
        lines += _columns([(f"  {name}", reason) for name, reason in report.left_out], 2)
    lines += [f"Note: {note}" for note in report.measurement.notes]
    return "\n".join(lines)


def _without_empty(lines: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Drop the columns that say nothing below their header (nobody asked for a sparsity)."""
    keep = [i for i in range(len(lines[0])) if any(line[i] for line in lines[1:])]
    return [tuple(line[i] for i in keep) for line in lines]


def _columns(lines: list[tuple[str, ...]], left: int) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def html_table(head: Sequence[str], lines: Sequence[Sequence[str]], texts: Collection[int]) -> str:
    """An escaped HTML table.

    Args:
        head: titles of the columns.
        lines: cells, as many in each line as there are titles.
        texts: indices of the columns that hold text; the others hold numerals, set to the right.
    """

    def html_line(tag: str, line: Sequence[str]) -> str:
        parts = (
            f"<{tag}{'' if i in texts else ' class=n'}>{html.escape(cell)}</{tag}>"
            for i, cell in enumerate(line)
        )
        return f"<tr>{''.join(parts)}</tr>"

    body = "\n".join(html_line("td", line) for line in lines)
    return f"<table><thead>{html_line('th', head)}</thead>\n<tbody>{body}</tbody></table>"


def layer_table(report: Findings) -> str:
    """The table of layers as HTML."""
    head, *lines = _without_empty([headers(report), *cells(report), total_cells(report)])
    return html_table(head, lines, range(LEFT))


def ratio_table(report: Findings) -> str:
    """The table of ratios as HTML."""
    return html_table(("", "dense", "kept", "ratio"), ratios(report), range(1))


def inline_html(report: Findings) -> str:
    """The two tables for notebooks, in the notebook's own style."""
    return f"<b>{html.escape(report.name)}</b>{layer_table(report)}{ratio_table(report)}"
