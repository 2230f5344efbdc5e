"""The kernel of a layer: where its non-zeros lie, and how large they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfprune.report.figures import sheet
from tfprune.report.kernels import Picture
from tfprune.report.table import count

WIDTH, SIDE = 3.0, 0.92
BOX = (SIDE + 0.2, 0.04, WIDTH - SIDE - 0.24, SIDE - 0.2)


def draw_kernel(figure: Any, picture: Picture) -> None:
    """Draw the map of the non-zeros, and beside it the histogram of their values."""
    axes = sheet.canvas(figure, WIDTH, SIDE + 0.04)
    density_map(axes, picture.density, 0.02, 0.02)
    sheet.steps(axes, picture.counts, BOX, int(picture.counts.max()))
    sheet.base(axes, BOX, f"{-picture.limit:.3g}", f"{picture.limit:.3g}")
    sheet.write(
        axes, BOX[0] + BOX[2] / 2, BOX[1] + BOX[3] + 0.14, "0", sheet.SMALL, sheet.FAINT, "center"
    )


def density_map(axes: Any, density: np.ndarray, left: float, top: float) -> None:
    """Draw densities, [lines, columns] in [0, 1], as a square; a lone non-zero stays visible."""
    sheet.image(axes, sheet.tinted(np.sqrt(density)), left, top, SIDE - 0.02, SIDE - 0.02)


def kernel_label(picture: Picture) -> str:
    """The drawing in words."""
    limit = f"{picture.limit:.3g}"
    return f"{count(int(picture.counts.sum()))} non-zero weights between -{limit} and {limit}"
