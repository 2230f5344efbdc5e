"""What the figures of a report show: words that neither overlap nor leave the figure."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import keras
import pytest

import tfprune

L = keras.layers
Figure = pytest.importorskip("matplotlib.figure").Figure
KINDS = ("density", "bands", "filters", "connections")


@pytest.fixture(scope="module")
def reported() -> Any:
    """The report of two pruned convolutions."""
    keras.utils.set_random_seed(0)
    layers = [L.Conv2D(12, 3, name="first"), L.Conv2D(16, 3, name="second")]
    model = keras.Sequential([keras.Input((12, 12, 4)), *layers])
    now = tfprune.ConstantSparsity(0.7, 0, 0)
    pruned = tfprune.prune(model, tfprune.FrequencyDomain(target_sparsity=0.7), now)
    tfprune.Pruner(pruned, total_steps=1).update()
    return tfprune.report(pruned, before=model)


@pytest.fixture
def drawn(reported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that draws a kind of figure and returns matplotlib's object."""

    def draw(kind: str) -> Any:
        figures = []
        original = Figure.savefig

        def spy(self: Any, *arguments: Any, **settings: Any) -> None:
            figures.append(self)
            original(self, *arguments, **settings)

        monkeypatch.setattr(Figure, "savefig", spy)
        reported.plot(tmp_path / "figure.png", kind)
        (figure,) = figures
        figure.draw_without_rendering()  # at its own resolution, not that of the file
        return figure

    return draw


def texts(figure: Any) -> list[Any]:
    """All words outside of axes' own ticks, and the titles of axes."""
    inside = [text for axes in figure.axes for text in axes.texts]
    titles = [t for axes in figure.axes for t in (axes.title, axes._left_title, axes._right_title)]
    return [text for text in (*figure.texts, *inside, *titles) if text.get_text()]


@pytest.mark.parametrize("kind", KINDS)
def test_words_neither_overlap_nor_leave_the_figure(kind: str, drawn: Any) -> None:
    figure = drawn(kind)
    boxes = [(text.get_text(), text.get_window_extent().padded(-1)) for text in texts(figure)]
    assert boxes
    for (left, a), (right, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), (left, right)
    for words, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0, words
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, words
