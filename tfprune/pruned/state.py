"""The child layer that a pruned layer gets: masks, extra latent tensors, counters, settings.

The layer's own variable (its slot) holds the first latent tensor of the method, so the optimizer
trains it as before. A file holds the effective weight in that slot, which any Keras loads, and the
latent tensors here; `load_own_variables` puts them back, and starts afresh where the file has none.
"""

from __future__ import annotations

import dataclasses
import weakref
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.graph import _keras
from tfprune.graph.layers import variable_of
from tfprune.maths.spec import LayerTensors
from tfprune.method import Method
from tfprune.protocols import Sampled, Uncertain
from tfprune.pruned.layers import LATENT
from tfprune.pruned.noise import EPSILON, is_local
from tfprune.pruned.plan import LayerPlan
from tfprune.schedules import PruningSchedule

Tensor = Any
COUNTERS = ("offset", "last_step", "begin_step", "end_step", "frequency")


class PruneState(keras.layers.Layer):
    """What tfprune keeps for one pruned layer; an ordinary layer, tracked and saved by Keras.

    Attributes:
        method, schedule: what prunes this layer.
        domain: the method's.
        seed: of what is drawn in training; None where nothing is.
        facts: what the model around says of it.
        wrapped: whether a wrapper of `tfprune.layers` holds the layer, and saves the settings.
        specs: name -> WeightSpec of the pruned weights.
        counters: int32 variables; `offset` = pruning step - optimizer iterations, `last_step` the
            newest step seen, the rest the planned schedule (-1: not planned yet).
    """

    is_auxiliary = True
    attended = False  # whether a Pruner looks after this layer, or its absence was told

    def __init__(self, plan: LayerPlan, wrapped: bool = False) -> None:
        layer, path = plan.layer, plan.path
        super().__init__(name=f"{path.replace('/', '-')}-prune_state", dtype="float32")
        self.path_in_model, self.wrapped = path, wrapped
        self.method, self.schedule, self.facts = plan.method, plan.schedule, plan.facts
        self.domain = plan.method.domain
        self.specs = {spec.name: spec for spec in plan.specs}
        self._owner = weakref.ref(layer)
        self._normalization: Any = None
        draws = isinstance(plan.method, Sampled | Uncertain)
        self.seed = keras.random.SeedGenerator() if draws else None
        self._create(layer)
        self.built = True

    def _create(self, layer: keras.Layer) -> None:
        self.masks: dict[str, keras.Variable] = {}
        self.extras: dict[str, dict[str, keras.Variable]] = {}
        self._slots: dict[str, str] = {}
        for name, spec in self.specs.items():
            slot = variable_of(layer, name)
            with _keras.autocast_off():
                latents = self.domain.encode(slot.value, spec)
            self._slots[name], *others = latents
            _check_slot(slot, latents[self._slots[name]], self.method, name)
            self.extras[name] = {
                key: self._variable(f"{name}_{key}", latents[key], slot.trainable) for key in others
            }
            for extra in self.extras[name].values():
                setattr(extra, LATENT, True)
            slot.assign(latents[self._slots[name]])
            mask = np.ones(tuple(latents[self.domain.masked].shape), "bool")
            self.masks[name] = self._variable(f"{name}_mask", mask, False)
        values = self.method.state(self.specs)
        self.scalars = {
            key: self._variable(key, np.asarray(value, "float32"), False)
            for key, value in values.items()
        }
        starts = {"offset": 0, "last_step": -1}
        self.counters = {
            key: self._variable(key, np.int32(starts.get(key, -1)), False) for key in COUNTERS
        }

    def owner(self) -> keras.Layer:
        """The pruned layer; no property, as Keras saves the layers that it finds in properties."""
        layer = self._owner()
        assert layer is not None
        return layer

    def take_scales_from(self, normalization: keras.Layer) -> None:
        """Remember the layer whose scale was moved into this one's kernel."""
        self._normalization = weakref.ref(normalization)

    def normalization(self) -> Any:
        """The layer of `take_scales_from`, or None."""
        return None if self._normalization is None else self._normalization()

    def masked_variable(self, name: str) -> keras.Variable:
        """The variable that the mask of a weight multiplies."""
        key = self.domain.masked
        return (
            variable_of(self.owner(), name) if key == self._slots[name] else self.extras[name][key]
        )

    def _variable(self, name: str, value: Any, trainable: bool) -> keras.Variable:
        value = keras.ops.convert_to_numpy(value)
        variable = self.add_weight(
            shape=value.shape,
            initializer="zeros",
            dtype=keras.backend.standardize_dtype(value.dtype),
            trainable=trainable,
            autocast=False,
            name=name,
        )
        variable.assign(value)
        return variable

    def latents(self, name: str) -> dict[str, Tensor]:
        """The latent tensors of a weight, in their own dtype: the slot's first, then the others."""
        slot = variable_of(self.owner(), name)
        with _keras.autocast_off():
            variables = {self._slots[name]: slot, **self.extras[name]}
            return {key: variable.value for key, variable in variables.items()}

    def effective(self, name: str) -> Tensor:
        """The weight that the forward pass uses, in the variable's dtype.

            decode(latent + stop_gradient(mask * latent - latent))

        so that its value is that of `mask * latent` and its gradient that of `latent`. In training
        it is drawn, where the method says so.
        """
        tensors, spec = self._straight_through(name), self.specs[name]
        if self.seed is None or not _keras.in_training():
            return self.domain.decode(tensors, spec)
        if isinstance(self.method, Sampled):
            shape = ops.shape(tensors[self.domain.masked])
            uniform = keras.random.uniform(shape, EPSILON, 1.0, "float32", self.seed)
            return self.method.sample(tensors, spec, uniform)
        weight = self.domain.decode(tensors, spec)
        variance = self.variance(name)
        if variance is None or (is_local(self.owner()) and not spec.is_bias):
            return weight
        draws = keras.random.normal(ops.shape(weight), dtype=weight.dtype, seed=self.seed)
        return weight + ops.sqrt(variance) * draws

    def _straight_through(self, name: str) -> dict[str, Tensor]:
        """The latent tensors with the mask applied, and the gradient of those without it."""
        tensors, key = self.latents(name), self.domain.masked
        latent = tensors[key]
        masked = ops.where(self.masks[name].value, latent, ops.zeros_like(latent))
        return {**tensors, key: latent + ops.stop_gradient(masked - latent)}

    def variance(self, name: str) -> Tensor | None:
        """The variance of a weight, 0 where it is pruned; None where its method has none."""
        if not isinstance(self.method, Uncertain):
            return None
        return self.method.variance(self._straight_through(name), self.specs[name])

    def stored(self, name: str) -> np.ndarray:
        """What has to be stored of a weight, with zeros where it is pruned."""
        tensors, key = self.latents(name), self.domain.masked
        tensors[key] = ops.where(self.masks[name].value, tensors[key], 0)
        return ops.convert_to_numpy(self.domain.stored(tensors, self.specs[name]))

    def tensors(self, progress: Any = 1.0, inputs: Tensor | None = None) -> LayerTensors:
        """The layer as its method sees it.

        Args:
            progress: of its schedule, in [0, 1].
            inputs: calibration inputs [n, ...].
        """
        latents = {name: self.latents(name) for name in self.specs}
        return LayerTensors(
            self.path_in_model,
            self.specs,
            {name: latents[name][self.domain.masked] for name in self.specs},
            {name: mask.value for name, mask in self.masks.items()},
            {key: scalar.value for key, scalar in self.scalars.items()},
            progress,
            latents,
            inputs,
        )

    def mask_arrays(self) -> dict[str, np.ndarray]:
        """The masks as NumPy arrays, by the weights' names."""
        return {name: ops.convert_to_numpy(mask.value) for name, mask in self.masks.items()}

    def sparsity(self) -> float:
        """Fraction of zeros over this layer's masks, in [0, 1]."""
        total = sum(int(np.prod(mask.shape)) for mask in self.masks.values())
        kept = sum(int(ops.sum(ops.cast(mask.value, "int32"))) for mask in self.masks.values())
        return 1 - kept / total if total else 0.0

    def progress(self, iterations: Any) -> Tensor:
        """The schedule's progress at a number of optimizer steps, a float32 scalar.

        0 at its first step, 1 at its last, outside [0, 1] before and after; 0 without a plan.
        """
        return self._progress_at(ops.cast(iterations, "float32") + self._counted("offset"))

    def newest_progress(self) -> Tensor:
        """The schedule's progress at the newest step, in [0, 1]: 0 without a plan, 1 at its end."""
        last, end = self._counted("last_step"), self._counted("end_step")
        over = ops.logical_and(end >= 0, last >= end)
        return ops.where(over, 1.0, ops.clip(self._progress_at(last), 0.0, 1.0))

    def _progress_at(self, step: Tensor) -> Tensor:
        begin, end = self._counted("begin_step"), self._counted("end_step")
        return ops.where(end < 0, 0.0, (step - begin) / ops.maximum(end - begin, 1.0))

    def _counted(self, key: str) -> Tensor:
        return ops.cast(self.counters[key].value, "float32")

    def count(self, key: str) -> int:
        """The value of a counter."""
        return int(_keras.concrete(self.counters[key]))

    @property
    def planned(self) -> Any:
        """The schedule with the steps of the saved plan filled in."""
        steps = {key: self.count(key) for key in COUNTERS[2:]}
        if not isinstance(self.schedule, PruningSchedule) or -1 in steps.values():
            return self.schedule
        return dataclasses.replace(self.schedule, **steps)  # type: ignore[type-var]

    def ended(self) -> bool:
        """Whether the schedule is over, so that the mask stays as it is."""
        schedule = self.planned
        end = schedule.end_step if isinstance(schedule, PruningSchedule) else None
        return end is not None and self.count("last_step") >= end

    def plan(self, schedule: Any) -> None:
        """Keep the steps of a planned schedule with the model."""
        if isinstance(schedule, PruningSchedule) and schedule.planned:
            for key in COUNTERS[2:]:
                self.counters[key].assign(getattr(schedule, key))

    def _kept(self) -> dict[str, keras.Variable]:
        """What a file holds beside the latent tensors, by name."""
        own = (*self.masks.values(), *self.scalars.values(), *self.counters.values())
        kept = {variable.name: variable for variable in own}
        return kept if self.seed is None else {**kept, "seed": self.seed.state}

    def save_own_variables(self, store: Any) -> None:
        """Masks, counters, the method's state, the seed of what is drawn, every latent tensor."""
        for key, variable in self._kept().items():
            store[key] = variable
        for name in self.specs:
            for key, latent in self.latents(name).items():
                store[f"{name}_{key}"] = latent

    def load_own_variables(self, store: Any) -> None:
        """The inverse; a file without them (of a plain model) starts pruning afresh.

        Raises:
            ValueError: if the file was written with other masks or another method.
        """
        if not len(store.keys()):
            self.restart()
            return
        kept = self._kept()
        expected = {key: tuple(variable.shape) for key, variable in kept.items()}
        for name in self.specs:
            for key, latent in self.latents(name).items():
                expected[f"{name}_{key}"] = tuple(latent.shape)
        shapes = {key: tuple(store[key].shape) for key in store.keys()}  # noqa: SIM118
        if expected != shapes:
            raise ValueError(
                f"The pruning state of layer '{self.path_in_model}' must match the file's: prune "
                "the model by the method it was saved with. "
                f"Expected {expected}. Received: {shapes}."
            )
        for key, variable in kept.items():
            variable.assign(store[key])
        self._put(
            {name: {k: store[f"{name}_{k}"] for k in self.latents(name)} for name in self.specs}
        )

    def restart(self) -> None:
        """Masks to 1, counters and scalars to their beginning, latents encoded from the slots."""
        for mask in self.masks.values():
            mask.assign(np.ones(tuple(mask.shape), "bool"))
        for key, value in self.method.state(self.specs).items():
            self.scalars[key].assign(np.asarray(value, "float32"))
        for key, counter in self.counters.items():
            counter.assign(0 if key == "offset" else -1)
        slots = {name: variable_of(self.owner(), name) for name in self.specs}
        self._put({n: self.domain.encode(slots[n].value, s) for n, s in self.specs.items()})

    def _put(self, latents: dict[str, dict[str, Any]]) -> None:
        for name, tensors in latents.items():
            for key, value in tensors.items():
                slot = variable_of(self.owner(), name)
                variable = slot if key == self._slots[name] else self.extras[name][key]
                variable.assign(value)


def _check_slot(slot: keras.Variable, latent: Tensor, method: Method, name: str) -> None:
    if tuple(slot.shape) != tuple(latent.shape):
        raise ValueError(
            f"The first latent tensor in the domain of {type(method).__name__} must have the "
            f"shape of `{name}`, {tuple(slot.shape)}. Received: {tuple(latent.shape)}."
        )
