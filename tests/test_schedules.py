"""Schedules: when, how sparse, where open steps are placed, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import oracles
import pytest

import tfprune
from tfprune import ConstantSparsity, PolynomialDecay, SurgerySchedule

EACH = [
    ConstantSparsity(0.5, 2, 9, 3),
    PolynomialDecay(0.1, 0.7, 2, 9, frequency=3),
    SurgerySchedule(gamma=0.1, begin_step=2, end_step=9, seed=4, target_sparsity=0.5),
]
OPEN = [ConstantSparsity(0.5), PolynomialDecay(0.0, 0.7), SurgerySchedule()]


def kind(schedule):
    return type(schedule).__name__


@pytest.mark.parametrize("frequency", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("make", [ConstantSparsity, lambda s, **k: PolynomialDecay(0.0, s, **k)])
def test_updates_fall_on_the_frequency_and_on_the_end(make, frequency):
    schedule = make(0.5, begin_step=3, end_step=20, frequency=frequency)
    got = [step for step in range(40) if schedule(step)[0]]
    assert got == oracles.updates(3, 20, frequency)


@hypothesis.settings(max_examples=80, deadline=None)
@hypothesis.given(
    st.floats(0, 0.99), st.floats(0, 0.99), st.integers(0, 30), st.integers(1, 40),
    st.floats(0.5, 6), st.integers(0, 90),
)  # fmt: skip
def test_polynomial_decay(initial, final, begin, length, power, step):
    schedule = PolynomialDecay(initial, final, begin, begin + length, power, 1)
    wanted = oracles.polynomial(step, initial, final, begin, begin + length, power)
    assert schedule(step)[1] == pytest.approx(wanted, abs=1e-12)
    assert 0 <= schedule(step)[1] < 1


def test_polynomial_decay_of_no_length_is_at_its_end():
    assert PolynomialDecay(0.0, 0.8, 5, 5, frequency=1)(5) == (True, 0.8)


def test_constant_sparsity():
    schedule = ConstantSparsity(0.6, 0, 3, 1)
    assert [schedule(step) for step in range(5)] == [(True, 0.6)] * 4 + [(False, 0.6)]


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    st.floats(0, 0.1), st.floats(0, 3), st.integers(0, 50), st.integers(0, 100), st.integers(0, 9)
)
def test_sigma(gamma, power, begin, after, seed):
    schedule = SurgerySchedule(gamma, power, begin, begin + 200, seed=seed)
    step = begin + after
    wanted = oracles.sigma(after, gamma, power)
    assert schedule.probability(step) == pytest.approx(wanted)
    assert schedule.due(step, 3) == (schedule.draw(step, 3) < wanted)


def test_surgery_fires_at_its_begin_and_end_and_never_outside():
    schedule = SurgerySchedule(gamma=10.0, power=3.0, begin_step=5, end_step=30)
    fired = [step for step in range(60) if schedule.due(step, 1)]
    assert fired[0] == 5 and fired[-1] == 30


def test_surgery_fires_about_as_often_as_sigma_says():
    schedule = SurgerySchedule(gamma=1e-3, begin_step=0, end_step=4000)
    fired = sum(schedule.due(step, 0) for step in range(4000))
    expected = sum(oracles.sigma(step, 1e-3, 1.0) for step in range(4000))
    assert abs(fired - expected) < 4 * expected**0.5


def test_the_paper_s_gamma_over_its_14000_steps():
    schedule = SurgerySchedule(begin_step=0, end_step=14000)
    assert schedule.probability(14000) == pytest.approx(oracles.sigma(14000, 1e-4, 1.0))


def test_draws_depend_on_seed_layer_and_step_and_on_nothing_else():
    one = SurgerySchedule(seed=1, begin_step=0, end_step=9)
    draws = {
        (seed, layer, step): SurgerySchedule(seed=seed).draw(step, layer)
        for seed in (1, 2) for layer in (0, 1) for step in (0, 1, 2)
    }  # fmt: skip
    assert len(set(draws.values())) == len(draws)
    assert all(0 <= draw < 1 for draw in draws.values())
    assert one.draw(2, 1) == draws[1, 1, 2] == one.draw(2, 1)


def test_surgery_draws_only_at_its_frequency():
    schedule = SurgerySchedule(gamma=0.0, begin_step=1, end_step=12, frequency=4)
    assert [step for step in range(20) if schedule(step)[0]] == oracles.updates(1, 12, 4)


def test_target_ramp_of_surgery():
    schedule = SurgerySchedule(begin_step=0, end_step=100, target_sparsity=0.8, ramp=0.5)
    asked = [schedule.sparsity(step) for step in range(101)]
    wanted = [oracles.polynomial(step, 0.0, 0.8, 0, 50, 3.0) for step in range(101)]
    np.testing.assert_allclose(asked, wanted, atol=1e-12)
    at_once = dataclasses.replace(schedule, ramp=0.0)
    assert at_once.sparsity(0) == 0.8


@pytest.mark.parametrize("schedule", EACH, ids=kind)
def test_config_round_trip(schedule):
    config = schedule.get_config()
    assert type(schedule).from_config(json.loads(json.dumps(config))) == schedule
    assert not any(isinstance(value, dict | list) for value in config.values())
    saved = keras.saving.serialize_keras_object(schedule)
    assert keras.saving.deserialize_keras_object(saved) == schedule


@pytest.mark.parametrize("schedule", EACH, ids=kind)
def test_steps_may_be_numpy_or_tensors(schedule):
    wanted = schedule(5)
    for step in (np.int64(5), keras.ops.convert_to_tensor(5), keras.Variable(5)):
        assert schedule(step) == wanted


@pytest.mark.parametrize("schedule", EACH, ids=kind)
def test_frozen(schedule):
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.begin_step = 1


@pytest.mark.parametrize("schedule", OPEN, ids=kind)
@pytest.mark.parametrize("total", [1, 2, 3, 10, 150, 100_000])
def test_plan_places_open_steps_inside_the_training(schedule, total):
    planned = schedule.plan(total)
    assert planned.planned and not schedule.planned
    assert 0 <= planned.begin_step <= planned.end_step <= total - 1
    assert planned.end_step == round(0.7 * (total - 1))
    assert planned.due(planned.begin_step) and planned.due(planned.end_step)
    assert planned.plan(5) is planned


def test_open_frequency_makes_about_a_hundred_updates():
    planned = PolynomialDecay(0.0, 0.5).plan(100_000)
    assert 100 <= len(oracles.updates(0, planned.end_step, planned.frequency)) <= 102


def test_minus_one_means_the_end_of_the_training():
    assert PolynomialDecay(0.0, 0.5, 2, -1).plan(50).end_step == 49


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"begin_step": 3}, (3, 13)),
        ({"begin_step": 15}, (15, 15)),
        ({"end_step": 6}, (0, 6)),
        ({"end_step": 6, "begin_fraction": 0.5}, (6, 6)),
        ({"end_step": 0, "begin_fraction": 0.5}, (0, 0)),
        ({"begin_fraction": 0.5, "end_fraction": 0.5}, (10, 10)),
        ({"end_step": 50}, (0, 50)),
    ],
)
def test_plan_keeps_the_steps_that_are_given(settings, steps):
    planned = PolynomialDecay(0.0, 0.5, **settings).plan(20)
    assert (planned.begin_step, planned.end_step) == steps


@pytest.mark.parametrize("schedule", OPEN, ids=kind)
def test_an_unplanned_schedule_cannot_be_called(schedule):
    with pytest.raises(ValueError, match=r"plan\(total_steps\)"):
        schedule(0)


def constant(**settings):
    return ConstantSparsity(**{"target_sparsity": 0.5, **settings})


BAD = [
    (constant, {"target_sparsity": 1.0}, ValueError, r"\[0, 1\).*Received: 1\.0"),
    (constant, {"target_sparsity": -0.1}, ValueError, r"\[0, 1\).*Received: -0\.1"),
    (constant, {"target_sparsity": 80}, ValueError, r"percent.*Received: 80"),
    (constant, {"target_sparsity": float("nan")}, ValueError, "finite.*Received: nan"),
    (constant, {"target_sparsity": float("inf")}, ValueError, "finite.*Received: inf"),
    (constant, {"target_sparsity": "0.5"}, TypeError, "Received: '0.5'"),
    (constant, {"target_sparsity": None}, TypeError, "Received: None"),
    (constant, {"target_sparsity": True}, TypeError, "Received: True"),
    (constant, {"target_sparsity": np.array([0.5])}, TypeError, "Received: array"),
    (constant, {"begin_step": 9, "end_step": 3}, ValueError, "begin_step=9, end_step=3"),
    (constant, {"begin_step": -1}, ValueError, "at least 0.*Received: -1"),
    (constant, {"begin_step": 1.5}, TypeError, "integer.*Received: 1.5"),
    (constant, {"end_step": -2}, ValueError, "Received: -2"),
    (constant, {"end_step": "9"}, TypeError, "Received: '9'"),
    (constant, {"frequency": 0}, ValueError, "at least 1.*Received: 0"),
    (constant, {"frequency": -5}, ValueError, "Received: -5"),
    (constant, {"frequency": 2.0}, TypeError, "Received: 2.0"),
    (constant, {"begin_fraction": 0.9, "end_fraction": 0.2}, ValueError, "begin_fraction=0.9"),
    (constant, {"begin_fraction": 1.1}, ValueError, r"\[0, 1\].*Received: 1\.1"),
    (constant, {"end_fraction": float("nan")}, ValueError, "Received: nan"),
    (PolynomialDecay, {"initial_sparsity": 1, "final_sparsity": 0.5}, ValueError, "initial"),
    (PolynomialDecay, {"initial_sparsity": 0, "final_sparsity": "x"}, TypeError, "final"),
    (PolynomialDecay, {"initial_sparsity": 0, "final_sparsity": 0.5, "power": 0}, ValueError, "0"),
    (SurgerySchedule, {"gamma": -1e-4}, ValueError, "gamma.*Received: -0.0001"),
    (SurgerySchedule, {"gamma": "1e-4"}, TypeError, "gamma.*Received: '1e-4'"),
    (SurgerySchedule, {"power": float("nan")}, ValueError, "power.*Received: nan"),
    (SurgerySchedule, {"seed": -1}, ValueError, "seed.*Received: -1"),
    (SurgerySchedule, {"seed": 0.5}, TypeError, "seed.*Received: 0.5"),
    (SurgerySchedule, {"ramp": 1.5}, ValueError, r"ramp.*\[0, 1\].*Received: 1\.5"),
    (SurgerySchedule, {"ramp": None}, TypeError, "ramp.*Received: None"),
    (SurgerySchedule, {"power": None}, TypeError, "power.*Received: None"),
    (SurgerySchedule, {"target_sparsity": 1.0}, ValueError, "target_sparsity.*Received: 1.0"),
]


@pytest.mark.parametrize(("cls", "settings", "error", "message"), BAD)
def test_bad_settings(cls, settings, error, message):
    with pytest.raises(error, match=message):
        cls(**settings)


@pytest.mark.parametrize("total", [0, -3, 2.5, "10"])
def test_bad_plan(total):
    with pytest.raises((ValueError, TypeError), match=r"total_steps.*Received"):
        PolynomialDecay(0.0, 0.5).plan(total)


def test_a_schedule_of_the_users_own():
    @dataclasses.dataclass(frozen=True)
    class Twice(tfprune.PruningSchedule):
        begin_step: int | None = 1
        end_step: int | None = 2
        frequency: int | None = 1
        begin_fraction: float = 0.0
        end_fraction: float = 1.0

        def sparsity(self, step):
            return 0.25 * step

    assert [Twice()(step) for step in range(4)] == [
        (False, 0.0), (True, 0.25), (True, 0.5), (False, 0.75),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "schedule",
    [
        tfprune.ConstantSparsity(0.5, 4, 4),
        tfprune.PolynomialDecay(0.1, 0.5, 4, 4),
        tfprune.SynapticSchedule(0.5, begin_step=4, end_step=4),
        tfprune.SensitivitySchedule(4, 4, target_sparsity=0.5),
    ],
)
def test_one_update_needs_no_frequency(schedule):
    assert schedule.planned and schedule.plan(100) == schedule
    assert [step for step in range(9) if schedule(step)[0]] == [4]
    assert schedule.sparsity(4) == 0.5
