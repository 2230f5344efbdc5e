"""What a target is: a function from a view of a Keras model to the bytes of a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from tfprune.export.flatbuffer.layer_form import LayerForm
from tfprune.export.storage import STORAGES, Storage
from tfprune.export.verify.runtime import Row
from tfprune.export.view import View


@dataclasses.dataclass(frozen=True)
class Built:
    """The bytes of a file, and what there is to say of its layers and of itself."""

    data: bytes
    layers: tuple[LayerForm, ...] = ()
    notes: tuple[str, ...] = ()


Build = Callable[[View, Storage, list[Row]], Built]


def listed(reasons: list[str]) -> str:
    """The first eight, and how many more there are."""
    left = len(reasons) - 8
    return "; ".join(reasons[:8]) + (f"; and {left} more" if left > 0 else "")


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of file: what builds it, and the storages that it knows."""

    name: str
    build: Build
    storages: Mapping[str, Storage] = dataclasses.field(default_factory=lambda: STORAGES)
