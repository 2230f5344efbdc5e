"""Sample inputs in any usual form, as a list of single samples, input name -> array [1, ...]."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from tfprune.export.verify.runtime import Sample, wraps
from tfprune.export.view import InputSpec, View
from tfprune.graph import _keras

OPEN_DIMENSION = 32  # the size drawn where a model leaves it open
_ACCEPTED = (
    "an array [samples, ...], a tf.data.Dataset, an iterable of batches (or a function that "
    "returns one), or for several inputs a list or dict of arrays in the model's input structure"
)


def read_samples(data: Any, view: View, limit: int | None, argument: str) -> list[Sample]:
    """Read samples.

    Args:
        data: see `_ACCEPTED`.
        view: the model.
        limit: most samples to read; None for all.
        argument: what the user calls `data`, for errors.

    Raises:
        TypeError: if it does not hold numbers of the right kind.
        ValueError: if it has another form or other shapes, is empty, not finite or out of range.
    """
    source = itertools.islice(_samples(data, view, argument), limit)
    samples = [
        {name: np.ascontiguousarray(value) for name, value in sample.items()} for sample in source
    ]
    if not samples:
        raise ValueError(f"`{argument}` must hold at least one sample. Received: none.")
    return samples


def take_dtypes(view: View, data: Any, argument: str) -> tuple[View, Any]:
    """Settle the dtypes of a view that has none.

    Args:
        view: the view.
        data: samples, see `_ACCEPTED`.
        argument: what the user calls `data`, for errors.

    Returns:
        The view with the dtypes of `data`, and the data from its start again.
    """
    batches = _raw_batches(data, view, argument)
    first = next(batches, None)
    if first is None:
        return view, []
    kinds = [np.asarray(first[spec.name]).dtype for spec in view.inputs]
    names = ["float32" if kind.kind == "f" else kind.name for kind in kinds]
    specs = zip(view.inputs, names, strict=True)
    inputs = tuple(dataclasses.replace(spec, dtype=name) for spec, name in specs)
    typed = dataclasses.replace(view, inputs=inputs, typed=True)
    return typed, itertools.chain([first], batches)


def random_samples(view: View, count: int, seed: int) -> list[Sample]:
    """Draw `count` samples from the input specs: normal floats, fair bits, valid tokens."""
    rng = np.random.default_rng(seed)
    top = _largest_index(view.model)
    return [{spec.name: _draw(rng, spec, top) for spec in view.inputs} for _ in range(count)]


def _draw(rng: np.random.Generator, spec: InputSpec, top: int) -> np.ndarray:
    shape = [OPEN_DIMENSION if size is None else size for size in spec.shape]
    if spec.dtype.startswith("float"):
        return rng.standard_normal(shape).astype(spec.dtype)
    if spec.dtype == "uint8" and len(shape) == 4:  # images
        top = 256
    return rng.integers(0, 2 if spec.dtype == "bool" else top, shape).astype(spec.dtype)


def _largest_index(model: keras.Model) -> int:
    tables = [x for x in _keras.all_layers(model) if isinstance(x, keras.layers.Embedding)]
    return min((int(table.input_dim) for table in tables), default=2)


def _samples(data: Any, view: View, argument: str) -> Iterator[Sample]:
    for batch in _batches(data, view, argument):
        count = len(next(iter(batch.values())))
        for index in range(count):
            yield {name: value[index : index + 1] for name, value in batch.items()}


def _batches(data: Any, view: View, argument: str) -> Iterator[Sample]:
    for batch in _raw_batches(data, view, argument):
        yield _check_batch(batch, view, argument)


def _raw_batches(data: Any, view: View, argument: str) -> Iterator[dict[str, Any]]:
    """Batches as given, input name -> array, values not yet looked at."""
    if callable(data) and not hasattr(data, "__iter__"):
        data = data()
    if _is_batch(data) or _fits(data, view):
        yield _named(data, view, argument)
        return
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes)):
        raise _refusal(argument, type(data).__name__, view)
    for element in data:
        pair = isinstance(element, tuple) and len(element) in (2, 3)
        yield _named(element[0] if pair and not _fits(element, view) else element, view, argument)


def _named(data: Any, view: View, argument: str) -> dict[str, Any]:
    leaves = _leaves(data, view)
    if leaves is None:
        raise _refusal(argument, _shape_of(data), view)
    return {spec.name: leaf for spec, leaf in zip(view.inputs, leaves, strict=True)}


def _is_batch(data: Any) -> bool:
    """Whether `data` is an array or a dict of arrays, so a batch by itself."""
    return isinstance(data, dict) or (hasattr(data, "shape") and hasattr(data, "dtype"))


def _leaves(data: Any, view: View) -> list[Any] | None:
    """Arrays of `data` in the order of the view's inputs, None if it has others."""
    if isinstance(data, dict) and set(data) == {spec.name for spec in view.inputs}:
        return [data[spec.name] for spec in view.inputs]
    if isinstance(data, dict) != isinstance(view.structure, dict):
        return None
    if isinstance(data, dict) and set(data) != set(view.structure):
        return None
    leaves = keras.tree.flatten(data)
    return leaves if len(leaves) == len(view.inputs) else None


def _fits(data: Any, view: View) -> bool:
    """Whether `data` is a batch of every input, by count, rank and sizes."""
    if not isinstance(data, (list, tuple, dict)):
        return False
    leaves = _leaves(data, view)
    if leaves is None or not all(hasattr(leaf, "shape") for leaf in leaves):
        return False
    return all(_same_shape(np.shape(x), s) for x, s in zip(leaves, view.inputs, strict=True))


def _same_shape(shape: tuple[int, ...], spec: InputSpec) -> bool:
    sizes = zip(shape[1:], spec.shape[1:], strict=False)
    return len(shape) == len(spec.shape) and all(b is None or a == b for a, b in sizes)


def _check_batch(given: dict[str, Any], view: View, argument: str) -> Sample:
    batch = {spec.name: _to_array(given[spec.name], spec, argument) for spec in view.inputs}
    if any(not _same_shape(batch[s.name].shape, s) for s in view.inputs):
        raise _refusal(argument, {name: value.shape for name, value in batch.items()}, view)
    if len({len(value) for value in batch.values()}) != 1:
        sizes = {name: len(value) for name, value in batch.items()}
        raise ValueError(f"`{argument}`: all inputs must hold as many samples. Received: {sizes}.")
    return batch


def _to_array(value: Any, spec: InputSpec, argument: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"`{argument}` must hold numbers. Received: dtype {array.dtype}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"`{argument}` must be finite. Received: NaN or infinity.")
    if array.dtype.kind == "f" and not spec.dtype.startswith(("float", "bfloat")):
        raise TypeError(
            f"`{argument}` must be whole numbers for the input '{spec.name}' ({spec.dtype}). "
            f"Received: dtype {array.dtype}."
        )
    if wraps(array, np.dtype(spec.dtype)):
        raise ValueError(
            f"`{argument}` must fit into {spec.dtype} for the input '{spec.name}'. Received: "
            f"{array.min()} to {array.max()}."
        )
    return array.astype(spec.dtype)


def _shape_of(data: Any) -> Any:
    shapes = keras.tree.map_structure(lambda x: getattr(x, "shape", type(x).__name__), data)
    return shapes if shapes else type(data).__name__


def _refusal(argument: str, received: Any, view: View) -> ValueError:
    wanted = {spec.name: (None, *spec.shape[1:]) for spec in view.inputs}
    return ValueError(
        f"`{argument}` must be {_ACCEPTED}, with shapes {wanted}. Received: {received}."
    )
