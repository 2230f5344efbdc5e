"""When masks are updated, and how sparse they get: `schedule(step) -> (should_update, sparsity)`.

The form is that of tensorflow_model_optimization, so its schedules drive tfprune's methods and
these drive its wrappers; where it is installed, these are subclasses of its `PruningSchedule`.
Steps are optimizer steps. `begin_step`, `end_step` and `frequency` may be left out (None): `plan`
then places them by fractions of the planned training, so that a short run is pruned too.
The last update falls exactly on `end_step`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

import keras

from tfprune.compat.tfmot import foreign_settings, in_graph, is_symbolic, schedule_base
from tfprune.maths.checks import check_number, check_sparsity, check_step, check_target
from tfprune.maths.piecewise import Ramp

if TYPE_CHECKING:
    from tfprune.compat.tfmot import _OwnPruningSchedule as _Base
else:
    _Base = schedule_base()

S = TypeVar("S", bound="PruningSchedule")

UPDATES = 100  # mask updates of a schedule whose frequency is left out


class PruningSchedule(_Base):
    """Base class: the steps at which masks are updated, `begin_step` to `end_step` by `frequency`.

    Subclasses are frozen dataclasses with these five fields, in the order that suits them:

    Attributes:
        begin_step: first update, in optimizer steps, >= 0. None: `begin_fraction` of the training.
        end_step: last update, >= `begin_step`. None: `end_fraction` of the training; -1: its end.
        frequency: steps between updates, >= 1. None: as many as make about 100 updates; nothing
            needs to be known of the training where `begin_step` is `end_step`.
        begin_fraction, end_fraction: in [0, 1], used for what is left out.

    Raises:
        TypeError, ValueError: for settings out of range.
    """

    begin_step: int | None
    end_step: int | None
    frequency: int | None
    begin_fraction: float
    end_fraction: float

    def __post_init__(self) -> None:
        if self.end_step == -1:
            object.__setattr__(self, "end_step", None)
            object.__setattr__(self, "end_fraction", 1.0)
        for name, least in (("begin_step", 0), ("end_step", 0), ("frequency", 1)):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check_step(name, value, least))
        for name in ("begin_fraction", "end_fraction"):
            if not 0 <= check_number(name, getattr(self, name)) <= 1:
                raise ValueError(f"`{name}` must be in [0, 1]. Received: {getattr(self, name)!r}.")
        self._check_order("begin_step", "end_step")
        self._check_order("begin_fraction", "end_fraction")
        one_update = self.begin_step is not None and self.begin_step == self.end_step
        if one_update and self.frequency is None:
            object.__setattr__(self, "frequency", 1)

    def _check_order(self, first: str, last: str) -> None:
        begin, end = getattr(self, first), getattr(self, last)
        if begin is not None and end is not None and begin > end:
            raise ValueError(
                f"`{first}` must not come after `{last}`. "
                f"Received: {first}={begin!r}, {last}={end!r}."
            )

    @property
    def planned(self) -> bool:
        """Whether every step is settled, so that the schedule can be called."""
        return None not in (self.begin_step, self.end_step, self.frequency)

    def plan(self: S, total_steps: int, epoch_steps: int | None = None) -> S:
        """The same schedule with what was left out placed in a training of `total_steps` steps.

        `epoch_steps`, where it is known, is for schedules that go by epochs.
        """
        if self.planned:
            return self
        last = max(check_step("total_steps", total_steps, 1) - 1, 0)
        begin = self.begin_step
        if begin is None:
            begin = min(
                round(self.begin_fraction * last), last if self.end_step is None else self.end_step
            )
        end = self.end_step
        if end is None:
            end = max(round(self.end_fraction * last), begin)
        frequency = self.frequency or max((end - begin) // UPDATES, 1)
        return dataclasses.replace(self, begin_step=begin, end_step=end, frequency=frequency)  # type: ignore[type-var]

    def due(self, step: int, layer: int = 0) -> bool:
        """Whether the masks of layer number `layer` are updated before optimizer step `step`."""
        if self.begin_step is None or self.end_step is None or self.frequency is None:
            raise ValueError(
                f"{type(self).__name__} has no steps yet: give `begin_step`, `end_step` and "
                "`frequency`, or call `plan(total_steps)`, as PruningCallback does. "
                f"Received: {self!r}."
            )
        if not self.begin_step <= step <= self.end_step:
            return False
        return step == self.end_step or (step - self.begin_step) % self.frequency == 0

    def sparsity(self, step: int) -> float:
        """The sparsity asked for at `step`, in [0, 1)."""
        raise NotImplementedError

    @property
    def final_target(self) -> float | None:
        """The sparsity asked for when the schedule has ended; None if it asks for none."""
        return None

    def progress(self, step: int) -> float:
        """The share of the schedule that is over at `step`: 0 at `begin_step`, 1 at `end_step`."""
        begin, end = self.begin_step or 0, self.end_step or 0
        return min(max((step - begin) / max(end - begin, 1), 0.0), 1.0) if end > begin else 1.0

    def __call__(self, step: Any) -> tuple[Any, Any]:
        """(should the masks be updated before optimizer step `step`?, sparsity in [0, 1))."""
        if is_symbolic(step):
            return in_graph(lambda at: (self.due(at), self.sparsity(at)), step)
        return self.due(int(step)), self.sparsity(int(step))

    def get_config(self) -> dict[str, Any]:
        """The settings, flat and JSON-able."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_config(cls: type[S], config: dict[str, Any]) -> S:
        """The inverse of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class ConstantSparsity(PruningSchedule):
    """The same sparsity at every update.

    Args:
        target_sparsity: fraction of zeros in [0, 1).
        begin_step, end_step, frequency: see `PruningSchedule`.
    """

    target_sparsity: float
    begin_step: int | None = None
    end_step: int | None = None
    frequency: int | None = None
    begin_fraction: float = 0.0
    end_fraction: float = 0.7

    def __post_init__(self) -> None:
        check_sparsity("target_sparsity", self.target_sparsity)
        super().__post_init__()

    def sparsity(self, step: int) -> float:
        """`target_sparsity`."""
        return self.target_sparsity

    @property
    def final_target(self) -> float:
        """`target_sparsity`."""
        return self.target_sparsity


@keras.saving.register_keras_serializable(package="tfprune")
@dataclasses.dataclass(frozen=True)
class PolynomialDecay(PruningSchedule):
    """Sparsity that rises quickly at first and ever more slowly.

        s(t) = final + (initial - final) * (1 - progress(t))^power

    Args:
        initial_sparsity, final_sparsity: fractions of zeros in [0, 1).
        power: > 0; 1 is a straight line.
        begin_step, end_step, frequency: see `PruningSchedule`.

    Reference: Zhu, Gupta, "To prune, or not to prune", 2017, eq. 1 (power 3).
    """

    initial_sparsity: float
    final_sparsity: float
    begin_step: int | None = None
    end_step: int | None = None
    power: float = 3.0
    frequency: int | None = None
    begin_fraction: float = 0.0
    end_fraction: float = 0.7

    def __post_init__(self) -> None:
        check_sparsity("initial_sparsity", self.initial_sparsity)
        check_sparsity("final_sparsity", self.final_sparsity)
        if check_number("power", self.power) <= 0:
            raise ValueError(f"`power` must be positive. Received: {self.power!r}.")
        super().__post_init__()

    def sparsity(self, step: int) -> float:
        """The polynomial at `step`; `final_sparsity` from `end_step` on."""
        ramp = Ramp(self.initial_sparsity, self.final_sparsity, self.power)
        return ramp.at(self.progress(step))

    @property
    def final_target(self) -> float:
        """`final_sparsity`."""
        return self.final_sparsity


class TargetedSchedule(PruningSchedule):
    """Base class of schedules that ask for a sparsity only where they are given one.

    A subclass has the fields below beside those of `PruningSchedule`, and defines `curve`.

    Attributes:
        target_sparsity: in [0, 1), asked for when the schedule has ended; None: nothing is asked.
    """

    target_sparsity: float | None

    def __post_init__(self) -> None:
        check_target(self.target_sparsity)
        super().__post_init__()

    def curve(self, target: float) -> Ramp:
        """The sparsity over the schedule's progress, from 0 to `target`, in [0, 1)."""
        return Ramp(0.0, target)

    def sparsity(self, step: int) -> float:
        """The curve at `step`; 0 where there is no target."""
        target = self.target_sparsity
        return 0.0 if target is None else self.curve(target).at(self.progress(step))

    @property
    def final_target(self) -> float | None:
        """`target_sparsity`."""
        return self.target_sparsity


def check_schedule(schedule: Any) -> Any:
    """Return `schedule` if it can be called as `schedule(step)`, or raise TypeError.

    tfmot's own schedules become those of the same name here, which can be saved and whose last
    update falls on `end_step`.
    """
    complete = callable(schedule) and hasattr(schedule, "get_config")
    if isinstance(schedule, type) or not complete:
        raise TypeError(
            "`schedule` must be a PruningSchedule, called as `schedule(step) -> (should_update, "
            f"sparsity)`, with `get_config`. Received: {schedule!r}."
        )
    name, settings = foreign_settings(schedule)
    ours = {"ConstantSparsity": ConstantSparsity, "PolynomialDecay": PolynomialDecay}.get(name)
    return schedule if ours is None else ours(**settings)


def final_sparsity(schedule: Any) -> float | None:
    """The sparsity that a schedule ends with, tfmot's too; None if it asks for none."""
    if hasattr(schedule, "final_target"):
        return None if schedule.final_target is None else float(schedule.final_target)
    return float(schedule(2**31 - 1)[1])
