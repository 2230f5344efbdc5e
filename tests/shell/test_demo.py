"""The demo: its numbers are those of its files, and its choice among them is sound."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tfprune.export import predict_tflite
from tfprune.shell import demo
from tfprune.shell.data import load_data
from tfprune.shell.workflow import quiet, score

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, list[str]]:
    """A short run over what an interrupted one left."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "summary.json").write_text("{}")
    said: list[str] = []
    summary = demo.run_demo(folder, epochs=8, dense_epochs=6, sparsity=0.9, seed=1, say=said.append)
    return folder, summary, said


def test_it_leaves_four_files(ran: tuple[Path, dict, list[str]]) -> None:
    folder, summary, said = ran
    assert {path.name for path in folder.iterdir()} == set(demo.FILES)
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert [line[:3] for line in said] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert summary["dataset"] == "digits"


def test_the_accuracies_are_those_of_the_files(ran: tuple[Path, dict, list[str]]) -> None:
    folder, summary, _ = ran
    test = load_data("digits", seed=1).test
    lite = predict_tflite(folder / "model.tflite", test[0])
    assert summary["accuracy_tflite"] == score(lite, test)["accuracy"]
    plain = keras.models.load_model(folder / "model.keras")
    found = score(plain.predict(test[0], verbose=0), test)["accuracy"]
    assert summary["accuracy_pruned"] == pytest.approx(found, abs=1 / len(test[0]))
    assert summary["accuracy_pruned"] > 0.8
    assert summary["accuracy_dense"] > 0.9


def test_the_sizes_and_counts_are_those_of_the_files(ran: tuple[Path, dict, list[str]]) -> None:
    folder, summary, _ = ran
    assert summary["tflite_bytes"] == (folder / "model.tflite").stat().st_size
    assert summary["tflite_bytes"] < summary["dense_tflite_bytes"] / 6
    assert summary["tflite_target"] == "smallest" and len(summary["forms_tried"]) == 6
    assert summary["tflite_gzip_bytes"] < summary["dense_tflite_gzip_bytes"] / 4
    pruned = tfprune.load_model(folder / "model.keras")
    assert tfprune.is_pruned(pruned)
    numbers = tfprune.report(pruned).to_dict()
    assert numbers["compression"] == summary["compression"]
    assert numbers["nonzero"] == summary["nonzero"]
    kept = {row["name"]: row["nonzero"] / row["parameters"] for row in numbers["layers"]}
    for name, share in demo.SHARES.items():
        assert kept[name] == pytest.approx(0.1 * share, abs=0.01)


def test_the_page_shows_the_run(ran: tuple[Path, dict, list[str]]) -> None:
    text = (ran[0] / "report.html").read_text()
    for words in ("LeNet on digits, pruned", "<h2>Training</h2>", "<h2>Exported files</h2>"):
        assert words in text
    assert str(ran[0]) not in text


def test_the_table_has_the_numbers(ran: tuple[Path, dict, list[str]]) -> None:
    text = demo.table(ran[1])
    for key in ("accuracy_dense", "accuracy_pruned", "accuracy_tflite"):
        assert f"{ran[1][key]:.4f}" in text
    for key in ("tflite_bytes", "dense_tflite_bytes", "parameters", "nonzero"):
        assert f"{ran[1][key]:,}" in text


def test_the_smallest_file_that_holds_is_chosen() -> None:
    def tried(*rows: float) -> dict:
        names = zip(("int8", "float16", "float32"), (10, 20, 40), rows, strict=True)
        return {name: {"bytes": size, "accuracy_validation": a} for name, size, a in names}

    assert demo.choose(tried(0.97, 0.975, 0.975), 0.975) == "int8"
    assert demo.choose(tried(0.96, 0.971, 0.975), 0.975) == "float16"
    assert demo.choose({"dense float32": {"bytes": 9, "accuracy_validation": 0.1}}, 0.9)


def test_sparsities_of_the_layers() -> None:
    chosen = {key: m.target_sparsity for key, m in demo.methods(0.75).items()}
    assert chosen == {"^conv1$": 0, "^conv2$": 0.25, "^fc1$": 0.75, "^fc2$": 0.25}


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'digits' or 'mnist'"):
        demo.run_demo(tmp_path, data="cifar")
    for sparsity in (1.5, float("nan"), -0.1):
        with pytest.raises(ValueError, match="`sparsity` must be"):
            demo.run_demo(tmp_path / "new", sparsity=sparsity)
    assert list(tmp_path.iterdir()) == []


def test_quiet_shows_the_log_of_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    with quiet():
        os.write(2, b"noise\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(RuntimeError), quiet():
        os.write(2, b"the reason\n")
        raise RuntimeError
    assert "the reason" in capfd.readouterr().err


def test_big_images_get_the_papers_kernels() -> None:
    small, big = demo.lenet((8, 8, 1)), demo.lenet((28, 28, 1))
    assert small.get_layer("conv1").kernel.shape == (3, 3, 1, 20)
    assert big.get_layer("conv2").kernel.shape == (5, 5, 20, 50)
    assert big.count_params() == 431_080
    assert np.allclose(keras.ops.sum(big(np.ones((2, 28, 28, 1))), axis=1), 1, atol=1e-5)
