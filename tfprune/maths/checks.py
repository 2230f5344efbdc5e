"""Checks of numbers that users give, with errors that say what must hold and what was received."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any


def check_number(name: str, value: Any) -> float:
    """Return `value` as a float, or raise TypeError / ValueError if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number. Received: {value!r}.")
    if not math.isfinite(value):
        raise ValueError(f"`{name}` must be finite. Received: {value!r}.")
    return float(value)


def check_not_negative(name: str, value: Any) -> float:
    """Return `value` as a float, or raise if it is no finite number >= 0."""
    if check_number(name, value) < 0:
        raise ValueError(f"`{name}` must not be negative. Received: {value!r}.")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """Return `value`, or raise TypeError if it is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False. Received: {value!r}.")
    return value


def check_at_most_one(settings: Any, names: tuple[str, ...]) -> None:
    """Raise ValueError if more than one of these attributes of `settings` is given, not None."""
    given = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    if len(given) > 1:
        raise ValueError(f"Give at most one of {', '.join(names)}. Received: {given}.")


def check_one_schedule(schedules: Sequence[Any], reason: str) -> None:
    """Raise ValueError if the layers have several schedules; `reason`: why they must share one."""
    if any(schedule != schedules[0] for schedule in schedules):
        raise ValueError(f"{reason}, so they need one schedule. Received: {list(schedules)!r}.")


def check_sparsity(name: str, value: Any) -> float:
    """Return a sparsity, a fraction in [0, 1), or raise."""
    if not 0 <= check_number(name, value) < 1:
        raise ValueError(
            f"`{name}` must be a fraction in [0, 1), not percent. Received: {value!r}."
        )
    return float(value)


def check_step(name: str, value: Any, least: int = 0) -> int:
    """Return a step count, an integer of at least `least`, or raise."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` must be an integer. Received: {value!r}.")
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}. Received: {value!r}.")
    return int(value)


def per_layer(setting: float | Mapping[str, float], name: str, default: float) -> float:
    """A setting that is one number, or {regular expression: number}; the first match decides."""
    if not isinstance(setting, Mapping):
        return float(setting)
    return next((float(v) for k, v in setting.items() if re.search(k, name)), default)


def check_target(target: float | None) -> None:
    """Raise unless `target` is None or a sparsity in [0, 1)."""
    if target is not None:
        check_sparsity("target_sparsity", target)


def check_pattern(name: str, pattern: Any) -> None:
    """Raise ValueError unless `pattern` is a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"The keys of `{name}` must be regular expressions of layer names. "
            f"Received: {pattern!r}."
        ) from error


def check_fits(name: str, setting: Any, paths: Sequence[str]) -> None:
    """Raise ValueError if a key of a {regular expression: value} setting fits no layer."""
    for pattern in setting if isinstance(setting, Mapping) else ():
        if not any(re.search(pattern, path) for path in paths):
            raise ValueError(
                f"Every key of `{name}` must fit a layer; {pattern!r} fits none. The layers: "
                f"{list(paths)}. Received: {setting!r}."
            )
