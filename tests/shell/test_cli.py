"""The shell command: what it prints and writes, exit codes, and one-line errors."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L

import tfprune
from tfprune.shell import workflow
from tfprune.shell.cli import main, single_line


def classifier() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6,), name="x"),
            L.Dense(16, activation="relu", name="fc1"),
            L.Dense(3, activation="softmax", name="fc2"),
        ]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and data that it can learn."""
    folder = tmp_path_factory.mktemp("cli")
    keras.utils.set_random_seed(0)
    classifier().save(folder / "model.keras")
    x = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")
    np.savez(folder / "data.npz", x=x, y=np.argmax(x[:, :3], axis=1))
    return folder


def fails(capfd: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """Run a command that must fail; return its one line on stderr."""
    capfd.readouterr()
    assert main([str(a) for a in arguments]) == code
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("tfprune: ")]
    assert len(lines) == 1
    assert "Traceback" not in out + err
    return lines[0].removeprefix("tfprune: error: ")


def result(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    """Run a command with --json; stdout must be one JSON document."""
    capsys.readouterr()
    assert main([*(str(a) for a in arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_bench(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = keras.Sequential([keras.Input((8, 8, 4)), L.Conv2D(8, 3, name="a"), L.ReLU()])
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 8))
    kernel[np.abs(kernel) < 1.5] = 0
    model.get_layer("a").set_weights([kernel, np.zeros(8)])
    model.save(tmp_path / "conv.keras")
    options = ("bench", tmp_path / "conv.keras", "--rounds", 3, "--threads", "1")
    found = result(capsys, *options)
    (run,) = found["runs"]
    assert run["threads"] == 1 and run["dense_ms"] > 0 and run["compact_ms"] > 0
    (layer,) = run["layers"]
    assert layer["name"] == "a" and layer["absorbed"] and layer["density"] < 0.3
    assert main([str(option) for option in options]) == 0
    assert "whole model, batch 1: dense" in capsys.readouterr().out


@pytest.fixture(scope="module")
def lite(folder: Path) -> Path:
    """The model as a `.tflite` file."""
    assert main(["export", str(folder / "model.keras"), str(folder / "model.tflite")]) == 0
    return folder / "model.tflite"


def test_bench_tflite(lite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("bench", lite, "--rounds", 3, "--threads", "1")
    found = result(capsys, *options)
    assert found["model"] == str(lite) and found["bytes"] == lite.stat().st_size
    assert found["batch"] == 1 and found["ops"]["FULLY_CONNECTED"] == 2
    (run,) = found["runs"]
    assert run["threads"] == 1 and run["rounds"] == 3 and run["ms"] > 0
    assert main([str(option) for option in options]) == 0
    printed = capsys.readouterr().out
    assert "FULLY_CONNECTED x2" in printed and "1 thread, batch 1: " in printed


def test_report_tflite(lite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, "report", lite)
    shapes = {tuple(tensor["shape"]): tensor["density"] for tensor in found["tensors"]}
    assert shapes == {(16, 6): 1, (3, 16): 1}
    assert main(["report", str(lite)]) == 0
    printed = capsys.readouterr().out
    assert f"{lite.stat().st_size:,} bytes" in printed and "16x6" in printed


def test_bad_tflite_files(lite: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad, whole = tmp_path / "bad.tflite", lite.read_bytes()
    (tmp_path / "folder.tflite").mkdir()
    for command in ("bench", "report"):
        for absent in (bad, tmp_path / "folder.tflite"):
            assert "There is no file" in fails(capfd, 2, command, absent)
        for damaged in (b"", b"just text", whole[:7], whole[:1000], whole[:-30]):
            bad.write_bytes(damaged)
            assert "bad.tflite': This is not a" in fails(capfd, 2, command, bad)
        bad.unlink()
    line = fails(capfd, 2, "bench", lite, "--batch-size", 3)
    assert "batch [1] is built into this file" in line
    for option in (("--html", "r.html"), ("--plot", "r.png"), ("--before", lite)):
        line = fails(capfd, 2, "report", lite, *option)
        assert line == f"{option[0]} is for `.keras` files only."
    assert "for `.keras` files" in fails(capfd, 2, "report", lite, "--input-shape", "3,4")


def test_synaptic_strength_and_shrinking(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = keras.Sequential(
        [keras.Input((6,)), *(L.Dense(24, activation="relu") for _ in range(3)), L.Dense(3)]
    )
    deep.save(tmp_path / "deep.keras")
    small = tmp_path / "small.keras"
    options = ("--method", "synaptic", "--data", folder / "data.npz", "--epochs", 4, "--shrink")
    found = result(
        capsys, "prune", tmp_path / "deep.keras", "--out", small, "--sparsity", 0.97, *options
    )
    assert found["layers"][1]["density"] < 0.1
    model = keras.models.load_model(small)
    assert not tfprune.is_pruned(model) and model.count_params() < deep.count_params()


def test_prune_report_export(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = folder / "model.keras", folder / "data.npz"
    small, lite = tmp_path / "small.keras", tmp_path / "small.tflite"
    options = ("--sparsity", 0.5, "--data", data, "--epochs", 10, "--learning-rate", 0.02)
    found = result(capsys, "prune", model, "--out", small, *options)
    assert found["path"] == str(small)
    assert found["after"]["accuracy"] > 0.6
    assert [row["asked_sparsity"] for row in found["layers"]] == [0.5, 0.5]
    assert found["kernel_nonzero"] <= 0.6 * found["kernel_parameters"]
    assert tfprune.is_pruned(tfprune.load_model(small))

    numbers = result(capsys, "report", small, "--html", tmp_path / "r.html")
    assert numbers["nonzero"] == found["nonzero"]
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")

    picture = tmp_path / "r.png"
    result(capsys, "report", small, "--plot", picture, "--what", "density", "--before", model)
    assert picture.read_bytes().startswith(b"\x89PNG")

    exported = result(capsys, "export", small, lite, "--storage", "int8", "--representative", data)
    assert exported["bytes"] == lite.stat().st_size
    assert exported["storage"] == "int8"
    assert exported["data_source"] == "representative_data"
    smallest = result(capsys, "export", small, lite, "--target", "smallest", "--storage", "float16")
    assert smallest["bytes"] == lite.stat().st_size and smallest["layers"]


def test_magnitude_to_a_stripped_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plain.keras"
    arguments = ["prune", folder / "model.keras", "--out", out, "--method", "magnitude", "--strip"]
    arguments += ["--data", folder / "data.npz", "--epochs", 2, "--sparsity", 0.75]
    assert main([str(a) for a in arguments]) == 0
    printed = capsys.readouterr().out
    assert "test accuracy:" in printed
    assert "compression_weights (prunable kernels only)" in printed
    plain = tfprune.load_model(out)
    assert not tfprune.is_pruned(plain)
    assert np.count_nonzero(plain.get_layer("fc1").kernel) == 24
    again = tmp_path / "again.keras"
    arguments[1:4] = [out, "--out", again]
    assert main([str(a) for a in arguments]) == 0


@pytest.mark.parametrize("name", workflow.METHODS)
def test_every_method_of_the_shell(name: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.keras"
    arguments = ["prune", folder / "model.keras", "--out", out, "--method", name, "--epochs", 2]
    assert main([str(a) for a in (*arguments, "--data", folder / "data.npz")]) == 0
    for _, layer in tfprune.pruned.layers.pruned_layers(tfprune.load_model(out)):
        assert type(layer.prune_state.method).__name__ == workflow.METHODS[name][1]
        assert layer.prune_state.sparsity() > 0.8


def test_report_on_stdout(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder / "model.keras")]) == 0
    text = capsys.readouterr().out
    assert "fc1" in text
    assert "theoretical_speedup" in text


@pytest.mark.parametrize("command", ["demo", "prune", "report", "export", "bench"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--json" in shown
    assert command != "prune" or "with --method synaptic, of the net's connections" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["prune", "m.keras"], "required: --out"),
        (["prune", "m.keras", "--out", "o.keras", "--sparsity", "90"], "fraction in [0, 1)"),
        (["prune", "m.keras", "--out", "o.keras", "--sparsity", "x"], "invalid fraction"),
        (["prune", "m.keras", "--out", "o.keras", "--sparsity", "nan"], "fraction in [0, 1)"),
        (["prune", "m.keras", "--out", "o.keras", "--epochs", "0"], "at least 1"),
        (["prune", "m.keras", "--out", "o.keras", "--method", "magic"], "invalid choice"),
        (["prune", "m.keras", "--out", "o.keras", "--seed", "-1"], "2**32"),
        (["demo", "--data", "cifar"], "invalid choice: 'cifar'"),
        (["export", "m.keras", "o.tflite", "--storage", "int4"], "invalid choice: 'int4'"),
        (["report", "m.keras", "--input-shape", "3,-1"], "at least 1"),
    ],
)
def test_bad_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_bad_models(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.keras"
    assert "There is no file" in fails(capfd, 2, "report", bad)
    whole = (folder / "model.keras").read_bytes()
    for damaged in (b"", b"text", whole[:1000], whole[:-30]):
        bad.write_bytes(damaged)
        assert "bad.keras' is not a whole `.keras` file" in fails(capfd, 2, "report", bad)
    (tmp_path / "model.h5").write_bytes(whole)
    assert "`.keras` file" in fails(capfd, 2, "report", tmp_path / "model.h5")
    assert "There is no file" in fails(capfd, 2, "report", tmp_path)


@pytest.mark.parametrize("edit", ["config", "class", "weights", "member"])
def test_edited_models(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], edit: str
) -> None:
    bad = tmp_path / "edited.keras"
    with zipfile.ZipFile(folder / "model.keras") as old, zipfile.ZipFile(bad, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json" and edit == "config":
                data = data[:-40]
            if name == "config.json" and edit == "class":
                data = data.replace(b'"Dense"', b'"Sense"')
            if name.endswith(".h5") and edit == "weights":
                data = data[:2000]
            if not (edit == "member" and name.endswith(".h5")):
                new.writestr(name, data)
    assert "edited.keras' cannot be loaded" in fails(capfd, 2, "report", bad)


def test_data_that_does_not_fit(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, out = folder / "model.keras", tmp_path / "o.keras"
    np.savez(tmp_path / "wide.npz", x=np.ones((20, 7)), y=np.zeros(20, int))
    np.savez(tmp_path / "many.npz", x=np.ones((20, 6)), y=np.arange(20))
    for name, message in (
        ("wide.npz", "The model takes inputs (None, 6); the data 'wide.npz' has (None, 7)"),
        ("many.npz", "classes"),
        ("none.npz", "There is no file"),
        ("digits.csv", "must be 'digits', 'mnist', 'cifar10' or the path of a .npz file"),
    ):
        where = ("--data", tmp_path / name, "--out", out)
        assert message in fails(capfd, 2, "prune", model, *where)
    assert not out.exists()


def test_places_that_cannot_be_written(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = folder / "model.keras"
    for arguments, message in (
        (("prune", model, "--out", tmp_path / "o.h5"), "must end in .keras"),
        (("prune", model, "--out", tmp_path / "no" / "o.keras"), "does not exist"),
        (("export", model, tmp_path / "o.bin"), "must end in .tflite"),
        (("report", model, "--plot", tmp_path / "o.txt"), "must end in .png"),
        (("report", model, "--html", tmp_path / "o.txt"), "must end in .html"),
    ):
        assert message in fails(capfd, 2, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_export_refusals(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, out = folder / "model.keras", tmp_path / "o.tflite"
    assert "representative" in fails(capfd, 2, "export", model, out, "--storage", "int8")
    np.savez(tmp_path / "two.npz", a=np.ones((3, 6)), b=np.ones((3, 6)))
    line = fails(capfd, 2, "export", model, out, "--representative", tmp_path / "two.npz")
    assert "Received: ['a', 'b']" in line
    assert not out.exists()


def test_failures_are_not_bad_input(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: BaseException) -> None:
        def broken(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(tfprune, "report", broken)

    fail(OSError("disk full"))
    assert fails(capfd, 1, "report", folder / "model.keras") == "disk full"
    fail(KeyboardInterrupt())
    assert fails(capfd, 130, "report", folder / "model.keras") == "interrupted"
    fail(RuntimeError("why"))
    with pytest.raises(RuntimeError):
        main(["report", str(folder / "model.keras"), "--traceback"])


def test_single_line_drops_what_keras_adds() -> None:
    text = "Exception encountered when calling Dense.call().\n\n\x1b[1mBad\n shape.\x1b[0m\n\n"
    assert single_line(ValueError(text + "Arguments received by Dense.call():\n x")) == "Bad shape."
    assert single_line(KeyError()) == "KeyError"


def test_as_a_program(folder: Path) -> None:
    command = [sys.executable, "-m", "tfprune.shell.cli", "report", str(folder / "none.keras")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("tfprune: error: There is no file")
