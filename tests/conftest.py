"""What all tests share: a quiet TensorFlow with two CPU devices, fresh names, fixed seeds."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import hypothesis
import keras
import pytest

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    # For MirroredStrategy; it must be said before TensorFlow is first used.
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

FINISHED: list[str] = []

# The same examples on every run, and no limit on the time of one: the first call traces a graph.
hypothesis.settings.register_profile("tfprune", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("tfprune")


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of collections, of which every conversion asks for one.

    Collect seldom by count, since tracing makes many objects that live on, and every few tests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Collect after every 20 tests; as many collections as tests would take minutes."""
    FINISHED.append(nodeid)
    if len(FINISHED) % 20 == 0:
        gc.collect()


@pytest.fixture(autouse=True)
def fresh_keras() -> Iterator[None]:
    """Fresh layer names, seed 0, the dtype policy put back: no test sees another's traces."""
    policy = keras.config.dtype_policy()
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy(policy)
