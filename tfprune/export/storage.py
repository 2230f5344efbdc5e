"""Storages: how weights are stored in a file, and how near to the Keras model it must stay."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Storage:
    """A way to store weights.

    Attributes:
        name: its name.
        max_error, rms_error: limits of max|d| / max|ref| and of norm(d) / norm(ref).
        exact: whether files are compared directly; others only after the float32 form of the same
            graph agreed.
        calibrated: whether it needs representative data.
        integer: whether files compute in integers, which runtimes round in their own ways.
        in_float32: whether the graph that the storage leads to holds float32 values instead.
    """

    name: str
    max_error: float
    rms_error: float
    exact: bool = True
    calibrated: bool = False
    integer: bool = False
    in_float32: bool = False

    @property
    def values(self) -> str:
        """Name of the storage whose values are written."""
        return "float32" if self.in_float32 else self.name

    def with_float32_values(self) -> "Storage":
        """A storage that leads to the same graph, with float32 values in it."""
        return dataclasses.replace(self, in_float32=True, exact=True, calibrated=False)


STORAGES = {
    storage.name: storage
    for storage in (
        Storage("float32", 1e-4, 5e-5),
        Storage("float16", 2e-2, 1e-2),
        Storage("int8", 0.5, 0.25, exact=False, calibrated=True, integer=True),
        Storage("int8_dynamic", 0.5, 0.25, exact=False, integer=True),
    )
}


# Storages of values alone: all compute in float32, and no activation has a range to calibrate.
VALUES = {
    name: dataclasses.replace(STORAGES[name], calibrated=False, integer=False)
    for name in ("float32", "float16", "int8")
}

FLOAT32 = {"float32": STORAGES["float32"]}


def find_storage(name: object, storages: Mapping[str, Storage] = STORAGES) -> Storage:
    """Return the storage of that name, of those that a target takes."""
    storage = storages.get(name) if isinstance(name, str) else None
    if storage is None:
        raise ValueError(f"`storage` must be one of {tuple(storages)}. Received: {name!r}.")
    return storage


def check_path(path: Any) -> Path:
    """Resolve the path of a `.tflite` file to write, links followed.

    Raises:
        TypeError: if it is no path.
        ValueError: if it has another suffix, its folder does not exist, or it is a folder.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`path` must be a string or a path. Received: {type(path).__name__}.")
    given = Path(os.fsdecode(path))
    if given.suffix != ".tflite":
        raise ValueError(f"`path` must end in '.tflite'. Received: {os.fspath(path)!r}.")
    resolved = given.resolve()
    if not resolved.parent.is_dir():
        raise ValueError(f"The folder of `path` must exist; create it first. Received: {given}.")
    if resolved.is_dir():
        raise ValueError(f"`path` must name a file; a folder is there. Received: {given}.")
    return resolved
