"""The contract of a pruning method, and the registry of the methods there are.

A method is a frozen dataclass that holds its settings and a few pure functions on tensors, written
in `keras.ops`. It knows nothing of layers, models, callbacks or files; a host (`tfprune.pruned`,
`tfprune.training`) owns the variables and calls it. The smallest method is a score:

    @tfprune.register
    @dataclasses.dataclass(frozen=True)
    class Squares(tfprune.Scored):
        def score(self, latent, spec):
            return keras.ops.square(latent)

`Method` has what every method has. What a single method has beside it is a protocol of its own
(`tfprune.protocols`): a host looks for the functions, not for the method's name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import keras

from tfprune.maths import masks
from tfprune.maths.domains import Domain, Spatial
from tfprune.maths.spec import LayerTensors, Update, WeightSpec
from tfprune.maths.targets import Sparsity, Target
from tfprune.maths.updates import layer_by_layer, ranked_together
from tfprune.needs import Need
from tfprune.schedules import PolynomialDecay

Tensor = Any
M = TypeVar("M", bound="type[Method]")


@dataclasses.dataclass(frozen=True)
class Method:
    """Base class of all pruning methods.

    The effective weight is `decode(mask * encode(weight))` in the method's domain. The host passes
    the gradient straight through the mask, d effective / d latent = d decode / d latent at the
    masked point, so pruned weights go on learning and can come back.

    A subclass is a frozen dataclass, decorated with `tfprune.register`, and overrides `update`, or
    derives from `Scored` and defines `score`.

    Attributes:
        domain: which tensors stand for a weight, and which of them the mask multiplies.
        target: what is asked for, and over which layers; by default the field `target_sparsity`,
            else what the schedule says.
        needs: what the host must provide (`tfprune.needs`); it refuses what it does not serve.
    """

    @property
    def domain(self) -> Domain:
        """The weights themselves."""
        return Spatial()

    @property
    def target(self) -> Target:
        """`target_sparsity` of each layer, where there is such a field."""
        return Sparsity(getattr(self, "target_sparsity", None))

    @property
    def needs(self) -> tuple[Need, ...]:
        """Nothing."""
        return ()

    def schedule(self) -> Any:
        """The schedule where the user gives none: cubic, to the target or to 0.5."""
        target = self.target.sparsity
        return PolynomialDecay(0.0, 0.5 if target is None else target)

    def state(self, specs: Mapping[str, WeightSpec]) -> dict[str, Any]:
        """Initial values of what the method keeps per layer and saves: numbers, or arrays.

        Args:
            specs: the layer's weights by name.
        """
        return {}

    def update(
        self, layers: Sequence[LayerTensors], sparsities: Sequence[Tensor], due: Sequence[Tensor]
    ) -> list[Update]:
        """New masks and states of all layers that share this method.

        Args:
            layers: the layers' tensors.
            sparsities: for each layer a float32 scalar in [0, 1), what its schedule asks for now.
            due: for each layer a boolean scalar, whether its masks may change.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define `score`, as a subclass of tfprune.Scored, or "
            "`update`."
        )

    def get_config(self) -> dict[str, Any]:
        """The settings, JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Method:
        """The inverse of `get_config`."""
        return cls(**config)


@dataclasses.dataclass(frozen=True)
class Scored(Method):
    """A method whose masks keep what scores highest, of each weight or of all layers together."""

    def score(self, latent: Tensor, spec: WeightSpec) -> Tensor:
        """Larger = keep.

        Args:
            latent: the masked tensor, of any shape.
            spec: of its weight.

        Returns:
            A finite tensor of the shape of `latent`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `score`.")

    def scores(self, layer: LayerTensors) -> dict[str, Tensor]:
        """The score of each weight of `layer`, for methods that look at more than one tensor."""
        return {name: self.score(layer.masked[name], spec) for name, spec in layer.specs.items()}

    def update(
        self, layers: Sequence[LayerTensors], sparsities: Sequence[Tensor], due: Sequence[Tensor]
    ) -> list[Update]:
        """The largest scores of each weight, or of all layers where the target is global.

        Args: those of `Method.update`.
        """
        if self.target.scope == "global":
            scores = [self.scores(layer) for layer in layers]
            return ranked_together(layers, scores, sparsities[0], due)
        return layer_by_layer(layers, sparsities, due, self._keep_largest)

    def _keep_largest(self, layer: LayerTensors, sparsity: Tensor) -> Update:
        scores = self.scores(layer).items()
        return {name: masks.keep_largest(s, sparsity) for name, s in scores}, layer.state


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
            f"`@dataclasses.dataclass(frozen=True)` below `@tfprune.register`. Received: {cls!r}."
        )
    other = REGISTRY.get(cls.__name__)
    identity = (cls.__module__, cls.__qualname__)
    if other is not None and (other.__module__, other.__qualname__) != identity:
        raise ValueError(
            f"A method named {cls.__name__!r} is registered already, {other!r}; give it another "
            f"name. Received: {cls!r}."
        )
    REGISTRY[cls.__name__] = cls
    keras.saving.register_keras_serializable(package="tfprune")(cls)
    for listener in LISTENERS:
        listener(cls)
    return cls


def methods() -> Iterator[type[Method]]:
    """The registered method classes, in the order of their registration."""
    yield from REGISTRY.values()
