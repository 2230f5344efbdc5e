"""The target "smallest": sparse rows and coefficients that compute the same, and small files."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sparse_nets import inputs_of, weights_are_what_kernels_take, zeros

import tfprune
from tfprune.export import ExportError, Verification, export_tflite, predict_tflite
from tfprune.export.flatbuffer.file import FlatFile
from tfprune.export.storage import STORAGES
from tfprune.export.targets import dense
from tfprune.export.view import view_of
from tfprune.maths.dct import dct_matrix

L = keras.layers
LIMITS = {"float32": 1e-5, "float16": 5e-3, "int8": 0.15}


def lenet():
    return keras.Sequential(
        [
            keras.Input((20, 20, 1)),
            L.Conv2D(12, 5, name="a"),
            L.MaxPooling2D(),
            L.Conv2D(40, 5, activation="relu", name="b"),
            L.Flatten(),
            L.Dense(64, activation="relu", name="c"),
            L.Dense(10, name="d"),
        ]
    )


def residual():
    inputs = keras.Input((12, 12, 3))
    x = L.Conv2D(16, 3, padding="same", name="stem")(inputs)
    for number, (width, stride) in enumerate([(16, 1), (40, 2)]):
        y = L.Conv2D(width, 3, stride, padding="same", use_bias=False, name=f"a{number}")(x)
        y = L.ReLU(6.0)(L.BatchNormalization()(y))
        y = L.Conv2D(width, 3, padding="same", activation="tanh", name=f"b{number}")(y)
        x = L.Conv2D(width, 1, stride, name=f"c{number}")(x) if stride > 1 else x
        x = L.Activation("relu")(L.Add()([x, y]))
    return keras.Model(inputs, L.Dense(5)(L.GlobalAveragePooling2D()(x)))


def wide():
    """Rows of more than 256 and of more than 65,536 columns."""
    inputs = keras.Input((66_000,))
    x = L.Dense(8, activation="relu")(inputs)
    return keras.Model(inputs, L.Dense(3)(L.Dense(400)(x)))


NETS = {"lenet": lenet, "residual": residual, "wide": wide}


@functools.cache
def sparse_net(name):
    """A net with zeros, samples of its inputs, its outputs, and the size of its dense file."""
    model = zeros(NETS[name](), density=0.02 if name == "wide" else 0.1)
    x = inputs_of(model)
    size = len(dense.dense(view_of(model), STORAGES["float32"], []).data)
    return model, x, model.predict(x, verbose=0), size


@pytest.mark.parametrize("storage", LIMITS)
@pytest.mark.parametrize("name", NETS)
def test_files_are_right_and_small(name, storage, tmp_path):
    model, x, wanted, dense_bytes = sparse_net(name)
    found = export_tflite(
        model,
        tmp_path / "s.tflite",
        target="smallest",
        storage=storage,
        verification=Verification(samples=x),
    )
    got = predict_tflite(found.path, x)
    assert np.abs(got - wanted).max() <= LIMITS[storage] * np.abs(wanted).max()
    least = {"float32": 2.2, "float16": 3.3, "int8": 4.2}[storage]
    assert dense_bytes > least * found.bytes, str(found)
    weights_are_what_kernels_take((tmp_path / "s.tflite").read_bytes())


def test_layers_tell_their_forms(tmp_path):
    model = zeros(residual())
    found = export_tflite(model, tmp_path / "s.tflite", target="smallest")
    forms = {one.name: one for one in found.layers}
    assert forms["a1"].form == forms["b1"].form == "coefficients"
    full = export_tflite(zeros(residual(), density=1.0), tmp_path / "s.tflite", target="smallest")
    assert {one.form for one in full.layers} == {"dense"}
    assert forms["b1"].density == pytest.approx(0.1, abs=0.02)
    assert forms["b1"].dense_bytes == 9 * 40 * 40 * 4 > 4 * forms["b1"].stored_bytes
    assert "b1: coefficients, density 0." in str(found)
    assert found.to_dict()["layers"][0]["name"] == "stem"
    spatial = export_tflite(zeros(residual(), dct=False), tmp_path / "s.tflite", target="smallest")
    assert {one.form for one in spatial.layers if one.name in ("a1", "b1")} == {"sparse"}


def test_bases_of_three_taps_are_whole_numbers_and_shared(tmp_path):
    inputs = keras.Input((8, 8, 32))
    x = inputs
    for _ in range(3):
        x = L.Conv2D(32, 3, padding="same", activation="relu")(x)
    export_tflite(zeros(keras.Model(inputs, x)), tmp_path / "s.tflite", target="smallest")
    file = FlatFile((tmp_path / "s.tflite").read_bytes())
    (graph,) = file.graphs
    banks = {int(op.inputs[1]) for op in graph.operators if file.kind(op) == "DEPTHWISE_CONV_2D"}
    assert len(banks) == 1
    stored = [t for t in graph.tensors if t.type == file.schema.TensorType.INT8]
    assert len(stored) == 1 and list(stored[0].quantization.scale) == [1.0]


def test_frequencies_that_nothing_reads_are_left_out(tmp_path):
    model = keras.Sequential([keras.Input((6, 6, 8)), L.Conv2D(64, 3, padding="same")])
    waves = np.zeros((3, 3, 8, 64))
    waves[0, 0], waves[1, 2] = np.random.default_rng(0).normal(size=(2, 8, 64))
    basis = np.asarray(dct_matrix(3))
    model.layers[0].kernel.assign(np.einsum("up,vq,uvio->pqio", basis, basis, waves))
    export_tflite(model, tmp_path / "s.tflite", target="smallest")
    file = FlatFile((tmp_path / "s.tflite").read_bytes())
    ops = file.graphs[0].operators
    (bank,) = [op for op in ops if file.kind(op) == "DEPTHWISE_CONV_2D"]
    assert list(file.graphs[0].tensors[int(bank.inputs[1])].shape) == [1, 3, 3, 16]


def entry_net(padding=1, stride=2, channels=3):
    inputs = keras.Input((16, 16, channels))
    x = L.Conv2D(8, 3, stride)(L.ZeroPadding2D(padding)(inputs))
    x = L.MaxPooling2D()(L.Conv2D(96, 1, activation="relu")(x))
    x = L.Conv2D(96, 1)(x)
    return opening(keras.Model(inputs, L.GlobalAveragePooling2D()(x)))


def opening(model):
    """With zeros, but not in the first convolution, which so stays one."""
    zeros(model)
    first = next(layer for layer in model.layers if isinstance(layer, L.Conv2D))
    first.kernel.assign(np.random.default_rng(0).normal(size=first.kernel.shape))
    return model


def test_what_phones_would_compute_wrongly_is_refused(tmp_path):
    with pytest.raises(ExportError, match="begins XNNPACK's sparse mode"):
        export_tflite(entry_net(), tmp_path / "s.tflite", target="smallest")
    assert not list(tmp_path.iterdir())
    export_tflite(entry_net(), tmp_path / "d.tflite")
    for other in (entry_net(padding=((0, 1), (0, 1))), entry_net(stride=1), entry_net(channels=4)):
        export_tflite(other, tmp_path / "s.tflite", target="smallest")
    with pytest.raises(ExportError, match="conv2d"):  # which the message names
        export_tflite(entry_net(), tmp_path / "s.tflite", target="smallest")
    without_mean = keras.Sequential([*entry_net().layers[:-1], L.Flatten()])
    export_tflite(without_mean, tmp_path / "s.tflite", target="smallest")
    for size in (16, 17):  # XNNPACK does not take "same" with stride 2 for padding of 1
        same = [
            keras.Input((size, size, 3)),
            L.Conv2D(8, 3, 2, padding="same"),
            L.Conv2D(96, 1),
            L.GlobalAveragePooling2D(),
        ]
        model = opening(keras.Sequential(same))
        assert "DENSIFY" in export_tflite(model, tmp_path / "s.tflite", target="smallest").ops


def operators_net():
    inputs = keras.Input((8, 8, 40))
    x = L.Conv2D(40, 3, padding="same", name="a")(inputs) + inputs
    return keras.Model(inputs, keras.ops.relu(x) * 2.0)


def lambda_net():
    inputs = keras.Input((8, 8, 40))
    x = L.Conv2D(40, 1, activation=lambda x: 2 * x)(inputs)
    return keras.Model(inputs, L.Conv2D(40, 3, name="a")(x))


def test_operations_between_layers_and_what_cannot_be_copied(tmp_path):
    model = zeros(operators_net())
    found = export_tflite(model, tmp_path / "s.tflite", target="smallest")
    assert found.layers[0].form == "coefficients"
    fast = tfprune.compact(model, choose="always")
    x = inputs_of(model)
    np.testing.assert_allclose(fast.predict(x), model.predict(x), rtol=1e-4, atol=1e-4)
    found = export_tflite(zeros(lambda_net()), tmp_path / "s.tflite", target="smallest")
    assert "cannot be copied" in found.notes[0]
    assert all(one.form != "coefficients" for one in found.layers)


def test_banks_count(tmp_path):
    """A bank that costs more than its coefficients save is not made."""
    model = keras.Sequential([keras.Input((9, 9, 64)), L.Conv2D(8, 5)])
    zeros(model)
    dense = export_tflite(model, tmp_path / "d.tflite")
    found = export_tflite(model, tmp_path / "s.tflite", target="smallest")
    assert found.layers[0].form != "coefficients" and found.bytes < 1.02 * dense.bytes
    large = zeros(keras.Sequential([keras.Input((9, 9, 16)), L.Conv2D(400, 3)]))
    found = export_tflite(large, tmp_path / "s.tflite", target="smallest")
    assert found.layers[0].form == "coefficients"
    assert abs(found.layers[0].stored_bytes - found.bytes) < 4000


def channel_errors(model, path, x):
    wanted, got = model.predict(x, verbose=0), predict_tflite(path, x)
    axes = tuple(range(wanted.ndim - 1))
    return np.sqrt(np.square(got - wanted).sum(axes) / np.square(wanted).sum(axes))


@pytest.mark.parametrize("density", [1.0, 0.2])
def test_one_large_weight_does_not_cost_the_others(density, tmp_path):
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((64,)), L.Dense(64, use_bias=False)])
    kernel = 0.01 * rng.normal(size=(64, 64)) * (rng.random((64, 64)) < density)
    kernel[3, 5] = 100.0
    model.layers[0].kernel.assign(kernel)
    x = inputs_of(model)
    export_tflite(
        model,
        tmp_path / "s.tflite",
        target="smallest",
        storage="int8",
        verification=Verification(samples=x),
    )
    assert channel_errors(model, tmp_path / "s.tflite", x).max() < 0.1
    image = keras.Sequential([keras.Input((6, 6, 32)), L.DepthwiseConv2D(3, depth_multiplier=2)])
    weights = rng.normal(size=(3, 3, 32, 2)) * 10.0 ** rng.uniform(-3, 1, size=(32, 2))
    image.layers[0].kernel.assign(weights)
    x = inputs_of(image)
    export_tflite(
        image,
        tmp_path / "d.tflite",
        target="smallest",
        storage="int8",
        verification=Verification(samples=x),
    )
    assert channel_errors(image, tmp_path / "d.tflite", x).max() < 0.1


def test_a_table_that_others_read_too_stays(tmp_path):
    inputs = keras.Input((4,), dtype="int32")
    table = L.Embedding(200, 32, name="table")
    x = L.GlobalAveragePooling1D()(table(inputs))
    outputs = L.Lambda(lambda x: keras.ops.matmul(x, keras.ops.transpose(table.embeddings)))(x)
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    table.embeddings.assign(rng.normal(size=(200, 32)) * (rng.random((200, 32)) < 0.1))
    dense = export_tflite(model, tmp_path / "d.tflite")
    assert export_tflite(model, tmp_path / "s.tflite", target="smallest").bytes <= dense.bytes


def test_models_without_a_graph_keep_their_layers(tmp_path):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.head = L.Dense(300), L.Dense(3)

        def call(self, inputs):
            return self.head(self.hidden(inputs))

    model = Own()
    model(np.ones((1, 50), "float32"))
    found = export_tflite(zeros(model), tmp_path / "s.tflite", target="smallest")
    assert found.layers == () and "DENSIFY" in found.ops


def test_a_pruned_model_and_half_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = zeros(residual(), density=1.0)
    finally:
        keras.config.set_dtype_policy("float32")
    pruned = tfprune.prune(model, tfprune.FrequencyDomain(target_sparsity=0.9))
    pruner = tfprune.Pruner(pruned, total_steps=2)
    for _ in range(3):
        pruner.update()
    found = export_tflite(pruned, tmp_path / "s.tflite", target="smallest")
    assert {one.name for one in found.layers if one.form == "coefficients"} >= {"a1", "b1"}


def test_constants_of_half_precision_stay_as_the_model_has_them(tmp_path):
    """Normalization casts its mean to the dtype that it computes in."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((8, 8, 3))
        x = L.Normalization(mean=(0.4914, 0.4822, 0.4465), variance=(0.0610, 0.0593, 0.0684))(
            inputs
        )
        x = L.Conv2D(48, 3, padding="same")(L.Conv2D(48, 3, padding="same")(x))
        model = zeros(keras.Model(inputs, x))
    finally:
        keras.config.set_dtype_policy("float32")
    found = export_tflite(model, tmp_path / "s.tflite", target="smallest")
    assert {one.form for one in found.layers} >= {"coefficients"}


