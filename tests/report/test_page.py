"""The page: complete, self-contained, escaped, and whole or absent on disk."""

import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L

from tfprune.report import report
from tfprune.report.page import charts
from tfprune.report.page.page import page
from tfprune.report.pictures import picture, png

VOID = {"meta", "img", "br", "link"}


class Tree(HTMLParser):
    """Collects tags and attributes, and fails where tags do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def net(name: str = "fc") -> keras.Model:
    model = keras.Sequential([keras.Input((8,)), L.Dense(6, name=name), L.Dense(2)], name="net")
    kernel = np.zeros((8, 6), np.float32)
    kernel[:2, :3] = 0.5
    model.layers[0].set_weights([kernel, np.ones(6)])
    return model


def bars_of(tree: Tree, kind: str) -> list[float]:
    return [float(a["width"] or 0) for tag, a in tree.tags if a.get("class") == kind]


def test_page_is_well_formed_and_self_contained() -> None:
    text = page(report(net()), {"loss": [1.0, 0.5]}, {"path": "m.tflite", "bytes": 12345})
    tree = Tree(text)
    links = [v for _, a in tree.tags for k, v in a.items() if k in ("src", "href", "data")]
    assert links
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert not re.search(r"https?:|@import|url\(|<script", text)
    for words in ("prefers-color-scheme: dark", "12,345", "Training", "Exported files"):
        assert words in text


def test_sections_without_content_are_left_out() -> None:
    text = page(report(net()))
    for title in ("Training", "Exported files", "Not pruned", "Notes"):
        assert f"<h2>{title}</h2>" not in text
    assert "<h2>Kernels</h2>" in text


def test_every_name_is_escaped() -> None:
    evil = '<img src=x onerror="a">'
    model = net(evil.replace("/", ""))
    text = page(report(model), {evil: [1.0, 2.0]}, {evil: evil}, title=evil)
    assert "<img src=x" not in text
    assert text.count("&lt;img src=x") >= 6
    Tree(text)


def test_bars_are_as_long_as_the_densities() -> None:
    found = report(net())
    tree = Tree(page(found))
    density = [layer.density for layer in found.measurement.layers]
    kept = bars_of(tree, "kept")[: len(density)]
    assert kept == pytest.approx([charts.TRACK * d for d in density], abs=0.01)
    full = bars_of(tree, "track")[: len(density)]
    assert full == [charts.TRACK] * len(density)
    # the second chart: 48 and 12 multiply-adds, of which 6 and 12 are left
    assert bars_of(tree, "track")[2:4] == [charts.TRACK, charts.TRACK * 0.25]
    assert bars_of(tree, "kept")[2:4] == [charts.TRACK * 0.125, charts.TRACK * 0.25]


def test_curves_share_panels_and_survive_nan() -> None:
    history = {
        "loss": [2.0, 1.0, 0.0],
        "val_loss": [2.0, float("nan"), 1.0],
        "sparsity": [0.0, 0.5, 0.9],
        "sparsity/a/b": [0.0, 0.4, 0.8],
        "empty": [],
    }
    tree = Tree(page(report(net()), history))
    panels = [a["aria-label"] for tag, a in tree.tags if tag == "svg"]
    assert panels.count("loss") == panels.count("sparsity") == 1
    assert "empty" not in panels
    lines = [a["points"] for tag, a in tree.tags if tag == "polyline"]
    assert len(lines) == 5  # the NaN splits val_loss in two
    x, y = zip(*(map(float, point.split(",")) for point in lines[0].split()), strict=True)
    assert list(x) == sorted(x)
    assert list(y) == sorted(y)  # down the page: the loss falls
    assert "nan" not in " ".join(lines)


def test_history_object_and_several_exports() -> None:
    class History:
        history = {"accuracy": [0.5]}  # noqa: RUF012

    class Result:
        def to_dict(self) -> dict:
            return {"storage": "int8", "ops": {"CONV_2D": 2}, "agreement": 0.98765}

    text = page(report(net()), History(), [Result(), {"storage": "float32"}])
    assert "CONV_2D: 2" in text
    assert "0.9877" in text
    assert '<polyline class="line"' in text


def test_file_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    found = report(net())
    assert found.to_html(path) == path
    first = path.read_bytes()
    assert first.startswith(b"<!doctype html>")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        found.to_html(path, title="second")
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_picture_shows_where_the_nonzeros_are() -> None:
    drawn = picture(net().layers[0])
    assert drawn is not None
    expected = np.zeros((8, 6))
    expected[:2, :3] = 1
    assert np.array_equal(drawn.density, expected)
    assert drawn.limit == 0.5
    assert drawn.counts.sum() == drawn.counts[-1] == 6


def test_large_kernels_are_averaged_over_blocks() -> None:
    layer = L.Dense(130)
    layer.build((None, 300))
    kernel = np.zeros((300, 130), np.float32)
    kernel[:, :65] = 1
    layer.set_weights([kernel, np.zeros(130)])
    drawn = picture(layer)
    assert drawn is not None
    assert drawn.density.shape == (64, 64)
    assert np.allclose(drawn.density[:, :32], 1)
    assert np.allclose(drawn.density[:, 32:], 0)
    assert drawn.counts.sum() == 300 * 65


def test_empty_and_odd_kernels() -> None:
    zero = L.Dense(2, kernel_initializer="zeros")
    zero.build((None, 3))
    drawn = picture(zero)
    assert drawn is not None
    assert (drawn.limit, drawn.counts.sum()) == (0.0, 0)
    assert "0 non-zero weights" in charts.histogram(drawn.counts, drawn.limit)
    odd = L.Dense(2)
    odd.build((None, 2))
    odd.set_weights([np.array([[np.nan, 1], [np.inf, 0]]), np.zeros(2)])
    assert picture(odd).limit == 1
    norm = L.BatchNormalization()
    norm.build((None, 3))
    assert picture(norm) is None


def test_png_decodes_to_the_density() -> None:
    density = np.array([[0, 1], [0.25, 1], [1, 0]], np.float32)
    data = png(density, (1, 2, 3))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        (check,) = struct.unpack(">I", data[at + 8 + size : at + 12 + size])
        assert check == zlib.crc32(kind + body)
        chunks[kind], at = body, at + 12 + size
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (2, 3, 8, 6, 0, 0, 0)
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(3, 1 + 2 * 4)
    pixels = lines[:, 1:].reshape(3, 2, 4)
    assert (lines[:, 0] == 0).all()
    assert pixels[..., 3].tolist() == [[0, 255], [128, 255], [255, 0]]
    assert (pixels[..., :3] == (1, 2, 3)).all()
