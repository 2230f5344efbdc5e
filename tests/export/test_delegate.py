"""The LiteRT delegate: it takes over sparse convolutions, gives the same, and refuses damage."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import processes
import pytest
from export.test_smallest import NETS, graphs, inputs_of, zeros
from hypothesis import Phase, given, settings

from tfprune.export import ExportError, Verification, export_tflite, predict_tflite
from tfprune.export.flatbuffer.file import FlatFile
from tfprune.export.storage import STORAGES
from tfprune.export.targets import registry
from tfprune.export.verify import delegate
from tfprune.export.verify.runtime import Runner
from tfprune.export.view import view_of
from tfprune.ops import NativeUnavailableError

L = keras.layers
STORED = ("float32", "float16", "int8")
built = pytest.mark.skipif(not delegate._LIBRARY.exists(), reason="built without the delegate")


def written(model, storage="float32", target="smallest"):
    """The file's bytes, which other tests hold against Keras."""
    kind = registry.find_target(target)
    return kind.build(view_of(model), STORAGES[storage], []).data


def batch_of(runner, shape, seed=0):
    (name,) = runner.inputs
    return {name: np.random.default_rng(seed).normal(size=shape).astype("float32")}


def hold(data, *shapes, threads=1):
    """The same with the delegate as without, for inputs of these shapes; how much was claimed."""
    plain, fast = Runner(data), Runner(data, threads=threads, delegate=True)
    for shape in shapes:
        batch = batch_of(plain, shape)
        for _ in range(2):  # the second time with everything in place
            wanted, got = plain(batch), fast(batch)
            for name in wanted:
                assert got[name].shape == wanted[name].shape
                scale = np.abs(wanted[name]).max(initial=0.0)
                assert np.abs(got[name] - wanted[name]).max(initial=0.0) <= 1e-5 * scale
    return delegate.claimed(fast.delegates[0])


# 5x5 banks lose precision in float16 and int8: then the sparse 1x1 convolution alone is taken.
# Small kernels are not stored in rows.
CLAIMED = {
    ("lenet", True): (3, 3, 2),
    ("lenet", False): (4, 4, 3),
    ("residual", True): (7, 7, 6),
    ("residual", False): (7, 7, 7),
    ("wide", True): (3, 3, 3),
}


@built
@pytest.mark.parametrize(
    ("name", "dct", "storage"),
    [(*key, storage) for key in CLAIMED for storage in STORED if key[1] or storage == "float32"],
)
def test_nets_give_the_same(name, dct, storage):
    model = zeros(NETS[name](), density=0.02 if name == "wide" else 0.1, dct=dct)
    batches = (1,) if name == "lenet" else (1, 5, 2)  # its reshape holds the batch
    found = hold(written(model, storage), *((n, *model.input_shape[1:]) for n in batches))
    assert found == CLAIMED[name, dct][STORED.index(storage)]


@built
@pytest.mark.parametrize("name", NETS)
def test_dense_files_are_left_alone(name):
    model = zeros(NETS[name](), dct=False)
    data = written(model, target="dense")
    assert hold(data, (1, *model.input_shape[1:])) == 0
    full = written(zeros(model, density=0.9))
    assert hold(full, (1, *model.input_shape[1:])) == 0


def strided(kernel, stride, padding):
    """Open sizes, so that images of one size follow those of another."""
    inputs = keras.Input((None, None, 20))
    width = 24 if kernel < 5 else 96  # with which a bank pays
    x = L.Conv2D(width, kernel, stride, padding=padding, activation="relu")(inputs)
    return keras.Model(inputs, L.Conv2D(32, 3, padding=padding)(x))


@built
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dct"),
    [
        (3, 1, "same", True),
        (3, 2, "same", False),
        (3, 2, "valid", True),
        (5, 2, "same", True),
        (5, 2, "valid", False),
        (2, 3, "same", False),
        (2, 3, "valid", True),
        (1, 2, "valid", True),
    ],
)
def test_images_of_other_sizes_follow(kernel, stride, padding, dct):
    data = written(zeros(strided(kernel, stride, padding), dct=dct))
    sizes = [(1, 17, 18), (3, 18, 17), (1, 19, 16), (2, 17, 18)]
    assert hold(data, *((*size, 20) for size in sizes), threads=2) == 2


