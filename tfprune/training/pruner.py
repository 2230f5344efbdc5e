"""The engine behind the callback: decides at each step which layers are due, and updates masks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.graph import _keras
from tfprune.maths.checks import check_step
from tfprune.needs import Samples, ValidationLoss, need_of
from tfprune.pruned.layers import STATE, pruned_layers
from tfprune.pruned.plan import MEASURED, check_together
from tfprune.pruned.state import PruneState
from tfprune.schedules import PruningSchedule
from tfprune.training import gradient, timing, verdict
from tfprune.training.calibration import first_samples, layer_inputs
from tfprune.training.mask_update import MaskUpdate
from tfprune.training.sensitivity import serve
from tfprune.training.signals import Signals, hand_on
from tfprune.training.validation import update_by_validation

Tensor = Any


class Pruner:
    """Updates the masks of a pruned model in a training loop; `PruningCallback` is one for `fit`.

        pruner = tfprune.Pruner(model, total_steps=1000, optimizer=optimizer)
        for x, y in data:
            pruner.update()  # before the optimizer's step
            train_step(x, y)
        pruner.finish()

    The step is the optimizer's number of iterations, counted from where pruning began; it is saved
    with the model and survives a new optimizer. Without an optimizer the calls are counted. Where
    steps pass between two calls (`steps_per_execution`), what was due in between is done then.

    Args:
        model: a pruned model, or one with layers of `tfprune.layers`.
        total_steps: optimizer steps planned from now on, to place what schedules leave open; None
            if they leave nothing open.
        optimizer: a Keras optimizer, or None.
        calibration_data: for methods that look at the inputs of layers: an array [samples, ...],
            or arrays in the structure of the model's inputs; the first samples are used.

    Raises:
        ValueError: if the model has no pruned layer, or `total_steps` or `calibration_data` is
            needed and missing.
    """

    def __init__(
        self,
        model: keras.Model,
        total_steps: int | None = None,
        optimizer: Any = None,
        calibration_data: Any = None,
    ) -> None:
        self.states: list[PruneState] = [getattr(x, STATE) for _, x in pruned_layers(model)]
        if not self.states:
            raise ValueError(
                f"Model '{model.name}' has no pruned layer. Call `tfprune.prune` first and train "
                f"the model that it returns. Received: {model!r}."
            )
        if total_steps is not None:
            total_steps = check_step("total_steps", total_steps, 1)
        self.model, self.total_steps, self.optimizer = model, total_steps, optimizer
        self._update = MaskUpdate(self.states)
        self._check_wrapped()
        for state in self.states:
            state.attended = True
        self.updates = 0
        self.epoch_steps: int | None = None
        self.measured = False
        self._calls = 0
        self._offset = 0
        self._previous: int | None = None
        self._schedules: list[Any] = []
        self._samples = self._calibration(calibration_data)

    def _groups(self) -> list[list[PruneState]]:
        """The layers that share a method."""
        return [[self.states[index] for index in group] for group in self._update.groups]

    def _check_wrapped(self) -> None:
        """What `prune` checks of all layers of a method, for wrappers, which know but their own."""
        for states in self._groups():
            if any(state.wrapped for state in states):
                paths = [state.path_in_model for state in states]
                timings, specs = [s.schedule for s in states], [s.specs for s in states]
                check_together(states[0].method, paths, timings, specs)

    def _calibration(self, data: Any) -> Any:
        """The samples that methods need; None where none does."""
        needs = [need_of(state.method.needs, Samples) for state in self.states]
        counts = [need.count for need in needs if need is not None]
        if not counts:
            return None
        if data is None:
            raise ValueError(
                "The method looks at the inputs of layers: give `calibration_data`, an array "
                "[samples, ...], to the PruningCallback or Pruner. Received: None."
            )
        return first_samples(data, max(counts))

    def update(self) -> None:
        """Update the masks of the layers that are due before the optimizer's next step.

        Raises:
            ValueError: if a weight has become NaN or infinite; masks are then left as they are.
        """
        step = self._step()
        self._calls += 1
        if self.optimizer is None:
            self._keep("last_step", step)
        if step != self._previous:
            self._run(step)

    def _run(self, step: int) -> None:
        schedules = self.schedules(step)
        first = step if self._previous is None else min(self._previous + 1, step)
        self._previous = step
        due = [timing.due(schedule, n, first, step) for n, schedule in enumerate(schedules)]
        if not any(due):
            return
        wanted = [timing.sparsity(schedule, step) for schedule in schedules]
        progress = [timing.progress(schedule, step) for schedule in schedules]
        finite = self._update(due, wanted, progress, step, self._inputs())
        self._check_finite(finite, step)
        self.updates += 1

    def _inputs(self) -> dict[int, np.ndarray] | None:
        if self._samples is None:
            return None
        needy = [s for s in self.states if need_of(s.method.needs, Samples) is not None]
        return layer_inputs(self.model, needy, self._samples)

    def schedules(self, step: int = 0) -> list[Any]:
        """Each layer's schedule with every step settled: once, then saved with the model."""
        if not self._schedules:
            planned = [state.planned for state in self.states]
            for state, schedule in zip(self.states, planned, strict=True):
                if isinstance(schedule, PruningSchedule) and not schedule.planned:
                    schedule = self._plan(schedule, step)
                state.plan(schedule)
                self._schedules.append(schedule)
            self._warn_if_idle(step)
        return self._schedules

    def open_steps(self) -> bool:
        """Whether a schedule leaves steps open, so that the planned steps must be known."""
        planned = [state.planned for state in self.states]
        return any(isinstance(s, PruningSchedule) and not s.planned for s in planned)

    def _warn_if_idle(self, step: int) -> None:
        if self.total_steps is None:
            return
        last = step + self.total_steps - 1
        for state, schedule in zip(self.states, self._schedules, strict=True):
            if not state.ended() and not timing.can_fire(schedule, step, last):
                warnings.warn(
                    f"The schedule of layer '{state.path_in_model}' can never fire in the steps "
                    f"planned, {step} to {last}: {schedule}.",
                    stacklevel=2,
                )
                return

    def _plan(self, schedule: PruningSchedule, step: int) -> PruningSchedule:
        if self.total_steps is None:
            raise ValueError(
                f"{type(schedule).__name__} leaves steps open, so the number of planned optimizer "
                "steps must be known: give `total_steps`, or `begin_step`, `end_step` and "
                f"`frequency` of the schedule. Received: {schedule!r}."
            )
        return schedule.plan(step + self.total_steps, self.epoch_steps)

    def _step(self) -> int:
        iterations = self._calls
        if self.optimizer is not None:
            iterations = int(ops.convert_to_numpy(self.optimizer.iterations))
        if self._previous is None:
            self._settle(iterations)
        return iterations + self._offset

    def _settle(self, iterations: int) -> None:
        """Find the offset of this session: a saved one, or a new one for a new optimizer."""
        state = self.states[0]
        self._offset, last = state.count("offset"), state.count("last_step")
        if last < 0 or iterations + self._offset < last:
            self._offset = last + 1 - iterations
            self._keep("offset", self._offset)
            self._keep("last_step", max(last, 0))

    def _keep(self, counter: str, value: Any) -> None:
        for state in self.states:
            state.counters[counter].assign(ops.copy(value))

    def record(self) -> None:
        """Save the newest step with the model."""
        if self._previous is not None:
            self._keep("last_step", self._previous)

    def _check_finite(self, finite: np.ndarray, step: int) -> None:
        bad = [s.path_in_model for s, ok in zip(self.states, finite, strict=True) if not ok]
        if bad:
            raise ValueError(
                f"Weights must stay finite; at step {step} those of {bad} are NaN or infinite. "
                "Their masks were left as they are. Lower the learning rate or clip gradients."
            )

    def sparsities(self) -> dict[str, float]:
        """Path -> fraction of zeros in the layer's masks, and under "" that of all together."""
        sizes = [sum(math.prod(mask.shape) for mask in s.masks.values()) for s in self.states]
        values = [state.sparsity() for state in self.states]
        total = sum(size * s for size, s in zip(sizes, values, strict=True)) / max(sum(sizes), 1)
        paths = [state.path_in_model for state in self.states]
        return {"": total, **dict(zip(paths, values, strict=True))}

    @property
    def needs_validation(self) -> bool:
        """Whether a method updates its masks by the validation loss."""
        return any(need_of(state.method.needs, ValidationLoss) for state in self.states)

    @property
    def needs_measuring(self) -> bool:
        """Whether a method needs what is measured in training steps."""
        return any(isinstance(need, MEASURED) for s in self.states for need in s.method.needs)

    def measure(self, tape: Any, outputs: Any, targets: Any = None) -> Signals:
        """Measure what methods ask for, in a loop of your own, from the step's forward pass.

        Args:
            tape: a persistent `tf.GradientTape` that watched the forward pass, closed.
            outputs: what the model returned in it.
            targets: the true classes, where a method asks for "specific" sensitivity.

        Returns:
            What `after_step` takes, after the optimizer's step.
        """
        self.measured = True
        return serve.measure(self.states, tape, outputs, targets, self._steps_so_far())

    def gradients(
        self, gradients: Sequence[Tensor], variables: Sequence[keras.Variable]
    ) -> Signals:
        """Take the gradients that methods ask for, in a loop of your own.

        Args:
            gradients, variables: as the optimizer gets them, in one order.

        Returns:
            What `after_step` takes, after the optimizer's step.
        """
        self.measured = True
        return gradient.signals_of(self.states, gradients, variables)

    def after_step(self, signals: Signals) -> None:
        """Let methods change their latent weights by `signals`, from `measure` or `gradients`."""
        stepped = True if self.optimizer is None else _keras.has_stepped(self.optimizer)
        hand_on(self.states, signals, self._steps_so_far(), stepped)

    def _steps_so_far(self) -> Any:
        if self.optimizer is None:
            return self._calls
        return ops.convert_to_tensor(self.optimizer.iterations)

    def end_epoch(self, validation_loss: Any) -> None:
        """Let methods that go by the validation loss update their masks.

        Args:
            validation_loss: a function without arguments that evaluates the model as it is.
        """
        for states in self._groups():
            end = getattr(states[0].planned, "end_step", None)
            going_on = end is None or (self._previous or 0) <= end
            if need_of(states[0].method.needs, ValidationLoss) and going_on:
                update_by_validation(states, validation_loss)
                self.updates += 1

    def finish(self) -> None:
        """End of training: catch up with what was due, and warn if a target was missed."""
        self.catch_up()
        self.verify()

    def catch_up(self) -> None:
        """Do what was due since the last update, and keep the newest step."""
        if self._previous is not None:
            last = self._step() - 1
            if last > self._previous:
                self._run(last)
            self.record()

    def verify(self) -> None:
        """Warn if nothing was pruned, or a target was missed."""
        for message in self._shortcomings():
            warnings.warn(message, stacklevel=3)

    def _shortcomings(self) -> list[str]:
        if self._previous is None and self.open_steps():
            return [verdict.NOT_PLANNED]
        if not self.updates and not any(state.sparsity() > 0 for state in self.states):
            return [
                "Nothing was pruned: no mask update fell into this training. "
                f"Steps seen: {self._calls}; schedule: {self.schedules()[0]}."
            ]
        messages = [*verdict.missed_targets(self.states, self.schedules(), self._previous)]
        if self.needs_measuring and not self.measured:
            messages.append(verdict.NOT_MEASURED)
        return [*messages, *verdict.emptied(self.states)]
