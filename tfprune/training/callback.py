"""The Keras callback that prunes during `model.fit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfprune.graph import _keras
from tfprune.maths.checks import check_step
from tfprune.needs import LossGradient, OutputSensitivity, need_of
from tfprune.training import gradient
from tfprune.training.pruner import Pruner
from tfprune.training.sensitivity import serve

_MARK = "tfprune_callback"


class PruningCallback(keras.callbacks.Callback):
    """Updates masks before each optimizer step and logs sparsity after each epoch.

    Adds `sparsity` (all pruned weights together) and, with `per_layer`, `sparsity/<layer path>` to
    the epoch's logs, as fractions in [0, 1], so that History, TensorBoard and CSVLogger show them.
    In the `fit` of a model from `tfprune.prune` it runs first, wherever it stands in the list; in
    one with layers of `tfprune.layers`, put it before what reads the logs.

    Args:
        per_layer: log every layer's sparsity too.
        total_steps: optimizer steps planned; None: those of the epochs that `fit` is to run.
        validation_data: for methods that go by the validation loss: what `model.evaluate` takes, a
            pair (x, y) or a data set; evaluated after each epoch.
        calibration_data: for methods that look at the inputs of layers: an array [samples, ...],
            or arrays in the structure of the model's inputs.

    Raises (when training starts):
        ValueError: if the model has no pruned layer, there is a second PruningCallback, or a method
            needs `validation_data`.

    Warns: at the start if a schedule can never fire in the steps planned; at the end if nothing was
        pruned or a target was missed.
    """

    is_pruning_callback = True

    def __init__(
        self,
        per_layer: bool = True,
        total_steps: int | None = None,
        validation_data: Any = None,
        calibration_data: Any = None,
    ) -> None:
        super().__init__()
        self.calibration_data = calibration_data
        self.validation_data = validation_data
        self._undo: list[Callable[[], None]] = []
        if total_steps is not None:
            total_steps = check_step("total_steps", total_steps, 1)
        self.per_layer, self.total_steps = per_layer, total_steps
        self.pruner: Pruner | None = None
        self.concluded_by_fit = False

    def set_params(self, params: dict[str, Any]) -> None:
        """Keras' hook; the callbacks of one `fit` share `params`, which shows a second callback."""
        super().set_params(params)
        if params is not None and params.setdefault(_MARK, self) is not self:
            raise ValueError("Give `fit` one PruningCallback. Received: two.")

    def on_train_begin(self, logs: Any = None) -> None:
        """Find the layers; schedules are planned at the first batch, when the epoch is known."""
        optimizer = getattr(self.model, "optimizer", None)
        self.pruner = Pruner(self.model, self.total_steps, optimizer, self.calibration_data)
        self._first_epoch: int | None = None
        self._batches = 0
        if self.pruner.needs_validation and self.validation_data is None:
            raise ValueError(
                "The method chooses masks by the validation loss: give "
                "`PruningCallback(validation_data=(x, y))`. Received: None."
            )
        self._serve()

    def _serve(self) -> None:
        """Measure in each training step what methods ask for."""
        assert self.pruner is not None
        self.unserve()  # of a training that was interrupted
        states = self.pruner.states
        if any(need_of(state.method.needs, OutputSensitivity) for state in states):
            self._undo.append(serve.serve(self.model, states))
        if any(need_of(state.method.needs, LossGradient) for state in states):
            self._undo.append(gradient.serve(self.model, states))
        self.pruner.measured = bool(self._undo)

    def unserve(self) -> None:
        """Stop measuring."""
        while self._undo:
            self._undo.pop()()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Plan for the epochs that are left, where the number of their batches is known."""
        self._batches = 0
        if self._first_epoch is None:
            self._first_epoch = epoch
            self._expect(self.params.get("steps"), epoch)

    def _expect(self, batches: int | None, epoch: int) -> None:
        assert self.pruner is not None
        if batches is None:
            return
        left = self.params.get("epochs", 1) - epoch
        accumulated = _keras.accumulation(getattr(self.model, "optimizer", None))
        if self.pruner.epoch_steps is None:
            self.pruner.epoch_steps = max(batches // accumulated, 1)
        if self.pruner.total_steps is None and left > 0:
            self.pruner.total_steps = max(batches * left // accumulated, 1)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Update the masks that are due."""
        assert self.pruner is not None
        if self.pruner.total_steps is None and self.pruner.open_steps():
            return  # in a first epoch of unknown length there is no plan yet
        _keras.sync(self.model)
        self.pruner.update()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count."""
        self._batches = batch + 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log sparsity; plan for the epochs that are left if their length was not known before."""
        assert self.pruner is not None
        self._expect(self._batches, epoch + 1)
        _keras.sync(self.model)
        if self.pruner.needs_validation:
            self.pruner.end_epoch(self._validation_loss)
        self.pruner.record()
        if logs is not None:
            for path, value in self.pruner.sparsities().items():
                if self.per_layer or not path:
                    logs[f"sparsity/{path}" if path else "sparsity"] = value

    def _validation_loss(self) -> float:
        data = self.validation_data
        pair = data if isinstance(data, tuple) else (data,)
        return float(self.model.evaluate(*pair, verbose=0, return_dict=True)["loss"])

    def on_train_end(self, logs: Any = None) -> None:
        """Catch up with what was due since the last batch began."""
        assert self.pruner is not None
        _keras.sync(self.model)
        self.pruner.catch_up()
        self.unserve()
        if not self.concluded_by_fit:
            self.conclude()

    def conclude(self) -> None:
        """Say what was missed; after the other callbacks, since one may put older weights back."""
        assert self.pruner is not None
        self.pruner.verify()
