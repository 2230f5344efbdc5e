"""Checks of numbers that users give, with errors that say what must hold and what was received."""

from __future__ import annotations

import math
import numbers
from typing import Any


def check_number(name: str, value: Any) -> float:
    """Return `value` as a float, or raise TypeError / ValueError if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number. Received: {value!r}.")
    if not math.isfinite(value):
        raise ValueError(f"`{name}` must be finite. Received: {value!r}.")
    return float(value)


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
