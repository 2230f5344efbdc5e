"""The private parts of Keras that tfprune relies on: here, and as they were when it was written.

Where one fails after an update of Keras, the message says what changed; the place to mend is in
`tfprune/training`: `_keras.py`, `parametrize.py` or `saving.py`.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

HERE = f"Keras {keras.__version__}"


def built() -> keras.Layer:
    layer = layers.Dense(2)
    layer.build((None, 3))
    return layer


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.src.backend.common.variables", "AutocastScope"),
        ("keras.src.backend.common.global_state", "get_global_attribute"),
        ("keras.src.models.functional", "Functional"),
    ],
)
def test_private_modules(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name, None)
    assert found is not None, f"{HERE}: `{module}.{name}` is gone"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("_layers", list),
        ("_trainable_variables", list),
        ("_non_trainable_variables", list),
        ("_kernel", keras.Variable),
    ],
)
def test_attributes_of_a_layer(name: str, kind: type) -> None:
    found = getattr(built(), name, None)
    assert isinstance(found, kind), f"{HERE}: `Dense.{name}` is no {kind.__name__}: {found!r}"


@pytest.mark.parametrize(
    ("layer", "attribute", "slots"),
    [
        (lambda: layers.Dense(2), "kernel", ("_kernel", "kernel")),
        (lambda: layers.Conv1D(2, 1), "kernel", ("_kernel", "kernel")),
        (lambda: layers.Embedding(3, 2), "embeddings", ("_embeddings", "embeddings")),
        (lambda: layers.EinsumDense("ab,bc->ac", 2), "kernel", ("_kernel", "kernel")),
        (lambda: layers.LSTMCell(2), "recurrent_kernel", ("recurrent_kernel",)),
        (lambda: layers.GRUCell(2), "kernel", ("kernel",)),
    ],
)
def test_where_layers_keep_their_kernels(layer: Any, attribute: str, slots: Any) -> None:
    one = layer()
    one.build((None, 3, 3) if isinstance(one, layers.Conv1D) else (None, 3))
    held = [key for key in slots if isinstance(vars(one).get(key), keras.Variable)]
    kind = type(one).__name__
    assert held, f"{HERE}: {kind} keeps `{attribute}` in none of {slots}: {sorted(vars(one))}"
    message = f"{HERE}: {kind}.{attribute} is not the variable in `{held[0]}`"
    assert getattr(one, attribute) is vars(one)[held[0]], message


def test_tracker_is_locked_after_building_and_can_be_unlocked() -> None:
    layer = built()
    tracker = layer._tracker
    assert tracker.locked, f"{HERE}: the tracker of a built layer is no longer locked"
    with pytest.raises(ValueError):
        layer.more = layers.Dense(1)
    tracker.unlock()
    layer.extra = layers.Dense(1)
    tracker.lock()
    assert tracker.locked
    assert layer.extra in layer._layers, f"{HERE}: a sub-layer set late is not tracked"
    assert layer.extra in list(layer._flatten_layers()), f"{HERE}: `_flatten_layers` misses it"


def test_class_of_a_built_layer_can_be_exchanged() -> None:
    layer = built()
    twin = type("Dense", (layers.Dense,), {"__class__": property(lambda self: layers.Dense)})
    object.__dict__["__class__"].__set__(layer, twin)
    assert type(layer) is twin
    assert layer.__class__ is layers.Dense
    saved = keras.saving.serialize_keras_object(layer)
    wanted = ("keras.layers", "Dense", None)
    found = tuple(saved[key] for key in ("module", "class_name", "registered_name"))
    assert found == wanted, f"{HERE}: a layer is no longer serialised by `__class__`: {found}"


def test_saving_hooks_take_one_store() -> None:
    layer, store = built(), {}
    layer.save_own_variables(store)
    held = {id(value) for value in store.values()}
    wanted = {id(layer._kernel), id(layer.bias)}
    assert held == wanted, f"{HERE}: Dense.save_own_variables stores other objects: {store}"
    layer.load_own_variables({"0": np.ones((3, 2)), "1": np.zeros(2)})
    assert float(keras.ops.sum(layer._kernel)) == 6.0


@pytest.mark.parametrize("cls", [keras.Model, keras.Sequential, layers.Layer])
@pytest.mark.parametrize(
    "name", ["get_build_config", "build_from_config", "save_own_variables", "load_own_variables"]
)
def test_hooks_exist(cls: type, name: str) -> None:
    assert callable(getattr(cls, name, None)), f"{HERE}: `{cls.__name__}.{name}` is gone"


def test_build_config_travels_and_is_given_back_to_an_unbuilt_model() -> None:
    seen: list[Any] = []

    @keras.saving.register_keras_serializable(package="canary")
    class Probe(keras.Sequential):
        def get_build_config(self) -> Any:
            return {**super().get_build_config(), "canary": 7}

        @classmethod
        def from_config(cls, config: Any, custom_objects: Any = None) -> Any:
            model = super().from_config(config, custom_objects)
            model.built = False
            return model

        def build_from_config(self, config: Any) -> None:
            seen.append(config.get("canary"))
            self.built = True

    model = Probe([layers.Input((3,)), layers.Dense(2)])
    config = keras.saving.serialize_keras_object(model)
    assert config["build_config"]["canary"] == 7, f"{HERE}: `get_build_config` is not saved"
    keras.saving.deserialize_keras_object(config)
    assert seen == [7], f"{HERE}: `build_from_config` was called with {seen}, not [7]"


def test_plain_keras_finds_its_own_class_behind_an_unknown_registered_name() -> None:
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    config = keras.saving.serialize_keras_object(model)
    config |= {"module": "keras.src.models.sequential", "registered_name": "unknown>Sequential"}
    config["build_config"] = {**config["build_config"], "unknown": {"a": [1]}}
    back = keras.saving.deserialize_keras_object(config)
    assert type(back) is keras.Sequential, f"{HERE}: got {type(back)}"
    assert back.built


def test_model_keeps_its_traced_steps_and_compile_arguments_where_expected() -> None:
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    loss = lambda y, found: keras.ops.mean(y - found)  # noqa: E731
    model.compile("sgd", loss)
    assert model._compile_config.config["loss"] is loss, f"{HERE}: `_compile_config` has changed"
    model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0)
    assert model.train_function is not None, f"{HERE}: `train_function` is no longer kept"
    for name in ("test_function", "predict_function"):
        assert hasattr(model, name), f"{HERE}: `{name}` is gone"


def test_calls_and_quantization_are_looked_up_as_relied_upon() -> None:
    names = list(inspect.signature(layers.Dense.call).parameters)
    assert names[:2] == ["self", "inputs"], f"{HERE}: Dense.call takes {names}"
    assert callable(layers.Dense.enable_lora), f"{HERE}: `Dense.enable_lora` is gone"
    assert callable(layers.Dense.quantize), f"{HERE}: `Dense.quantize` is gone"


def test_autocast_scope_none_reads_variables_in_their_own_dtype() -> None:
    from keras.src.backend.common.variables import AutocastScope

    layer = layers.Dense(2, dtype="mixed_float16")
    layer.build((None, 3))
    with AutocastScope("float16"):
        inside = keras.backend.standardize_dtype(keras.ops.convert_to_tensor(layer._kernel).dtype)
        with AutocastScope(None):
            own = keras.backend.standardize_dtype(keras.ops.convert_to_tensor(layer._kernel).dtype)
    assert (inside, own) == ("float16", "float32"), f"{HERE}: AutocastScope gave {(inside, own)}"


def test_current_call_context_says_whether_it_trains() -> None:
    from tfprune.graph._keras import in_training

    seen: list[bool] = []

    class Probe(layers.Layer):
        def call(self, x: Any, training: bool = False) -> Any:
            seen.append(in_training())
            return x

    probe = Probe()
    probe(np.ones((1, 1)), training=True)
    probe(np.ones((1, 1)), training=False)
    assert seen == [True, False], f"{HERE}: `current_call_ctx` said {seen}"


def test_graphs_tell_their_calls_and_arguments() -> None:
    from tfprune.graph import _keras

    model = keras.Sequential([layers.Input((3,)), layers.Dense(2), layers.BatchNormalization()])
    dense, norm = model.layers
    graph = _keras.graph_of(model)
    assert isinstance(graph, _keras.Functional), f"{HERE}: `Sequential._functional` is {graph!r}"
    found = [(operation, arguments) for operation, _, _, arguments in _keras.calls(graph)]
    assert [operation for operation, _ in found] == [dense, norm], f"{HERE}: calls {found}"
    plain = [len(args) == 1 and not any(named.values()) for _, (args, named) in found]
    assert all(plain), f"{HERE}: {found}"
    assert _keras.read_by(dense) == [norm], f"{HERE}: `_outbound_nodes` has changed"
    assert _keras.read_from(norm) == [dense], f"{HERE}: `_inbound_nodes` has changed"