@built
@pytest.mark.parametrize("activation", ["linear", "relu", "relu6"])
def test_activations_and_layers_without_bias(activation):
    inputs = keras.Input((9, 9, 30))
    x = L.Conv2D(30, 3, activation=activation, use_bias=False)(inputs)
    x = L.Dense(60, activation=activation, use_bias=False)(L.Flatten()(x))
    model = zeros(keras.Model(inputs, L.Dense(90, activation=activation)(x)), density=0.08)
    for layer in model.layers[1:]:
        if layer.weights:
            layer.kernel.assign(layer.kernel * 3)  # so that 6 is passed
    assert hold(written(model), (1, 9, 9, 30)) == 3


@built
def test_dense_layers_of_many_vectors():
    inputs = keras.Input((5, 7, 64))
    model = zeros(keras.Model(inputs, L.Dense(96, activation="relu")(inputs)), density=0.05)
    assert hold(written(model), (1, 5, 7, 64), (4, 5, 7, 64)) == 1


@built
def test_files_on_disk_and_other_interpreters(tmp_path):
    import tensorflow as tf

    model = zeros(NETS["residual"]())
    x = inputs_of(model)
    export_tflite(
        model, tmp_path / "s.tflite", target="smallest", verification=Verification(samples=x)
    )
    wanted = predict_tflite(tmp_path / "s.tflite", x)
    got = predict_tflite(tmp_path / "s.tflite", x, delegate=True, threads=2)
    np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())
    loaded = tf.lite.experimental.load_delegate(str(delegate.library_path()))
    other = tf.lite.Interpreter(str(tmp_path / "s.tflite"), experimental_delegates=[loaded])
    other.allocate_tensors()
    other.set_tensor(other.get_input_details()[0]["index"], x[:1])
    other.invoke()
    got = other.get_tensor(other.get_output_details()[0]["index"])
    np.testing.assert_allclose(got, wanted[:1], atol=1e-5 * np.abs(wanted).max())


@built
def test_weights_that_nothing_reads_take_no_memory():
    from ai_edge_litert import interpreter as litert

    model = zeros(keras.Sequential([keras.Input((9, 9, 64)), L.Conv2D(64, 3, padding="same")]))
    data = written(model, "int8")
    kinds = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    found = litert.Interpreter(
        model_content=data,
        experimental_delegates=[delegate.load_delegate()],
        experimental_op_resolver_type=kinds,
    )
    found.allocate_tensors()
    large = [d for d in found.get_tensor_details() if np.prod(d["shape"]) == 64 * 64 * 9]
    assert large and all(d["dtype"] == np.int8 for d in large)  # as the file holds them


@built
def test_interpreters_on_several_threads_share_a_delegate():
    from ai_edge_litert import interpreter as litert

    model = zeros(NETS["residual"]())
    data, x = written(model), inputs_of(model, 1)
    shared = delegate.load_delegate(threads=2)
    (wanted,) = Runner(data)({"input_0": x}).values()

    def run(_):
        one = litert.Interpreter(model_content=data, experimental_delegates=[shared])
        one.allocate_tensors()
        results = []
        for _ in range(20):
            one.set_tensor(one.get_input_details()[0]["index"], x)
            one.invoke()
            results.append(one.get_tensor(one.get_output_details()[0]["index"]))
        return results

    with ThreadPoolExecutor(4) as pool:
        found = [y for results in pool.map(run, range(4)) for y in results]
    assert all(np.abs(y - wanted).max() <= 1e-5 * np.abs(wanted).max() for y in found)
    assert delegate.claimed(shared) == 4 * 7


def conv_file(storage="float32", width=48):
    layers = [keras.Input((8, 8, 24)), L.Conv2D(width, 3, padding="same"), L.ReLU()]
    return FlatFile(written(zeros(keras.Sequential(layers)), storage))


def the_op(file, kind):
    (found,) = [op for op in file.graphs[0].operators if file.kind(op) == kind]
    return found


@built
def test_a_bank_whose_waves_are_an_output_too_stays():
    inputs = x = keras.Input((8, 8, 24))
    for _ in range(2):
        x = L.Conv2D(24, 3, padding="same", activation="relu")(x)
    file = FlatFile(written(zeros(keras.Model(inputs, x))))
    assert hold(file.to_bytes(), (1, 8, 8, 24)) == 2
    graph = file.graphs[0]
    first, second = (op for op in graph.operators if file.kind(op) == "DEPTHWISE_CONV_2D")
    assert int(first.inputs[1]) == int(second.inputs[1])  # so that the bank has other readers
    entry = file.schema.TensorMapT()
    entry.name, entry.tensorIndex = b"waves", int(second.outputs[0])
    graph.outputs = np.array([*graph.outputs, entry.tensorIndex], np.int32)
    file.model.signatureDefs[0].outputs.append(entry)
    assert hold(file.to_bytes(), (1, 8, 8, 24), (5, 8, 8, 24)) == 2  # of one the 1x1 alone


