"""The experiments: network, training recipe, pruning settings, and the paper's own row."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import nets

import tfprune


@dataclasses.dataclass(frozen=True)
class Training:
    """SGD with momentum and a cosine from `rate` to zero over `steps`, after `warmup` steps.

    `hold`: the rate stays as it is for so many steps before the cosine begins.

    `shift`: every image is moved by up to so many pixels, at random, in both directions; what comes
    in from outside is black, or with `border="reflect"` the image again. `mirror`: half of the
    images, at random, are mirrored left to right.

    `precision`: Keras' dtype policy of the training; errors are always measured in float32.
    """

    steps: int
    batch: int
    rate: float
    momentum: float = 0.9
    shift: int = 0
    border: str = "constant"
    mirror: bool = False
    nesterov: bool = False
    warmup: int = 0
    hold: int = 0
    optimizer: str = "SGD"
    precision: str = "float32"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One row of a paper's table, and how it is reproduced; `decay` is L2, biases included.

    `scratch`: pruning starts from fresh weights, and the dense net only gives its error.
    `offset_of`: what an offset on the curve does.
    """

    name: str
    title: str
    data: str
    net: Callable[[float], keras.Model]
    decay: float
    dense: Training
    pruning: Training
    method: Callable[[float], Any]  # takes an offset along the trade-off curve
    schedule: tfprune.PruningSchedule | None
    offsets: tuple[float, ...]  # the curve
    paper: dict[str, float | str]
    scratch: bool = False
    pruning_decay: float | None = None  # L2 while pruning, where it is another one
    offset_of: str = "offset of c"


def _surgery(c: dict[str, float]) -> Callable[[float], tfprune.Method]:
    def method(offset: float) -> tfprune.Method:
        return tfprune.NetworkSurgery(c={name: value + offset for name, value in c.items()})

    return method


def _frequency(c: dict[str, float], lam: dict[str, float] | None = None) -> Callable[[float], Any]:
    """FDNP, or with `lam` BA-FDNP: {layer: method}, each layer with its own c and lambda."""

    def method(offset: float) -> dict[str, tfprune.Method]:
        band = {name: tfprune.bands.Beta(value) for name, value in (lam or {}).items()}
        return {
            name: tfprune.FrequencyDomain(c=value + offset, band=band.get(name))
            for name, value in c.items()
        }

    return method


def _compression(**settings: Any) -> Callable[[float], Any]:
    """The convolutions between stem and head; the offset adds to the compression asked for."""

    def method(offset: float) -> dict[str, tfprune.Method]:
        ratio = settings["target_compression"] + offset
        return {"stage": tfprune.FrequencyDomain(**{**settings, "target_compression": ratio})}

    return method


def _sensitivity(lam: float, largest: float, **settings: Any) -> Callable[[float], Any]:
    """T grows to `largest`; the offset doubles it."""

    def method(offset: float) -> tfprune.Method:
        threshold = [(0.0, 1e-3), (1.0, largest * 2**offset)]
        return tfprune.SensitivityDriven(lam=lam, threshold=threshold, **settings)

    return method


def _timing(stop: int) -> tfprune.SurgerySchedule:
    return tfprune.SurgerySchedule(gamma=1e-4, power=1.0, begin_step=0, end_step=stop)


_LENET5_DENSE = Training(steps=7000, batch=64, rate=0.03, shift=1)
_LENET5_PRUNING = Training(steps=18000, batch=64, rate=0.03, shift=1)
_LENET300_DENSE = Training(steps=10000, batch=100, rate=0.1, shift=1)
_RESNET20_DENSE = Training(
    steps=20000,
    batch=128,
    rate=0.2,
    shift=4,
    border="reflect",
    mirror=True,
    nesterov=True,
    warmup=1000,
    precision="mixed_bfloat16",
)
_RESNET20_PRUNING = dataclasses.replace(_RESNET20_DENSE, steps=8000, rate=0.1, warmup=200)
# In float32, which is fast on every processor.
_QUARTER_DENSE = dataclasses.replace(_RESNET20_DENSE, steps=4000, rate=0.1, precision="float32")
# In the first half of the training, to the method's target; then fine-tuning.
_ROUNDS = tfprune.SynapticSchedule(rounds=8, begin_fraction=0.05, end_fraction=0.5)


