"""Single calls of what is compiled for many."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Inside, nothing is traced, which for a single call takes longer than the call."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
