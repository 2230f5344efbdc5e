"""The loop that times calls; it imports nothing of tfprune, so that a bare process can run it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

WARM_UP = 3
MIN_ROUNDS = 3  # whatever the time


class Times(NamedTuple):
    """Medians over some rounds, in milliseconds; CPU time is that of all threads together."""

    ms: float
    cpu_ms: float
    rounds: int


def time_calls(
    calls: Mapping[str, Callable[[], Any]], rounds: int, seconds: float = float("inf")
) -> dict[str, Times]:
    """Time calls by turns, so that what disturbs the machine disturbs all of them alike.

    Args:
        calls: functions by name; each runs three times before it is timed.
        rounds: how often each is timed, >= 1.
        seconds: time after which no further round begins, but not before three rounds.

    Returns:
        name -> its times.
    """
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    end = time.monotonic() + seconds
    for index in range(-WARM_UP, rounds):
        for name, call in calls.items():
            start = time.perf_counter(), time.process_time()
            call()
            if index >= 0:
                wall[name].append(time.perf_counter() - start[0])
                cpu[name].append(time.process_time() - start[1])
        if index + 1 >= MIN_ROUNDS and time.monotonic() > end:
            break
    return {
        name: Times(
            1e3 * statistics.median(wall[name]), 1e3 * statistics.median(cpu[name]), len(wall[name])
        )
        for name in calls
    }
