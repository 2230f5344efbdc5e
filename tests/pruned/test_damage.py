"""Damaged, edited, truncated and wrong files: a clear error, and never a half-pruned model."""

from __future__ import annotations

import json
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import keras
import pytest
from keras import layers
from pruned import structures

import tfprune


def surgery(model: keras.Model) -> keras.Model:
    return tfprune.prune(model, tfprune.NetworkSurgery(c=0.2))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    file = tmp_path_factory.mktemp("damage") / "a.keras"
    parts = [layers.Dense(3), layers.BatchNormalization(), layers.Dense(3), layers.Dense(3)]
    surgery(keras.Sequential([layers.Input((3,)), *parts])).save(file)
    return file


def edited(source: pathlib.Path, name: str, change: Callable[[bytes], bytes | None]) -> str:
    """A copy of a `.keras` file with one member changed (None: removed)."""
    target = source.with_name("edited.keras")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.namelist():
            content = change(old.read(member)) if member == name else old.read(member)
            if content is not None:
                new.writestr(member, content)
    return str(target)


def settings(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def apply(content: bytes) -> bytes:
        config = json.loads(content)
        result = change(config["build_config"]["tfprune"])
        if result is not None:
            config["build_config"]["tfprune"] = result
        return json.dumps(config).encode()

    return apply


def row(**values: Any) -> Callable[[bytes], bytes]:
    return settings(lambda saved: saved["layers"][0].update(values))


DAMAGE = {
    "newer format": settings(lambda saved: saved.update(format=99)),
    "no format": settings(lambda saved: saved.pop("format") and None),
    "a list": settings(lambda saved: [1]),
    "text": settings(lambda saved: "x"),
    "no rows": settings(lambda saved: saved.update(layers=None)),
    "row is text": settings(lambda saved: saved.update(layers=["a"])),
    "index too large": row(index=99),
    "index negative": row(index=-1),
    "index of another layer": row(index=1),
    "index of a neighbour": row(index=2),
    "index is text": row(index="0"),
    "no path": row(path=None),
    "no method": row(method=None),
    "method is text": row(method="x"),
    "method is a number": row(method=3),
    "no schedule": row(schedule=None),
    "unknown method": settings(
        lambda saved: saved["layers"][0]["method"].update(
            class_name="Nope", registered_name="tfprune>Nope", module="nope"
        )
    ),
    "setting out of range": settings(
        lambda saved: saved["layers"][0]["method"]["config"].update(target_sparsity=7)
    ),
    "unknown setting": settings(
        lambda saved: saved["layers"][0]["method"]["config"].update(wrong=7)
    ),
    "other method": row(method=keras.saving.serialize_keras_object(tfprune.Magnitude())),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_settings(what: str, archive: pathlib.Path) -> None:
    file = edited(archive, "config.json", DAMAGE[what])
    with pytest.raises(ValueError, match="prun"):
        keras.models.load_model(file)


@pytest.mark.parametrize("what", ["newer format", "no path", "method is text", "other method"])
def test_damaged_settings_in_load_model(what: str, archive: pathlib.Path) -> None:
    file = edited(archive, "config.json", DAMAGE[what])
    with pytest.raises(ValueError, match="prun"):
        tfprune.load_model(file)


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("config.json", lambda content: None),
        ("config.json", lambda content: b"{"),
        ("config.json", lambda content: b"[]"),
        ("config.json", lambda content: content[: len(content) // 2]),
        ("model.weights.h5", lambda content: None),
        ("model.weights.h5", lambda content: b""),
        ("model.weights.h5", lambda content: b"not a file of weights" * 50),
        ("model.weights.h5", lambda content: content[: len(content) // 2]),
    ],
)
def test_damaged_archive(member: str, change: Any, archive: pathlib.Path) -> None:
    with pytest.raises(ValueError):
        tfprune.load_model(edited(archive, member, change))


@pytest.mark.parametrize("length", [0, 10, 0.3, 0.9999])
def test_truncated_file(length: float, archive: pathlib.Path) -> None:
    content = archive.read_bytes()
    file = archive.with_name("short.keras")
    file.write_bytes(content[: int(length * len(content)) if length < 1 else int(length)])
    with pytest.raises(ValueError, match=r"short\.keras"):
        tfprune.load_model(file)


def test_wrong_paths(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        tfprune.load_model(tmp_path / "none.keras")
    with pytest.raises(ValueError):
        tfprune.load_model(tmp_path)
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(ValueError):
        tfprune.load_model(tmp_path / "text.keras")


def test_file_of_another_method_is_refused(tmp_path: pathlib.Path) -> None:
    surgery(structures.build("sequential")).save_weights(tmp_path / "a.weights.h5")
    other = tfprune.prune(structures.build("sequential"), tfprune.Magnitude())
    with pytest.raises(ValueError, match="must match the file's"):
        other.load_weights(tmp_path / "a.weights.h5")


def test_wrong_model_is_refused(tmp_path: pathlib.Path) -> None:
    surgery(structures.build("sequential")).save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError):
        surgery(structures.build("convolutions")).load_weights(tmp_path / "a.weights.h5")


def test_legacy_format_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"\.keras"):
        surgery(structures.build("sequential")).save(tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


def test_plain_file_loads_as_a_plain_model(tmp_path: pathlib.Path) -> None:
    structures.build("sequential").save(tmp_path / "a.keras")
    assert not tfprune.is_pruned(tfprune.load_model(tmp_path / "a.keras"))
