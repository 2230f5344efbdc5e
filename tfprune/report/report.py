"""`report(model)` and the `Report` that it returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from tfprune.graph.layers import weighted_layers
from tfprune.pruned.layers import STATE, left_out
from tfprune.report.bands import band_pictures
from tfprune.report.connections import connection_pictures
from tfprune.report.figures.figure import plot
from tfprune.report.findings import Findings
from tfprune.report.kernels import picture
from tfprune.report.measure import measure
from tfprune.report.page.page import write_page
from tfprune.report.table import inline_html, text_table
from tfprune.schedules import final_sparsity


class Report(Findings):
    """What pruning left of a net; `print(report)` shows it as a table.

    Attributes: those of `tfprune.report.findings.Findings`.
    """

    def __str__(self) -> str:
        return text_table(self)

    def _repr_html_(self) -> str:
        return inline_html(self)

    def plot(self, path: str | Path, what: str = "density") -> Path:
        """Draw a figure to a `.png`, `.svg` or `.pdf` file; return its path.

        Args:
            path: where to write it.
            what: "density" of each layer; "bands", the density of each frequency band and its
                magnitudes before and after pruning; "filters", some kernels before and after;
                "connections", the kernels between channels, how strong and which are left.

        Raises:
            ImportError: without matplotlib (`pip install tfprune[plots]`).
            ValueError: for another suffix or another `what`, or where no layer has what is to be
                drawn.
        """
        return plot(self, Path(path), what)

    def to_html(
        self, path: str | Path, history: Any = None, export: Any = None, title: str | None = None
    ) -> Path:
        """Write one self-contained HTML page and return its path.

        Args:
            path: where to write it.
            history: a Keras `History` or {name: values per epoch}; drawn as curves.
            export: an `ExportResult`, several of them in a list, or dicts as of its `to_dict`;
                shown as a table of files and tables of their layers.
            title: heading of the page; by default the model's name.

        Raises:
            ImportError: without matplotlib or Jinja2 (`pip install tfprune[plots]`).
            TypeError: if `history` or `export` is something else.
        """
        return write_page(self, Path(path), history, export, title)


def report(
    model: keras.Layer, input_shape: Any = None, before: keras.Layer | None = None
) -> Report:
    """Measure a model, plain or pruned, and return a printable `Report`.

    Args:
        model: a built Keras 3 model.
        input_shape: shape of one example, where the model does not know it (see
            `tfprune.report.measure.measure`).
        before: the model that pruning started from, for pictures of frequency bands and of
            connections; without it they compare with what the net holds without its masks.

    Raises:
        TypeError, ValueError: as `measure`; if `before` is no Keras model, or lacks a weight that
            is pruned.
    """
    measurement = measure(model, input_shape)
    layers = weighted_layers(model)
    asked = {name: _asked(getattr(layer, STATE, None)) for name, layer in layers}
    pruned = any(getattr(layer, STATE, None) is not None for _, layer in layers)
    drawn = {name: picture(layer) for name, layer in layers}
    return Report(
        name=model.name,
        measurement=measurement,
        asked={name: value for name, value in asked.items() if value is not None},
        left_out=tuple(left_out(model)) if pruned else (),
        pictures={name: value for name, value in drawn.items() if value is not None},
        bands=band_pictures(model, before),
        connections=connection_pictures(model, before),
    )


def _asked(state: Any) -> float | None:
    """The final sparsity that a layer's method or schedule asks of each layer."""
    if state is None or state.method.target.scope == "global":
        return None
    target = state.method.target.sparsity
    return final_sparsity(state.schedule) if target is None else target
