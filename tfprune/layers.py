"""Wrappers for single layers, one per registered method, such as `NetworkSurgeryPruned(layer)`."""

from __future__ import annotations

from typing import Any

from tfprune.method import REGISTRY
from tfprune.pruned.wrappers import PruningWrapper, wrapper_names, wrapper_of

__all__ = ["PruningWrapper"]


def __getattr__(name: str) -> Any:
    method = REGISTRY.get(name.removesuffix("Pruned")) if name.endswith("Pruned") else None
    if method is None:
        raise AttributeError(
            f"module 'tfprune.layers' has no attribute {name!r}; there are {wrapper_names()}"
        )
    return wrapper_of(method)


def __dir__() -> list[str]:
    return [*__all__, *wrapper_names()]
