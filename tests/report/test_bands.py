"""Frequency bands in the report: numbers against loops, filters against SciPy, page and figures."""

import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.fft
from keras import layers as L

import tfprune
from tfprune.graph.layers import variable_of
from tfprune.pruned.layers import pruned_layers
from tfprune.report import Report, bands, report
from tfprune.report.figures import bands as band_plot
from tfprune.report.page import page as pages
from tfprune.report.page.page import page

pytest.importorskip("jinja2")
imread = pytest.importorskip("matplotlib.image").imread
to_numpy = keras.ops.convert_to_numpy
LAYERS = {"three": (3, 3, 2, 4), "five": (5, 5, 4, 6), "fc": (8, 8, 6, 5)}  # fc behind a flatten


def net(name: str = "three") -> keras.Model:
    keras.utils.set_random_seed(0)
    model = [
        L.Conv2D(4, 3, padding="same", name=name),
        L.Conv2D(6, 5, padding="same", name="five"),
        L.Flatten(),
        L.Dense(5, name="fc"),
        L.Dense(3, name="flat"),
    ]
    return keras.Sequential([keras.Input((8, 8, 2)), *model], name="net")


def prune(dense: keras.Model, method: tfprune.Method | None = None) -> keras.Model:
    """Pruned by chance, with coefficients that have moved away from the dense model's."""
    pruned = tfprune.prune(dense, method or tfprune.FrequencyDomain())
    rng = np.random.default_rng(1)
    for _, layer in pruned_layers(pruned):
        slot = variable_of(layer, "kernel")
        slot.assign(1.5 * slot.value + rng.normal(size=slot.shape) * 0.02)
        for mask in layer.prune_state.masks.values():
            mask.assign(rng.random(mask.shape) < 0.4)
    return pruned


@pytest.fixture(scope="module")
def dense() -> keras.Model:
    return net()


@pytest.fixture(scope="module")
def pruned(dense: keras.Model) -> keras.Model:
    return prune(dense)


@pytest.fixture(scope="module")
def found(pruned: keras.Model, dense: keras.Model) -> Report:
    return report(pruned, before=dense)


def coefficients(model: keras.Model, name: str) -> tuple[np.ndarray, np.ndarray]:
    """[kh, kw, cin, cout] coefficients without and with the mask."""
    layer = model.get_layer(name)
    latent = to_numpy(layer._kernel.value).reshape(LAYERS[name])
    mask = to_numpy(layer.prune_state.masks["kernel"].value).reshape(LAYERS[name])
    return latent, latent * mask


def by_band(values: np.ndarray) -> list[list[float]]:
    """The entries of each band u + v, by a loop."""
    lists: list[list[float]] = [[] for _ in range(values.shape[0] + values.shape[1] - 1)]
    for (u, v, *_), value in np.ndenumerate(values):
        lists[u + v].append(float(value))
    return lists


def histogram(values: list[float], low: float, high: float) -> list[int]:
    counts = [0] * bands.BINS
    for value in values:
        if value != 0:
            place = (math.log10(abs(value)) - low) / (high - low) * bands.BINS
            counts[min(max(math.floor(place), 0), bands.BINS - 1)] += 1
    return counts


def section(text: str) -> ElementTree.Element:
    """The page's section, which must be well-formed."""
    start = text.index("<section><h2>Frequency bands")
    end = text.index("</section>", start) + len("</section>")
    return ElementTree.fromstring(text[start:end])


# -- numbers


@pytest.mark.parametrize("name", LAYERS)
def test_densities_are_those_of_a_loop(pruned: keras.Model, found: Report, name: str) -> None:
    lists = by_band(coefficients(pruned, name)[1])
    expected = [sum(v != 0 for v in values) / len(values) for values in lists]
    assert found.bands[name].densities == expected
    assert 0.1 < min(expected) < max(expected) < 0.9
    rows = {row["name"]: row for row in json.loads(json.dumps(found.to_dict()))["layers"]}
    assert rows[name]["band_densities"] == expected
    assert found.bands[name].kept.sum() == rows[name]["kernel_nonzero"]
    assert rows["flat"]["band_densities"] is None


