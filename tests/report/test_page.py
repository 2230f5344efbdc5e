"""The page: complete, self-contained, escaped, and whole or absent on disk."""

import base64
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
from keras import layers as L

from tfprune.report import report
from tfprune.report.figures.bars import THIN
from tfprune.report.figures.kernels import kernel_label
from tfprune.report.figures.sheet import KEPT, TRACK, tinted
from tfprune.report.kernels import picture
from tfprune.report.page import page as pages
from tfprune.report.page.page import page

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
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


def drawings(text: str) -> dict[str, ElementTree.Element]:
    """Label -> SVG element, of all drawings of a page."""
    elements = map(ElementTree.fromstring, re.findall("<svg.*?</svg>", text, re.DOTALL))
    return {element.attrib["aria-label"]: element for element in elements}


def bars_of(chart: ElementTree.Element, color: str) -> list[float]:
    """Lengths of the bars of a colour, relative to the width of the chart."""
    width = float(chart.attrib["viewBox"].split()[2])
    lines = [e.attrib["d"].split() for e in chart if f"stroke: {color}" in e.get("style", "")]
    return [(float(x) - float(start)) / width for _, start, _, x, _ in lines]


def test_page_is_well_formed_and_self_contained() -> None:
    text = page(report(net()), {"loss": [1.0, 0.5]}, {"path": "m.tflite", "bytes": 12345})
    tree = Tree(text)
    links = [v for _, a in tree.tags for k, v in a.items() if k in ("src", "href", "data")]
    assert links
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert not re.search(r"https?:|@import|url\(|<script", text)
    for words in ("color-scheme: light", "12,345", "Training", "Exported files"):
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
    charts = drawings(page(found))
    density = [layer.density for layer in found.measurement.layers]
    chart = charts["density of each layer"]
    assert bars_of(chart, KEPT) == pytest.approx(density, abs=1e-4)
    assert bars_of(chart, TRACK) == [1.0, 1.0]
    # 48 and 12 multiply-adds, of which 6 and 12 are left
    chart = charts["multiply-adds of each layer"]
    assert bars_of(chart, TRACK) == pytest.approx([1, 0.25], abs=1e-4)
    assert bars_of(chart, KEPT) == pytest.approx([0.125, 0.25], abs=1e-4)


def test_short_bars_are_seen_and_empty_ones_are_not() -> None:
    model = keras.Sequential([keras.Input((100,)), *(L.Dense(100, use_bias=False) for _ in "ab")])
    kernel = np.zeros((100, 100), np.float32)
    model.layers[1].set_weights([kernel])
    kernel[0, 0] = 1
    model.layers[0].set_weights([kernel])
    chart = drawings(page(report(model)))["density of each layer"]
    assert bars_of(chart, KEPT) == pytest.approx([THIN, 0], abs=1e-4)
    assert float(chart.attrib["width"]) * THIN > 2  # pixels


def test_curves_share_panels_and_survive_nan() -> None:
    history = {
        "loss": [2.0, 1.0, 0.0],
        "val_loss": [2.0, float("nan"), 1.0],
        "sparsity": [0.0, 0.5, 0.9],
        "sparsity/a/b": [0.0, 0.4, 0.8],
        "sensitivity/a": [1.0, 2.0],
        "sensitivity/b": [1.0, 2.0],
        "empty": [],
        "never": [float("inf"), float("nan")],
    }
    text = page(report(net()), history)
    panels = re.findall(r'<svg[^>]*aria-label="([^"]*)"', text)
    assert [panels.count(name) for name in ("loss", "sparsity", "sensitivity")] == [1, 1, 1]
    assert not {"val_loss", "empty", "never"} & set(panels)
    loss = drawings(text)["loss"]
    (line,) = [e.attrib["d"] for e in loss if f"stroke: {KEPT}" in e.get("style", "")]
    x, y = np.array(re.findall(r"[\d.]+", line), float).reshape(-1, 2).T
    assert len(x) == 3 and (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()  # down the page: the loss falls
    dots = [(float(e.attrib["x"]), float(e.attrib["y"])) for e in loss.iter("use")]
    # the NaN leaves the values around it alone; 2 and 1 are as high as in the other curve
    assert dots == [pytest.approx((x[0], y[0]), abs=0.01), pytest.approx((x[2], y[1]), abs=0.01)]
    assert "nan" not in line and "inf" not in line


def test_history_object_and_several_exports() -> None:
    class History:
        history = {"accuracy": [0.5]}  # noqa: RUF012

    class Result:
        def to_dict(self) -> dict:
            return {"storage": "int8", "ops": {"CONV_2D": 2}, "agreement": 0.98765}

    text = page(report(net()), History(), [Result(), {"storage": "float32"}])
    assert "CONV_2D: 2" in text
    assert "0.9877" in text
    assert len(list(drawings(text)["accuracy"].iter("use"))) == 1


def test_other_histories_are_refused() -> None:
    with pytest.raises(TypeError, match=r"`history` must be .*Received: \[0.5\]"):
        page(report(net()), [0.5])


def test_no_two_drawings_share_an_id() -> None:
    """Dots are defined once and used by reference."""
    text = page(report(net()), {"a": [1.0], "b": [1.0], "c": [1.0]})
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) == 3
    for label in "abc":
        own = [node.attrib["id"] for node in drawings(text)[label].iter() if "id" in node.attrib]
        uses = [node.attrib["href"] for node in drawings(text)[label].iter("use")]
        assert uses == [f"#{own[0]}"]


