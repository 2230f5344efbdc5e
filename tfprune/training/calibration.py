"""Serves `Samples`: the inputs of each pruned layer when the model runs on calibration data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.pruned.state import PruneState

Tensor = Any


def first_samples(data: Any, count: int) -> Any:
    """The first samples of calibration data, as the model takes them.

    Args:
        data: an array [samples, ...], or such arrays in the structure of the model's inputs.
        count: samples to take, at most; >= 1.

    Raises:
        ValueError: if there are none, their numbers differ, or one is NaN or infinite.
    """
    arrays = keras.tree.map_structure(np.asarray, data)
    leaves = keras.tree.flatten(arrays)
    lengths = {len(leaf) if leaf.ndim else 0 for leaf in leaves}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "`calibration_data` must hold at least one sample, and as many of every input: an "
            f"array [samples, ...]. Received arrays of lengths {sorted(lengths)}."
        )
    samples = keras.tree.map_structure(lambda leaf: leaf[:count], arrays)
    for leaf in keras.tree.flatten(samples):
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            raise ValueError("`calibration_data` must be finite. Received: NaN or infinity.")
    return samples


def layer_inputs(
    model: keras.Model, states: Sequence[PruneState], samples: Any
) -> dict[int, np.ndarray]:
    """id of a layer's state -> the layer's inputs [n, ...], all calls of the layer in a row.

    Raises:
        ValueError: if a layer gets no inputs of its own on these samples.
    """
    with _recording(states) as records, keras.StatelessScope():
        model(samples, training=False)
    silent = [state.path_in_model for state in states if not records[id(state)]]
    if silent:
        raise ValueError(
            "The method needs the inputs of each pruned layer, and these layers get none on the "
            "calibration data, or only inside a loop. Leave them out with `filters`. "
            f"Received: {silent}."
        )
    return {key: np.concatenate(calls) for key, calls in records.items()}


@contextlib.contextmanager
def _recording(states: Sequence[PruneState]) -> Iterator[dict[int, list[np.ndarray]]]:
    """Inside, the calls of pruned layers leave their inputs in the lists."""
    records: dict[int, list[np.ndarray]] = {id(state): [] for state in states}
    watched = []
    try:
        for state in states:
            layer = state.owner()
            call = _recorded(layer.call, records[id(state)])
            object.__setattr__(layer, "call", call)
            watched.append(layer)
        yield records
    finally:
        for layer in watched:
            object.__delattr__(layer, "call")


def _recorded(call: Callable[..., Tensor], record: list[np.ndarray]) -> Callable[..., Tensor]:
    def recorded_call(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with contextlib.suppress(TypeError, ValueError, AttributeError, NotImplementedError):
            record.append(keras.ops.convert_to_numpy(inputs))  # a symbolic tensor has no values
        return call(inputs, *args, **kwargs)

    return recorded_call
