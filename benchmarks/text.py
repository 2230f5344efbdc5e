"""Tiny Shakespeare as windows of characters, through tensorflow_datasets."""

from __future__ import annotations

import numpy as np

WINDOW = 64
Pair = tuple[np.ndarray, np.ndarray]


def load_text(data_dir: str | None, validate: bool) -> tuple[Pair, Pair]:
    """(training, evaluation): windows [n, 64] of character numbers, and the characters after them.

    The vocabulary is that of the training text, 65 characters; another one counts as the first.
    """
    import tensorflow_datasets as tfds

    wanted = ["train", "validation" if validate else "test"]
    parts = tfds.load("tiny_shakespeare", split=wanted, data_dir=data_dir)
    train, held = (next(iter(tfds.as_numpy(part)))["text"].decode() for part in parts)
    numbers = {letter: number for number, letter in enumerate(sorted(set(train)))}
    return _windows(train, numbers), _windows(held, numbers)


def _windows(text: str, numbers: dict[str, int]) -> Pair:
    coded = np.array([numbers.get(letter, 0) for letter in text], "int32")
    count = (len(coded) - 1) // WINDOW
    x = coded[: count * WINDOW].reshape(count, WINDOW)
    return x, coded[1 : count * WINDOW + 1].reshape(count, WINDOW)
