"""Saving a pruned model: plain Keras gets the pruned function, tfprune gets everything."""

from __future__ import annotations

import copy
import pathlib
import pickle
import warnings
import zipfile
from typing import Any

import keras
import numpy as np
import processes
import pytest
from keras import layers
from pruned import structures
from pruned.structures import CASES
from tracing import eager

import tfprune
from tfprune.pruned.layers import STATE, pruned_layers

METHODS = {"dense$": tfprune.Magnitude(), ".": tfprune.NetworkSurgery(c=0.2)}
RELOADED = [name for name, case in CASES.items() if case.rebuilds]
RESUMABLE = (
    "sequential",
    "convolutions",
    "tied_autoencoder",
    "subclassed",
    "own_train_step",
    "built_in_init",
    "user_layers",
)
THROUGH_TFPRUNE = ("own_train_step", "built_in_init")  # not built by `build_from_config`
X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 2)).astype("float32")

PLAIN = """
import sys
sys.modules["tfprune"] = None  # cannot be imported
import keras, numpy as np
from pruned import structures
folder = sys.argv[1]
found = {}
for name in sys.argv[2:]:
    model = keras.models.load_model(f"{folder}/{name}.keras", safe_mode=False)
    out = keras.tree.flatten(model(structures.data(name)))
    found.update({f"{name}/{i}": np.asarray(o) for i, o in enumerate(out)})
    assert not any("prune" in layer.name for layer in model._flatten_layers()), name
np.savez(f"{folder}/plain.npz", **found)
"""

RESUMED = """
import sys
import numpy as np, keras, tfprune
from pruned import structures, test_saving
folder = sys.argv[1]
for name in sys.argv[2:]:
    load = tfprune.load_model if name in test_saving.THROUGH_TFPRUNE else keras.models.load_model
    model = load(f"{folder}/{name}.keras", safe_mode=False)
    before = test_saving.everything(model)
    test_saving.train(model, name, 1)
    np.savez(f"{folder}/{name}.resumed.npz", **before,
             **{f"next/{k}": v for k, v in test_saving.everything(model).items()})
"""


def train(model: keras.Model, name: str, epochs: int = 2) -> None:
    """Train from a fixed point of the random streams, as Keras does not save where they stand."""
    for layer in model._flatten_layers():
        for generator in layer._seed_generators:
            generator.state.assign([7, 0])
    x = structures.data(name)
    y = structures.targets(model(x))
    schedule = [tfprune.PruningCallback(total_steps=8)]
    model.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=schedule)


def everything(model: keras.Model) -> dict[str, np.ndarray]:
    """All variables, the optimizer's, and the plan, as arrays (text as bytes)."""
    states = [getattr(layer, STATE) for _, layer in pruned_layers(model)]
    plan = "\n".join(f"{s.path_in_model} {s.method} {s.planned}" for s in states)
    values = {f"w{i}": np.asarray(w) for i, w in enumerate(model.get_weights())}
    slots = {f"o{i}": np.asarray(v) for i, v in enumerate(model.optimizer.variables)}
    assert states
    return {**values, **slots, "plan": np.frombuffer(plan.encode(), "uint8")}


def make(name: str = "sequential", seed: int = 0, method: Any = None) -> keras.Model:
    """A pruned model in the middle of its schedule."""
    pruned = fresh(name, seed, method)
    pruned.compile("adam", "mse")
    train(pruned, name)
    return pruned


def fresh(name: str = "sequential", seed: int = 0, method: Any = None) -> keras.Model:
    chosen = tfprune.NetworkSurgery(c=0.2) if method is None else method
    model = structures.build(name, seed)
    return tfprune.prune(model, chosen, in_place=not CASES[name].rebuilds)


def masked(name: str = "sequential", seed: int = 0, method: Any = None) -> keras.Model:
    """A pruned model whose masks were updated without training."""
    model = fresh(name, seed, method)
    pruner = tfprune.Pruner(model, total_steps=2)
    with eager():
        pruner.update()
        pruner.finish()
    return model


def same(one: keras.Model, other: keras.Model) -> bool:
    pairs = list(zip(one.get_weights(), other.get_weights(), strict=True))
    return all(np.array_equal(a, b) for a, b in pairs)


