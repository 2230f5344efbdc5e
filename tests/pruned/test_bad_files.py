"""Damaged and edited `.keras` files."""

from __future__ import annotations

import json
import zipfile

import pytest
from small import build

import tfprune


def saved(folder):
    path = folder / "model.keras"
    tfprune.prune(build(), tfprune.Magnitude()).save(path)
    return path


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nosuch\.keras"):
        tfprune.load_model(tmp_path / "nosuch.keras")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(tmp_path, share):
    path = saved(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"model\.keras"):
        tfprune.load_model(path)


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"model\.keras.*whole"):
        tfprune.load_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model")
    with pytest.raises(ValueError, match=r"model\.keras.*whole"):
        tfprune.load_model(path)


def edit(path, change):
    """Rewrite the configuration inside a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config["build_config"]["tfprune"])
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: saved.pop("format"),
        lambda saved: saved.update(format=99),
        lambda saved: saved.pop("layers"),
        lambda saved: saved["layers"][0].update(index=77),
        lambda saved: saved["layers"][0].update(index=-1),
        lambda saved: saved["layers"][0].update(index="0"),
        lambda saved: saved["layers"][0].pop("method"),
        lambda saved: saved["layers"][0]["method"].update(
            registered_name="x>Nonsense", class_name="Nonsense"
        ),
        lambda saved: saved["layers"][0]["method"]["config"].update(target_sparsity=1.5),
        lambda saved: saved["layers"][0]["method"]["config"].update(unknown=1),
        lambda saved: saved["layers"][0]["schedule"]["config"].update(frequency=0),
        lambda saved: saved["layers"][0].update(method=saved["layers"][0]["schedule"]),
    ],
)
def test_an_edited_file(tmp_path, change):
    path = saved(tmp_path)
    edit(path, change)
    with pytest.raises(ValueError, match=r"prun"):
        tfprune.load_model(path)
