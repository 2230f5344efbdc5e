"""No wrong file is handed out, and nothing is left behind where export fails."""

import dataclasses
import os

import keras
import numpy as np
import pytest
from sparse_nets import blocks_of_zeros, headed, image

from tfprune.export import ExportError, Verification, export_tflite
from tfprune.export.flatbuffer import contents
from tfprune.export.storage import STORAGES
from tfprune.export.targets import dense, registry, target
from tfprune.export.verify import compare
from tfprune.export.view import view_of


@pytest.fixture
def older(tmp_path):
    place = tmp_path / "m.tflite"
    place.write_bytes(b"older file")
    return place


def untouched(place):
    return place.read_bytes() == b"older file" and os.listdir(place.parent) == [place.name]


def spoil(monkeypatch, change):
    """Let the converter give out `change(bytes)`."""
    original = dense._convert
    monkeypatch.setattr(dense, "_convert", lambda *a: change(original(*a)))


def flip_kernel(model):
    """Return a change that negates the first kernel inside the file, the format staying valid."""
    kernel = model.layers[0].get_weights()[0].T.astype("float32").tobytes()
    negative = (-np.frombuffer(kernel, "float32")).tobytes()

    def change(data):
        assert data.count(kernel) == 1
        return data.replace(kernel, negative)

    return change


def test_wrong_weights_are_refused(dense_model, older, monkeypatch):
    spoil(monkeypatch, flip_kernel(dense_model))
    with pytest.raises(ExportError, match=r"not written, Keras and the default.*limit 0\.0001"):
        export_tflite(dense_model, older)
    assert untouched(older)


def test_nan_in_the_file_is_refused_at_any_tolerance(dense_model, older, monkeypatch):
    kernel = dense_model.layers[0].get_weights()[0].T.tobytes()
    nan = np.full(len(kernel) // 4, np.nan, "float32").tobytes()
    spoil(monkeypatch, lambda data: data.replace(kernel, nan))
    with pytest.raises(ExportError, match="nan"):
        export_tflite(dense_model, older, verification=Verification(tolerance=1e30))
    assert untouched(older)


@pytest.mark.parametrize("target", ["smallest", "auto"])
def test_the_float32_twin_is_the_same_graph(target):
    """Of a net whose fastest form in float32 is another one than in int8."""
    inputs = image(12)
    model = blocks_of_zeros(headed(inputs, keras.layers.Conv2D(128, 3, padding="same")(
        keras.layers.MaxPooling2D(2)(keras.layers.Conv2D(128, 3, padding="same")(inputs))
    )))  # fmt: skip
    found, storage = registry.find_target(target), registry.find_target(target).storages["int8"]
    kinds, unpacking = [], ("DENSIFY", "DEQUANTIZE")
    for one in (storage, storage.with_float32_values()):
        ops = contents.op_counts(found.build(view_of(model), one, []).data)
        kinds.append({kind: count for kind, count in ops.items() if kind not in unpacking})
    assert kinds[0] == kinds[1]


def test_a_folder_that_cannot_be_synced_and_a_long_name(dense_model, tmp_path, monkeypatch):
    def refuse(path, flags, *rest, **options):
        if flags == os.O_RDONLY and str(path) == str(tmp_path):
            raise PermissionError
        return opened(path, flags, *rest, **options)

    opened = os.open
    monkeypatch.setattr(os, "open", refuse)
    place = tmp_path / f"{'x' * 245}.tflite"
    assert export_tflite(dense_model, place).bytes == place.stat().st_size


@pytest.mark.parametrize("storage", ["int8", "int8_dynamic"])
def test_wrong_quantised_file_is_refused(storage, dense_model, older, monkeypatch, rng):
    other = keras.models.clone_model(dense_model)
    other.set_weights([-w for w in dense_model.get_weights()])
    wrong = dense.dense
    data = rng.random((20, 6), "float32")

    def swap(view, stored, rows):
        from tfprune.export.view import view_of

        return wrong(view if stored.exact else view_of(other), stored, rows)

    monkeypatch.setattr(dense, "TARGET", target.Target("dense", swap))
    with pytest.raises(ExportError, match=r"more representative|storage=.float32"):
        export_tflite(dense_model, older, storage=storage, representative_data=data)
    assert untouched(older)


@pytest.mark.parametrize("change", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"x" * 99])
def test_file_that_does_not_load_is_refused(change, dense_model, older, monkeypatch):
    spoil(monkeypatch, change)
    with pytest.raises(ExportError, match="default kernels"):
        export_tflite(dense_model, older)
    assert untouched(older)


def test_file_that_ends_its_process_is_refused(dense_model, older, monkeypatch):
    from tfprune.export.verify import isolated

    monkeypatch.setattr(isolated, "_START", "import os; os.abort()")
    with pytest.raises(ExportError, match="SIGABRT"):
        export_tflite(dense_model, older)
    assert untouched(older)


