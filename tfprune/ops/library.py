"""The native library, loaded once, when it is first needed, or the reason why there is none."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import warnings
from pathlib import Path
from typing import Any

_LIBRARY = Path(__file__).with_name("libtfprune.so")
_log = logging.getLogger("tfprune")


class NativeUnavailableError(RuntimeError):
    """Native ops that are required by TFPRUNE_REQUIRE_NATIVE=1, or asked for, and are not there."""


@functools.cache
def _loaded() -> tuple[Any, ctypes.CDLL] | str:
    """TensorFlow's module of op functions and the C interface; or why there are none."""
    if os.environ.get("TFPRUNE_DISABLE_NATIVE") == "1":
        return "TFPRUNE_DISABLE_NATIVE=1 is set"
    if not _LIBRARY.exists():
        return (
            "they were not built (no C++ compiler was found when tfprune was installed); install "
            "one and reinstall tfprune"
        )
    try:
        import tensorflow as tf

        module = tf.load_op_library(str(_LIBRARY))
        native = ctypes.CDLL(str(_LIBRARY))
    except Exception as error:  # TensorFlow raises errors of several types
        return f"the library cannot be loaded: {error}"
    native.tfp_kernel_name.restype = ctypes.c_char_p
    native.tfp_last_error.restype = ctypes.c_char_p
    kernel = os.environ.get("TFPRUNE_KERNEL")
    if kernel and native.tfp_select_kernel(kernel.encode()):
        return f"TFPRUNE_KERNEL={kernel}: {native.tfp_last_error().decode()}"
    _log.info("native kernels run with '%s'", kernel or kernels(native)[0])
    return module, native


def native() -> Any | None:
    """The module with the op functions, or None after a single warning.

    Raises:
        NativeUnavailableError: if TFPRUNE_REQUIRE_NATIVE=1 and there are none.
    """
    loaded = _loaded()
    if isinstance(loaded, str):
        if os.environ.get("TFPRUNE_REQUIRE_NATIVE") == "1":
            raise NativeUnavailableError(f"TFPRUNE_REQUIRE_NATIVE=1, but {loaded}.")
        _warn(loaded)
        return None
    loaded[1].tfp_set_threads(_threads())
    return loaded[0]


@functools.cache
def _warn(reason: str) -> None:
    if reason.startswith("TFPRUNE_DISABLE_NATIVE"):
        return
    warnings.warn(
        f"tfprune's native kernels are not used: {reason}. Sparse layers compute the same by "
        "TensorFlow's dense kernels. TFPRUNE_REQUIRE_NATIVE=1 makes this an error, "
        "TFPRUNE_DISABLE_NATIVE=1 silences it.",
        stacklevel=3,
    )


def available() -> bool:
    """Whether the native kernels can be used; never warns."""
    return not isinstance(_loaded(), str)


def kernels(library: ctypes.CDLL | None = None) -> list[str]:
    """Names of the kernels that this CPU runs, fastest first; [] without the native library."""
    if library is None:
        loaded = _loaded()
        if isinstance(loaded, str):
            return []
        library = loaded[1]
    names = []
    index = 0
    while (name := library.tfp_kernel_name(index)) is not None:
        if library.tfp_kernel_runs(index):
            names.append(name.decode())
        index += 1
    return names


def select_kernel(name: str | None) -> None:
    """Choose the kernel for weights that are packed from now on.

    Args:
        name: a name of `kernels()`; None for the fastest.

    Raises:
        NativeUnavailableError: without the native library.
        ValueError: if there is no such kernel, or this CPU cannot run it.
    """
    loaded = _loaded()
    if isinstance(loaded, str):
        raise NativeUnavailableError(f"There are no native kernels: {loaded}.")
    if loaded[1].tfp_select_kernel(None if name is None else name.encode()):
        raise ValueError(loaded[1].tfp_last_error().decode())


def _threads() -> int:
    """Threads that TensorFlow uses within an op."""
    import tensorflow as tf

    configured = tf.config.threading.get_intra_op_parallelism_threads()
    if configured > 0:
        return configured
    if os.environ.get("TF_NUM_INTRAOP_THREADS", "").isdigit():
        return max(int(os.environ["TF_NUM_INTRAOP_THREADS"]), 1)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