def outputs(model: keras.Model, name: str = "sequential") -> list[np.ndarray]:
    return [np.asarray(out) for out in keras.tree.flatten(model(structures.data(name)))]


def agree(one: keras.Model, other: keras.Model, name: str = "sequential") -> bool:
    pairs = zip(outputs(one, name), outputs(other, name), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def python(code: str, *arguments: str) -> None:
    run = processes.run(code, *arguments)
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict[str, Any]]:
    """Every structure saved with masks; of some, half-way through training, what comes next."""
    folder, wanted = tmp_path_factory.mktemp("saved"), {}
    for name in RELOADED:
        model = make(name) if name in RESUMABLE else masked(name)
        model.save(folder / f"{name}.keras")
        assert any(layer.prune_state.sparsity() > 0 for _, layer in pruned_layers(model))
        wanted[name] = [outputs(model, name)]
        if name in RESUMABLE:
            wanted[name].append(everything(model))
            train(model, name, 1)
            wanted[name].append(everything(model))
    return folder, wanted


def test_plain_keras_loads_the_exact_pruned_function(saved: Any) -> None:
    folder, wanted = saved
    python(PLAIN, str(folder), *RELOADED)
    with np.load(folder / "plain.npz") as found:
        for name, (out, *_) in wanted.items():
            for i, value in enumerate(out):
                np.testing.assert_array_equal(found[f"{name}/{i}"], value, err_msg=name)


def test_a_new_process_goes_on_as_if_nothing_had_happened(saved: Any) -> None:
    folder, wanted = saved
    python(RESUMED, str(folder), *RESUMABLE)
    for name in RESUMABLE:
        _, before, after = wanted[name]
        with np.load(folder / f"{name}.resumed.npz") as found:
            expected = {**before, **{f"next/{key}": value for key, value in after.items()}}
            assert set(found) == set(expected)
            for key, value in expected.items():
                np.testing.assert_array_equal(found[key], value, err_msg=f"{name} {key}")


LEFT_OUT = """
import sys, warnings
sys.modules["tfprune"] = None  # cannot be imported
import keras, numpy as np
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    model = keras.models.load_model(sys.argv[1] + ".keras")
assert any("Skipping variable loading for optimizer" in str(w.message) for w in said)
with np.load(sys.argv[1] + ".npz") as found:
    np.testing.assert_allclose(model(found["x"]), found["y"], rtol=1e-4, atol=1e-5)
model.load_weights(sys.argv[1] + ".weights.h5")
"""
IMAGES = np.random.default_rng(2).normal(size=(8, 6, 6, 2)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class OwnConstructor(keras.Model):
    """Functional, and made again by its own constructor."""

    def __init__(self, width: int = 4, name: str | None = None) -> None:
        inputs = x = keras.Input((6, 6, 2))
        for letter in "abc":
            x = layers.Conv2D(width, 2, name=f"conv_{letter}")(x)
            x = layers.ReLU()(layers.BatchNormalization(name=f"norm_{letter}")(x))
        outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
        super().__init__(inputs, outputs, name=name)
        self.width = width

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"width": self.width, "name": self.name}


def with_strengths(own: bool = False) -> keras.Model:
    """Trained, with as many trained variables as unpruned, of other shapes."""
    model: Any = OwnConstructor()
    if not own:
        model = keras.Sequential([keras.Input((6, 6, 2)), *model.layers[1:]])
    model.compile("adam", "mse")
    schedule = tfprune.SynapticSchedule(begin_step=0, end_step=20, frequency=5)
    pruned = tfprune.prune(model, tfprune.SynapticStrength(0.5), schedule)
    go_on(pruned, 2)
    assert len(pruned.trainable_variables) == len(model.trainable_variables)
    return pruned


