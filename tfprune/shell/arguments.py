"""Arguments of the shell command: numbers in their range, paths that can be written."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def check_out(path: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse a path that can't be written before the work, not after it.

    Raises:
        ValueError: if it has another suffix, its folder does not exist, or it cannot be written.
    """
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"The path must end in {' or '.join(suffixes)}. Received: '{path}'.")
    if not path.parent.is_dir():
        raise ValueError(
            f"The folder of the path does not exist; create it first. Received: '{path}'."
        )
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"The path must be a file that can be written. Received: '{path}'.")


def sparsity(text: str) -> float:
    """A fraction in [0, 1)."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be a fraction in [0, 1), not percent: {text}")
    return value


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1: {text}")
    return value


def seed(text: str) -> int:
    """A seed of 32 bits."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be in [0, 2**32): {text}")
    return value


def rate(text: str) -> float:
    """A positive number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive: {text}")
    return value


def shape(text: str) -> tuple[int, ...]:
    """Positive numbers with commas between them."""
    return tuple(positive(part) for part in text.split(","))


for _kind, _name in (
    (sparsity, "fraction"),
    (positive, "positive whole number"),
    (seed, "seed"),
    (rate, "rate"),
    (shape, "shape"),
):
    _kind.__name__ = _name  # argparse names it in "invalid ... value"
