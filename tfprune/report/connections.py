"""What reports show of the connections between channels: how strong they are, and which are gone.

A connection is the kernel from one input channel to one output channel; its strength is the norm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfprune.graph.layers import weighted_layers
from tfprune.maths import transforms
from tfprune.pruned.layers import STATE
from tfprune.pruned.scales import movable, times_scales
from tfprune.report.bands import magnitudes, origin_of
from tfprune.report.kernels import shrink


@dataclasses.dataclass(frozen=True)
class ConnectionPicture:
    """The connections of a layer's first weight.

    Attributes:
        connections, kept: how many there are, and how many are not zero.
        inputs, outputs: channels of the layer; of them `dead_inputs`, `dead_outputs` have no
            connection left.
        before, after: int [24], histograms of log10 of the strengths that are not zero. The first
            bin holds smaller ones too.
        limits: log10 of the smallest and the largest strength of the bins.
        pairs: float32 [lines, columns] in [0, 1], at most 64 x 64: input channels (of a group)
            down, output channels across, each cell the fraction of its connections that are kept.
        from_dense: whether "before" is the model that pruning started from; else it is what the
            net holds without its mask.
    """

    connections: int
    kept: int
    inputs: int
    outputs: int
    dead_inputs: int
    dead_outputs: int
    before: np.ndarray
    after: np.ndarray
    limits: tuple[float, float]
    pairs: np.ndarray
    from_dense: bool

    @property
    def density(self) -> float:
        """The fraction of the connections that is not zero."""
        return self.kept / max(self.connections, 1)

    def to_dict(self) -> dict[str, int]:
        """The counts."""
        names = ("connections", "kept", "inputs", "outputs", "dead_inputs", "dead_outputs")
        return {name: getattr(self, name) for name in names}


def connection_pictures(model: keras.Layer, before: Any = None) -> dict[str, ConnectionPicture]:
    """Path -> picture of the pruned layers in which connections are gone, in order of depth.

    Whole kernels are gone, by any method, or connections are what the method prunes.

    Args:
        model: a plain or pruned model.
        before: the model that pruning started from, or None.

    Raises:
        ValueError: if `before` lacks a weight that is pruned.
    """
    dense = None if before is None else dict(weighted_layers(before))
    pictures = {}
    for path, layer in weighted_layers(model):
        state = getattr(layer, STATE, None)
        for name, spec in {} if state is None else state.specs.items():
            origin = None if dense is None else _origin(dense, path, name, state)
            picture = _picture(state, name, spec, origin)
            if picture is not None:
                pictures[path] = picture
                break
    return pictures


def _origin(dense: Mapping[str, keras.Layer], path: str, name: str, state: Any) -> Any:
    """The weight before pruning, with the scales that pruning moved into it."""
    spec, source = state.specs[name], dense.get(state.facts.scales_from)
    weight = origin_of(dense, path, name, spec.shape)
    if source is None or hasattr(dense[path], STATE):
        return weight
    return times_scales(weight, spec.axes, movable(source.gamma))


def _picture(state: Any, name: str, spec: Any, origin: Any) -> ConnectionPicture | None:
    left = _strengths(state.effective(name), spec)
    by_pair = tuple(state.masks[name].shape) == left.shape and tuple(spec.shape) != left.shape
    gone = transforms.size(spec) > 1 and not left.all()
    if not (by_pair or gone):
        return None
    whole = state.domain.decode(state.latents(name), spec) if origin is None else origin
    flat = np.zeros(left.size, int)
    old, new, limits = magnitudes(flat, 1, _strengths(whole, spec).reshape(-1), left.reshape(-1))
    kept = left != 0
    inputs = _by_input(kept, spec)
    return ConnectionPicture(
        connections=left.size,
        kept=int(kept.sum()),
        inputs=len(inputs),
        outputs=left.shape[1],
        dead_inputs=int((~inputs.any(1)).sum()),
        dead_outputs=int((~kept.any(0)).sum()),
        before=old[0],
        after=new[0],
        limits=limits,
        pairs=shrink(kept),
        from_dense=origin is not None,
    )


def _by_input(kept: np.ndarray, spec: Any) -> np.ndarray:
    """The connections of each input channel of the layer, [inputs, outputs of its group].

    `kept` counts inputs within groups, which stand side by side along the outputs. The groups of a
    depthwise kernel are its channels.
    """
    sizes = dict(zip(spec.axes, spec.shape, strict=False))
    groups = sizes["cin"] if "multiplier" in sizes else spec.groups
    parts = kept.reshape(kept.shape[0], groups, -1)
    return parts.transpose(1, 0, 2).reshape(-1, parts.shape[2])


def _strengths(weight: Any, spec: Any) -> np.ndarray:
    """||K|| of each connection, [cin, cout]."""
    kernels = keras.ops.convert_to_numpy(transforms.canonical(weight, spec))
    return np.linalg.norm(np.asarray(kernels, np.float32), axis=0)