@built
@pytest.mark.parametrize("places", [[0], [40, 41], slice(0, 216, 9)])
def test_a_bank_of_other_filters_stays(places):
    file = conv_file()
    number = int(the_op(file, "DEPTHWISE_CONV_2D").inputs[1])
    (unpack,) = [op for op in file.graphs[0].operators if int(op.outputs[0]) == number]
    buffer = file.model.buffers[file.graphs[0].tensors[int(unpack.inputs[0])].buffer]
    bank = np.array(buffer.data).view(np.int8)
    bank[places] += 1
    buffer.data = bank.view(np.uint8)
    assert hold(file.to_bytes(), (1, 8, 8, 24)) == 1


@built
def test_a_bank_with_a_filter_twice_stays():
    file = conv_file()
    number = int(the_op(file, "DEPTHWISE_CONV_2D").inputs[1])
    (unpack,) = [op for op in file.graphs[0].operators if int(op.outputs[0]) == number]
    buffer = file.model.buffers[file.graphs[0].tensors[int(unpack.inputs[0])].buffer]
    bank = np.array(buffer.data).reshape(-1, 9)
    bank[:, 4] = bank[:, 3]
    buffer.data = bank.reshape(-1)
    assert hold(file.to_bytes(), (1, 8, 8, 24)) == 1


DAMAGE = {
    "index past the row": lambda rows: rows.indices.__setitem__(0, rows.columns),
    "index far away": lambda rows: rows.indices.__setitem__(-1, 2**31 - 1),
    "negative index": lambda rows: rows.indices.__setitem__(0, -1),
    "repeated index": lambda rows: rows.indices.__setitem__(1, rows.indices[0]),
    "falling splits": lambda rows: rows.splits.__setitem__(1, rows.splits[2] + 1),
    "splits that overlap": lambda rows: rows.overlap(),
    "negative split": lambda rows: rows.splits.__setitem__(1, -7),
    "splits start late": lambda rows: rows.splits.__setitem__(0, 1),
    "splits end late": lambda rows: rows.splits.__setitem__(-1, 10**6),
    "too few splits": lambda rows: rows.shorten("splits"),
    "too few indices": lambda rows: rows.shorten("indices"),
    "no splits": lambda rows: setattr(rows, "splits", rows.splits[:0]),
    "an axis that is not there": lambda rows: rows.reorder(9),
    "an axis twice": lambda rows: rows.reorder(1),
    "an axis too few": lambda rows: rows.sparsity.dimMetadata.pop(),
    "another size": lambda rows: setattr(rows.sparsity.dimMetadata[0], "denseSize", 10**6),
    "too few values": lambda rows: setattr(rows.buffer, "data", rows.buffer.data[:16]),
}


class Rows:
    """The sparse tensor of a file, with indices that any number fits in."""

    def __init__(self, file):
        self.file = file
        (tensor,) = [t for t in file.graphs[0].tensors if t.sparsity is not None]
        self.sparsity, self.buffer = tensor.sparsity, file.model.buffers[tensor.buffer]
        self.columns = int(tensor.shape[-1])
        self.last = self.sparsity.dimMetadata[-1]
        self.splits = np.array(self.last.arraySegments.values, np.int32)
        self.indices = np.array(self.last.arrayIndices.values, np.int32)

    def shorten(self, name):
        setattr(self, name, getattr(self, name)[:-1])

    def overlap(self):
        """A row that falls back, with indices that grow all the same."""
        self.indices[: self.splits[3]] = np.arange(self.splits[3])
        self.splits[1:3] = 2, 1

    def reorder(self, first):
        order = [first, *self.sparsity.traversalOrder[1:]]
        self.sparsity.traversalOrder = np.array(order, np.int32)

    def to_bytes(self):
        schema = self.file.schema
        for name, values in (("arraySegments", self.splits), ("arrayIndices", self.indices)):
            vector = schema.Int32VectorT()
            vector.values = values
            setattr(self.last, name, vector)
            setattr(self.last, f"{name}Type", schema.SparseIndexVector.Int32Vector)
        return self.file.to_bytes()


