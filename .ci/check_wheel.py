"""Prunes a small model with the installed wheel: sparse, unchanged by `strip` and `compact`."""

import pathlib
import shutil
import sys

import keras
import numpy as np

import tfprune
from tfprune.ops import library


def main() -> None:
    """Raise AssertionError unless the wheel in this environment prunes."""
    place = pathlib.Path(tfprune.__file__).resolve()
    assert pathlib.Path(sys.prefix).resolve() in place.parents, f"not the wheel's: {place}"

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
    y = np.arange(64) % 3
    pruned = tfprune.prune(model, tfprune.NetworkSurgery())
    pruned.compile("adam", "sparse_categorical_crossentropy")
    pruned.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[tfprune.PruningCallback()])
    plain = tfprune.strip(pruned)

    kernels = [np.asarray(layer.kernel) for layer in plain.layers if hasattr(layer, "kernel")]
    zeros = [float(np.mean(kernel == 0)) for kernel in kernels]
    assert len(kernels) == 2 and all(0 < share < 1 for share in zeros), zeros
    dense = [np.asarray(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]
    assert all((kernel != 0).all() for kernel in dense), "the user's own model was touched"
    np.testing.assert_allclose(
        plain.predict(x, verbose=0), pruned.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )
    if shutil.which("c++"):
        assert library.available(), "there is a compiler, but the wheel has no native kernels"
        fast = tfprune.compact(pruned, choose="always")
        np.testing.assert_allclose(
            fast.predict(x, verbose=0), pruned.predict(x, verbose=0), rtol=1e-5, atol=1e-6
        )
    shares = ", ".join(f"{share:.2f}" for share in zeros)
    print(f"tfprune {tfprune.__version__} from the wheel prunes: sparsity {shares}")


if __name__ == "__main__":
    main()
