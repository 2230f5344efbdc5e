"""The loop that times calls: by turns, warm, and no longer than it may."""

import time

from tfprune.export.inspect import timing


def test_calls_run_by_turns_and_warm_up_first():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times = timing.time_calls(calls, 4)
    assert order == list("ab") * (timing.WARM_UP + 4)
    assert {name: found.rounds for name, found in times.items()} == {"a": 4, "b": 4}


def test_times_are_milliseconds_and_slow_warm_up_does_not_count():
    waits = iter([0.2] * timing.WARM_UP + [0.02] * 5)
    (times,) = timing.time_calls({"wait": lambda: time.sleep(next(waits))}, 5).values()
    assert 20 <= times.ms < 150 and times.cpu_ms < 20


def test_rounds_end_with_the_time_but_not_before_three():
    (slow,) = timing.time_calls({"wait": lambda: time.sleep(0.01)}, 10**6, seconds=0.3).values()
    assert timing.MIN_ROUNDS <= slow.rounds < 1000
    (least,) = timing.time_calls({"wait": lambda: None}, 10**6, seconds=0.0).values()
    assert least.rounds == timing.MIN_ROUNDS