def test_failed_replace_leaves_the_older_file(dense_model, older, monkeypatch):
    def refuse(*_):
        raise OSError("disk is gone")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk is gone"):
        export_tflite(dense_model, older)
    assert untouched(older)


def test_nan_weights_are_refused_before_converting(dense_model, older):
    kernel = dense_model.layers[0].get_weights()[0].copy()
    kernel[0, 0] = np.inf
    dense_model.layers[0].kernel.assign(kernel)
    with pytest.raises(ValueError, match=r"finite.*kernel"):
        export_tflite(dense_model, older)
    assert untouched(older)


def test_model_without_builtin_ops_is_refused(tmp_path):
    class Weird(keras.layers.Layer):
        def call(self, x):
            import tensorflow as tf

            return tf.raw_ops.Erfinv(x=x)

    model = keras.Sequential([keras.Input((4,)), Weird()])
    with pytest.raises(ExportError, match="can't be converted"):
        export_tflite(model, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


CHECKS = {field.name for field in dataclasses.fields(Verification)}


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"target": "fastest"}, ValueError, "`target` must be one of.*'dense'.*'fastest'"),
        ({"storage": "int4"}, ValueError, "`storage` must be one of.*'int4'"),
        ({"storage": ["int8"]}, ValueError, "`storage`"),
        ({"storage": "int8"}, ValueError, r"needs `representative_data`.*tf\.data\.Dataset"),
        ({"path": "m.bin"}, ValueError, "end in '.tflite'"),
        ({"path": "nowhere/m.tflite"}, ValueError, "folder of `path` must exist"),
        ({"path": 3}, TypeError, "`path`"),
        ({"model": "model.keras"}, TypeError, "Keras 3 model"),
        ({"tolerance": float("nan")}, ValueError, "`tolerance`"),
        ({"tolerance": "small"}, TypeError, "`tolerance`"),
        ({"tolerance": 0.0}, ValueError, r"`tolerance`.*Received: 0\.0"),
        ({"seed": 1.5}, TypeError, r"`seed`.*Received: 1\.5"),
        ({"seed": -1}, ValueError, "`seed`.*Received: -1"),
        ({"arm": "yes"}, TypeError, "`arm`.*Received: 'yes'"),
        ({"samples": np.zeros((3, 5), "f")}, ValueError, r"`samples`.*\(None, 6\).*\(3, 5\)"),
        ({"samples": np.zeros((0, 6), "f")}, ValueError, "at least one"),
        ({"samples": np.full((2, 6), np.nan)}, ValueError, "finite"),
        ({"samples": [["a"]]}, TypeError, "`samples` must hold numbers"),
        ({"samples": 5}, ValueError, "`samples`"),
        ({"representative_data": {"x": np.zeros((2, 6))}}, ValueError, "`representative_data`"),
    ],
)
def test_bad_arguments(arguments, error, match, dense_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dense, "_save", lambda *_: pytest.fail("converted a bad request"))
    with pytest.raises(error, match=match):
        checks = {key: arguments[key] for key in set(arguments) & CHECKS}
        rest = {key: value for key, value in arguments.items() if key not in CHECKS}
        given = {"model": dense_model, "path": "m.tflite", **rest}
        export_tflite(**given, verification=Verification(**checks))
    assert not list(tmp_path.iterdir())


def test_settings_are_named(dense_model, tmp_path):
    with pytest.raises(TypeError, match=r"takes 2 positional arguments but 3 were given"):
        export_tflite(dense_model, tmp_path / "m.tflite", "dense")
    with pytest.raises(TypeError, match="unexpected keyword argument 'samples'"):
        export_tflite(dense_model, tmp_path / "m.tflite", samples=np.zeros((2, 6), "f"))
    with pytest.raises(TypeError, match=r"`verification` must be a.*Verification`.*Received: dict"):
        export_tflite(dense_model, tmp_path / "m.tflite", verification={"seed": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        Verification().seed = 3
    assert not list(tmp_path.iterdir())


def test_unbuilt_model(tmp_path):
    with pytest.raises(ValueError, match="must be built"):
        export_tflite(keras.Sequential([keras.layers.Dense(2)]), tmp_path / "m.tflite")


def test_comparison_measures_what_it_says():
    a = [{"y": np.array([[1.0, 4.0]])}, {"y": np.array([[3.0, 0.0]])}]
    b = [{"y": np.array([[1.0, 3.0]])}, {"y": np.array([[1.0, 2.0]])}]
    result = compare.compare(a, b)
    assert result.max_error == pytest.approx(2 / 4)
    assert result.rms_error == pytest.approx(np.sqrt((1 + 4 + 4) / (1 + 16 + 9)))
    assert result.agreement == 0.5
    assert compare.compare(a, a).within(STORAGES["float32"])
    nan = [{"y": np.array([[np.nan, 0.0]])}] * 2
    assert not compare.compare(a, nan).within(STORAGES["float32"])
    assert not compare.compare(nan, nan).within(STORAGES["float32"])