def test_equal_reports_are_equal_pages_whatever_the_user_has_set(tmp_path: Path) -> None:
    found, history = report(net()), {"loss": [2.0, 1.0]}
    first = page(found, history)
    plots = [found.plot(tmp_path / f"a.{kind}").read_bytes() for kind in ("svg", "pdf")]
    assert b"CreationDate" not in plots[1] and b":date>" not in plots[0]
    with matplotlib.style.context(["dark_background", {"font.size": 30, "axes.grid": True}]):
        assert page(found, history) == first
        for kind, data in zip(("svg", "pdf"), plots, strict=True):
            assert found.plot(tmp_path / f"b.{kind}").read_bytes() == data
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize("name", ["$x^$", "\\frac", "a\x01b\ud800\n", "\u6f22 \u0627", "x" * 300])
def test_odd_names(name: str, tmp_path: Path) -> None:
    """Half a formula, control characters, letters that the font lacks, a very long name."""
    model = keras.Sequential([keras.Input((4,)), L.Dense(2, name="fc")], name="net")
    found = report(model)
    layer = found.measurement.layers[0]
    object.__setattr__(layer, "name", name)
    text = found.to_html(tmp_path / "page.html", {name: [1.0, 2.0]}).read_text()
    Tree(text)
    words = drawings(text)["density of each layer"].itertext()
    assert any(word.endswith(name[-5:]) or "\ufffd" in word for word in words)
    if name.isascii():
        found.plot(tmp_path / "p.png")


def test_the_page_grows_with_the_layers_and_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "CARDS", 2)
    sizes = []
    for depth in (20, 40, 60):
        model = keras.Sequential(
            [keras.Input((4,)), *(L.Dense(4, name=f"layer_{i:03}") for i in range(depth))]
        )
        text = page(report(model))
        assert text.count('<figure class="kernels">') == 2
        assert f"{depth - 2} more layers are not drawn." in text
        sizes.append(len(text))
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], rel=0.02)


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    found = report(net())
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install tfprune\[plots\]"):
        found.to_html(tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
    assert "compression" in str(found) and "compression" in found._repr_html_()
    assert found.to_dict()["compression"] > 1


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
    assert kernel_label(drawn).startswith("0 non-zero weights")
    assert kernel_label(drawn) in drawings(page(report(zero)))
    odd = L.Dense(2)
    odd.build((None, 2))
    odd.set_weights([np.array([[np.nan, 1], [np.inf, 0]]), np.zeros(2)])
    assert picture(odd).limit == 1
    norm = L.BatchNormalization()
    norm.build((None, 3))
    assert picture(norm) is None


def test_the_map_of_a_kernel_decodes_to_its_density() -> None:
    found = report(net())
    drawn = found.pictures["fc"]
    (image,) = drawings(page(found))[kernel_label(drawn)].iter("image")
    data = base64.b64decode(image.attrib["href"].partition(",")[2], validate=True)
    pixels = np.asarray(matplotlib.image.imread(io.BytesIO(data))) * 255
    np.testing.assert_allclose(pixels, tinted(np.sqrt(drawn.density)), atol=0.01)
    assert pixels[..., 3].astype(int).tolist() == (255 * (drawn.density > 0)).astype(int).tolist()


def test_tints() -> None:
    pixels = tinted(np.sqrt([[0, 0.25], [1, 1]]), "#010203")
    assert pixels[..., 3].tolist() == [[0, 128], [255, 255]]
    assert (pixels[..., :3] == (1, 2, 3)).all()
