"""Which layers are pruned, and with which method and schedule: the user's `filters` and dicts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import keras

from tfprune.graph.layers import prunable_names

Layers = list[tuple[str, keras.Layer]]
Key: TypeAlias = str | type | keras.Layer | Callable[[keras.Layer], bool]


def matches(key: Key, path: str, layer: keras.Layer) -> bool:
    """Whether a regular expression (searched in the path), class, layer or callable fits."""
    if isinstance(key, str):
        return re.search(key, path) is not None
    if isinstance(key, type):
        return isinstance(layer, key)
    if isinstance(key, keras.Layer):
        return layer is key
    if callable(key):
        return bool(key(layer))
    raise TypeError(
        "A layer is selected by a regular expression, a layer class, a layer or a callable. "
        f"Received: {key!r}."
    )


def prunable(layers: Layers) -> Layers:
    """The layers with a kernel, of those of a model, (path, layer)."""
    return [(path, layer) for path, layer in layers if prunable_names(layer)]


def filtered(layers: Layers, filters: Any) -> Layers:
    """The layers that `filters` selects: None (all), a key, a list of keys, or {key: bool}.

    Raises:
        ValueError: if a regular expression is broken, or a key selects nothing.
        TypeError: for anything else.
    """
    if filters is None:
        return layers
    if isinstance(filters, Mapping):
        keys = list(filters)
        _check_keys(keys, layers)
        chosen = [(path, layer, lookup(filters, path, layer, False)) for path, layer in layers]
        return [(path, layer) for path, layer, wanted in chosen if wanted]
    if isinstance(filters, str | type | keras.Layer) or callable(filters):
        keys = [filters]
    else:
        if not isinstance(filters, Iterable):
            raise TypeError(
                "`filters` must be None, a regular expression, a layer class, a callable, a list "
                f"of these or of layers, or a dict from these to bool. Received: {filters!r}."
            )
        keys = list(filters)
    _check_keys(keys, layers)
    return [(path, layer) for path, layer in layers if any(matches(k, path, layer) for k in keys)]


def _check_keys(keys: list[Key], layers: Layers) -> None:
    names = ", ".join(path for path, _ in layers)
    for key in keys:
        try:
            selects = any(matches(key, path, layer) for path, layer in layers)
        except re.error as error:
            raise ValueError(
                f"A filter must be a regular expression. Received: {key!r} is not a regular "
                f"expression: {error}."
            ) from error
        if not selects:
            raise ValueError(
                "Every filter must select a layer that can be pruned. Received: "
                f"{key!r} selects none. The model's prunable layers: {names}."
            )


def lookup(table: Mapping[Key, Any], path: str, layer: keras.Layer, default: Any) -> Any:
    """The value of the first key that fits a layer."""
    return next((value for key, value in table.items() if matches(key, path, layer)), default)


def assigned(layers: Layers, setting: Any, what: str) -> list[Any]:
    """One value per layer, from a single value or a {key: value} dict (None where no key fits)."""
    if not isinstance(setting, Mapping):
        return [setting] * len(layers)
    if not setting:
        raise ValueError(f"`{what}` must not be an empty dict. Received: {setting!r}.")
    _check_keys(list(setting), layers)
    return [lookup(setting, path, layer, None) for path, layer in layers]
