"""What a report holds: the numbers and pictures of a net, without what is done with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfprune.report.bands import BandPicture
from tfprune.report.connections import ConnectionPicture
from tfprune.report.kernels import Picture
from tfprune.report.measurement import Measurement


@dataclasses.dataclass(frozen=True)
class Findings:
    """What pruning left of a net.

    Attributes:
        name: the model's name.
        measurement: the numbers (`tfprune.report.measurement`).
        asked: layer -> sparsity that its method or schedule asks of it, where it asks for any.
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

    def to_dict(self) -> dict[str, Any]:
        """All numbers, JSON-able: `Measurement.to_dict`, what was asked for, bands, connections."""
        data = self.measurement.to_dict()
        for layer in data["layers"]:
            layer["asked_sparsity"] = self.asked.get(layer["name"])
            bands = self.bands.get(layer["name"])
            layer["band_densities"] = None if bands is None else bands.densities
            pairs = self.connections.get(layer["name"])
            layer["connections"] = None if pairs is None else pairs.to_dict()
        out = [{"name": name, "reason": reason} for name, reason in self.left_out]
        return {"model": self.name, **data, "left_out": out}
