"""The laws that every registered method keeps on every layer kind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tracing import eager

import contract.domain
import contract.hooks
import contract.six_lines
import tfprune
from contract.layer_kinds import KINDS, make
from tfprune.maths.domains import Domain
from tfprune.maths.groups import GRANULARITIES
from tfprune.method import Method, methods
from tfprune.pruned.layers import STATE
from tfprune.training.pruner import Pruner

to_numpy = keras.ops.convert_to_numpy
TESTED = [cls for cls in methods() if cls.__module__.split(".")[0] in ("tfprune", "contract")]
STRUCTURED = [tfprune.FrequencyDomain(granularity=name) for name in GRANULARITIES[1:]]
TYPICAL = ("Dense", "Conv1D", "Conv2DGroups", "Conv3D", "Conv2DTranspose", "SeparableConv2D", "GRU")
FEW = ("Dense", "Conv2DGroups", "SeparableConv2D")
HOOKED = ("Dense", "SeparableConv2D", "GRU")
POLICIES = ("float32", "mixed_float16")


def cases() -> Iterator[Any]:
    """(method, kind, policy): what takes long, and what repeats, is marked slow.

    Quick in float32: every method on typical kinds, and every kind with the baseline and with one
    more method, in turn. In mixed precision: every method on one of a few kinds, in turn. Methods
    that exist for these tests run on those few kinds, structures on one. Those with hooks of
    training run on three kinds, in float32 alone.
    """
    own = [cls for cls in TESTED if cls.__module__.startswith("tfprune")]
    others = [cls for cls in own if cls is not tfprune.Magnitude]
    hooked = [cls for cls in TESTED if cls.__module__ == contract.hooks.__name__]
    for cls, kind in itertools.product(hooked, HOOKED):
        yield case(cls.__name__, cls, kind, "float32", True)
    for i, cls in enumerate(cls for cls in TESTED if cls not in hooked):
        for j, kind in enumerate(KINDS):
            in_turn = cls in (tfprune.Magnitude, others[j % len(others)])
            quick = in_turn or kind in (TYPICAL if cls in own else FEW)
            yield case(cls.__name__, cls, kind, "float32", quick)
            yield case(cls.__name__, cls, kind, "mixed_float16", kind == FEW[i % len(FEW)])
    for method in STRUCTURED:
        name = f"{type(method).__name__}-{method.granularity}"
        for kind, policy in itertools.product(KINDS, POLICIES):
            quick = kind == "Conv2DGroups" and policy == "float32"
            yield case(name, lambda method=method: method, kind, policy, quick)


def case(name: str, build: Any, kind: str, policy: str, quick: bool) -> Any:
    """The parameters of one law."""
    marks = () if quick else (pytest.mark.slow,)
    return pytest.param(build, kind, policy, id=f"{policy}-{name}-{kind}", marks=marks)


@pytest.fixture
def dtype_policy(policy: str) -> Iterator[None]:
    keras.config.set_dtype_policy(policy)
    yield
    keras.config.set_dtype_policy("float32")


def is_spatial(method: Method) -> bool:
    """Whether the weights themselves are masked."""
    return type(method.domain).encode is Domain.encode


def schedule_for(method: Method) -> Any:
    """Six updates at steps 0 to 5."""
    if isinstance(method, tfprune.NetworkSurgery):
        return tfprune.SurgerySchedule(begin_step=0, end_step=5, gamma=0.0)
    if isinstance(method, tfprune.FrequencyDomain) and method.granularity == "coefficient":
        return tfprune.FrequencySchedule(begin_step=0, end_step=5, gamma=0.0)
    return tfprune.PolynomialDecay(0.2, 0.7, begin_step=0, end_step=5, frequency=1)


def pruned_twin(kind: str, method: Method) -> tuple[keras.Model, keras.Model, Any, Any]:
    model, x, y = make(kind)
    return model, tfprune.prune(model, method, schedule_for(method)), x, y


def states(model: keras.Model) -> list[Any]:
    return [getattr(layer, STATE) for _, layer in tfprune.pruned.layers.pruned_layers(model)]


def step_of(model: keras.Model, x: Any, y: Any, compiled: bool = True) -> Any:
    """A training step of a custom loop, with the number of times it was traced or run."""
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    optimizer.build(model.trainable_variables)
    traces = []

    def step() -> Any:
        traces.append(1)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y)) + sum(model.losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return tf.function(step) if compiled else step, optimizer, traces


def train(model: keras.Model, x: Any, y: Any, steps: int = 3) -> Pruner:
    step, optimizer, traces = step_of(model, x, y)
    pruner = tfprune.Pruner(model, total_steps=10, optimizer=optimizer, calibration_data=x)
    for _ in range(steps):
        pruner.update()
        step()
    assert len(traces) == 1, "the step was traced again after a mask update"
    return pruner


@pytest.mark.parametrize(("make_method", "kind", "policy"), list(cases()))
@pytest.mark.usefixtures("dtype_policy")
def test_law(make_method: Any, kind: str, policy: str, tmp_path: Any) -> None:
    """All laws on one layer kind, in one build, since building is what takes the time."""
    method = make_method()
    model, pruned, x, y = pruned_twin(kind, method)
    before = [to_numpy(v) for v in model.variables]
    rounding = 1e-5 if policy == "float32" else 1e-2
    if is_spatial(method):
        rounding = 1e-6
    _identity_at_the_start(model, pruned, x, y, rounding)
    pruner = train(pruned, x, y)
    _masks_are_masks(pruned, pruner)
    _names_are_unique(pruned)
    _reload_goes_on(pruned, x, y, tmp_path)
    _strip_equals_pruned(pruned, x)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value, f"{variable.path} of the original changed")
    assert type(model) is type(make(kind)[0]) and not tfprune.is_pruned(model)


def _identity_at_the_start(model: Any, pruned: Any, x: Any, y: Any, rounding: float) -> None:
    np.testing.assert_allclose(pruned(x), model(x), rtol=rounding, atol=rounding)
    assert len(model.losses) <= len(pruned.losses)
    gradients = []
    for one in (model, pruned):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(one(x) - y))
        slots = [v for v in one.trainable_variables if "prune_state" not in v.path]
        gradients.append(tape.gradient(loss, [v.value for v in slots]))
    assert not any(g is None for g in gradients[1])
    if is_spatial(states(pruned)[0].method):
        for dense, masked in zip(*gradients, strict=True):
            np.testing.assert_allclose(
                tf.convert_to_tensor(masked), tf.convert_to_tensor(dense), rtol=2e-3, atol=1e-5
            )


def _masks_are_masks(pruned: Any, pruner: Pruner) -> None:
    found = states(pruned)
    assert all(mask.dtype == "bool" for state in found for mask in state.masks.values())
    assert any(state.sparsity() > 0 for state in found), "nothing was pruned"
    for state in found:
        for name, mask in state.masks.items():
            latents = state.latents(name)
            masked = state.domain.masked
            latents[masked] = latents[masked] * to_numpy(mask)
            once = state.domain.decode(latents, state.specs[name])
            np.testing.assert_array_equal(to_numpy(state.effective(name)), to_numpy(once))


def _names_are_unique(pruned: Any) -> None:
    paths = [variable.path for variable in pruned.variables]
    assert len(paths) == len(set(paths)), [path for path in paths if paths.count(path) > 1]


def _reload_goes_on(pruned: Any, x: Any, y: Any, tmp_path: Any) -> None:
    """A model reloaded in mid-schedule computes the same, and so does its next step."""
    pruned.save(tmp_path / "pruned.keras")
    again = keras.models.load_model(tmp_path / "pruned.keras")
    assert tfprune.is_pruned(again)
    _assert_same_variables(pruned, again)
    np.testing.assert_array_equal(again(x), pruned(x))
    for one in (pruned, again):
        step, optimizer, _ = step_of(one, x, y, compiled=False)
        with eager():
            tfprune.Pruner(one, total_steps=10, optimizer=optimizer, calibration_data=x).update()
        step()
    _assert_same_variables(pruned, again)


def _assert_same_variables(one: Any, other: Any) -> None:
    for old, new in zip(one.variables, other.variables, strict=True):
        if "seed_generator" not in old.path:  # Keras draws these anew when a model is loaded
            np.testing.assert_array_equal(to_numpy(new), to_numpy(old), old.path)


def _strip_equals_pruned(pruned: Any, x: Any) -> None:
    plain = tfprune.strip(pruned)
    assert not tfprune.is_pruned(plain)
    assert not any("prune_state" in variable.path for variable in plain.variables)
    np.testing.assert_array_equal(plain(x), pruned(x))