def _lenet5(name: str, title: str, method: Any, paper: dict, **changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "data": "mnist",
        "net": nets.lenet5,
        "decay": 5e-4,
        "dense": _LENET5_DENSE,
        "pruning": dataclasses.replace(_LENET5_PRUNING, warmup=500),
        "schedule": tfprune.FrequencySchedule(gamma=1e-4, power=1.0, begin_step=0, end_step=15000),
        "offsets": (-1.0, 0.0, 0.75),
    }
    return Experiment(name, title, method=method, paper=paper, **{**settings, **changes})


def _sensitivity_lenet300(name: str, title: str, method: Any, paper: dict) -> Experiment:
    """40 epochs: lam and a growing T for 28, then 12 of fine-tuning."""
    epoch = 600
    return Experiment(
        name=name,
        title=title,
        data="mnist",
        net=nets.lenet300,
        decay=5e-4,
        dense=_LENET300_DENSE,
        pruning=Training(steps=40 * epoch, batch=100, rate=0.1, shift=1, hold=28 * epoch),
        method=method,
        schedule=tfprune.SensitivitySchedule(begin_step=0, end_step=28 * epoch, frequency=epoch),
        offsets=(-1.0, -0.5, 0.0, 0.5),
        paper=paper,
        pruning_decay=0.0,
    )


def _stages(method: tfprune.Method) -> Callable[[float], Any]:
    """A method for the convolutions between stem and head; there is no curve."""
    return lambda offset: {"stage": method}


def _chargru(optimizer: str, rate: float, epochs: int, growing: int) -> Experiment:
    """Dense for 10 epochs; then `epochs`, with lam and a growing T in the first of them."""
    epoch = 245
    dense = Training(steps=10 * epoch, batch=64, rate=rate, optimizer=optimizer)
    return Experiment(
        name=f"sensitivity-chargru-{optimizer.lower()}",
        title=f"Sensitivity-driven regularisation, character GRU, tiny Shakespeare, {optimizer}",
        data="tiny_shakespeare",
        net=nets.chargru,
        decay=0.0,
        dense=dense,
        pruning=dataclasses.replace(dense, steps=epochs * epoch, hold=growing * epoch),
        method=lambda offset: tfprune.SensitivityDriven(
            lam=1e-4, target_sparsity=0.81 + offset, every=4
        ),
        schedule=tfprune.SensitivitySchedule(
            begin_step=0, end_step=growing * epoch, frequency=epoch
        ),
        offsets=(-0.1, 0.0, 0.08),
        paper={},
    )


def _resnet20(
    name: str,
    title: str,
    paper: dict,
    method: Any = None,
    pruning: Training = _RESNET20_PRUNING,
    schedule: tfprune.PruningSchedule | None = None,
    **settings: Any,
) -> Experiment:
    return Experiment(
        name=name,
        title=title,
        data="cifar10",
        net=nets.resnet20,
        decay=5e-4,
        dense=_RESNET20_DENSE,
        pruning=pruning,
        method=method or _compression(target_compression=5.45, **settings),
        schedule=schedule,
        offsets=(0.0,) if method else (-1.5, 0.0, 3.0),
        paper=paper,
    )


def _synaptic(lam: float, **settings: Any) -> Callable[[float], Any]:
    """The offset scales lambda by powers of ten; with -inf there is no penalty."""
    return lambda offset: tfprune.SynapticStrength(lam=lam * 10**offset, **settings)


def _vgg(name: str, title: str, method: Any, paper: dict, **changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "data": "cifar10",
        "net": nets.vgg,
        "decay": 5e-4,
        "dense": dataclasses.replace(_RESNET20_DENSE, steps=8000, rate=0.1),
        "pruning": dataclasses.replace(_RESNET20_PRUNING, steps=6000, rate=0.05),
        "schedule": None,
        "offsets": (0.0,),
        "offset_of": "lambda times ten to the power of",
    }
    return Experiment(name, title, method=method, paper=paper, **{**settings, **changes})


