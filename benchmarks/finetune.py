"""Prune a trained CIFAR-10 net from a file by fine-tuning, and save it.

    python benchmarks/finetune.py resnet8.h5 --scale 255 --compression 5 --out resnet8_pruned.keras

All convolutions between the first and the last layer go to one compression, by `FrequencyDomain`.
The net ends in a softmax and reads images in [0, scale].
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))


def main() -> int:
    """Train, and print the errors of both nets on the test split, which chose nothing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the .keras file to write")
    parser.add_argument("--data-dir", help="folder of tensorflow_datasets")
    parser.add_argument("--scale", type=float, default=1.0, help="of the images that the net reads")
    parser.add_argument("--compression", type=float, default=5.0)
    parser.add_argument("--granularity", default="coefficient")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--rate", type=float, default=0.05)
    options = parser.parse_args()
    import keras
    import seeds
    from experiments import EXPERIMENTS, Training

    import tfprune

    cifar10 = EXPERIMENTS["fdnp-resnet20"]
    parts = seeds.load(cifar10, options.data_dir, validate=False)
    train, test = (((x * options.scale).astype("float32"), y) for x, y in parts)
    how = Training(
        **{"steps": options.steps, "batch": 128, "rate": options.rate, "warmup": 200},
        **{"shift": 4, "border": "reflect", "mirror": True, "nesterov": True},
    )
    keras.utils.set_random_seed(0)
    dense = keras.models.load_model(options.model, compile=False)
    convolutions = [x.name for x in dense.layers if isinstance(x, keras.layers.Conv2D)]
    method = tfprune.FrequencyDomain(
        target_compression=options.compression, granularity=options.granularity
    )
    pruned = tfprune.prune(dense, method, filters=[f"^{name}$" for name in convolutions[1:]])
    optimizer = keras.optimizers.SGD(seeds._Rate(how), momentum=0.9, nesterov=True)
    pruned.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    pruned.fit(
        seeds.batches(train, how, seed=1),
        epochs=-(-how.steps // 1000),
        steps_per_epoch=min(1000, how.steps),
        callbacks=[tfprune.PruningCallback()],
        verbose=1 if sys.stderr.isatty() else 2,
    )
    pruned.save(options.out)
    found = {
        "dense_error": seeds.error(dense, test),
        "test_error": seeds.error(pruned, test),
        "compression": tfprune.report(pruned).measurement.compression,
    }
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
