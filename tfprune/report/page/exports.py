"""The tables of exported files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from tfprune.report.table import count, fraction, html_table

Fields = Mapping[str, Any]
TEXTS = ("file", "target", "storage")  # the first columns; all others but the last hold numerals
# Keys of a result that have no column; `layers` and `notes` stand below the table.
ASIDE = (
    *("path", "max_relative_error", "rms_relative_error", "tolerance", "samples_checked"),
    *("reference_samples_checked", "arm_samples_checked", "data_source", "inputs", "outputs"),
    *("layers", "notes", "ops"),
)
TITLES = {"gzip_bytes": "gzip bytes"}


def results(export: Any) -> list[Fields]:
    """The results as dicts.

    Args:
        export: an `ExportResult`, a dict as of its `to_dict`, several of them in a list, or None.
    """
    if not export:
        return []
    given = list(export) if isinstance(export, list | tuple) else [export]
    for result in given:
        if not isinstance(result, Mapping) and not hasattr(result, "to_dict"):
            raise TypeError(
                "`export` must be what `export_tflite` returns, a dict as of its `to_dict()`, or a "
                f"list of them. Received: {result!r}."
            )
    return [result if isinstance(result, Mapping) else result.to_dict() for result in given]


def file_name(result: Fields) -> str:
    """The name of the file, without its folder."""
    return PurePath(str(result.get("path", ""))).name


def file_table(files: Sequence[Fields]) -> str:
    """One line per file as HTML; columns that no file fills are left out."""
    lines = [_file_cells(result) for result in files]
    filled = [title for title in _titles(lines) if any(line.get(title) for line in lines)]
    # operations are a list, long and at the end
    head = tuple(sorted(filled, key=lambda title: title == "operations"))
    body = [tuple(line.get(title, "") for title in head) for line in lines]
    texts = {i for i, title in enumerate(head) if title in (*TEXTS, "operations")}
    return html_table(head, body, texts)


def _titles(lines: Sequence[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(title for line in lines for title in line))


def _file_cells(result: Fields) -> dict[str, str]:
    """Title -> cell; keys that an `ExportResult` has not follow behind the usual ones."""
    cells = {"file": file_name(result)}
    usual = ("target", "storage", "bytes", "gzip_bytes")
    cells |= {TITLES.get(key, key): value_text(result.get(key)) for key in usual}
    cells["largest error"] = _error(result)
    agreement = result.get("agreement")
    cells["agreement"] = fraction(agreement) if isinstance(agreement, float) else ""
    cells["samples checked"] = value_text(result.get("samples_checked"))
    cells["operations"] = value_text(result.get("ops"))
    others = [key for key in result if key not in (*usual, *ASIDE, "agreement")]
    return cells | {str(key): value_text(result[key]) for key in others}


def _error(result: Fields) -> str:
    error, limit = result.get("max_relative_error"), result.get("tolerance")
    if error is None:
        return ""
    return f"{error:.2g}" + ("" if limit is None else f" (limit {limit:.2g})")


def layer_table(result: Fields) -> str:
    """The forms of a file's layers as HTML; "" where it has none."""
    layers = [_fields(layer) for layer in result.get("layers") or ()]
    if not layers:
        return ""
    head: tuple[str, ...] = ("layer", "form", "density", "dense bytes", "stored bytes", "note")
    texts = {0, 1, 5}
    if not any(layer.get("note") for layer in layers):
        head = head[:5]
    return html_table(head, [_layer_cells(layer)[: len(head)] for layer in layers], texts)


def _fields(layer: Any) -> Fields:
    if dataclasses.is_dataclass(layer) and not isinstance(layer, type):
        return dataclasses.asdict(layer)
    return layer if isinstance(layer, Mapping) else {"name": str(layer)}


def _layer_cells(layer: Fields) -> tuple[str, ...]:
    density = layer.get("density")
    return (
        value_text(layer.get("name")),
        value_text(layer.get("form")),
        "" if density is None else fraction(density),
        value_text(layer.get("dense_bytes")),
        value_text(layer.get("stored_bytes")),
        value_text(layer.get("note")),
    )


def notes(result: Fields) -> list[str]:
    """The notes of a file, led by its name."""
    lines = result.get("notes") or ()
    lines = [lines] if isinstance(lines, str) else lines
    return [f"{file_name(result) or 'file'}: {line}" for line in lines]


def value_text(value: Any) -> str:
    """Any value in short: counts with commas, four digits of a float, mappings as "key: value"."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {value_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return count(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)
