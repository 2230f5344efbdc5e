"""Broken `.tflite` files end in one clear error, whatever they do to the process that reads."""

import os
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.export import export_tflite
from tfprune.export.flatbuffer.file import FlatFile
from tfprune.export.inspect import profile
from tfprune.export.inspect.describe import _CONTENTS, describe, table
from tfprune.export.verify import child

GIB = 1 << 30
NUMBERS = st.integers(0, 2**32 - 1)
FLIPS = st.lists(st.tuples(NUMBERS, st.integers(0, 7)), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a file with dense tensors, sparse ones and two types of values."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6, 6, 3)), keras.layers.Conv2D(16, 3), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(5)])
    for layer in (model.layers[0], model.layers[2]):
        kernel = layer.kernel.numpy()
        layer.kernel.assign(np.where(np.abs(kernel) < np.quantile(np.abs(kernel), 0.9), 0, kernel))
    place = tmp_path_factory.mktemp("whole") / "m.tflite"
    export_tflite(model, place, target="smallest", storage="int8")
    return place.read_bytes()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "broken.tflite"


def job(folder, text):
    script = folder / "job.py"
    script.write_text(f"import os, sys, time, runpy\ndef main(path, *rest):\n    {text}\n")
    return str(script)


def flipped(data, flips):
    broken = bytearray(data)
    for where, bit in flips:
        broken[where % len(broken)] ^= 1 << bit
    return bytes(broken)


def survives(data, place, run):
    """A table, or one error that names the file; nothing else."""
    place.write_bytes(data)
    try:
        found = describe(place, seconds=20)
        assert table(found)
        if run:
            limits = {"threads": (1,), "rounds": 2, "seconds": 20}
            assert profile.table(profile.bench_tflite(place, **limits))
    except ValueError as error:
        assert "broken.tflite'" in str(error)
        return str(error)
    return ""


def test_the_whole_file_survives(whole, place):
    assert survives(whole, place, run=True) == ""


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("shape", ["smaller", "larger", "negative"])
def test_shapes_that_do_not_fit_their_values(shape, sparse, whole, place):
    file = FlatFile(whole)
    buffers = file.model.buffers
    held = [t for t in file.graphs[0].tensors if buffers[t.buffer].data is not None]
    tensor = next(t for t in held if (t.sparsity is not None) == sparse)
    size = {"smaller": 0, "larger": int(tensor.shape[0]) + 1, "negative": -1}[shape]
    tensor.shape = np.array([size, *tensor.shape[1:]], np.int32)
    place.write_bytes(file.to_bytes())
    if sparse and shape == "larger":  # it holds some of its values anyway
        assert describe(place, seconds=20)
        return
    fits = r"must have -?\d+ values"
    reason = fits if shape == "smaller" else rf"{fits}|This is not a .tflite"
    with pytest.raises(ValueError, match=reason):
        describe(place, seconds=20)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.003, 0.05, 0.2, 0.5, 0.8, 0.95, 0.999])
def test_truncated(part, whole, place):
    assert "not a" in survives(whole[: int(part * len(whole))], place, run=True)


@pytest.mark.parametrize(
    "data",
    [b"", b"TFL3", b"just text, and more than eight bytes of it", b"\xff" * 64, b"\0" * 4096],
    ids=["empty", "mark", "text", "ones", "zeros"],
)
def test_no_tflite_file(data, place):
    assert "This is not a .tflite file" in survives(data, place, run=True)


def test_the_mark_alone(place):
    assert "that this LiteRT can load: The model is not" in survives(
        b"\x10\0\0\0TFL3" + b"\xff" * 56, place, run=True
    )


@settings(max_examples=10)
@given(flips=FLIPS)
def test_flipped_bits(flips, whole, tmp_path_factory):
    place = tmp_path_factory.mktemp("flip") / "broken.tflite"
    survives(flipped(whole, flips), place, run=False)


@pytest.mark.slow
@settings(max_examples=150)
@given(flips=FLIPS, kept=st.integers(0, 40))
def test_flipped_bits_in_files_that_run(flips, kept, whole, tmp_path_factory):
    place = tmp_path_factory.mktemp("flip") / "broken.tflite"
    data = whole if kept else whole[: flips[0][0] % len(whole)]
    survives(flipped(data, flips) if data else data, place, run=True)


def test_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.tflite")
    for name in ("absent.tflite", "", "pipe.tflite"):
        for ask in (describe, profile.bench_tflite):
            with pytest.raises(FileNotFoundError, match="There is no file"):
                ask(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("os.abort()", "by SIGABRT; it is damaged"),
        ("os.kill(os.getpid(), 11)", "by SIGSEGV; it is damaged"),
        ("os._exit(3)", "with status 3"),
        ("print('word', flush=True); os._exit(3)", "with status 3: word"),
        (
            "print(*'abcdef', sep=chr(10), flush=True); os._exit(3)",
            "with status 3: e f$",  # the last lines alone
        ),
        ("time.sleep(60)", "busy for more than 2 s"),
        ("bytearray(3 << 30)", "asks for more than 1 GiB of memory"),
        ("raise ValueError('no')", "broken.tflite': no"),
        ("return [][1]", r"do not fit together.*IndexError"),
        ("return {}[1]", r"do not fit together.*KeyError"),
    ],
)
def test_what_a_file_can_do_to_the_process(text, message, place, tmp_path):
    place.write_bytes(b"x")
    with pytest.raises(ValueError, match=message) as caught:
        child.ask(job(tmp_path, text), place, seconds=2, memory=GIB)
    assert "broken.tflite'" in str(caught.value)


def test_what_the_process_prints_is_limited(place, tmp_path):
    place.write_bytes(b"x")
    endless = "\n    ".join(["while True:", "    os.write(1, b'x' * 2**20)"])
    with pytest.raises(ValueError, match=r"broken\.tflite.*too large") as caught:
        child.ask(job(tmp_path, endless), place, seconds=20, memory=GIB)
    assert len(str(caught.value)) < 5000


def test_the_process_is_bare_and_leaves_nothing(place, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    place.write_bytes(b"x")
    scripts = (_CONTENTS, profile._LATENCY, profile._PROFILER)
    text = f"[runpy.run_path(s) for s in {list(map(str, scripts))}]; return list(sys.modules)"
    loaded = child.ask(job(tmp_path, text), place, seconds=60, memory=4 * GIB)
    assert "numpy" in loaded and not {"tfprune", "tensorflow", "keras"} & set(loaded)
    assert "tfprune" in sys.modules
    assert sorted(os.listdir(tmp_path)) == ["broken.tflite", "job.py"]