@pytest.mark.parametrize("with_dense", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_histograms_are_those_of_a_loop(
    pruned: keras.Model, dense: keras.Model, name: str, with_dense: bool
) -> None:
    picture = report(pruned, before=dense if with_dense else None).bands[name]
    before, after = coefficients(pruned, name)
    if with_dense:
        kernel = to_numpy(dense.get_layer(name).kernel).reshape(LAYERS[name])
        before = scipy.fft.dctn(kernel, type=2, norm="ortho", axes=(0, 1))
    assert picture.from_dense is with_dense
    low, high = picture.limits
    assert 10**high == pytest.approx(max(np.abs(before).max(), np.abs(after).max()))
    everything = np.concatenate([before.ravel(), after[after != 0]])
    assert (np.abs(everything) < 10**low).sum() <= bands.TAIL * everything.size + 1
    for counts, values in ((picture.before, before), (picture.after, after)):
        expected = [histogram(one, low, high) for one in by_band(values)]
        # a magnitude on an edge may fall to either side of it: SciPy rounds otherwise
        assert np.abs(np.array(counts) - expected).sum() <= 2
        assert [sum(one) for one in counts.tolist()] == [sum(one) for one in expected]
    assert picture.before.sum() > picture.after.sum() > 0


@pytest.mark.parametrize("with_dense", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_filters_are_the_largest_kernels(
    pruned: keras.Model, dense: keras.Model, name: str, with_dense: bool
) -> None:
    picture = report(pruned, before=dense if with_dense else None).bands[name]
    before, after = (
        scipy.fft.idctn(values, type=2, norm="ortho", axes=(0, 1))
        for values in coefficients(pruned, name)
    )
    if with_dense:
        before = to_numpy(dense.get_layer(name).kernel).reshape(LAYERS[name])
    pairs = [(i, o) for i in range(after.shape[2]) for o in range(after.shape[3])]
    pairs.sort(key=lambda pair: -np.linalg.norm(after[:, :, pair[0], pair[1]]))
    shown = pairs[: bands.FILTERS]
    for kernels, values in ((picture.filters_before, before), (picture.filters_after, after)):
        expected = [values[:, :, i, o] for i, o in shown]
        np.testing.assert_allclose(kernels, expected, atol=1e-6)


def test_bands_are_merged_from_the_lowest_on(found: Report) -> None:
    whole = found.bands["fc"]
    merged = whole.merged()
    names = ("0–1", "2–3", "4–5", "6–7", "8–9", "10–11", "12–13", "14")
    assert (len(whole.names), merged.names) == (15, names)
    assert merged.kept.tolist() == [sum(whole.kept[i : i + 2]) for i in range(0, 15, 2)]
    assert merged.sizes.sum() == whole.sizes.sum() == 8 * 8 * 6 * 5
    assert (merged.after[0] == whole.after[:2].sum(0)).all()
    assert (merged.is_merged, whole.is_merged) == (True, False)
    assert found.bands["five"].merged() is found.bands["five"]


def test_only_a_sample_of_a_large_layer_is_looked_at(
    pruned: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "SAMPLE", 100)
    picture = report(pruned).bands["fc"]
    assert 90 < picture.before.sum() <= 100
    assert picture.sizes.sum() == 8 * 8 * 6 * 5


def test_zeros_nan_and_a_layer_that_lost_all(dense: keras.Model) -> None:
    model = prune(dense)
    three, five = (model.get_layer(name) for name in ("three", "five"))
    three.prune_state.masks["kernel"].assign(np.zeros((3, 3, 2, 4), bool))
    five._kernel.assign(np.full((5, 5, 4, 6), np.nan))
    found = report(model)
    picture = found.bands["three"]
    assert picture.after.sum() == picture.kept.sum() == 0 < picture.before.sum()
    assert not picture.filters_after.any()
    assert found.bands["five"].before.sum() == 0
    assert np.isfinite(found.bands["five"].filter_limits).all()
    assert "NaN" not in page(found)
    assert section(page(found)).findall(".//svg")


def test_kernels_with_other_extents() -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 6, 2)),
            L.Conv3D(2, 2, name="cube"),
            L.Reshape((25, 10)),
            L.Conv1D(3, 4, name="line"),
            L.Reshape((6, 11, 1)),
            L.Conv2D(2, (1, 5), name="row"),
            L.DepthwiseConv2D(2, depth_multiplier=2, name="deep"),
        ]
    )
    found = report(prune(model)).bands
    assert {name: len(picture.names) for name, picture in found.items()} == {
        "cube": 4, "line": 4, "row": 5, "deep": 3,
    }  # fmt: skip
    assert {name: picture.filters_after.shape for name, picture in found.items()} == {
        "cube": (0, 1, 1), "line": (0, 1, 1), "row": (2, 1, 5), "deep": (4, 2, 2),
    }  # fmt: skip


