"""The plot: right bars, right formats, clear refusals."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L

from tfprune.report import report
from tfprune.report.figures import sheet
from tfprune.report.figures.figure import WIDTH, draw_density

imread = pytest.importorskip("matplotlib.image").imread


def net(depth: int = 2) -> keras.Model:
    return keras.Sequential(
        [keras.Input((4,)), *(L.Dense(4, use_bias=False) for _ in range(depth))]
    )


def test_bars_have_the_densities() -> None:
    from matplotlib.figure import Figure

    model = net()
    model.layers[0].set_weights([np.diag([1.0, 1, 1, 0])])
    figure = Figure()
    draw_density(figure, report(model))
    pale, full = figure.axes[0].collections
    lengths = [[line[1, 0] - line[0, 0] for line in c.get_segments()] for c in (pale, full)]
    width = WIDTH - 2 * sheet.LEFT
    assert lengths == [pytest.approx([width, width]), pytest.approx([3 / 16 * width, width])]
    assert not np.array_equal(pale.get_color(), full.get_color())


@pytest.mark.parametrize(
    ("name", "magic"), [("p.png", b"\x89PNG"), ("p.SVG", b"<?xml"), ("p.pdf", b"%PDF")]
)
def test_formats(tmp_path: Path, name: str, magic: bytes) -> None:
    path = report(net()).plot(tmp_path / name)
    assert path == tmp_path / name
    assert path.read_bytes().startswith(magic)
    assert len(list(tmp_path.iterdir())) == 1


def test_density_is_the_default(tmp_path: Path) -> None:
    found = report(net())
    one, other = found.plot(tmp_path / "a.png"), found.plot(tmp_path / "b.png", "density")
    assert (imread(one) == imread(other)).all()


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in one of .*Received: .*plot\.txt"):
        report(net()).plot(tmp_path / "plot.txt")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"tfprune\[plots\]"):
        report(net()).plot(tmp_path / "plot.png")
