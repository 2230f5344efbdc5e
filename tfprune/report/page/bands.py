"""The frequency bands of layers as inline SVG and small pictures, for the page."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping

import numpy as np

from tfprune.report.bands import BandPicture, origin_words, shade, unmerged
from tfprune.report.page import svg
from tfprune.report.page.svg import PANEL_H, PANEL_W, TITLE, histogram
from tfprune.report.pictures import png_file, signed_pixels
from tfprune.report.table import fraction

NAME, CELL, ROW, TALL = 190, 56, 28, 40
FILTER = 48  # the longer side of a drawn filter, in pixels


def words(pictures: Mapping[str, BandPicture]) -> str:
    """How to read the section."""
    return (
        "Numbers are the fraction of a band's entries that is not zero; band 0 is the lowest "
        "frequency. Histograms show how large the non-zero entries are, on a logarithmic axis "
        "(pale and outlined: before pruning, full: after), and the small pictures the kernels of "
        "largest norm as the layer uses them (blue: above zero, orange: below); before is "
        f"{origin_words(pictures)}."
    )


def charts(pictures: Mapping[str, BandPicture]) -> str:
    """The heat map of all layers, then one figure for each."""
    merged = {name: picture.merged() for name, picture in pictures.items()}
    return heat_map(merged) + "".join(figure(name, picture) for name, picture in merged.items())


def heat_map(pictures: Mapping[str, BandPicture]) -> str:
    """Layers down, bands across, the density in each cell; merged bands are named in the cell."""
    columns = max(len(picture.names) for picture in pictures.values())
    body = [
        svg.text(NAME + (i + 0.5) * CELL, 14, str(i), "faint", "middle")
        for i in range(unmerged(pictures))
    ]
    body.append(svg.text(NAME - 10, 14, "band", "faint", "end"))
    y = 20
    for name, picture in pictures.items():
        height = TALL if picture.is_merged else ROW
        body.append(svg.text(NAME - 10, y + height / 2 + 4, svg.short(name), "ink", "end"))
        body += [_cell(i, y, height, picture) for i in range(len(picture.names))]
        y += height
    return svg.picture(NAME + columns * CELL, y, body, "density of each band of each layer")


def _cell(band: int, y: float, height: float, picture: BandPicture) -> str:
    x, density = NAME + band * CELL, picture.densities[band]
    middle = x + CELL / 2
    cell = svg.rect(x + 1, y + 1, CELL - 2, height - 2, "kept", shade(density))
    if height == ROW:
        return cell + svg.text(middle, y + 18, fraction(density), "ink", "middle")
    number = svg.text(middle, y + 17, fraction(density), "ink", "middle")
    return cell + number + svg.text(middle, y + 32, picture.names[band], "ink small", "middle")


def figure(name: str, picture: BandPicture) -> str:
    """One layer: a histogram for each band, and its filters before and after."""
    panels = "".join(panel(picture, band) for band in range(len(picture.names)))
    return (
        f'<figure class="bands"><figcaption>{html.escape(name)}</figcaption>'
        f'<div class="multiples">{panels}</div>{_filters(picture)}</figure>'
    )


def panel(picture: BandPicture, band: int) -> str:
    """The magnitudes of one band, before and after."""
    name, bottom = picture.names[band], TITLE + PANEL_H
    density = fraction(picture.densities[band])
    low, high = (f"{10**limit:.2g}" for limit in picture.limits)
    body = [
        svg.text(0, 12, f"band {name}", "ink"),
        svg.text(PANEL_W, 12, density, "faint", "end"),
        *histogram(picture.before[band], picture.after[band], low, high),
    ]
    label = f"band {name}: magnitudes between {low} and {high}, density {density}"
    return svg.picture(PANEL_W, bottom + 16, body, label)


def _filters(picture: BandPicture) -> str:
    if not len(picture.filters_before):
        return ""
    rows = (("before", picture.filters_before), ("after", picture.filters_after))
    return "".join(
        f'<div class="filters"><span>{word}</span>'
        + "".join(map(_image, kernels, picture.filter_limits, [word] * len(kernels)))
        + "</div>"
        for word, kernels in rows
    )


def _image(kernel: np.ndarray, limit: float, word: str) -> str:
    data = base64.b64encode(png_file(signed_pixels(kernel, limit))).decode()
    height, width = (FILTER * side / max(kernel.shape) for side in kernel.shape)
    return (
        f'<img alt="filter {word}" style="width:{width:.0f}px;height:{height:.0f}px" '
        f'src="data:image/png;base64,{data}">'
    )
