"""The plan of a pruning: for each layer its method, schedule, facts and weights, made once.

`prune` and the wrappers of `tfprune.layers` make one, and all that attaches methods to layers
works from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import keras

from tfprune.maths.checks import check_one_schedule
from tfprune.maths.spec import WeightSpec
from tfprune.maths.targets import Outcome
from tfprune.method import Method
from tfprune.needs import (
    FoldedScales,
    KernelUses,
    LossGradient,
    OutputSensitivity,
    Samples,
    ValidationLoss,
    need_of,
)
from tfprune.protocols import ChecksLayers, LeavesOut
from tfprune.pruned import select
from tfprune.pruned.specs import Facts, adapted_specs, check_weights, facts_of, with_uses
from tfprune.schedules import check_schedule, final_sparsity

MEASURED = (OutputSensitivity, LossGradient)  # needs that are served in training steps
SERVED = (*MEASURED, ValidationLoss, KernelUses, FoldedScales, Samples)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """What is to be done with one layer.

    Attributes:
        path: of the layer in its model.
        layer: to be pruned.
        method, schedule: settled with each other.
        facts: what the model around says of the layer.
        specs: the weights to prune, as the method sees them.
    """

    path: str
    layer: keras.Layer
    method: Method
    schedule: Any
    facts: Facts = dataclasses.field(default_factory=Facts)
    specs: tuple[WeightSpec, ...] = ()


Plan = list[LayerPlan]


def choose(layers: select.Layers, method: Any, schedule: Any, whole: bool) -> Plan:
    """Assign methods and schedules to layers, each pair settled.

    Args:
        layers: (path, layer) of the layers that may be pruned.
        method, schedule: one for all, or {layer key: one}, as in `prune`.
        whole: whether methods may leave out layers by their settings.

    Raises:
        TypeError: if something else than a method is given.
        ValueError: if a method needs what is not served, or does not fit its schedule.
    """
    paths = [path for path, _ in layers]
    methods = select.assigned(layers, method, "method")
    schedules = select.assigned(layers, schedule, "schedule")
    plan = []
    for (path, layer), of_layer, timing in zip(layers, methods, schedules, strict=True):
        if of_layer is None and method is not None:
            continue
        if not isinstance(of_layer, Method):
            raise TypeError(
                "`method` must be an instance of a tfprune method, such as NetworkSurgery(), "
                f"or a dict of these. Received: {of_layer!r}."
            )
        if whole and isinstance(of_layer, LeavesOut) and path in of_layer.leave_out(paths):
            continue
        plan.append(LayerPlan(path, layer, *_settled(of_layer, timing)))
    return plan


def _settled(method: Method, schedule: Any) -> tuple[Method, Any]:
    """A method and its schedule as they will be used."""
    _check_served(method)
    return settle(method, method.schedule() if schedule is None else check_schedule(schedule))


def complete(
    model: keras.Layer, plan: Plan, name: Callable[[str], str] = str, in_graph: bool = True
) -> Plan:
    """A plan with facts and weights, each layer checked against its method.

    Args:
        model: around the layers.
        plan: without facts.
        name: path in `model` -> path by which settings and messages name the layer.
        in_graph: whether the graph around the layers says something of them.

    Raises:
        ValueError: if a weight is not finite, or something is not known that a method needs.
    """
    facts = {item.path: item.facts for item in plan}
    if in_graph:
        facts = facts_of([(item.path, item.layer) for item in plan])
    counted = [(x.path, x.layer) for x in plan if need_of(x.method.needs, KernelUses)]
    if counted:
        facts |= with_uses(model, facts, counted)
    items = []
    for item in plan:
        path = name(item.path)
        specs = adapted_specs(item.layer, item.method, path, facts[item.path])
        check_weights(path, item.layer, item.method, specs)
        items.append(dataclasses.replace(item, path=path, facts=facts[item.path], specs=specs))
    return items


def check_plan(plan: Plan) -> None:
    """Raise ValueError if a method does not fit all the layers that share it."""
    for group in by_method(plan, lambda item: item.method):
        check_together(
            group[0].method,
            [item.path for item in group],
            [item.schedule for item in group],
            [{spec.name: spec for spec in item.specs} for item in group],
        )


def by_method(items: Sequence[T], method_of: Callable[[T], Method]) -> list[list[T]]:
    """Items in groups of equal methods, in the order of each group's first."""
    groups: list[list[T]] = []
    for item in items:
        same = [group for group in groups if method_of(group[0]) == method_of(item)]
        if same:
            same[0].append(item)
        else:
            groups.append([item])
    return groups


def settle(method: Method, schedule: Any) -> tuple[Method, Any]:
    """Settle who says how sparse, a method or its schedule: both returned as they will be used.

    A method's target fills a schedule's `target_sparsity` that is None; a sparsity that a schedule
    asks for turns on the target mode of a method whose thresholds were left at their default.

    Raises:
        ValueError: if both say it and differ, if none does and the method has no thresholds, or if
            the schedule asks for a sparsity although thresholds are given.
    """
    target, name = method.target, type(method).__name__
    if getattr(schedule, "target_sparsity", 0.0) is None and target.sparsity is not None:
        schedule = dataclasses.replace(schedule, target_sparsity=target.sparsity)
    asked = final_sparsity(schedule)
    if isinstance(target, Outcome):
        if asked is None:
            return method, schedule
        if target.setting is not None:
            raise ValueError(
                f"With `{target.setting}`, thresholds decide how sparse a layer gets: use a "
                f"schedule without `target_sparsity`. Received: {method!r}, schedule={schedule!r}."
            )
        settings: dict[str, Any] = {"target_sparsity": asked}
        return dataclasses.replace(method, **settings), schedule
    if asked is None:
        raise ValueError(
            f"{name} needs `target_sparsity` or a schedule with one. Received: {schedule!r}."
        )
    if target.sparsity is not None and abs(asked - target.sparsity) > 1e-9:
        raise ValueError(
            f"{name} asks for a sparsity of {target.sparsity!r} and its schedule ends at "
            f"{asked!r}; let one of them say it. Received schedule: {schedule!r}."
        )
    return method, schedule


def check_together(
    method: Method,
    paths: Sequence[str],
    schedules: Sequence[Any],
    specs: Sequence[Mapping[str, WeightSpec]],
) -> None:
    """Raise ValueError if a method's settings do not fit all the layers that share it."""
    if method.target.scope == "global":
        reason = f"With a global target, all layers of {type(method).__name__} share one threshold"
        check_one_schedule(schedules, reason)
    method.target.check(specs)
    method.domain.check_paths(paths)
    if isinstance(method, ChecksLayers):
        method.check_layers(paths)


def _check_served(method: Method) -> None:
    """Raise ValueError if a method needs what no host serves here."""
    backend, name = keras.backend.backend(), type(method).__name__
    foreign = [need for need in method.needs if not isinstance(need, SERVED)]
    if foreign:
        raise ValueError(f"{name} needs what tfprune does not serve. Received: {foreign}.")
    measured = [need for need in method.needs if isinstance(need, MEASURED)]
    if len(measured) > 1:
        raise ValueError(
            f"A method may ask for one measurement in training steps. Received: {measured}."
        )
    if measured and backend != "tensorflow":
        raise ValueError(
            f"{name} needs Keras on TensorFlow, whose steps are measured. Received: the backend "
            f"{backend!r}."
        )
