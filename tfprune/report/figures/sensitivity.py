"""Pictures of how much the outputs move with each weight, layer by layer, as training goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.maths.checks import check_step
from tfprune.needs import OutputSensitivity
from tfprune.pruned.layers import STATE, pruned_layers
from tfprune.report.figures.output import write_figure
from tfprune.report.kernels import shrink
from tfprune.training.sensitivity.serve import measure_on

PER_LINE, SIDE, TOP = 4, 2.2, 0.9


class SensitivityMaps(keras.callbacks.Callback):
    """After epochs, measures the sensitivity of every pruned weight and draws it.

    Writes `epoch_0001.png`, ... (one map per layer, logarithmic, pruned weights blank) into
    `folder`, and adds each layer's mean to the epoch's logs as `sensitivity/<layer path>`.

    Args:
        x: inputs to measure on, one batch.
        y: their targets, for "specific" sensitivity.
        folder: where the pictures go; None: no pictures.
        every: epochs between two pictures, >= 1.
        signal: what to measure; None: unspecific, of all outputs, up to 64.

    Reference: Tartaglione et al., NeurIPS 2018, eq. 4 to 6.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        folder: str | Path | None = None,
        every: int = 1,
        signal: OutputSensitivity | None = None,
    ) -> None:
        super().__init__()
        self.x, self.y, self.every = x, y, check_step("every", every, 1)
        self.folder = None if folder is None else Path(folder)
        self.signal = signal or OutputSensitivity(classes=None)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure, draw, log."""
        maps = sensitivity_maps(self.model, self.x, self.y, self.signal)
        if logs is not None:
            logs.update({f"sensitivity/{name}": float(np.nanmean(m)) for name, m in maps.items()})
        if self.folder is not None and epoch % self.every == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            draw(maps, self.folder / f"epoch_{epoch + 1:04d}.png", f"after epoch {epoch + 1}")


def sensitivity_maps(
    model: keras.Model, x: Any, y: Any = None, signal: OutputSensitivity | None = None
) -> dict[str, np.ndarray]:
    """Layer path -> S of its first pruned weight on one batch, NaN where it is pruned.

    Args:
        model: a pruned model. x, y: the batch; y for "specific" sensitivity.
        signal: what to measure; None: unspecific, of all outputs.

    Raises:
        ValueError: if no layer is pruned.
    """
    signal = signal or OutputSensitivity(classes=None)
    states = {path: getattr(layer, STATE) for path, layer in pruned_layers(model)}
    if not states:
        raise ValueError(
            f"`model` must have pruned layers, see `tfprune.prune`. Received: '{model.name}' with "
            "no pruned layer to measure."
        )
    sensitivities = measure_on(model, list(states.values()), signal, x, y)
    maps = {}
    for path, state in states.items():
        name = next(iter(state.specs))
        value = keras.ops.convert_to_numpy(sensitivities[id(state), name])
        maps[path] = np.where(state.mask_arrays()[name], value, np.nan)
    return maps


def draw(maps: Mapping[str, np.ndarray], path: Path, title: str) -> Path:
    """Write the maps as one picture, `.png`, `.svg` or `.pdf`; return its path.

    Args:
        maps: layer path -> sensitivities, NaN where pruned; the last axis goes across.
        path: where to write it.
        title: ends the heading: "after epoch 3".

    Raises:
        ImportError, ValueError: as `tfprune.report.figures.output.write_figure`.
    """
    return write_figure(path, lambda figure: _maps(figure, maps, title))


def _maps(figure: Any, maps: Mapping[str, np.ndarray], title: str) -> None:
    lines, columns = math.ceil(len(maps) / PER_LINE), min(len(maps), PER_LINE)
    figure.set_size_inches(SIDE * columns + 0.6, SIDE * lines + TOP)
    figure.set_layout_engine("constrained")
    figure.suptitle(f"sensitivity of the outputs to each weight, {title}", fontsize=10)
    for index, (name, values) in enumerate(maps.items()):
        axes = figure.add_subplot(lines, columns, index + 1)
        _map(axes, name, values)


def _map(axes: Any, name: str, values: np.ndarray) -> None:
    """One layer: its weights as a matrix [everything else, last axis], in blocks."""
    matrix = values.reshape(-1, values.shape[-1])
    alive = np.isfinite(matrix)
    share = shrink(alive)
    mean = shrink(np.where(alive, matrix, 0.0)) / np.where(share > 0, share, np.nan)
    logs = np.log10(np.maximum(mean, 1e-12))
    picture = axes.imshow(logs, aspect="auto", cmap="viridis", interpolation="nearest")
    axes.set_title(f"{name}: mean {np.nanmean(matrix):.3g}" if alive.any() else name, fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])
    if np.isfinite(logs).any():
        bar = axes.figure.colorbar(picture, ax=axes, fraction=0.05, pad=0.02)
        bar.ax.tick_params(labelsize=6)
        bar.set_label("log10 S", fontsize=6)
