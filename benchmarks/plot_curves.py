"""Draw the trade-off between error and compression of several experiments into one picture.

`python benchmarks/plot_curves.py --out curves.png build/papers/dns-lenet5.json ...`: lines are the
validation curves of seed 0 (`papers.py --curve`), crosses the rows on the test split.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

COLOURS = ("#66727f", "#2563a8", "#c2410c", "#15803d")


def draw(axes: Any, report: dict[str, Any], colour: str) -> None:
    """One experiment: its curve, where it has one that is alive, and its rows."""
    curve = [row for row in report["curve"] if row["validation_error"] < 10]
    curve.sort(key=lambda row: row["compression"])
    x = [row["compression"] for row in curve]
    axes.plot(x, [row["validation_error"] for row in curve], "o-", color=colour, markersize=4)
    rows = report["rows"]
    axes.plot(
        [row["compression"] for row in rows],
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
    options = parser.parse_args(arguments)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for path, colour in zip(options.results, COLOURS, strict=False):
        draw(axes, json.loads(path.read_text()), colour)
    axes.set_xlabel("compression, weights and biases", loc="left")
    axes.set_title("error %: lines on the validation split, seed 0; crosses on the test split",
                   loc="left", fontsize=10)  # fmt: skip
    axes.legend(frameon=False)
    axes.grid(color="#e3e8ee")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.out, dpi=160)


if __name__ == "__main__":
    main()
