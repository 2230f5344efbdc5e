"""Verification on AArch64: how it is asked for, and that it sees what no run on a PC shows.

Most tests talk to this machine's Python in disguise; those marked `real` need a real one.
"""

from __future__ import annotations

import os
import shlex
import sys

import keras
import numpy as np
import pytest
from sparse_nets import MOBILE, blocks_of_zeros, inputs_of, wild, zeros

from tfprune.export import ExportError, Verification, export_tflite
from tfprune.export.flatbuffer import contents, pack
from tfprune.export.flatbuffer.file import FlatFile
from tfprune.export.storage import STORAGES, VALUES
from tfprune.export.targets import dense, smallest
from tfprune.export.verify import arm, compare, runtime
from tfprune.export.view import view_of
from tfprune.export.xnnpack.sparse_mode import Finding, check
from tfprune.shell import cli

L = keras.layers
DISGUISE = """
import os, platform, sys, time
platform.machine = lambda: sys.argv[1]
sys.path[0] = ""  # as `python -c` has it
code = sys.argv[sys.argv.index("-c") + 1]
serves = "Runner" in code
{extra}
exec(compile(code, "there", "exec"), {{"__name__": "there"}})
"""
SCALED = """
import numpy
save = numpy.savez
numpy.savez = lambda to, data, **rows: save(to, data=data, **{k: rows[k] * SCALE for k in rows})
"""

DIES_AT_THE_END = """
import atexit
if serves: atexit.register(lambda: (sys.stdout.flush(), os.kill(os.getpid(), 11)))
"""


@pytest.fixture
def fake(tmp_path_factory, monkeypatch):
    """A function that sets the environment to a disguised Python, and returns its command line."""

    def make(extra="", machine="aarch64"):
        script = tmp_path_factory.mktemp("arm") / "python there.py"
        script.write_text(DISGUISE.format(extra=extra))
        line = shlex.join([sys.executable, str(script), machine])
        monkeypatch.setenv(arm.VARIABLE, line)
        return line

    monkeypatch.delenv(arm.VARIABLE, raising=False)
    return make


def scaled(by):
    return SCALED.replace("SCALE", by)


def refused(model, folder, error, match, target="dense", **arguments):
    with pytest.raises(error, match=match):
        verification = Verification(arm=True, **arguments)
        export_tflite(model, folder / "m.tflite", target=target, verification=verification)
    assert not os.listdir(folder)


def test_says_how_many_samples_were_checked(fake, dense_model, tmp_path):
    line = fake()
    plain = export_tflite(dense_model, tmp_path / "m.tflite")
    assert plain.arm_samples_checked == 0 and "ARM" not in str(plain)
    found = export_tflite(dense_model, tmp_path / "m.tflite", verification=Verification(arm=True))
    assert found.arm_samples_checked == found.to_dict()["arm_samples_checked"] == arm.SAMPLES
    assert "8 of them on the reference kernels too, 4 on ARM" in str(found)
    x = np.ones((3, 6), "float32")
    given = Verification(samples=x, arm=True, arm_python=line)
    os.environ.pop(arm.VARIABLE)
    found = export_tflite(dense_model, tmp_path / "m.tflite", verification=given)
    assert found.arm_samples_checked == 3


def test_is_far_from_the_modules_here(fake, dense_model, tmp_path, monkeypatch):
    fake(extra="print('Welcome!', flush=True)")
    (tmp_path / "numpy.py").write_text("raise SystemExit('a module of this machine')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = export_tflite(dense_model, "m.tflite", verification=Verification(arm=True))
    assert found.arm_samples_checked == 4


@pytest.mark.parametrize("line", ["", "  "])
def test_nothing_is_set(line, fake, dense_model, tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "_save", lambda *_: pytest.fail("converted a bad request"))
    match = r"needs a Python on AArch64.*Set TFPRUNE_ARM_PYTHON.*tools/arm_root\.py"
    refused(dense_model, tmp_path, ValueError, match)
    refused(dense_model, tmp_path, ValueError, match, arm_python=line)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("/nowhere/qemu-aarch64 python", r"doesn't run: .*No such file.*Set TFPRUNE_ARM_PYTHON"),
        ("python 'open", r"doesn't run: No closing quotation.*Set"),
        ("false", r"must run a Python with ai-edge-litert"),
        ("echo", r"must run a Python with ai-edge-litert|must run on AArch64"),
        (f"{sys.executable} -c 'import nothing_there'", "No module named 'nothing_there'.*Set"),
    ],
)
def test_command_that_does_not_run(line, match, fake, dense_model, tmp_path):
    refused(dense_model, tmp_path, ValueError, match, arm_python=line)