def test_storages_of_a_target(tmp_path):
    with pytest.raises(
        ValueError, match=r"`storage` must be one of \('float32', 'float16', 'int8'\)"
    ):
        export_tflite(
            zeros(lenet()), tmp_path / "s.tflite", target="smallest", storage="int8_dynamic"
        )


@st.composite
def graphs(draw):
    """Small nets of convolutions, pools and branches, with zeros of either kind."""
    keras.utils.set_random_seed(draw(st.integers(0, 99)))
    size, channels = draw(st.integers(6, 13)), draw(st.sampled_from([1, 3, 5]))
    inputs = x = keras.Input((size, size, channels))
    for _ in range(draw(st.integers(1, 3))):
        width, kernel = draw(st.sampled_from([4, 24, 48])), draw(st.sampled_from([1, 2, 3, 5]))
        padding = "same" if min(x.shape[1:3]) < kernel else draw(st.sampled_from(["same", "valid"]))
        stride = draw(st.sampled_from([1, 1, 2, 3]))
        if draw(st.booleans()) and kernel == 3:
            x, padding = L.ZeroPadding2D(1)(x), "valid"
        y = L.Conv2D(width, kernel, stride, padding=padding, use_bias=draw(st.booleans()))(x)
        if draw(st.booleans()):
            y = L.BatchNormalization()(y)
        y = L.Activation(draw(st.sampled_from(["linear", "relu", "relu6", "sigmoid"])))(y)
        if y.shape[1:] == x.shape[1:] and draw(st.booleans()):
            y = L.Add()([x, y])
        x = y
        if min(x.shape[1:3]) > 2 and draw(st.booleans()):
            x = draw(st.sampled_from([L.MaxPooling2D, L.AveragePooling2D]))(2)(x)
    x = draw(st.sampled_from([L.GlobalAveragePooling2D, L.Flatten]))()(x)
    model = keras.Model(inputs, L.Dense(draw(st.sampled_from([3, 70])))(x))
    density = draw(st.sampled_from([0.0, 0.03, 0.2, 1.0])) or 1e-9
    return zeros(model, density, dct=draw(st.booleans()), seed=draw(st.integers(0, 99)))


def exported_share(examples, folder):
    """The share of files that are written of drawn graphs; their outputs are held against Keras."""
    written = []

    @settings(max_examples=examples, phases=[Phase.generate])
    @given(model=graphs())
    def check(model):
        x = inputs_of(model, 6)
        wanted = keras.ops.convert_to_numpy(model(x))
        for storage in LIMITS:
            try:
                found = export_tflite(
                    model,
                    folder / "s.tflite",
                    target="smallest",
                    storage=storage,
                    verification=Verification(samples=x),
                )
            except ExportError as error:
                assert "XNNPACK's sparse mode" in str(error)
                written.append(False)
                continue
            error = np.abs(predict_tflite(found.path, x) - wanted).max()
            assert error <= LIMITS[storage] * np.abs(wanted).max()
            weights_are_what_kernels_take((folder / "s.tflite").read_bytes())
            written.append(True)

    check()
    return np.mean(written)


def test_drawn_graphs(tmp_path):
    assert exported_share(3, tmp_path) >= 0.75


@pytest.mark.slow
def test_two_hundred_drawn_graphs(tmp_path):
    assert exported_share(200, tmp_path) >= 0.75