# -- what is refused


def test_before_must_be_the_model_it_came_from(pruned: keras.Model, dense: keras.Model) -> None:
    with pytest.raises(TypeError, match=r"`before` must be a Keras 3 model .*Received: 'dense'"):
        report(pruned, before="dense")
    with pytest.raises(ValueError, match=r"`kernel` of shape \(3, 3, 2, 4\) in a layer 'three'"):
        report(pruned, before=net("other"))
    wider = keras.Sequential([keras.Input((8, 8, 2)), L.Conv2D(7, 3, name="three")])
    with pytest.raises(ValueError, match=r"Received: shape \(3, 3, 2, 7\)"):
        report(pruned, before=wider)
    with pytest.raises(ValueError, match="pruning started from"):
        report(prune(dense, tfprune.Magnitude(target_sparsity=0.5)), before=net("other"))


def test_a_pruned_model_may_be_what_it_is_compared_with(
    pruned: keras.Model, dense: keras.Model
) -> None:
    fresh = tfprune.prune(dense, tfprune.FrequencyDomain())
    picture = report(fresh, before=pruned).bands["three"]
    kernel = to_numpy(pruned.get_layer("three").prune_state.effective("kernel")).reshape(3, 3, 8)
    for drawn in picture.filters_before:
        assert np.abs(kernel - drawn[..., None]).max((0, 1)).min() < 1e-6


# -- the page


def test_page_shows_the_bands(found: Report, pruned: keras.Model) -> None:
    text = page(found)
    assert "<h2>Frequency bands</h2>" in text
    assert "before is the dense model that pruning started from" in text
    tree = section(text)
    heat_map, *cards = tree.findall(".//svg")
    assert heat_map.attrib["aria-label"] == "density of each band of each layer"
    names = [node.text for node in tree.findall(".//figcaption")]
    assert names == list(LAYERS) and len(cards) == 3
    for name, card, panels in zip(names, cards, (5, 9, 8), strict=True):
        words = [node.text for node in card.iter("text")]
        merged = found.bands[name].merged()
        assert sum(word.startswith("band ") for word in words) == panels == len(merged.names)
        assert {f"{density:.4f}" for density in merged.densities} <= set(words)
        assert (words.count("before"), words.count("after")) == (1, 1)
        assert len(list(card.iter("image"))) == 8 + 8
    cells = [node.text for node in heat_map.iter("text")]
    for name in LAYERS:
        for density in found.bands[name].merged().densities:
            assert f"{density:.4f}" in cells
    assert "before is what the net holds without its mask" in page(report(pruned))


def test_filters_are_drawn_as_they_are(found: Report) -> None:
    from matplotlib.figure import Figure

    figure, picture = Figure(), found.bands["five"]
    band_plot.draw_layer(figure, picture)
    images = figure.axes[0].images
    kernels = [*picture.filters_before, *picture.filters_after]
    limits = [*picture.filter_limits] * 2
    for image, kernel, limit in zip(images, kernels, limits, strict=True):
        pixels = np.asarray(image.get_array())
        opacity = np.round(255 * np.minimum(np.abs(kernel) / limit, 1))
        np.testing.assert_array_equal(pixels[..., 3], opacity)
        blue = pixels[..., 2] > pixels[..., 0]
        np.testing.assert_array_equal(blue, kernel >= 0)
    lefts, tops = ([image.get_extent()[i] for image in images] for i in (0, 3))
    assert lefts[:8] == lefts[8:] == sorted(set(lefts))
    assert len(set(tops)) == 2 and tops[0] < tops[8]  # before above after


