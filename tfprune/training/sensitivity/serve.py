"""Serves `OutputSensitivity` during training: measures it on each batch, hands it to the methods.

In `fit`, the model's `train_step` is wrapped for the time of the training: a second tape listens to
the forward pass that the step makes anyway, so only the backward passes of S are added. In a loop
of the user's own, `Pruner.measure` and `Pruner.after_step` do the same.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from tfprune.graph import _keras
from tfprune.needs import OutputSensitivity, need_of
from tfprune.pruned.state import PruneState
from tfprune.training.sensitivity.dense_inputs import Captured, capturing
from tfprune.training.sensitivity.jacobians import scores_of, sensitivities
from tfprune.training.signals import Signals, hand_on

Tensor = Any


def wanted(state: PruneState) -> OutputSensitivity | None:
    """What a layer's method asks for, None if nothing."""
    return need_of(state.method.needs, OutputSensitivity)


def serve(model: keras.Model, states: Sequence[PruneState]) -> Callable[[], None]:
    """Let the training steps of `model.fit` measure and apply S; returns what undoes it."""
    stale = getattr(model.train_step, "tfprune_undo", None)
    if stale is not None:  # left by a training that was interrupted
        stale()
    listening = _Listening(states)
    train_step, call = model.train_step, model.call

    @functools.wraps(train_step)
    def watched_step(data: Any) -> Any:
        with listening.step():
            logs = train_step(data)
            signals = listening.measure(data, model.optimizer.iterations)
            steps, stepped = model.optimizer.iterations, _keras.has_stepped(model.optimizer)
            hand_on(listening.states, signals, steps, stepped)
        return logs

    @functools.wraps(call)
    def watched_call(*args: Any, **kwargs: Any) -> Any:
        with listening.forward() as note:
            outputs = call(*args, **kwargs)
            note(outputs)
        return outputs

    before = {name: vars(model)[name] for name in ("train_step", "call") if name in vars(model)}
    object.__setattr__(model, "train_step", watched_step)
    object.__setattr__(model, "call", watched_call)
    model.make_train_function(force=True)

    def undo() -> None:
        if vars(model).get("train_step") is not watched_step:
            return
        for name in ("train_step", "call"):
            object.__delattr__(model, name)
            if name in before:
                object.__setattr__(model, name, before[name])
        model.train_function = None

    watched_step.tfprune_undo = undo  # type: ignore[attr-defined]
    return undo


class _Listening(threading.local):
    """The forward pass of the training step in progress, as a tape and its outputs.

    Per thread, since replicas of a distributed step are traced in threads of their own.
    """

    def __init__(self, states: Sequence[PruneState]) -> None:
        self.states = [state for state in states if wanted(state) is not None]
        self._inside = False
        self._heard: tuple[Any, Any, dict[tuple[int, str], Captured]] | None = None

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """One training step."""
        self._inside, self._heard = True, None
        try:
            yield
        finally:
            self._inside, self._heard = False, None

    @contextlib.contextmanager
    def forward(self) -> Iterator[Callable[[Any], None]]:
        """The first call of the model inside a step is listened to."""
        if not self._inside or self._heard is not None:
            yield lambda outputs: None
            return
        import tensorflow as tf

        self._heard = (None, None, {})
        by_example = any(getattr(wanted(state), "per_sample", False) for state in self.states)
        captured = capturing(self.states if by_example else ())
        with tf.GradientTape(persistent=True) as tape, captured as c:
            yield lambda outputs: self._keep(tape, outputs, c)

    def _keep(self, tape: Any, outputs: Any, captured: dict[tuple[int, str], Captured]) -> None:
        self._heard = (tape, outputs, captured)

    def measure(self, data: Any, step: Any) -> Signals:
        """S of every weight of every listening layer, on what `train_step` was given."""
        if self._heard is None or self._heard[0] is None:
            raise RuntimeError(
                "The training step must call the model itself, `self(x, training=True)`, for its "
                "sensitivity to be measured; it made no such call. Call it there, or train in a "
                "loop of your own with `Pruner.measure` and `Pruner.after_step`."
            )
        tape, outputs, captured = self._heard
        targets = None
        if any(getattr(wanted(state), "kind", "") == "specific" for state in self.states):
            _, targets, _ = keras.utils.unpack_x_y_sample_weight(data)
        return measure(self.states, tape, outputs, targets, step, captured)


def measure(
    states: Sequence[PruneState],
    tape: Any,
    outputs: Any,
    targets: Any,
    step: Any,
    captured: dict[tuple[int, str], Captured] | None = None,
) -> Signals:
    """S of every weight of the layers that ask for it, from a persistent tape of a forward pass.

    Args:
        tape: a persistent `tf.GradientTape` that watched the forward pass, closed.
        outputs: what the model returned in it.
        targets: the true classes, for "specific": integers, or one-hot rows of the outputs' shape.
        step: the optimizer's steps so far; settles which outputs are drawn.
    """
    scores = scores_of(outputs)
    measured: Signals = {}
    for signal in {wanted(state): None for state in states}:
        if signal is None:
            continue
        asking = [state for state in states if wanted(state) == signal]
        measured |= sensitivities(signal, asking, tape, scores, targets, step, captured or {})
    return measured


def measure_on(
    model: keras.Model,
    states: Sequence[PruneState],
    signal: OutputSensitivity,
    x: Any,
    y: Any = None,
) -> Signals:
    """S of every weight of some layers of a model on one batch, outside training."""
    import tensorflow as tf

    with (
        tf.GradientTape(persistent=True) as tape,
        capturing(states if signal.per_sample else ()) as captured,
        keras.StatelessScope(),  # so that the states of recurrent layers stay
    ):
        outputs = model(x, training=False)
    return sensitivities(signal, list(states), tape, scores_of(outputs), y, 0, captured)
