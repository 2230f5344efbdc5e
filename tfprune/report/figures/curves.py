"""Training curves: a metric and its validation in one panel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfprune.report.figures.sheet import (
    BELOW,
    COLUMN,
    FAINT,
    FRAME,
    INK,
    KEPT,
    SMALL,
    axes_at,
    canvas,
    short,
    write,
)
from tfprune.report.table import fraction

HEIGHT, MARGIN, LINE = 1.5, 0.55, 0.16
NAMED = 4  # curves whose names are written, at most
COLORS = (KEPT, BELOW, FAINT, INK)


def panels(history: Any) -> dict[str, dict[str, np.ndarray]]:
    """Title -> name -> values per epoch, float64 with NaN where they are not finite.

    A metric shares a panel with its `val_` one, and all layers of `sparsity/...` do. Curves without
    any finite value are left out.

    Args:
        history: a Keras `History`, {name: values per epoch}, or None.
    """
    values = getattr(history, "history", history)
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise TypeError(
            "`history` must be what `model.fit` returns, or a dict {name: values per epoch}. "
            f"Received: {history!r}."
        )
    grouped: dict[str, dict[str, np.ndarray]] = {}
    for name, line in values.items():
        curve = np.array([float(value) for value in line])
        curve[~np.isfinite(curve)] = np.nan
        if not np.isnan(curve).all():
            grouped.setdefault(_title(name), {})[name] = curve
    return grouped


def _title(name: str) -> str:
    return "sparsity" if "sparsity" in name else name.removeprefix("val_").partition("/")[0]


def draw_curves(figure: Any, title: str, curves: Mapping[str, np.ndarray]) -> None:
    """Draw one panel; values that are NaN leave a gap.

    Args:
        figure: an empty figure.
        title: heading of the panel.
        curves: name -> values per epoch; `val_` ones are dashed.
    """
    named = len(curves) <= NAMED
    top = 0.14 + LINE * (len(curves) if named else 1)
    height = top + HEIGHT + 0.3
    sheet = canvas(figure, COLUMN, height)
    write(sheet, 0, 0.13, short(title, 40))
    axes = axes_at(figure, MARGIN, top, COLUMN - MARGIN - 0.1, HEIGHT)
    for index, (name, curve) in enumerate(curves.items()):
        color = COLORS[index] if named else KEPT
        _curve(axes, curve, color, "--" if name.startswith("val_") else "-", not named)
        if named:
            words = f"{short(name, 40)} {fraction(float(curve[-1]))}"
            write(sheet, COLUMN, 0.13 + LINE * index, words, SMALL, color, "right")
    if not named:
        write(sheet, COLUMN, 0.13, f"{len(curves)} curves", SMALL, FAINT, "right")
    _frame(axes)


def _curve(axes: Any, curve: np.ndarray, color: str, dashes: str, thin: bool) -> None:
    epochs = np.arange(1, len(curve) + 1)
    style = {"linewidth": 0.8, "alpha": 0.7} if thin else {"linewidth": 1.5}
    axes.plot(epochs, curve, dashes, color=color, clip_on=False, **style)
    padded = np.concatenate([[np.nan], curve, [np.nan]])
    alone = np.isfinite(curve) & np.isnan(padded[:-2]) & np.isnan(padded[2:])
    if alone.any():
        axes.plot(epochs[alone], curve[alone], "o", color=color, markersize=3, clip_on=False)


def _frame(axes: Any) -> None:
    axes.locator_params(axis="x", integer=True, nbins=8)
    axes.locator_params(axis="y", nbins=5)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.5g}")
    axes.grid(axis="y", color=FRAME, linewidth=0.6, clip_on=False)
    axes.set_axisbelow(True)
    axes.set_xlabel("epoch", fontsize=SMALL, color=FAINT, loc="right", labelpad=1)
