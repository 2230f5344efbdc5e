"""Storages, the forms that sample data may take, sizes, and what the result says."""

import gzip
import io
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune import files
from tfprune.export import Verification, export_tflite, predict_tflite

FORMS = {
    "array": lambda x: x,
    "list of batches": lambda x: [x[:16], x[16:]],
    "generator": lambda x: (x[i : i + 1] for i in range(len(x))),
    "function": lambda x: lambda: ([row[None]] for row in x),
    "dataset of (x, y)": lambda x: tf.data.Dataset.from_tensor_slices((x, np.zeros(40))).batch(7),
    "endless dataset": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(8).repeat(),
}


@pytest.mark.parametrize(
    ("storage", "smaller", "limit"),
    [("float16", 0.7, 5e-3), ("int8", 0.6, 0.1), ("int8_dynamic", 0.6, 0.1)],
)
def test_storage_is_smaller_and_near(storage, smaller, limit, tmp_path, rng):
    layers = [keras.Input((20,)), keras.layers.Dense(200, "relu"), keras.layers.Dense(4)]
    model = keras.Sequential(layers)
    x = rng.random((50, 20), "float32")
    full = export_tflite(model, tmp_path / "full.tflite")
    result = export_tflite(
        model,
        tmp_path / "m.tflite",
        storage=storage,
        representative_data=x,
        verification=Verification(samples=x),
    )
    assert result.bytes < smaller * full.bytes
    assert 1e-6 < result.max_relative_error < limit < result.tolerance * 5
    wanted = np.asarray(model(x))
    got = predict_tflite(result.path, x)
    assert np.abs(got - wanted).max() <= limit * np.abs(wanted).max()
    assert result.agreement >= 0.8


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_representative_data(form, conv_model, images, tmp_path):
    data = FORMS[form](images)
    result = export_tflite(
        conv_model, tmp_path / "m.tflite", storage="int8", representative_data=data
    )
    assert result.data_source == "representative_data"
    assert result.samples_checked == (64 if form == "endless dataset" else 40)
    assert result.max_relative_error < 0.1


def test_calibration_reaches_the_file(dense_model, rng, tmp_path):
    x = rng.random((30, 6), "float32")
    x[-1, 0] = 3.0
    scales = []
    for factor in (1.0, 8.0):
        result = export_tflite(
            dense_model, tmp_path / "m.tflite", storage="int8", representative_data=factor * x
        )
        scales.append(_input_scale(result.path))
    assert scales == pytest.approx([3.0 / 255, 24.0 / 255], rel=1e-2)


def _input_scale(path):
    from ai_edge_litert.interpreter import Interpreter

    tensors = Interpreter(model_path=path).get_tensor_details()
    scales = [t["quantization"][0] for t in tensors if tuple(t["shape"]) == (1, 6)]
    return max(scales)


def test_result_tells_sizes_and_serialises(dense_model, tmp_path):
    result = export_tflite(dense_model, tmp_path / "m.tflite")
    data = (tmp_path / "m.tflite").read_bytes()
    assert result.bytes == len(data)
    assert result.gzip_bytes == len(gzip.compress(data, 9, mtime=0)) < result.bytes
    assert json.loads(json.dumps(result.to_dict()))["storage"] == "float32"
    text = str(result)
    assert f"{result.bytes:,} bytes" in text and "random" in text and "FULLY_CONNECTED x2" in text


def test_constant_outputs_are_noted(tmp_path):
    layers = [keras.Input((4,)), keras.layers.Dense(3, "softmax", kernel_initializer="zeros")]
    result = export_tflite(keras.Sequential(layers), tmp_path / "m.tflite")
    assert any("weak comparison" in note for note in result.notes)


def test_two_inputs_calibrate_from_pairs_of_inputs_and_labels(tmp_path, rng):
    a, b = keras.Input((4,)), keras.Input((3,))
    model = keras.Model([a, b], keras.layers.Dense(2)(keras.layers.Concatenate()([a, b])))
    x, y = rng.random((20, 4), "float32"), rng.random((20, 3), "float32")
    pairs = tf.data.Dataset.from_tensor_slices(((x, y), np.zeros(20))).batch(5)
    for data in (pairs, [x, y]):
        result = export_tflite(
            model, tmp_path / "m.tflite", storage="int8", representative_data=data
        )
        assert result.samples_checked == 20 and result.max_relative_error < 0.1


def test_large_files_are_gzipped_at_the_level_that_takes_seconds(monkeypatch):
    rng = np.random.default_rng(0)
    data = (rng.integers(0, 9, 4000) * (rng.random(4000) < 0.1)).astype("float32").tobytes()
    best, usual = (len(gzip.compress(data, level, mtime=0)) for level in (9, 6))
    assert best < usual
    assert files.gzip_size(data) == best
    monkeypatch.setattr(files, "_SMALL", len(data))
    assert files.gzip_size(data) == usual


class Terminal(io.StringIO):
    """Somebody looks at it."""

    def isatty(self):
        return True


def test_a_terminal_shows_what_is_done_and_files_do_not(monkeypatch, conv_model, images, tmp_path):
    shown, unseen = Terminal(), io.StringIO()
    options = {"storage": "int8", "representative_data": images}
    for stream in (shown, unseen):
        monkeypatch.setattr("sys.stderr", stream)
        export_tflite(conv_model, tmp_path / "net.tflite", **options)
    stages = re.findall(r"export net.tflite: ([^\[]*) \[(\d) of 5\]", shown.getvalue())
    assert list(dict.fromkeys(stages)) == [
        ("running Keras", "1"),
        ("converting to float32", "2"),
        ("comparing float32 with Keras", "3"),
        ("converting to int8", "4"),
        ("comparing int8 with Keras", "5"),
    ]
    assert "export net.tflite" not in unseen.getvalue()