def test_panels_are_as_high_as_the_counts(found: Report) -> None:
    from matplotlib.figure import Figure

    figure, picture = Figure(), found.bands["five"]
    band_plot.draw_layer(figure, picture)
    patches = figure.axes[0].patches
    assert len(patches) == 3 * len(picture.names)
    for band in range(len(picture.names)):
        before, after, outline = patches[3 * band : 3 * band + 3]
        top = max(picture.before[band].max(), picture.after[band].max())
        for patch, counts in (
            (before, picture.before),
            (after, picture.after),
            (outline, picture.before),
        ):
            values, edges, bottom = patch.get_data()
            expected = band_plot.PANEL_H * counts[band] / top
            np.testing.assert_allclose(bottom - values, expected, atol=1e-9)
            assert edges[-1] - edges[0] == pytest.approx(band_plot.PANEL_W)
        assert (before.get_fill(), after.get_fill(), outline.get_fill()) == (True, True, False)
        assert (before.get_alpha(), after.get_alpha()) == (0.3, None)


def test_cells_are_as_opaque_as_the_densities(found: Report) -> None:
    from matplotlib.figure import Figure

    figure, picture = Figure(), found.bands["five"]
    band_plot.draw_map(figure, {"five": picture})
    cells = figure.axes[0].patches
    expected = [0.05 + 0.5 * math.sqrt(density) for density in picture.densities]
    assert [cell.get_facecolor()[3] for cell in cells] == pytest.approx(expected, abs=1 / 255)
    assert [cell.get_x() for cell in cells] == sorted(cell.get_x() for cell in cells)


def test_without_bands_there_is_no_section(dense: keras.Model, tmp_path: Path) -> None:
    found = report(prune(dense, tfprune.Magnitude(target_sparsity=0.5)))
    assert found.bands == {}
    assert "Frequency bands" not in page(found)
    for what in ("bands", "filters"):
        with pytest.raises(ValueError, match="No layer of 'net' has frequency bands"):
            found.plot(tmp_path / "p.png", what)
    assert list(tmp_path.iterdir()) == []


def test_names_are_escaped(pruned: keras.Model) -> None:
    found = report(pruned)
    evil = found.bands.pop("three")
    found.bands["<b>&"] = evil
    assert "<b>&" not in page(found)
    assert page(found).count("&lt;b&gt;&amp;") == 2


def test_only_so_many_layers_are_drawn(found: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "CARDS", 2)
    text = page(found)
    assert text.count('<figure class="bands">') == 2
    assert "1 more layers are not drawn" in text


# -- the figures


@pytest.mark.parametrize("what", ["bands", "filters"])
@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_figures_are_written(
    found: Report, tmp_path: Path, what: str, suffix: str, magic: bytes
) -> None:
    path = found.plot(tmp_path / f"p.{suffix}", what)
    assert path.read_bytes().startswith(magic)
    if suffix == "png":
        pixels = imread(path)[..., :3]
        assert min(pixels.shape[:2]) > 600
        ink = (pixels < 0.9).any(-1)
        assert 0.02 < ink.mean() < 0.6
        thirds = np.array_split(ink, 3, axis=0)
        assert min(third.mean() for third in thirds) > 0.01


def texts(found: Report, path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> list[str]:
    from matplotlib.figure import Figure

    words: list[str] = []
    write = Figure.text

    def spy(self: Figure, x: float, y: float, s: str, **style: object) -> object:
        words.append(s)
        return write(self, x, y, s, **style)

    monkeypatch.setattr(Figure, "text", spy)
    found.plot(path, what)
    return words


@pytest.mark.parametrize("what", ["bands", "filters"])
def test_figures_say_what_they_leave_out(
    found: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = tmp_path / "p.png"
    assert not any("of 3 layers" in line for line in texts(found, path, monkeypatch, what))
    monkeypatch.setattr(band_plot, "LAYERS", 2)
    words = texts(found, path, monkeypatch, what)
    assert any("(first 2 of 3 layers)" in line for line in words)
    assert any("before: the dense model" in line for line in words)


def test_other_words_are_refused(found: Report, tmp_path: Path) -> None:
    words = "`what` must be one of density, bands, filters, connections"
    with pytest.raises(ValueError, match=words):
        found.plot(tmp_path / "p.png", "layers")
    line = keras.Sequential([keras.Input((8, 2)), L.Conv1D(3, 4)])
    with pytest.raises(ValueError, match="2-D kernels"):
        report(prune(line)).plot(tmp_path / "p.png", "filters")
    assert list(tmp_path.iterdir()) == []
