"""`predict_tflite`: exact for any batch, clear for broken files and wrong inputs."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.export import Verification, export_tflite, predict_tflite


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file that tests only read."""
    layers = [keras.Input((6,)), keras.layers.Dense(48, "relu"), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    return export_tflite(model, tmp_path_factory.mktemp("predict") / "m.tflite").path


def with_batch(model, batch, place):
    spec = tf.TensorSpec((batch, 6), tf.float32, name="x")
    traced = tf.function(model).get_concrete_function(spec)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    place.write_bytes(converter.convert())
    return place


@pytest.mark.parametrize("batch", [1, 4, None])
@pytest.mark.parametrize("count", [1, 4, 11])
def test_any_batch_in_the_file_gives_every_sample_once(batch, count, dense_model, tmp_path, rng):
    place = with_batch(dense_model, batch, tmp_path / "b.tflite")
    x = rng.random((count, 6), "float32")
    got = predict_tflite(place, x, batch_size=3)
    assert got.shape == (count, 3)
    np.testing.assert_allclose(got, np.asarray(dense_model(x)), rtol=1e-4, atol=1e-6)


def test_progress_bar(file, rng, capfd):
    predict_tflite(file, rng.random((5, 6), "float32"), progress=True)
    assert "m.tflite" in capfd.readouterr().err


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_file(kept, file, tmp_path, rng):
    data = Path(file).read_bytes()
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match=r"not a \.tflite file that LiteRT can run"):
        predict_tflite(broken, rng.random((2, 6), "float32"))


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (np.zeros((2, 5), "f"), r"shape \[1, 6\].*\(2, 5\)"),
        (np.zeros(6, "f"), "shape"),
        (np.zeros((0, 6), "f"), "at least one"),
        (np.array([["a"] * 6]), "dtype"),
        ({"wrong": np.zeros((2, 6), "f")}, "must be.*input_0.*wrong"),
    ],
)
def test_wrong_inputs(x, match, file):
    with pytest.raises(ValueError, match=match):
        predict_tflite(file, x)


def test_several_inputs_go_by_name(tmp_path, rng):
    first, second = keras.Input((4,), name="b"), keras.Input((4,), name="a")
    model = keras.Model([first, second], keras.layers.Subtract()([first, second]))
    place = export_tflite(model, tmp_path / "m.tflite").path
    x, y = rng.random((2, 3, 4), "float32")
    np.testing.assert_array_equal(predict_tflite(place, {"b": x, "a": y}), x - y)
    with pytest.raises(ValueError, match=r"dict with arrays for \('a', 'b'\).*Received: list"):
        predict_tflite(place, [x, y])


def test_whole_numbers_that_do_not_fit(tmp_path):
    numbers = keras.Input((4,), dtype="uint8")
    model = keras.Model(numbers, keras.layers.Dense(3)(keras.ops.cast(numbers, "float32")))
    place = export_tflite(model, tmp_path / "m.tflite").path
    with pytest.raises(ValueError, match=r"uint8.*numbers from 0 to 300"):
        predict_tflite(place, np.array([[0, 300, 1, 2]]))
    with pytest.raises(ValueError, match=r"`samples` must fit into uint8.*300"):
        export_tflite(
            model, tmp_path / "m.tflite", verification=Verification(samples=np.full((2, 4), 300))
        )


def test_a_file_with_two_signatures(dense_model, tmp_path):
    spec = tf.TensorSpec((1, 6), tf.float32)
    calls = {name: tf.function(dense_model, input_signature=[spec]) for name in ("one", "two")}
    tf.saved_model.save(dense_model, str(tmp_path / "saved"), signatures=calls)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(tmp_path / "saved"), signature_keys=["one", "two"]
    )
    (tmp_path / "two.tflite").write_bytes(converter.convert())
    with pytest.raises(ValueError, match=r"one signature. Received: \['one', 'two'\]"):
        predict_tflite(tmp_path / "two.tflite", np.zeros((1, 6), "f"))


def test_wrong_batch_size_and_missing_file(file, tmp_path):
    with pytest.raises(ValueError, match="threads"):
        predict_tflite(file, np.zeros((1, 6), "f"), threads=0)
    with pytest.raises(ValueError, match="batch_size"):
        predict_tflite(file, np.zeros((1, 6), "f"), batch_size=0)
    with pytest.raises(FileNotFoundError):
        predict_tflite(tmp_path / "absent.tflite", np.zeros((1, 6), "f"))


def test_size_that_the_file_cannot_take(tmp_path):
    layers = [keras.Input((None, 2)), keras.layers.Conv1D(3, 4)]
    place = export_tflite(keras.Sequential(layers), tmp_path / "open.tflite").path
    with pytest.raises(ValueError, match="sizes that it can't take"):
        predict_tflite(place, np.zeros((1, 2, 2), "f"))


@pytest.mark.parametrize("axis", [0, (0, 1)])
def test_outputs_that_are_not_one_per_sample_are_refused(axis, tmp_path):
    keep = axis == 0  # [1, 6] for any batch; else a scalar
    path = with_batch(
        lambda x: tf.reduce_sum(x, axis, keepdims=keep), batch=2, place=tmp_path / "b.tflite"
    )
    with pytest.raises(ValueError, match=r"must have a value per sample.* for a batch of 2"):
        predict_tflite(path, np.ones((4, 6), "float32"))
