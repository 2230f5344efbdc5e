"""Questions to a schedule, tfprune's own or one with tfmot's signature alone."""

from __future__ import annotations

from typing import Any

from tfprune.maths.checks import check_sparsity
from tfprune.schedules import PruningSchedule


def can_fire(schedule: Any, first: int, last: int) -> bool:
    """Whether a schedule has an update between two steps."""
    if isinstance(schedule, PruningSchedule):
        begin, end = schedule.begin_step, schedule.end_step
        return begin is not None and end is not None and begin <= last and end >= first
    return any(bool(schedule(step)[0]) for step in range(first, last + 1))


def due(schedule: Any, layer: int, first: int, last: int) -> bool:
    """Whether an update of a layer was due between two steps."""
    if isinstance(schedule, PruningSchedule):
        return any(schedule.due(step, layer) for step in range(first, last + 1))
    return any(bool(schedule(step)[0]) for step in range(first, last + 1))


def sparsity(schedule: Any, step: int) -> float:
    """What a schedule asks for at a step, checked."""
    if isinstance(schedule, PruningSchedule):
        return schedule.sparsity(step)
    return check_sparsity("the schedule's sparsity", float(schedule(step)[1]))


def progress(schedule: Any, step: int) -> float:
    """How far a schedule is at a step, in [0, 1]; 1 for one of tfmot's."""
    return schedule.progress(step) if isinstance(schedule, PruningSchedule) else 1.0
