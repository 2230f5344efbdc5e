"""A target: a function from a view of a Keras model to the bytes of a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from tfprune.export.flatbuffer.layer_form import LayerForm
from tfprune.export.storage import STORAGES, Storage
from tfprune.export.verify.runtime import Sample
from tfprune.export.view import View


@dataclasses.dataclass(frozen=True)
class Built:
    """The bytes of a file, the forms of its layers, and notes on it."""

    data: bytes
    layers: tuple[LayerForm, ...] = ()
    notes: tuple[str, ...] = ()


Build = Callable[[View, Storage, list[Sample]], Built]


def listed(reasons: list[str]) -> str:
    """The first eight reasons, and the count of the others, as text."""
    left = len(reasons) - 8
    return "; ".join(reasons[:8]) + (f"; and {left} more" if left > 0 else "")


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        name: its name, "-" between words.
        build: writes the file: `build(view, storage, calibration samples)`.
        storages: the storages that it takes, by name.
    """

    name: str
    build: Build
    storages: Mapping[str, Storage] = dataclasses.field(default_factory=lambda: STORAGES)