def test_slow_start(fake, dense_model, tmp_path, monkeypatch):
    fake(extra="time.sleep(60)")
    monkeypatch.setattr(arm, "PROBE_SECONDS", 0.5)
    refused(dense_model, tmp_path, ValueError, r"doesn't run: .*timed out after 0\.5")


@pytest.mark.parametrize("machine", ["x86_64", "armv7l", ""])
def test_another_machine(machine, fake, dense_model, tmp_path):
    fake(machine=machine)
    match = f"must run on AArch64 .*'{machine}'|must run a Python with ai-edge-litert"
    refused(dense_model, tmp_path, ValueError, match)


@pytest.mark.parametrize(
    ("by", "match"),
    [
        ("1.01", "relative error 0.01.*4 samples"),
        ("float('nan')", "nan.*4 samples"),
        ("numpy.ones((1, 1, 1))", r"shape \(1, 1, 3\) in the file"),
    ],
)
def test_wrong_numbers(by, match, fake, dense_model, tmp_path):
    fake(extra=scaled(by))
    match = rf"not written, Keras and LiteRT on ARM disagree.*{match}.*target='dense'"
    refused(dense_model, tmp_path, ExportError, match)


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_sparse_files_agree_with_the_other_machine(storage, fake, conv_model, images, tmp_path):
    fake()
    found = export_tflite(
        conv_model,
        tmp_path / "m.tflite",
        target="smallest",
        storage=storage,
        verification=Verification(arm=True),
    )
    assert found.arm_samples_checked == 4


def test_rounded_weights_leave_no_room_between_machines(fake, dense_model, rng):
    view, storage = view_of(dense_model), VALUES["int8"]
    data = smallest.smallest(view, storage, []).data
    rows = [{view.inputs[0].name: rng.random((1, 6), "float32")} for _ in range(5)]
    expected = compare.run_keras(view, rows)
    fake()
    assert compare.verify(data, storage, rows, expected, arm.find_arm(None)).arm_samples == 4
    fake(extra=scaled("1.01"))
    with pytest.raises(ExportError, match=r"kernels here and LiteRT on ARM.*storage 'int8'"):
        compare.verify(data, storage, rows, expected, arm.find_arm(None))


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        ("if serves: os.abort()", "doesn't run on ARM: its process was ended by SIGABRT"),
        ("if serves: sys.exit('no such kernel')", "doesn't run on ARM: no such kernel"),
        ("if serves: sys.exit(0)", "doesn't run on ARM"),
        (DIES_AT_THE_END, "doesn't run on ARM: its process was ended by SIGSEGV"),
    ],
)
def test_file_that_does_not_run_there(extra, match, fake, dense_model, tmp_path):
    fake(extra=extra)
    refused(dense_model, tmp_path, ExportError, match)


def test_file_that_does_not_load_there(fake):
    fake()
    with pytest.raises(ExportError, match=r"ARM: This is not a \.tflite file that LiteRT can run"):
        arm.find_arm(None).run(b"x" * 99, [{"x": np.zeros((1, 6), "float32")}])


def test_run_without_end(fake, dense_model, tmp_path, monkeypatch):
    fake(extra="if serves: time.sleep(60)")
    monkeypatch.setattr(arm, "RUN_SECONDS", 0.5)
    refused(dense_model, tmp_path, ExportError, r"did not end on ARM within 0\.5 s")


