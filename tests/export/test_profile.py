"""`bench` and `report` on `.tflite` files: numbers, batches, and what no profiler gives."""

import gzip
from pathlib import Path
from types import SimpleNamespace as Scaled

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.export import export_tflite
from tfprune.export.flatbuffer import contents
from tfprune.export.inspect import litert_profiler, profile
from tfprune.export.inspect.describe import describe
from tfprune.export.inspect.describe import table as contents_table

SUMMARY = """
====================== Run Order ======================
  [node type]  [start]  [first]  [avg ms]  [%]  [cdf%]  [mem KB]  [times called]  [Name]
  Delegate/Convolution (NCHW, F32) SPMM  0.000  0.431  0.250  75.0%  75.0%  0.0  8  [Delegate]:0
  CUMSUM  0.000  0.002  0.100  25.0%  100.000%  0.000  4  [Builtin]:1
============== Top by Computation Time ================
  CUMSUM  0.000  0.002  0.100  25.0%  100.000%  0.000  4  [Builtin]:1
"""


@pytest.fixture(scope="module")
def model():
    """Two convolutions and a dense layer; a tenth of each kernel is kept."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((24, 24, 3)),
        keras.layers.Conv2D(16, 3, name="a"),
        keras.layers.Conv2D(32, 3, strides=2, name="b"),
        keras.layers.Flatten(),
        keras.layers.Dense(5),
    ]
    model = keras.Sequential(layers)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            kernel = layer.kernel.numpy()
            kernel[np.abs(kernel) < np.quantile(np.abs(kernel), 0.9)] = 0
            layer.kernel.assign(kernel)
    return model


@pytest.fixture(scope="module")
def kept(model):
    """How many entries of the second kernel, 32x3x3x16 in the file, are not zero."""
    return np.count_nonzero(model.get_layer("b").get_weights()[0])


@pytest.fixture(scope="module")
def dense(model, tmp_path_factory):
    return export_tflite(model, tmp_path_factory.mktemp("dense") / "m.tflite")


@pytest.fixture(scope="module")
def open_batch(model, tmp_path_factory):
    return with_batch(model, None, tmp_path_factory.mktemp("open") / "open.tflite")


def with_batch(model, batch, place):
    spec = tf.TensorSpec((batch, *model.input_shape[1:]), tf.float32, name="x")
    traced = tf.function(model).get_concrete_function(spec)
    place.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert())
    return place


def by_shape(found):
    return {tuple(tensor["shape"]): tensor for tensor in found["tensors"]}


def test_dense_file_is_described(dense, kept):
    found, data = describe(Path(dense.path)), Path(dense.path).read_bytes()
    assert found["bytes"] == len(data) == dense.bytes
    assert found["gzip_bytes"] == len(gzip.compress(data, 9)) == dense.gzip_bytes
    assert found["ops"] == dense.ops
    assert found["inputs"] == {"input_0": {"shape": [1, 24, 24, 3], "type": "float32"}}
    assert found["outputs"] == {"output_0": {"shape": [1, 5], "type": "float32"}}
    kernel = by_shape(found)[32, 3, 3, 16]
    assert kernel["density"] == kept / 4608
    assert (kernel["type"], kernel["form"], kernel["bytes"]) == ("float32", "dense", 18432)
    weights = 4 * (16 * 27 + 16 + 4608 + 32 + 5 * 3200 + 5)
    assert weights - 4 * 5 <= found["storage"]["float32"]["bytes"] <= weights


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_rows_are_described(storage, model, kept, tmp_path):
    place = tmp_path / "m.tflite"
    export_tflite(model, place, target="smallest", storage=storage)
    kernel = by_shape(describe(place))[32, 3, 3, 16]
    assert (kernel["type"], kernel["form"]) == (storage, "rows")
    assert abs(kernel["density"] * 4608 - kept) <= 2  # int8 may round one to zero
    itemsize = {"float32": 4, "int8": 1}[storage]
    assert kept * (itemsize + 1) <= kernel["bytes"] + 4 < 4608 * itemsize
    assert "rows" in contents_table(describe(place))


def test_int8_zeros_are_zeros(model, kept, rng, tmp_path):
    place, x = tmp_path / "m.tflite", rng.random((20, 24, 24, 3), "float32")
    export_tflite(model, place, storage="int8", representative_data=x)
    kernel = by_shape(describe(place))[32, 3, 3, 16]
    assert (kernel["type"], kernel["form"]) == ("int8", "dense")
    assert 0.95 * kept <= kernel["density"] * 4608 <= kept


def test_zero_points():
    raw = np.array([3, 3, 5, 0x31], np.uint8)
    assert contents._nonzero(raw, "UINT8", 4, Scaled(zeroPoint=[3])) == (2, 4)
    assert contents._nonzero(raw, "UINT8", 4, Scaled(zeroPoint=[3, 3])) == (2, 4)
    assert contents._nonzero(raw, "UINT8", 4, Scaled(zeroPoint=[3, 4])) is None
    assert contents._nonzero(raw, "INT4", 7, None) == (4, 7)  # 3 0 3 0 5 0 1, low half first
    assert contents._nonzero(raw, "STRING", 4, None) is None


def test_latency_and_ops(dense):
    found = profile.bench_tflite(Path(dense.path), threads=(1, 2), rounds=5)
    assert [run["threads"] for run in found["runs"]] == [1, 2]
    assert found["batch"] == 1 and found["ops"]["CONV_2D"] == 2
    for run in found["runs"]:
        assert run["ms"] > 0 and run["cpu_ms"] > 0 and run["rounds"] == 5
        assert run["note"] is None and run["profile"] is not None, run["note"]
        shares = [op["share"] for op in run["profile"]]
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)
        convolutions = [op["count"] for op in run["profile"] if op["op"].startswith("Convolution")]
        assert sum(convolutions) == 2
        assert sum(node["ms"] for node in run["nodes"]) < 1000
    text = profile.table(found)
    assert "1 thread, batch 1: " in text and "\n2 threads, batch 1: " in text


def test_open_batch(open_batch):
    found = {n: profile.bench_tflite(open_batch, n, (1,), 10) for n in (None, 64)}
    assert [one["batch"] for one in found.values()] == [1, 64]
    (one,), (many,) = (each["runs"] for each in found.values())
    assert many["ms"] > 5 * one["ms"]
    assert many["profile"][0]["ms"] > 5 * one["profile"][0]["ms"]


def test_batch_that_is_in_the_file(model, tmp_path):
    place = with_batch(model, 4, tmp_path / "b.tflite")
    assert [profile.bench_tflite(place, n, (1,), 3)["batch"] for n in (None, 4)] == [4, 4]
    with pytest.raises(ValueError, match=r"b\.tflite.*batch \[4\] is built into.*Received: 3"):
        profile.bench_tflite(place, 3)


def test_a_run_without_threads(dense):
    with pytest.raises(ValueError, match="at least one number of threads"):
        profile.bench_tflite(Path(dense.path), threads=())


def test_open_sizes_are_refused(tmp_path):
    layers = [keras.Input((None, 2)), keras.layers.Conv1D(3, 4)]
    place = export_tflite(keras.Sequential(layers), tmp_path / "open.tflite").path
    with pytest.raises(ValueError, match="Only the batch may be open"):
        profile.bench_tflite(Path(place))


def test_whole_numbers_as_inputs(tmp_path):
    layers = [keras.Input((5,), dtype="int32"), keras.layers.Embedding(9, 4), keras.layers.Dense(2)]
    place = export_tflite(keras.Sequential(layers), tmp_path / "words.tflite").path
    found = profile.bench_tflite(Path(place), threads=(1,), rounds=3)
    assert found["inputs"]["input_0"]["type"] == "int32"


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("return {'missing': 'it has gone.'}", "gives no times per op: it has gone."),
        ("import os; os.abort()", "SIGABRT"),
        ("raise ValueError('status 3')", "status 3"),
        ("import time; time.sleep(60)", "busy for more than 5 s"),
    ],
)
def test_without_a_profiler_the_note_says_so(job, message, dense, tmp_path, monkeypatch):
    script = tmp_path / "job.py"
    script.write_text(f"def main(*_):\n    {job}\n")
    monkeypatch.setattr(profile, "_PROFILER", script)
    found = profile.bench_tflite(Path(dense.path), threads=(1,), rounds=3, seconds=5)
    (run,) = found["runs"]
    assert run["ms"] > 0
    assert (run["profile"], run["nodes"], run["sparse_mode"]) == (None, None, None)
    assert message in run["note"] and "ai-edge-litert" in run["note"]
    text = profile.table(found)
    assert run["note"] in text and "CONV_2D" in text and "sparse mode" not in text


def test_function_that_is_missing_in_the_library(monkeypatch, tmp_path):
    monkeypatch.setattr(litert_profiler, "NEWEST", ("LiteRtNever",))
    found = litert_profiler.main(str(tmp_path), "1", "1", "1", "1")
    assert found == {"missing": "libLiteRt.so has no LiteRtNever."}


def test_summary_is_read_per_round():
    nodes = litert_profiler.parse(SUMMARY, 4)
    assert nodes == [
        {"op": "Convolution (NCHW, F32) SPMM", "count": 2, "ms": 0.5},
        {"op": "CUMSUM", "count": 1, "ms": 0.1},
    ]
    found = profile._by_op({"nodes": nodes})
    assert found["sparse_mode"] is True
    assert [op["share"] for op in found["profile"]] == pytest.approx([5 / 6, 1 / 6])
    assert litert_profiler.parse("another form 1 2 3", 4) == []
    assert profile._by_op({"nodes": nodes[1:]})["sparse_mode"] is False
