"""The experiments: network, training recipe, pruning settings, and the paper's own row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import nets

import tfprune


@dataclasses.dataclass(frozen=True)
class Training:
    """SGD with momentum and a cosine from `rate` to zero over `steps`.

    `shift`: every image is moved by up to so many pixels, at random, in both directions.
    """

    steps: int
    batch: int
    rate: float
    momentum: float = 0.9
    shift: int = 0


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One row of a paper's table, and how it is reproduced; `decay` is L2, biases included."""

    name: str
    title: str
    data: str
    net: Callable[[float], keras.Model]
    decay: float
    dense: Training
    pruning: Training
    method: Callable[[float], tfprune.Method]  # takes an offset along the trade-off curve
    schedule: tfprune.PruningSchedule
    offsets: tuple[float, ...]  # the curve
    paper: dict[str, float | str]


def _surgery(c: dict[str, float]) -> Callable[[float], tfprune.Method]:
    def method(offset: float) -> tfprune.Method:
        return tfprune.NetworkSurgery(c={name: value + offset for name, value in c.items()})

    return method


def _timing(stop: int) -> tfprune.SurgerySchedule:
    return tfprune.SurgerySchedule(gamma=1e-4, power=1.0, begin_step=0, end_step=stop)


EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment(
            name="dns-lenet5",
            title="Dynamic network surgery, LeNet-5, MNIST",
            data="mnist",
            net=nets.lenet5,
            decay=5e-4,
            dense=Training(steps=7000, batch=64, rate=0.03, shift=1),
            pruning=Training(steps=18000, batch=64, rate=0.03, shift=1),
            method=_surgery({"conv1": 2.0, "conv2": 4.1, "fc1": 6.0, "fc2": 3.2}),
            schedule=_timing(15000),
            offsets=(-0.75, 0.0, 0.75, 1.5),
            paper={"dense_error": 0.91, "test_error": 0.91, "compression": 107.96},
        ),
        Experiment(
            name="dns-lenet300",
            title="Dynamic network surgery, LeNet-300-100, MNIST",
            data="mnist",
            net=nets.lenet300,
            decay=5e-4,
            dense=Training(steps=10000, batch=100, rate=0.1, shift=1),
            pruning=Training(steps=20000, batch=100, rate=0.1, shift=1),
            method=_surgery({"fc1": 6.8, "fc2": 3.3, "fc3": 2.5}),
            schedule=_timing(16000),
            offsets=(-1.5, -0.75, 0.0, 0.75, 1.5),
            paper={"dense_error": 2.28, "test_error": 1.99, "compression": 56.0},
        ),
    )
}