def test_from_the_shell(fake, dense_model, tmp_path, capsys, monkeypatch):
    dense_model.save(tmp_path / "m.keras")
    command = ["export", str(tmp_path / "m.keras"), str(tmp_path / "m.tflite"), "--verify-arm"]
    fake()
    assert cli.main(command) == 0
    assert "4 on ARM" in capsys.readouterr().out
    (tmp_path / "m.tflite").unlink()
    monkeypatch.delenv(arm.VARIABLE)
    assert cli.main(command) == 2
    assert "Set TFPRUNE_ARM_PYTHON" in capsys.readouterr().err
    assert not (tmp_path / "m.tflite").exists()


def test_rows_survive_the_way():
    row = {
        "a b/c:0": np.arange(6, dtype="int8").reshape(2, 3),
        "file": np.array(2.5, "float32"),
        "data": np.zeros((0, 2), "bool"),
    }
    data, rows = runtime.from_bytes(runtime.to_bytes(b"file", [row] * 12))
    assert data == b"file" and len(rows) == 12
    for found in rows:
        assert list(found) == list(row)
        for name, value in row.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)
    assert runtime.from_bytes(runtime.to_bytes(b"", [])) == (b"", [])


LINE = os.environ.get(arm.VARIABLE, "")
real = [
    pytest.mark.slow,
    pytest.mark.skipif(not LINE, reason=f"{arm.VARIABLE} is not set: tools/arm_root.py prints it"),
]


def head(x, channels=32):
    """What the sparse mode can compute: a sparse 1x1 convolution, and a global mean."""
    x = L.Conv2D(channels, 1, activation="relu")(x)
    return L.GlobalAveragePooling2D()(x)


def shared_pad(x):
    padded = L.ZeroPadding2D(1)(x)
    two = [L.DepthwiseConv2D(3, strides=2, use_bias=False)(padded) for _ in range(2)]
    return L.Add()([L.Conv2D(32, 1)(y) for y in two])


MIDDLES = {
    "all fits": lambda x: L.DepthwiseConv2D(3, padding="same")(x),
    "3x3 in the middle": lambda x: L.Conv2D(32, 3, padding="same", activation="relu")(x),
    "1x1 of stride 2": lambda x: L.Conv2D(32, 1, strides=2, activation="relu")(x),
    "mean over windows": lambda x: L.AveragePooling2D(2)(x),
    "largest of windows": lambda x: L.MaxPooling2D()(x),
    "batch normalization by itself": lambda x: L.BatchNormalization()(L.Activation("tanh")(x)),
    "PReLU": lambda x: L.PReLU(shared_axes=[1, 2])(L.Conv2D(32, 1)(x)),
    "two filters a channel": lambda x: L.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x),
    "depthwise of stride 2, same": lambda x: L.DepthwiseConv2D(3, 2, padding="same")(x),
    "depthwise 5x5 of stride 2, same": lambda x: L.DepthwiseConv2D(5, 2, padding="same")(x),
    "one padding for two": shared_pad,
}


def sparse_net(middle, density=0.1):
    """A net that opens the sparse mode, then `middle`, then what the sparse mode can compute."""
    inputs = keras.Input((32, 32, 3))
    x = L.Conv2D(16, 3, strides=2, activation="relu")(L.ZeroPadding2D(1)(inputs))
    x = L.Conv2D(32, 1, activation="relu")(x)
    if middle == "an output in the middle":
        model = keras.Model(inputs, [x, head(x)])
    else:
        model = keras.Model(inputs, head(MIDDLES[middle](x)))
    rng = np.random.default_rng(3)
    for layer in model.layers:
        for weight in layer.weights:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape) * rng.choice([-1, 1], weight.shape))
        if isinstance(layer, L.BatchNormalization):
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
        elif isinstance(layer, L.Conv2D):
            kept = rng.random(layer.kernel.shape) < (density if layer.kernel.shape[0] == 1 else 1)
            layer.kernel.assign(layer.kernel * kept * (layer.kernel.shape[-2] * density) ** -0.5)
    return model


def sparse_bytes(model):
    """The file with sparse weights that export would refuse to write."""
    plain = dense.dense(view_of(model), STORAGES["float32"], []).data
    assert check(plain).entries
    data = pack.store(FlatFile(plain), "float32")
    assert "DENSIFY" in contents.op_counts(data)
    return data


