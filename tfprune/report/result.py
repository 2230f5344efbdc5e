"""`report(model)`, and the `Report` it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from tfprune.measure import Measurement, measure
from tfprune.report.bands import BandPicture, band_pictures
from tfprune.report.connections import ConnectionPicture, connection_pictures
from tfprune.report.pictures import Picture, picture
from tfprune.report.table import inline_html, text_table
from tfprune.training.layers import STATE, left_out, weighted_layers


@dataclasses.dataclass(frozen=True)
class Report:
    """What pruning left of a net; `print(report)` shows it as a table.

    Attributes:
        name: the model's name.
        measurement: the numbers (`tfprune.measure`).
        asked: layer -> sparsity asked for by its method or schedule, where it asks for one.
        left_out: (layer, reason) of each layer that is not pruned; empty if none is pruned.
        pictures: layer -> what the page draws of its main kernel.
        bands: layer -> its frequency bands, where its method has bands.
        connections: layer -> the kernels between its channels, where whole ones are pruned.
    """

    name: str
    measurement: Measurement
    asked: Mapping[str, float]
    left_out: tuple[tuple[str, str], ...]
    pictures: Mapping[str, Picture] = dataclasses.field(repr=False)
    bands: Mapping[str, BandPicture] = dataclasses.field(repr=False)
    connections: Mapping[str, ConnectionPicture] = dataclasses.field(repr=False)

    def __str__(self) -> str:
        return text_table(self)

    def _repr_html_(self) -> str:
        return inline_html(self)

    def to_dict(self) -> dict[str, Any]:
        """All numbers, JSON-able: `Measurement.to_dict`, what was asked for, bands, connections."""
        data = self.measurement.to_dict()
        for row in data["layers"]:
            row["asked_sparsity"] = self.asked.get(row["name"])
            bands = self.bands.get(row["name"])
            row["band_densities"] = None if bands is None else bands.densities
            pairs = self.connections.get(row["name"])
            row["connections"] = None if pairs is None else pairs.to_dict()
        out = [{"name": name, "reason": reason} for name, reason in self.left_out]
        return {"model": self.name, **data, "left_out": out}

    def plot(self, path: str | Path, what: str = "density") -> Path:
        """Draw a figure to a `.png`, `.svg` or `.pdf` file; return its path.

        Args:
            path: where to write it.
            what: "density" of each layer; "bands", the density of each frequency band and its
                magnitudes before and after pruning; "filters", some kernels before and after;
                "connections", the kernels between channels, how strong and which are left.

        Raises:
            ImportError: without matplotlib (`pip install tfprune[plots]`).
            ValueError: for another suffix or word, or where no layer has what is to be drawn.
        """
        from tfprune.report.plot import plot

        return plot(self, Path(path), what)

    def to_html(
        self, path: str | Path, history: Any = None, export: Any = None, title: str | None = None
    ) -> Path:
        """Write one self-contained HTML page and return its path.

        Args:
            path: where to write it.
            history: a Keras `History` or {name: values per epoch}; drawn as curves.
            export: an `ExportResult`, several of them in a list, or dicts; shown as a table.
            title: heading of the page; by default the model's name.
        """
        from tfprune.report.page import write_page

        return write_page(self, Path(path), history, export, title)


def report(
    model: keras.Layer, input_shape: Any = None, before: keras.Layer | None = None
) -> Report:
    """Measure a model, plain or pruned, and return a printable `Report`.

    Args:
        model: a built Keras 3 model.
        input_shape: shape of one example, where the model does not know it (see
            `tfprune.measure.measure`).
        before: the model that pruning started from, for pictures of frequency bands and of
            connections; without it they compare with what the net holds without its masks.

    Raises:
        TypeError, ValueError: as `measure`; if `before` is no Keras model, or lacks a weight that
            is pruned.
    """
    numbers = measure(model, input_shape)
    layers = weighted_layers(model)
    asked = {name: _asked(getattr(layer, STATE, None)) for name, layer in layers}
    pruned = any(getattr(layer, STATE, None) is not None for _, layer in layers)
    drawn = {name: picture(layer) for name, layer in layers}
    return Report(
        name=model.name,
        measurement=numbers,
        asked={name: value for name, value in asked.items() if value is not None},
        left_out=tuple(left_out(model)) if pruned else (),
        pictures={name: value for name, value in drawn.items() if value is not None},
        bands=band_pictures(model, before),
        connections=connection_pictures(model, before),
    )


def _asked(state: Any) -> float | None:
    """The final sparsity that a layer's method or schedule asks of each layer."""
    if state is None or state.method.scope == "global":
        return None
    target = state.method.wanted
    for name in ("final_target", "final_sparsity", "target_sparsity"):
        target = getattr(state.schedule, name, None) if target is None else target
    return None if target is None else float(target)
