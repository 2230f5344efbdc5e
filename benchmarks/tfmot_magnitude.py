"""tfmot's `prune_low_magnitude` on ResNet-20, with the dense net and budget of `papers.py`.

`python benchmarks/tfmot_magnitude.py --data-dir DIR --out build/papers` after `papers.py
--experiment magnitude-resnet20` has left the dense net there; needs `pip install "tfprune[tfmot]"`.
It trains in float32, since tfmot's wrapper knows no other, and cannot go on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))


def main(arguments: list[str] | None = None) -> None:
    """Train, strip, and write `<out>/tfmot-resnet20.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", help="folder of tensorflow_datasets")
    parser.add_argument("--out", default="build/papers", help="folder with the dense net")
    parser.add_argument("--steps", type=int, help="a shorter run, to try")
    options = parser.parse_args(arguments)
    import seeds
    from experiments import EXPERIMENTS

    from tfprune.report.measure import measure

    experiment = EXPERIMENTS["magnitude-resnet20"]
    data, test = seeds.load(experiment, options.data_dir, validate=False)
    out = Path(options.out)
    folder = out / "dense" / "resnet20" / f"seed{options.seed}"
    dense, _ = seeds.train_dense(experiment, options.seed, data, folder)
    began = time.perf_counter()
    steps = options.steps or experiment.pruning.steps
    pruned = prune(experiment, dense.get_weights(), data, options.seed, steps)
    seconds = round(time.perf_counter() - began, 1)
    plain = experiment.net(0.0)
    plain.set_weights(pruned.get_weights())
    counts = measure(plain)
    row = {
        "seed": options.seed,
        "steps": steps,
        "dense_error": seeds.error(dense, test),
        "test_error": seeds.error(plain, test),
        "compression": counts.compression,
        "compression_weights": counts.compression_weights,
        "compression_with_indices": counts.compression_with_indices,
        "theoretical_speedup": counts.theoretical_speedup,
        "seconds": seconds,
    }
    seeds.write_json(out / "tfmot-resnet20.json", row)
    print(json.dumps(row, indent=1))


def prune(experiment: Any, weights: list[Any], data: Any, seed: int, steps: int) -> Any:
    """The stages' convolutions to the experiment's sparsity, over the first 60 % of the steps."""
    import nets
    import seeds
    import tensorflow_model_optimization as tfmot
    import tf_keras

    sparsity = experiment.method(0.0)["stage"].target_sparsity
    timing = tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, 0, int(0.6 * steps))

    def wrap(layer: Any) -> Any:
        if not layer.name.startswith("stage"):
            return layer
        return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=timing)

    tf_keras.utils.set_random_seed(1000 + seed)
    plain = nets.resnet20(experiment.decay, tf_keras)
    plain.set_weights(weights)
    model = tf_keras.models.clone_model(plain, clone_function=wrap)
    how, rate = experiment.pruning, seeds._Rate(experiment.pruning)

    class Rate(tf_keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return rate(step)

    model.compile(
        tf_keras.optimizers.SGD(Rate(), momentum=how.momentum, nesterov=how.nesterov),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        seeds.batches(data, how, seed + 1),
        epochs=-(-steps // seeds.EPOCH),
        steps_per_epoch=min(seeds.EPOCH, steps),
        callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
        verbose=2,
    )
    return tfmot.sparsity.keras.strip_pruning(model)


if __name__ == "__main__":
    main()