EXPERIMENTS = {
    one.name: one
    for one in (
        _lenet5(
            name="dns-lenet5",
            title="Dynamic network surgery, LeNet-5, MNIST",
            pruning=_LENET5_PRUNING,
            method=_surgery({"conv1": 2.0, "conv2": 4.1, "fc1": 6.0, "fc2": 3.2}),
            schedule=_timing(15000),
            offsets=(-0.75, 0.0, 0.75, 1.5),
            paper={"dense_error": 0.91, "test_error": 0.91, "compression": 107.96},
        ),
        _lenet5(
            name="dns-lenet5-sparser",
            title="The same with a higher c, beside the frequency domain at like compression",
            method=_surgery({"conv1": 2.0, "conv2": 4.6, "fc1": 6.9, "fc2": 3.3}),
            schedule=_timing(15000),
            paper={},
        ),
        Experiment(
            name="dns-lenet300",
            title="Dynamic network surgery, LeNet-300-100, MNIST",
            data="mnist",
            net=nets.lenet300,
            decay=5e-4,
            dense=_LENET300_DENSE,
            pruning=Training(steps=20000, batch=100, rate=0.1, shift=1),
            method=_surgery({"fc1": 6.8, "fc2": 3.3, "fc3": 2.5}),
            schedule=_timing(16000),
            offsets=(-1.5, -0.75, 0.0, 0.75, 1.5),
            paper={"dense_error": 2.28, "test_error": 1.99, "compression": 56.0},
        ),
        _lenet5(
            name="fdnp-lenet5",
            title="Frequency-domain dynamic pruning (FDNP), LeNet-5, MNIST",
            method=_frequency({"conv1": 1.3, "conv2": 4.9, "fc1": 6.8, "fc2": 3.3}),
            paper={"dense_error": 0.91, "test_error": 0.91, "compression": 130},
        ),
        _lenet5(
            name="bafdnp-lenet5",
            title="Band-adaptive frequency-domain dynamic pruning (BA-FDNP), LeNet-5, MNIST",
            method=_frequency(
                {"conv1": 1.4, "conv2": 8.0, "fc1": 9.8, "fc2": 3.8},
                {"conv1": 1.5, "conv2": 1.75, "fc1": 1.5},
            ),
            paper={"dense_error": 0.91, "test_error": 0.91, "compression": 150},
        ),
        _lenet5(
            name="fdnp-lenet5-scratch",
            title="FDNP from scratch in one run, pruned from step 4,000 on, LeNet-5, MNIST",
            method=_frequency({"conv1": 1.3, "conv2": 4.9, "fc1": 6.8, "fc2": 3.3}),
            pruning=dataclasses.replace(_LENET5_PRUNING, steps=25000, warmup=500),
            schedule=tfprune.FrequencySchedule(
                gamma=1e-4, power=1.0, begin_step=4000, end_step=21000
            ),
            offsets=(0.0,),
            paper={},
            scratch=True,
        ),
        _sensitivity_lenet300(
            name="sensitivity-lenet300",
            title="Sensitivity-driven regularisation, LeNet-300-100, MNIST",
            method=_sensitivity(lam=6e-4, largest=0.2),
            paper={"dense_error": 1.44, "test_error": 1.95, "compression": 103},
        ),
        _sensitivity_lenet300(
            name="sensitivity-lenet300-denser",
            title="The same at the paper's milder point",
            method=_sensitivity(lam=4e-4, largest=0.1),
            paper={"dense_error": 1.44, "test_error": 1.65, "compression": 27.87},
        ),
        _lenet5(
            name="sensitivity-lenet5",
            title="Sensitivity-driven regularisation, LeNet-5, MNIST",
            method=_sensitivity(lam=3e-4, largest=0.065, every=5),
            pruning=Training(steps=9600, batch=100, rate=0.05, shift=1, hold=6000),
            schedule=tfprune.SensitivitySchedule(begin_step=0, end_step=6000, frequency=600),
            offsets=(-0.5, 0.0, 0.5),
            paper={"dense_error": 0.68, "test_error": 0.8, "compression": 51.07},
            pruning_decay=0.0,
        ),
        _chargru("SGD", rate=1.0, epochs=6, growing=4),
        _chargru("Adam", rate=2e-3, epochs=12, growing=7),
        _chargru("AdamW", rate=2e-3, epochs=12, growing=7),
        _resnet20(
            name="fdnp-resnet20",
            title="Frequency-domain dynamic pruning, ResNet-20, CIFAR-10",
            paper={"dense_error": 8.77, "test_error": 8.77, "compression": 6.5},
        ),
        _resnet20(
            name="fdnp-resnet20-longer",
            title="The same in 20,000 steps instead of 8,000",
            paper={"dense_error": 8.77, "test_error": 8.77, "compression": 6.5},
            pruning=dataclasses.replace(_RESNET20_PRUNING, steps=20000),
        ),
        _resnet20(
            name="fdnp-resnet20-block4",
            title="The same, in blocks of 4 output channels",
            paper={},
            granularity="block4",
        ),
        _resnet20(
            name="fdnp-resnet20-frequency",
            title="The same, whole frequencies of a layer",
            paper={},
            granularity="frequency",
        ),
        _resnet20(
            name="dns-resnet20",
            title="Dynamic network surgery on the same net, the same sparsity in each layer",
            paper={},
            method=_stages(tfprune.NetworkSurgery(target_sparsity=1 - 1 / 5.45)),
        ),
        _resnet20(
            name="sensitivity-resnet20",
            title="Sensitivity-driven regularisation on the same net and sparsity",
            paper={},
            method=_stages(tfprune.SensitivityDriven(target_sparsity=1 - 1 / 5.45, every=4)),
        ),
        _resnet20(
            name="magnitude-resnet20",
            title="Magnitude pruning on the same net, one ranking for all layers",
            paper={},
            method=_stages(tfprune.Magnitude(target_sparsity=1 - 1 / 5.45, scope="global")),
        ),
        _resnet20(
            name="magnitude-resnet20-layer",
            title="Magnitude pruning with tfmot's schedule, the same sparsity in each layer",
            paper={},
            method=_stages(tfprune.Magnitude()),
            schedule=tfprune.PolynomialDecay(0.0, 1 - 1 / 5.45, end_fraction=0.6),
        ),
        _resnet20(
            name="synaptic-resnet20",
            title="Synaptic strength, ResNet-20, CIFAR-10",
            paper={},
            method=_synaptic(lam=3e-5, target_sparsity=0.6),
        ),
        _resnet20(
            name="synaptic-resnet20-longer",
            title="The same in eight rounds and 20,000 steps instead of one and 8,000",
            paper={},
            method=_synaptic(lam=3e-5, target_sparsity=0.6),
            pruning=dataclasses.replace(_RESNET20_PRUNING, steps=20000),
            schedule=_ROUNDS,
        ),
        _resnet20(
            name="synaptic-resnet20-penalty",
            title="The same with a higher penalty, which ends later",
            paper={},
            method=_synaptic(lam=1e-4, target_sparsity=0.6),
            pruning=dataclasses.replace(_RESNET20_PRUNING, steps=20000),
            schedule=dataclasses.replace(_ROUNDS, end_fraction=0.7),
        ),
        _vgg(
            name="synaptic-vgg",
            title="Synaptic strength, VGG-16 of half the width, CIFAR-10, 90 % of connections",
            method=_synaptic(lam=1e-4, target_sparsity=0.9),
            schedule=_ROUNDS,
            paper={},
        ),
        _vgg(
            name="synaptic-vgg-sparser",
            title="The same, 96 % of connections, as in the paper's headline",
            method=_synaptic(lam=1e-4, target_sparsity=0.96),
            schedule=_ROUNDS,
            paper={},
        ),
        _vgg(
            name="synaptic-vgg-quarter",
            title="Synaptic strength, VGG-16 of a quarter of the width, CIFAR-10, 90 %",
            net=nets.vgg_quarter,
            method=_synaptic(lam=1e-4, target_sparsity=0.9),
            schedule=_ROUNDS,
            offsets=(-math.inf, 0.0, 1.0),
            paper={},
            dense=_QUARTER_DENSE,
            pruning=dataclasses.replace(_QUARTER_DENSE, steps=3000, rate=0.05, warmup=200),
        ),
        _vgg(
            name="magnitude-vgg",
            title="Magnitude pruning on the same net, one ranking for all layers",
            method=lambda offset: tfprune.Magnitude(target_sparsity=0.9, scope="global"),
            paper={},
        ),
    )
}