def rows_and_outputs(model, count=2):
    view = view_of(model)
    x = np.random.default_rng(4).normal(size=(count, 1, *model.input_shape[1:])).astype("float32")
    rows = [{view.inputs[0].name: sample} for sample in x]
    return rows, compare.run_keras(view, rows)


class TestReal:
    pytestmark = real

    def test_it_is_what_it_says(self):
        assert arm.find_arm(None).command[0] == shlex.split(LINE)[0]

    @pytest.mark.parametrize("storage", ["float32", "int8"])
    @pytest.mark.parametrize("target", ["dense", "smallest"])
    def test_files_agree(self, target, storage, conv_model, images, tmp_path):
        data = images if (target, storage) == ("dense", "int8") else None
        found = export_tflite(
            conv_model,
            tmp_path / "m.tflite",
            target=target,
            storage=storage,
            representative_data=data,
            verification=Verification(samples=images, arm=True),
        )
        assert found.arm_samples_checked == arm.SAMPLES

    @pytest.mark.parametrize("middle", [*MIDDLES, "an output in the middle"])
    def test_what_only_arm_computes_wrongly(self, middle, monkeypatch):
        model = sparse_net(middle)
        data, (rows, expected) = sparse_bytes(model), rows_and_outputs(model)
        assert bool(check(data).violations) == (middle != "all fits")
        assert compare.verify(data, STORAGES["float32"], rows, expected).worst.max_error < 1e-4
        there = arm.find_arm(None)
        outputs = there.run(data, rows)
        monkeypatch.setattr(arm.Arm, "run", lambda *_: outputs)  # which is slow
        error = compare.compare(expected, outputs).max_error
        print(f"{middle}: {error:.3g}")
        if middle == "all fits":
            assert compare.verify(data, STORAGES["float32"], rows, expected, there).arm_samples == 2
            return
        assert error > 0.02
        with pytest.raises(ExportError, match="Keras and LiteRT on ARM disagree"):
            compare.verify(data, STORAGES["float32"], rows, expected, there)

    @pytest.mark.parametrize("storage", ["float32", "int8"])
    @pytest.mark.parametrize("name", MOBILE)
    def test_the_form_for_phones(self, name, storage, tmp_path):
        model = zeros(MOBILE[name]())
        found = export_tflite(
            *(model, tmp_path / "m.tflite"),
            target="mobile-sparse",
            storage=storage,
            verification=Verification(samples=inputs_of(model), arm=True),
        )
        assert found.arm_samples_checked == arm.SAMPLES

    @pytest.mark.parametrize("dct", [True, False])
    def test_blocks(self, dct, tmp_path):
        model = blocks_of_zeros(wild(), dct=dct)
        found = export_tflite(
            *(model, tmp_path / "m.tflite"),
            target="mobile-sparse-block",
            verification=Verification(samples=inputs_of(model), arm=True),
        )
        assert found.arm_samples_checked == arm.SAMPLES

    @pytest.mark.parametrize(
        ("more", "match"),
        [
            ([], r"LiteRT on ARM disagree: .*shape \(1, 32, 1, 1\) in the file"),
            ([L.Conv2D(8, 1, name="more")], "doesn't run on ARM: .*failed to reshape runtime"),
        ],
    )
    def test_mean_that_keeps_its_axes(self, more, match):
        fits = sparse_net("all fits")
        x = L.GlobalAveragePooling2D(keepdims=True)(fits.layers[-2].output)
        for layer in more:
            x = layer(x)
        model = keras.Model(fits.inputs, x)
        data, (rows, expected) = sparse_bytes(model), rows_and_outputs(model)
        compare.verify(data, STORAGES["float32"], rows, expected)
        with pytest.raises(ExportError, match=match) as caught:
            compare.verify(data, STORAGES["float32"], rows, expected, arm.find_arm(None))
        print(caught.value)

    def test_export_writes_no_such_file(self, tmp_path, monkeypatch):
        monkeypatch.setattr(smallest.sparse_mode, "check", lambda data: Finding((), (), 0.0))
        model = sparse_net("mean over windows")
        refused(model, tmp_path, ExportError, "LiteRT on ARM disagree", target="smallest")
