"""Exchange of the class of a layer or model for a subclass that says it is the class it was."""

from __future__ import annotations

import types
from typing import Any

import keras


def disguised(cls: type, body: dict[str, Any]) -> type:
    """A subclass that says it is `cls`; layers and models get it by `exchange`."""
    hidden = {"__class__": property(lambda self: cls), "_tfprune_base": cls}
    return renamed(cls, {**body, **hidden})


def renamed(cls: type, body: dict[str, Any]) -> type:
    """A subclass with the name, module and docstring of `cls`."""
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return types.new_class(cls.__name__, (cls,), {}, lambda space: space.update({**names, **body}))


def exchange(layer: keras.Layer, cls: type) -> None:
    """Put another class in the place of a layer's."""
    object.__dict__["__class__"].__set__(layer, cls)