def go_on(model: keras.Model, epochs: int) -> None:
    y = np.ones((8, 3))
    callbacks = [tfprune.PruningCallback()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Target missed|Nothing was pruned")
        model.fit(IMAGES, y, 4, epochs, shuffle=False, verbose=0, callbacks=callbacks)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_plain_keras_leaves_out_the_state_of_strengths(policy: str, tmp_path: pathlib.Path) -> None:
    keras.config.set_dtype_policy(policy)
    pruned = with_strengths()
    pruned.save(tmp_path / "a.keras")
    pruned.save_weights(tmp_path / "a.weights.h5")
    np.savez(tmp_path / "a.npz", x=IMAGES, y=np.asarray(pruned(IMAGES)))
    python(LEFT_OUT, str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("own", "policy"),
    [
        (False, "mixed_float16"),
        (True, "float32"),
        pytest.param(False, "float32", marks=pytest.mark.slow),
        pytest.param(True, "mixed_float16", marks=pytest.mark.slow),
    ],
)
def test_strengths_go_on_as_if_nothing_had_happened(
    own: bool, policy: str, tmp_path: pathlib.Path
) -> None:
    keras.config.set_dtype_policy(policy)
    pruned = with_strengths(own)
    pruned.save(tmp_path / "a.keras")
    back = tfprune.load_model(tmp_path / "a.keras")
    for _ in range(2):
        ours, theirs = everything(pruned), everything(back)
        assert set(ours) == set(theirs)
        for key, value in ours.items():
            np.testing.assert_array_equal(theirs[key], value, err_msg=key)
        go_on(pruned, 3)
        go_on(back, 3)


@pytest.mark.parametrize("name", ["sequential", "convolutions", "subclassed", "without_config"])
def test_weight_files_between_pruned_models(name: str, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "a.weights.h5"
    one = masked(name)
    one.save_weights(file)
    other = fresh(name, seed=5)
    assert not agree(one, other, name)
    other.load_weights(file)
    assert same(one, other)
    assert agree(one, other, name)


@pytest.mark.parametrize("name", ["sequential", "convolutions", "user_layers", "without_config"])
def test_weight_files_between_pruned_and_plain_models(name: str, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "a.weights.h5"
    pruned, plain = masked(name), structures.build(name, seed=5)
    pruned.save_weights(file)
    plain.load_weights(file)
    assert agree(pruned, plain, name)
    plain = structures.build(name, seed=6)
    plain.save_weights(file)
    pruned.load_weights(file)
    assert agree(pruned, plain, name)
    states = [layer.prune_state for _, layer in pruned_layers(pruned)]
    assert {state.sparsity() for state in states} == {0.0}
    assert {state.count("last_step") for state in states} == {-1}


def test_weight_file_of_another_selection(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "a.weights.h5"
    full = masked("convolutions")
    full.save_weights(file)
    part = tfprune.prune(
        structures.build("convolutions", 3), tfprune.NetworkSurgery(), None, "conv"
    )
    part.load_weights(file)
    assert agree(part, full, "convolutions")
    part.save_weights(file)
    full = masked("convolutions", seed=4)
    full.load_weights(file)
    assert agree(part, full, "convolutions")


@pytest.mark.parametrize("load", [keras.models.load_model, tfprune.load_model])
def test_partial_model_with_two_methods(load: Any, tmp_path: pathlib.Path) -> None:
    model = masked("convolutions", method={"separable": None, **METHODS})
    model.save(tmp_path / "a.keras")
    back = load(tmp_path / "a.keras")
    assert same(model, back)
    assert agree(model, back, "convolutions")

    def described(m: keras.Model) -> list[Any]:
        return [(p, x.prune_state.method, x.prune_state.planned) for p, x in pruned_layers(m)]

    assert described(model) == described(back)
    assert {type(method) for _, method, _ in described(back)} == {
        tfprune.Magnitude,
        tfprune.NetworkSurgery,
    }
    assert "separable_conv2d" not in dict(pruned_layers(back))


def wrapped() -> keras.Model:
    inputs = layers.Input((4,))
    surgery = tfprune.layers.NetworkSurgeryPruned(
        layers.Dense(6, activation="relu"), tfprune.NetworkSurgery(c=0.2), name="first"
    )
    timing = tfprune.ConstantSparsity(0.5, begin_step=1, end_step=5, frequency=2)
    last = tfprune.layers.MagnitudePruned(layers.Dense(2), schedule=timing)
    model = keras.Model(inputs, last(surgery(inputs)))
    model.compile("adam", "mse")
    model.fit(X, Y, batch_size=2, verbose=0, callbacks=[tfprune.PruningCallback()])
    return model


@pytest.mark.parametrize("load", [keras.models.load_model, tfprune.load_model])
def test_wrappers_come_back(load: Any, tmp_path: pathlib.Path) -> None:
    model = wrapped()
    model.save(tmp_path / "a.keras")
    back = load(tmp_path / "a.keras")
    assert same(model, back)
    np.testing.assert_array_equal(back(X), model(X))
    assert [layer.prune_state.schedule for _, layer in pruned_layers(back)] == [
        layer.prune_state.schedule for _, layer in pruned_layers(model)
    ]
    states = [layer.prune_state for _, layer in pruned_layers(back)]
    assert states[1].sparsity() == 0.5
    assert states[0].sparsity() > 0
    plain = tfprune.strip(back)
    np.testing.assert_array_equal(plain(X), model(X))
    assert [type(layer).__name__ for layer in plain.layers] == ["InputLayer", "Dense", "Dense"]


def test_get_and_set_weights() -> None:
    one, other = masked(), fresh(seed=5)
    other.set_weights(one.get_weights())
    assert same(one, other)
    assert agree(one, other)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("name", ["sequential", "shared_layer", "subclassed"])
def test_deepcopy_and_pickle(name: str, copied: Any) -> None:
    model = masked(name)
    twin = copied(model)
    assert tfprune.is_pruned(twin)
    assert same(model, twin)
    twin.set_weights([np.zeros_like(w) for w in twin.get_weights()])
    assert not same(model, twin)
    assert any(np.any(w) for w in model.get_weights())


@pytest.mark.parametrize("name", ["sequential", "shared_layer", "sequential_in_functional"])
def test_clone_model_gives_a_plain_model(name: str) -> None:
    model = masked(name)
    clone = keras.models.clone_model(model)
    assert not tfprune.is_pruned(clone)
    assert clone.built
    assert tfprune.is_pruned(model)
    if name == "shared_layer":
        clone.compile("adam", "mse")
        x = structures.data(name)
        clone.fit(x, structures.targets(clone(x)), verbose=0)


def test_saved_model_computes_the_same(tmp_path: pathlib.Path) -> None:
    tf = pytest.importorskip("tensorflow")
    model = masked("functional_in_sequential")
    model.export(str(tmp_path / "saved"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    served = loaded.serve(X)
    np.testing.assert_allclose(served, model(X), rtol=1e-6, atol=1e-7)


def test_saving_again_gives_the_same(tmp_path: pathlib.Path) -> None:
    model = masked()
    model.save(tmp_path / "a.keras")
    weights = model.get_weights()
    model.save(tmp_path / "a.keras")
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    keras.models.load_model(tmp_path / "a.keras").save(tmp_path / "b.keras")
    back = keras.models.load_model(tmp_path / "b.keras")
    assert same(model, back)
    assert agree(model, back)


def test_saving_while_masks_change(tmp_path: pathlib.Path) -> None:
    seen: list[tuple[str, list[np.ndarray], np.ndarray, float]] = []

    class Saver(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            file = str(tmp_path / f"{batch}.keras")
            self.model.save(file)
            sparsity = self.model.layers[0].prune_state.sparsity()
            seen.append((file, self.model.get_weights(), np.asarray(self.model(X)), sparsity))

    model = fresh(method=tfprune.Magnitude(target_sparsity=0.6))
    model.compile("adam", "mse")
    callbacks = [Saver(), tfprune.PruningCallback()]
    model.fit(X, Y, batch_size=2, verbose=0, callbacks=callbacks)
    for file, weights, out, _ in seen:
        back = keras.models.load_model(file)
        np.testing.assert_array_equal(back(X), out)
        assert all(np.array_equal(a, b) for a, b in zip(back.get_weights(), weights, strict=True))
    assert len({sparsity for *_, sparsity in seen}) > 2


def test_stripped_file_knows_nothing_of_pruning(tmp_path: pathlib.Path) -> None:
    tfprune.strip(masked("subclassed")).save(tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        texts = [archive.read(name) for name in archive.namelist()]
    here = b"pruned.user_classes"  # where these tests define the class
    assert not any(b"prune" in text.replace(here, b"") for text in texts)
