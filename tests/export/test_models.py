"""Every kind of Keras model comes out with the numbers it had."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfprune
from tfprune.export import ExportError, Verification, export_tflite, predict_tflite
from tfprune.inference import strip as stripping


def close(got, wanted, limit=1e-5):
    wanted = np.asarray(wanted)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= limit * max(np.abs(wanted).max(), 1e-3)


def test_sequential_convolutions_with_batch_norm(conv_model, images, tmp_path):
    result = export_tflite(
        conv_model, tmp_path / "m.tflite", verification=Verification(samples=images)
    )
    close(predict_tflite(result.path, images), conv_model(images))
    assert result.samples_checked == 40 and result.data_source == "samples"
    assert result.max_relative_error < 1e-5 and result.agreement == 1.0
    assert result.inputs == {"input_0": (1, 8, 8, 3)} and result.outputs == ("output_0",)
    assert result.ops["CONV_2D"] == 2 and "DENSIFY" not in result.ops


def test_several_inputs_and_outputs_are_matched_by_name(tmp_path, rng):
    zebra, apple = keras.Input((4,), name="zebra"), keras.Input((4,), name="apple")
    difference = keras.layers.Subtract()([zebra, apple])
    last = keras.layers.Dense(2, name="last")(difference)
    first = keras.layers.Dense(2, name="first")(difference)
    model = keras.Model([zebra, apple], [last, first])
    result = export_tflite(model, tmp_path / "m.tflite")
    a, b = rng.random((2, 9, 4), "float32")
    got = predict_tflite(result.path, {"apple": b, "zebra": a})
    wanted = model([a, b])
    assert sorted(got) == ["first", "last"]
    close(got["last"], wanted[0])
    close(got["first"], wanted[1])


@pytest.mark.parametrize("name", ["ä", "_x", "1a", "self"])
def test_any_name_of_an_input(name, tmp_path, rng):
    inputs = keras.Input((4,), name=name)
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    x = rng.random((3, 4), "float32")
    close(predict_tflite(export_tflite(model, tmp_path / "m.tflite").path, x), model(x))


def test_types_that_nobody_gave_are_said(tmp_path, rng):
    class Halves(keras.Model):
        def call(self, x):
            return x / 2

    model = Halves()
    model(rng.random((2, 5)))
    notes = export_tflite(model, tmp_path / "m.tflite").notes
    assert any("taken for float32; pass `samples`" in note for note in notes)


def test_dict_inputs_and_outputs(tmp_path, rng):
    x = {"a": keras.Input((4,), name="a"), "b": keras.Input((3,), name="b")}
    both = keras.layers.Concatenate()([x["b"], x["a"]])
    model = keras.Model(x, {"up": both * 2.0, "down": keras.layers.Dense(2)(both)})
    data = {"a": rng.random((5, 4), "float32"), "b": rng.random((5, 3), "float32")}
    result = export_tflite(model, tmp_path / "m.tflite", verification=Verification(samples=data))
    got, wanted = predict_tflite(result.path, data), model(data)
    close(got["up"], wanted["up"])
    close(got["down"], wanted["down"])


class TwoHeads(keras.Model):
    def __init__(self):
        super().__init__()
        self.table = keras.layers.Embedding(11, 4)
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        words = keras.ops.mean(self.table(inputs["words"]), axis=1)
        return {"sum": words + self.dense(inputs["x"])[:, :1], "dense": self.dense(inputs["x"])}


def test_subclassed_model_takes_its_dtypes_from_the_samples(tmp_path, rng):
    data = {"words": rng.integers(0, 11, (6, 5)).astype("int32"), "x": rng.random((6, 2), "f")}
    model = TwoHeads()
    wanted = model(data)
    result = export_tflite(
        model, tmp_path / "m.tflite", verification=Verification(samples=iter([data]))
    )
    got = predict_tflite(result.path, data)
    assert result.samples_checked == 6
    close(got["sum"], wanted["sum"])
    close(got["dense"], wanted["dense"])


class Difference(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        first, second = inputs
        return self.dense(first) - second


def test_subclassed_model_with_a_list_of_inputs(tmp_path, rng):
    data = [rng.random((5, 4), "float32"), rng.random((5, 3), "float32")]
    model = Difference()
    wanted = model(data)
    result = export_tflite(model, tmp_path / "m.tflite")
    assert list(result.inputs.values()) == [(1, 4), (1, 3)]
    named = dict(zip(result.inputs, data, strict=True))
    close(predict_tflite(result.path, named), wanted)


@pytest.mark.parametrize("kind", [keras.layers.LSTM, keras.layers.GRU])
def test_recurrent(kind, tmp_path, rng):
    model = keras.Sequential([keras.Input((7, 3)), kind(6), keras.layers.Dense(2)])
    x = rng.random((5, 7, 3), "float32")
    result = export_tflite(model, tmp_path / "m.tflite")
    assert result.data_source == "random"
    close(predict_tflite(result.path, x), model(x))


def test_recurrent_in_int8_is_refused_not_a_crash(tmp_path, rng):
    model = keras.Sequential([keras.Input((7, 3)), keras.layers.LSTM(6)])
    data = rng.random((5, 7, 3), "float32")
    with pytest.raises(ExportError, match="unroll=True"):
        export_tflite(model, tmp_path / "m.tflite", storage="int8", representative_data=data)
    assert not list(tmp_path.iterdir())


def test_open_sizes_stay_open(tmp_path, rng):
    layers = [keras.Input((None, None, 2)), keras.layers.Conv2D(3, 3)]
    model = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D()])
    result = export_tflite(model, tmp_path / "m.tflite")
    assert result.inputs == {"input_0": (1, None, None, 2)}
    assert any("32" in note for note in result.notes)
    x = rng.random((3, 11, 14, 2), "float32")
    close(predict_tflite(result.path, x), model(x))


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_half_precision_models_compute_in_float32_and_keep_their_policy(policy, tmp_path, rng):
    layers = [keras.layers.Conv2D(4, 3, dtype=policy), keras.layers.Flatten(dtype=policy)]
    layers = [keras.Input((6, 6, 1)), *layers, keras.layers.Dense(3, dtype=policy)]
    model = keras.Sequential(layers)
    result = export_tflite(model, tmp_path / "m.tflite")
    assert [layer.dtype_policy.name for layer in model.layers] == [policy] * 3
    assert "float16" in result.notes[0] and "CAST" not in result.ops
    x = rng.random((5, 6, 6, 1), "float32")
    close(predict_tflite(result.path, x), np.asarray(model(x)).astype("float32"), 0.05)


def test_pruned_model_is_stripped(conv_model, images, tmp_path, monkeypatch):
    pruned = tfprune.prune(conv_model, tfprune.Magnitude(), schedule=tfprune.ConstantSparsity(0.5))
    plain, stripped = tfprune.strip(pruned), []
    monkeypatch.setattr(stripping, "strip", lambda model: stripped.append(model) or plain)
    first = export_tflite(pruned, tmp_path / "a.tflite", verification=Verification(samples=images))
    second = export_tflite(plain, tmp_path / "b.tflite", verification=Verification(samples=images))
    assert first.bytes == second.bytes and first.ops == second.ops
    close(predict_tflite(first.path, images), pruned(images))
    assert len(stripped) == 1 and stripped[0] is pruned and tfprune.is_pruned(pruned)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    filters=st.integers(1, 5),
    kernel=st.integers(1, 3),
    strides=st.integers(1, 2),
    padding=st.sampled_from(["same", "valid"]),
    units=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_small_networks_agree(filters, kernel, strides, padding, units, seed, tmp_path):
    keras.utils.set_random_seed(seed)
    conv = keras.layers.Conv2D(filters, kernel, strides=strides, padding=padding)
    layers = [keras.Input((5, 7, 2)), conv, keras.layers.Flatten(), keras.layers.Dense(units)]
    model = keras.Sequential(layers)
    x = np.random.default_rng(seed).standard_normal((4, 5, 7, 2)).astype("float32")
    result = export_tflite(model, tmp_path / "m.tflite", verification=Verification(samples=x))
    close(predict_tflite(result.path, x), model(x), 2e-5)


def test_ops_that_the_reference_kernels_lack(tmp_path):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "elu")])
    found = export_tflite(model, tmp_path / "m.tflite")
    assert "ELU" in found.ops and found.reference_samples_checked > 1
    assert "reference kernels lack an op" in found.notes[0]
