"""The engine behind the callback: decides at each step which layers are due, and updates masks."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.graph import _keras
from tfprune.maths.checks import check_step
from tfprune.maths.spec import LayerTensors
from tfprune.pruned.layers import STATE, pruned_layers
from tfprune.pruned.state import PruneState
from tfprune.schedules import PruningSchedule
from tfprune.training import timing
from tfprune.training.sensitivity import serve
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

    Raises:
        ValueError: if the model has no pruned layer, or `total_steps` is needed and missing.
    """

    def __init__(
        self, model: keras.Model, total_steps: int | None = None, optimizer: Any = None
    ) -> None:
        self.states: list[PruneState] = [getattr(x, STATE) for _, x in pruned_layers(model)]
        if not self.states:
            raise ValueError(
                f"Model '{model.name}' has no pruned layer. Call `tfprune.prune` first and train "
                "the model that it returns."
            )
        if total_steps is not None:
            total_steps = check_step("total_steps", total_steps, 1)
        self.model, self.total_steps, self.optimizer = model, total_steps, optimizer
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
        self._update = _keras.compiled(self._update_masks)

    def _check_wrapped(self) -> None:
        """What `prune` checks of all layers of a method, for wrappers, which know but their own."""
        for numbers in self._groups():
            states = [self.states[number] for number in numbers]
            if any(state.wrapped for state in states):
                paths = [state.path_in_model for state in states]
                timings, specs = [s.schedule for s in states], [s.specs for s in states]
                states[0].method.check_layers(paths, timings, specs)

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
        arrays = np.array(due), np.array([wanted, progress], "float32"), np.int32(step)
        finite = self._update(*map(ops.convert_to_tensor, arrays))
        self._check_finite(ops.convert_to_numpy(finite), step)
        self.updates += 1

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
                "`frequency` of the schedule."
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

    def _update_masks(self, due: Tensor, plans: Tensor, step: Tensor) -> Tensor:
        finite = []
        wanted, progress = plans[0], plans[1]
        self._keep("last_step", step)
        for numbers in self._groups():
            states = [self.states[number] for number in numbers]
            layers = [self.states[n].tensors(progress[n]) for n in numbers]
            good = [_finite(layer) for layer in layers]
            flags = [ops.logical_and(due[n], ops.all(ops.stack(good))) for n in numbers]
            sparsities = [wanted[number] for number in numbers]
            results = states[0].method.update_network(layers, sparsities, flags)
            for state, (masks, scalars) in zip(states, results, strict=True):
                for name, mask in masks.items():
                    state.masks[name].assign(ops.copy(mask))
                for key, value in scalars.items():
                    state.scalars[key].assign(ops.copy(value))
            finite += list(zip(numbers, good, strict=True))
        return ops.stack([ok for _, ok in sorted(finite, key=lambda pair: pair[0])])

    def _groups(self) -> list[list[int]]:
        """The layers that share a method, by number."""
        groups: list[list[int]] = []
        for number, state in enumerate(self.states):
            same = [group for group in groups if self.states[group[0]].method == state.method]
            if same:
                same[0].append(number)
            else:
                groups.append([number])
        return groups

    def _check_finite(self, finite: np.ndarray, step: int) -> None:
        bad = [s.path_in_model for s, ok in zip(self.states, finite, strict=True) if not ok]
        if bad:
            raise ValueError(
                f"Weights must stay finite; at step {step} those of {bad} are NaN or infinite. "
                "Their masks were left as they are. Lower the learning rate or clip gradients."
            )

    def sparsities(self) -> dict[str, float]:
        """Path -> fraction of zeros in the layer's masks, and under "" that of all together."""
        sizes = [sum(spec_size(mask) for mask in s.masks.values()) for s in self.states]
        each = [state.sparsity() for state in self.states]
        total = sum(size * s for size, s in zip(sizes, each, strict=True)) / max(sum(sizes), 1)
        paths = [state.path_in_model for state in self.states]
        return {"": total, **dict(zip(paths, each, strict=True))}

    @property
    def needs_validation(self) -> bool:
        """Whether a method updates its masks by the validation loss."""
        return any(state.method.needs_validation for state in self.states)

    def measure(self, tape: Any, outputs: Any, targets: Any = None) -> Any:
        """In a loop of your own: what methods ask to be measured, from the step's forward pass.

        Args:
            tape: a persistent `tf.GradientTape` that watched the forward pass, closed.
            outputs: what the model returned in it.
            targets: the true classes, where a method asks for "specific" sensitivity.

        Returns:
            What `after_step` takes, after the optimizer's step.
        """
        self.measured = True
        return serve.measure(self.states, tape, outputs, targets, self._steps_so_far())

    def after_step(self, signals: Any) -> None:
        """Let methods change their latent weights by what `measure` found."""
        signals = serve.once_a_step(signals, self.optimizer)
        serve.after_step(self.states, signals, self._steps_so_far())

    def _steps_so_far(self) -> Any:
        if self.optimizer is None:
            return self._calls
        return ops.convert_to_tensor(self.optimizer.iterations)

    def end_epoch(self, validation_loss: Any) -> None:
        """Let methods that go by the validation loss update their masks.

        Args:
            validation_loss: a function without arguments that evaluates the model as it is.
        """
        for numbers in self._groups():
            states = [self.states[number] for number in numbers]
            end = getattr(states[0].planned, "end_step", None)
            going_on = end is None or (self._previous or 0) <= end
            if states[0].method.needs_validation and going_on:
                update_by_validation(states, validation_loss)
                self.updates += 1

    def finish(self) -> None:
        """End of training: catch up with what was due, and warn if a target was missed."""
        self.catch_up()
        self.verify()

    def catch_up(self) -> None:
        """Do what was due since the last update, and keep the newest step."""
        if self._previous is not None:
            self._run(max(self._step() - 1, self._previous))
            self.record()

    def verify(self) -> None:
        """Warn if nothing was pruned, or a target was missed."""
        if self._previous is None and self.open_steps():
            warnings.warn(
                "Nothing was pruned: the number of training steps was not known, so the schedule "
                "could not be planned. Give `PruningCallback(total_steps=...)`, `steps_per_epoch`, "
                "or `begin_step`, `end_step` and `frequency` of the schedule.",
                stacklevel=3,
            )
        elif not self._ever_updated():
            warnings.warn(
                "Nothing was pruned: no mask update fell into this training. "
                f"Steps seen: {self._calls}; schedule: {self.schedules()[0]}.",
                stacklevel=3,
            )
        else:
            for message in self._missed():
                warnings.warn(message, stacklevel=3)

    def _ever_updated(self) -> bool:
        return self.updates > 0 or any(state.sparsity() > 0 for state in self.states)

    def _missed(self) -> list[str]:
        messages = []
        for states in self._targets():
            schedule = self.schedules()[self.states.index(states[0])]
            target = getattr(schedule, "final_target", None)
            specs = [state.specs for state in states]
            masks = [state.mask_arrays() for state in states]
            method = states[0].method
            value = method.attained(specs, masks)
            if target and value < target - method.rounding(specs) - 1e-4:
                path = states[0].path_in_model if len(states) == 1 else "the model"
                messages.append(
                    f"Target missed: {path} has sparsity {value:.4f} instead of {target:.4f} after "
                    f"step {self._previous}; its schedule is {schedule}."
                )
        if any(state.method.signals for state in self.states) and not self.measured:
            messages.append(
                "What the method needs was never measured in training. In `fit`, give the model "
                "that is trained a PruningCallback; in a loop of your own, call `pruner.measure` "
                "and `pruner.after_step`."
            )
        gone = [state.path_in_model for state in self.states if state.sparsity() == 1]
        if gone:
            messages.append(
                f"Every weight of the layers {gone} is pruned, so nothing passes through them. "
                "Lower `c` or the target, or leave them out with `filters`."
            )
        return messages

    def _targets(self) -> list[list[PruneState]]:
        """The layers that a target is asked of together: one by one, or a method's all."""
        rows = []
        for numbers in self._groups():
            states = [self.states[number] for number in numbers]
            together = states[0].method.scope == "global"
            rows += [states] if together else [[state] for state in states]
        return rows


def spec_size(mask: Any) -> int:
    """Number of entries of a variable."""
    return int(np.prod(mask.shape))


def _finite(layer: LayerTensors) -> Tensor:
    tensors = [tensor for each in layer.others.values() for tensor in each.values()]
    return ops.all(ops.stack([ops.all(ops.isfinite(tensor)) for tensor in tensors]))
