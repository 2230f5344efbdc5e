"""The contract of a pruning method, and the registry of the methods there are.

A method is a frozen dataclass that holds its settings and a few pure functions on tensors, written
in `keras.ops`. It knows nothing of layers, models, callbacks or files; a host (`tfprune.training`)
owns the variables and calls it. The smallest method is a score:

    @tfprune.register
    @dataclasses.dataclass(frozen=True)
    class Squares(tfprune.Method):
        def score(self, latent, spec):
            return keras.ops.square(latent)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import keras
from keras import ops

from tfprune.maths import masks
from tfprune.maths.spec import LayerTensors, Tensor, WeightSpec
from tfprune.schedules import final_sparsity

M = TypeVar("M", bound="type[Method]")


@dataclasses.dataclass(frozen=True)
class Method:
    """Base class of all pruning methods: what is masked, and which entries the mask keeps.

    The effective weight is `decode(mask * encode(weight))`. The host passes the gradient straight
    through the mask, d effective / d latent = d decode / d latent at the masked point, so masked
    entries go on learning and can come back.

    A subclass is a frozen dataclass, decorated with `tfprune.register`, and overrides `score`, or
    `update_layer` where a mask is more than "the largest scores", or `update_network` where layers
    depend on each other. `encode` and `decode` change the domain, `state` adds saved state.

    Class attributes:
        masked: which latent tensor of `encode` the mask multiplies.
        signals: what the host must measure in each training step (`tfprune.signals`); a host
            refuses a method whose signals it does not serve.
        prune_biases: whether biases get a mask too; a field of that name makes it a setting.
        scope: "global" where a target holds for all layers together; else "layer".
        needs_uses: whether the method must know how often each weight is multiplied (`uses`).
        needs_validation: whether masks are updated by the validation loss, after each epoch.
        folds_scales: whether scales of normalizations are to be moved into the kernels behind them.
    """

    masked: ClassVar[str] = "latent"
    signals: ClassVar[Any] = ()
    prune_biases = False
    scope = "layer"
    needs_uses = False
    needs_validation = False
    folds_scales = False

    def default_schedule(self) -> Any:
        """The schedule used where the user gives none."""
        from tfprune.schedules import PolynomialDecay

        return PolynomialDecay(0.0, self.wanted or 0.5)

    @property
    def wanted(self) -> float | None:
        """The sparsity in [0, 1) that the settings ask for in the end, None where they don't."""
        return getattr(self, "target_sparsity", None)

    def adopt(self, schedule: Any) -> tuple[Method, Any]:
        """Settle with a schedule who says how sparse: both returned as they will be used.

        What the method asks for fills a schedule's `target_sparsity` that is None.

        Raises:
            ValueError: if both say it and differ, or none does.
        """
        wanted = self.wanted
        if getattr(schedule, "target_sparsity", 0.0) is None and wanted is not None:
            schedule = dataclasses.replace(schedule, target_sparsity=wanted)
        asked = final_sparsity(schedule)
        if wanted is not None and asked is not None and abs(asked - wanted) > 1e-9:
            raise ValueError(
                f"{type(self).__name__} asks for a sparsity of {wanted!r} and its schedule ends at "
                f"{asked!r}; let one of them say it. Received schedule: {schedule!r}."
            )
        if asked is None:
            raise ValueError(
                f"{type(self).__name__} needs `target_sparsity` or a schedule with one. "
                f"Received: {schedule!r}."
            )
        return self, schedule

    def leave_out(self, paths: Sequence[str]) -> set[str]:
        """Of all layers that could be pruned, those to leave out where there are no `filters`."""
        return set()

    def check_layers(
        self,
        paths: Sequence[str],
        schedules: Sequence[Any],
        specs: Sequence[Mapping[str, WeightSpec]],
    ) -> None:
        """Raise ValueError if a setting does not fit the layers to prune, or their schedules."""

    def adapt(self, path: str, spec: WeightSpec) -> WeightSpec:
        """What is known of a weight of layer `path`, with what the user's settings add to it."""
        return spec

    def encode(self, weight: Tensor, spec: WeightSpec) -> dict[str, Tensor]:
        """Dense weight -> latent tensors; the first, of the weight's own shape, takes its place."""
        return {"latent": weight}

    def decode(self, latents: Mapping[str, Tensor], spec: WeightSpec) -> Tensor:
        """Masked latent tensors -> weight as the layer uses it. The inverse of `encode`."""
        return latents["latent"]

    def stored(self, latents: Mapping[str, Tensor], spec: WeightSpec) -> Tensor:
        """What a file would hold of a weight, zeros left out, from its masked latent tensors."""
        return self.decode(latents, spec)

    def bands(self, spec: WeightSpec) -> Any:
        """The frequency band of each entry of what is stored, an int array; None: no bands."""
        return None

    def transform_macs(self, spec: WeightSpec, stored: Any) -> float:
        """Multiply-adds per use of a kernel beside those of what is stored (a NumPy array)."""
        return 0.0

    def attained(
        self, specs: Sequence[Mapping[str, WeightSpec]], masks: Sequence[Mapping[str, Any]]
    ) -> float:
        """What was reached of a target over some layers; by default the fraction of pruned entries.

        Args:
            specs: for each layer, the weights by name.
            masks: for each layer, the masks as NumPy arrays.
        """
        sizes = [mask.size for layer in masks for mask in layer.values()]
        kept = [mask.sum() for layer in masks for mask in layer.values()]
        return 1 - float(sum(kept)) / max(sum(sizes), 1)

    def rounding(self, specs: Sequence[Mapping[str, WeightSpec]]) -> float:
        """How far from a target the nearest that can be reached may lie, over some layers."""
        sizes = [spec.size for layer in specs for spec in layer.values()]
        return 0.5 * len(sizes) / max(sum(sizes), 1)

    def penalty(self, latent: Tensor, spec: WeightSpec) -> Tensor | None:
        """A scalar added to the training loss until the schedule's last update, or None."""
        return None

    def state(self, specs: Mapping[str, WeightSpec]) -> dict[str, Any]:
        """Initial values of what the method keeps per layer and saves: numbers, or small arrays."""
        return {}

    def score(self, latent: Tensor, spec: WeightSpec) -> Tensor:
        """Larger = keep. Same shape as `latent`, finite."""
        raise NotImplementedError(f"{type(self).__name__} must define `score` or `update_layer`.")

    def update_layer(
        self, layer: LayerTensors, sparsity: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """New masks and new state of one layer; by default the largest scores of each weight.

        Args:
            layer: the layer's tensors.
            sparsity: scalar float32 in [0, 1), the fraction of each mask to be zero.
        """
        kept = {
            name: masks.keep_largest(self.score(layer.latents[name], spec), sparsity)
            for name, spec in layer.specs.items()
        }
        return kept, layer.state

    def update_network(
        self, layers: Sequence[LayerTensors], sparsities: Sequence[Tensor], due: Sequence[Tensor]
    ) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """New masks and states of all layers that share this method; `due` says which may change.

        `due[i]` is a boolean scalar; by default every layer is updated by itself, and where a layer
        is not due its masks and state are handed back unchanged.
        """
        return [
            ops.cond(
                flag,
                lambda layer=layer, sparsity=sparsity: self.update_layer(layer, sparsity),
                lambda layer=layer: (dict(layer.masks), dict(layer.state)),
            )
            for layer, sparsity, flag in zip(layers, sparsities, due, strict=True)
        ]

    def after_step(
        self, latent: Tensor, mask: Tensor, signal: Tensor, progress: Tensor, spec: WeightSpec
    ) -> Tensor:
        """The masked latent tensor after the optimizer's own step, where `signals` are measured.

        Args:
            latent: as the optimizer left it.
            mask: boolean, of its shape.
            signal: what `signals` asked for, of its shape.
            progress: scalar, 0 at the schedule's first step, 1 at its last, and outside [0, 1]
                before and after.
            spec: of the weight.
        """
        return latent

    def update_on_validation(
        self, layers: Sequence[LayerTensors], loss_of: Callable[[list[dict[str, Any]]], float]
    ) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """New masks and states after an epoch, where `needs_validation`.

        Args:
            layers: all layers that share this method.
            loss_of: the validation loss with other masks, given as one dict per layer.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `update_on_validation`.")

    def get_config(self) -> dict[str, Any]:
        """The settings, JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Method:
        """The inverse of `get_config`."""
        return cls(**config)


REGISTRY: dict[str, type[Method]] = {}
LISTENERS: list[Callable[[type[Method]], Any]] = []  # called with each method that is registered


def register(cls: M) -> M:
    """Class decorator: make a method known by its class name, serialisable and tested by contract.

    Raises:
        TypeError: if `cls` is not a frozen dataclass that derives from `Method`.
        ValueError: if another class has that name already.
    """
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise TypeError(f"A method must subclass `tfprune.Method`. Received: {cls!r}.")
    if "__dataclass_params__" not in vars(cls) or not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise TypeError(
            f"A method must be a frozen dataclass: decorate {cls.__name__} with "
            "`@dataclasses.dataclass(frozen=True)` below `@tfprune.register`."
        )
    known = REGISTRY.get(cls.__name__)
    if known is not None and (known.__module__, known.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise ValueError(f"A method named {cls.__name__!r} is registered already: {known!r}.")
    REGISTRY[cls.__name__] = cls
    keras.saving.register_keras_serializable(package="tfprune")(cls)
    for listener in LISTENERS:
        listener(cls)
    return cls


def methods() -> Iterator[type[Method]]:
    """The registered method classes, in the order of their registration."""
    yield from REGISTRY.values()
