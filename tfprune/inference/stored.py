"""What stripped layers were made of: the coefficients that a kernel was decoded from, and zeros.

`strip` bakes the effective weights in. What reads a stripped model and wants coefficients would
have to transform the kernel back, and to guess which of them are zeros that were rounded. So they
are kept beside the layer, for as long as its weight is the one that they gave.
"""

from __future__ import annotations

import dataclasses
import hashlib
import weakref
from typing import Any

import keras
import numpy as np

from tfprune.graph.layers import find_variable, variable_of, weighted_layers
from tfprune.maths.domains import DCT
from tfprune.pruned.layers import STATE

CONVOLUTION = ("kh", "kw", "cin", "cout")


@dataclasses.dataclass(frozen=True)
class Stored:
    """DCT coefficients of a kernel, zeros where they are pruned.

    Attributes:
        coefficients: float32 [kh, kw, cin, cout].
        digest: of the kernel that they give.
    """

    coefficients: np.ndarray
    digest: bytes


_stored: weakref.WeakKeyDictionary[keras.Layer, Stored] = weakref.WeakKeyDictionary()


def stored_of(layer: keras.Layer, copy: keras.Layer) -> Stored | None:
    """What is stored of the kernel of a pruned layer; None where its zeros are in the kernel.

    Args:
        copy: the stripped layer, which holds the effective kernel.
    """
    state = getattr(layer, STATE, None)
    spec = None if state is None else state.specs.get("kernel")
    if state is None or spec is None or not isinstance(state.domain, DCT):
        return None
    if spec.axes != CONVOLUTION:
        return None
    return Stored(state.stored("kernel"), _digest(variable_of(copy, "kernel")))


def keep(layer: keras.Layer, stored: Stored | None) -> None:
    """Remember what is stored of a stripped layer's kernel."""
    if stored is not None:
        _stored[layer] = stored


def hand_over(model: keras.Model, copy: keras.Model) -> None:
    """Remember of the layers of a copy what is known of the model's."""
    pairs = zip(weighted_layers(model), weighted_layers(copy), strict=True)
    for (_, layer), (_, copied) in pairs:
        keep(copied, _stored.get(layer))


def coefficients_of(layer: keras.Layer) -> np.ndarray | None:
    """The coefficients of a layer's kernel, [kh, kw, cin, cout]; None where they are not known.

    They are not known of a kernel that has changed since it was stripped.
    """
    stored, kernel = _stored.get(layer), find_variable(layer, "kernel")
    if stored is None or kernel is None or _digest(kernel) != stored.digest:
        return None
    return stored.coefficients


def _digest(kernel: Any) -> bytes:
    array = np.ascontiguousarray(keras.ops.convert_to_numpy(kernel))
    return hashlib.blake2b(array.tobytes(), digest_size=16).digest()
