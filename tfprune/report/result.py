"""`report(model)`, and the `Report` it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from tfprune.measure import Measurement, measure
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
    """

    name: str
    measurement: Measurement
    asked: Mapping[str, float]
    left_out: tuple[tuple[str, str], ...]
    pictures: Mapping[str, Picture] = dataclasses.field(repr=False)

    def __str__(self) -> str:
        return text_table(self)

    def _repr_html_(self) -> str:
        return inline_html(self)

    def to_dict(self) -> dict[str, Any]:
        """All numbers, JSON-able; the keys of `Measurement.to_dict` and what was asked for."""
        data = self.measurement.to_dict()
        for row in data["layers"]:
            row["asked_sparsity"] = self.asked.get(row["name"])
        out = [{"name": name, "reason": reason} for name, reason in self.left_out]
        return {"model": self.name, **data, "left_out": out}

    def plot(self, path: str | Path) -> Path:
        """Draw the density of each layer to a `.png`, `.svg` or `.pdf` file; return its path.

        Raises:
            ImportError: without matplotlib (`pip install tfprune[plots]`).
            ValueError: for another suffix.
        """
        from tfprune.report.plot import plot

        return plot(self, Path(path))

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


def report(model: keras.Layer, input_shape: Any = None) -> Report:
    """Measure a model, plain or pruned, and return a printable `Report`.

    Args:
        model: a built Keras 3 model.
        input_shape: shape of one example, where the model does not know it (see
            `tfprune.measure.measure`).

    Raises:
        TypeError, ValueError: as `measure`.
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
    )


def _asked(state: Any) -> float | None:
    """The final sparsity that a layer's method or schedule asks for."""
    if state is None:
        return None
    target = getattr(state.method, "target_sparsity", None)
    for name in ("final_target", "final_sparsity", "target_sparsity"):
        target = getattr(state.schedule, name, None) if target is None else target
    return None if target is None else float(target)
