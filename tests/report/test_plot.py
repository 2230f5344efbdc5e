"""The plot: right bars, right formats, clear refusals."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L

from tfprune.report import report

imread = pytest.importorskip("matplotlib.image").imread


def net(depth: int = 2) -> keras.Model:
    return keras.Sequential(
        [keras.Input((4,)), *(L.Dense(4, use_bias=False) for _ in range(depth))]
    )


def test_bars_have_the_densities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn = []
    bars = Axes.barh

    def spy(self: Axes, places, widths, **style):
        drawn.append(list(widths))
        return bars(self, places, widths, **style)

    monkeypatch.setattr(Axes, "barh", spy)
    model = net()
    model.layers[0].set_weights([np.diag([1.0, 1, 1, 0])])
    report(model).plot(tmp_path / "plot.png")
    assert drawn == [[1, 1], [3 / 16, 1]]


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