LOAD = """
import sys
from pathlib import Path
from tfprune.export.verify.runtime import Runner
import numpy as np
for path in sys.argv[1:]:
    try:
        runner = Runner(Path(path).read_bytes(), delegate=True)
        runner({"input_0": np.ones((1, 8, 8, 24), "float32")})
        print(path, "ran")
    except ValueError as error:
        print(path, "refused:", error)
"""


def loaded_apart(paths):
    """What a process of its own says of files that might end it."""
    done = processes.run(LOAD, *paths)
    assert done.returncode == 0, (done.stdout[-500:], done.stderr[-2000:])
    return done.stdout.splitlines()


@built
def test_damaged_rows_are_refused(tmp_path):
    paths = [tmp_path / "good.tflite"]
    data = conv_file("int8").to_bytes()
    paths[0].write_bytes(Rows(FlatFile(data)).to_bytes())
    for number, damage in enumerate(DAMAGE.values()):
        rows = Rows(FlatFile(data))
        damage(rows)
        paths.append(tmp_path / f"{number}.tflite")
        paths[-1].write_bytes(rows.to_bytes())
    lines = loaded_apart(paths)
    assert lines[0].endswith("good.tflite ran") and len(lines) == len(paths)
    for name, line in zip(DAMAGE, lines[1:], strict=True):
        assert "sparse weights" in line and "are damaged" in line, (name, line)


def test_errors_name_what_helps(monkeypatch, tmp_path):
    for threads in (0, 257, 1.5, True):
        with pytest.raises(ValueError, match="`threads` must be a whole number, 1 to 256"):
            delegate.load_delegate(threads)
    monkeypatch.setattr(delegate, "_LIBRARY", tmp_path / "absent.so")
    with pytest.raises(NativeUnavailableError, match=r"was not built .* C\+\+ compiler"):
        delegate.load_delegate()
    (tmp_path / "absent.so").write_bytes(b"nothing")
    with pytest.raises(NativeUnavailableError, match="cannot be loaded"):
        delegate.load_delegate()
    monkeypatch.setenv("TFPRUNE_DISABLE_NATIVE", "1")
    with pytest.raises(NativeUnavailableError, match="TFPRUNE_DISABLE_NATIVE=1 is set"):
        Runner(b"", delegate=True)


@built
@pytest.mark.parametrize(("key", "value"), [("num_threads", "x"), ("verbose", 2), ("colour", 1)])
def test_options_are_checked(key, value):
    from ai_edge_litert import interpreter as litert

    with pytest.raises(ValueError, match=rf"takes num_threads .* Received: {key} = {value}"):
        litert.load_delegate(str(delegate.library_path()), {key: value})


@built
def test_kernels_are_chosen_as_for_the_ops(monkeypatch):
    monkeypatch.setenv("TFPRUNE_KERNEL", "fastest")
    with pytest.raises(ValueError, match=r"one of .*portable.* Received: 'fastest'"):
        delegate.load_delegate()
    for name in ("portable", "reference"):
        monkeypatch.setenv("TFPRUNE_KERNEL", name)
        assert hold(conv_file().to_bytes(), (2, 8, 8, 24)) == 1


@built
def test_it_tells_what_it_takes(capfd):
    from ai_edge_litert import interpreter as litert

    one = delegate.load_delegate(2, verbose=True)
    litert.Interpreter(model_content=conv_file().to_bytes(), experimental_delegates=[one])
    told = capfd.readouterr().err
    assert re.search(r"coefficients 3x3, 24 -> 48 channels, density 0\.(09|10)\d\d\n", told)
    assert "1 sparse convolutions run natively on 2 threads" in told


def held_share(examples):
    """The share of files of drawn graphs that are written, held to the runtime and to Keras."""
    outcomes = []

    @settings(max_examples=examples, phases=[Phase.generate])
    @given(model=graphs())
    def run(model):
        for storage in STORED:
            try:
                data = written(model, storage)
            except ExportError:
                outcomes.append(False)
                continue
            hold(data, (1, *model.input_shape[1:]))
            if storage == "float32":
                hold_to_keras(data, model)
            outcomes.append(True)

    run()
    return np.mean(outcomes)


def hold_to_keras(data, model):
    runner = Runner(data, delegate=True)
    batch = batch_of(runner, (1, *model.input_shape[1:]))
    (x,), (got,) = batch.values(), runner(batch).values()
    expected = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@built
def test_drawn_graphs():
    assert held_share(4) >= 0.5


@built
@pytest.mark.slow
def test_many_drawn_graphs():
    assert held_share(80) >= 0.5
