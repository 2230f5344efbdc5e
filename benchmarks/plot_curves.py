"""Draw the trade-off between error and compression of several experiments into one picture.

`python benchmarks/plot_curves.py --out curves.png build/papers/dns-lenet5.json ...`: lines are the
validation curves of seed 0 (`papers.py --curve`), crosses the rows on the test split. `--offset`
draws them over what the experiments vary along their curves, not the compression it leads to.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

COLOURS = ("#66727f", "#2563a8", "#c2410c", "#15803d")


def draw(axes: Any, report: dict[str, Any], colour: str, by: str) -> None:
    """One experiment: its curve, where the net is alive, and its rows, over the entry `by`."""
    least = min((row["validation_error"] for row in report["curve"]), default=0)
    curve = [row for row in report["curve"] if row["validation_error"] < 10 * least]
    curve.sort(key=lambda row: row[by])
    rows = report["rows"]
    none = min((row[by] for row in curve if math.isfinite(row[by])), default=0) - 1
    x = [max(row[by], none) for row in curve]
    axes.plot(x, [row["validation_error"] for row in curve], "o-", color=colour, markersize=4)
    if by == "offset":
        axes.set_xticks(x, [f"{row[by]:+g}" if math.isfinite(row[by]) else "none" for row in curve])
    axes.plot(
        [row[by] for row in rows],
        [row["test_error"] for row in rows],
        "x",
        color=colour,
        markersize=7,
        label=report["experiment"],
    )


def main(arguments: list[str] | None = None) -> None:
    """Read the results and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="what papers.py wrote, .json")
    parser.add_argument("--out", type=Path, required=True, help="a .png, .svg or .pdf file")
    parser.add_argument("--offset", action="store_true", help="over the offset, not compression")
    options = parser.parse_args(arguments)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    reports = [json.loads(path.read_text()) for path in options.results]
    for report, colour in zip(reports, COLOURS, strict=False):
        draw(axes, report, colour, "offset" if options.offset else "compression")
    what = reports[0].get("offset_of", "offset of c")
    axes.set_xlabel(what if options.offset else "compression, weights and biases", loc="left")
    axes.set_title("error %: lines on the validation split, seed 0; crosses on the test split",
                   loc="left", fontsize=10)  # fmt: skip
    axes.legend(frameon=False)
    axes.grid(color="#e3e8ee")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.out, dpi=160)


if __name__ == "__main__":
    main()
