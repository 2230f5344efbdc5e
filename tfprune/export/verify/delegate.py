"""A delegate that runs sparse convolutions of `.tflite` files on tfprune's kernels.

A file runs with it and without it, and gives the same; `custom_ops/tflite` holds its sources.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_LIBRARY = Path(__file__).parents[2] / "ops" / "libtfprune_tflite.so"


def library_path() -> Path:
    """Path of the delegate's library, for programs that load it themselves.

    Raises:
        NativeUnavailableError: (of tfprune.ops) if it was not built, or TFPRUNE_DISABLE_NATIVE=1.
    """
    if os.environ.get("TFPRUNE_DISABLE_NATIVE") == "1":
        raise _unavailable("TFPRUNE_DISABLE_NATIVE=1 is set; unset it")
    if not _LIBRARY.exists():
        raise _unavailable(
            "it was not built (no C++ compiler was found when tfprune was installed). Install a "
            "C++ compiler and reinstall tfprune; TFPRUNE_REQUIRE_NATIVE=1 then shows what fails"
        )
    return _LIBRARY


def load_delegate(threads: int = 1, verbose: bool = False) -> Any:
    """Load a delegate for `ai_edge_litert.interpreter.Interpreter(experimental_delegates=[...])`.

    It takes over sparse convolutions and dense layers that target="smallest" wrote; all else stays
    with the interpreter. Several interpreters may share it. TFPRUNE_KERNEL chooses a kernel.

    Args:
        threads: most threads that work at a convolution, 1 to 256.
        verbose: whether to tell on stderr what it takes over.

    Raises:
        NativeUnavailableError: (of tfprune.ops) if it was not built, cannot be loaded, or
            TFPRUNE_DISABLE_NATIVE=1.
        ValueError: for a number of threads out of range, or a kernel that there is not.
    """
    from ai_edge_litert import interpreter as litert

    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 256:
        raise ValueError(f"`threads` must be a whole number, 1 to 256. Received: {threads!r}.")
    path = library_path()
    try:
        return litert.load_delegate(str(path), {"num_threads": threads, "verbose": int(verbose)})
    except (OSError, AttributeError) as error:
        raise _unavailable(f"the library cannot be loaded: {error}") from error


def claimed(delegate: Any) -> int:
    """Count the convolutions and dense layers that a delegate took over, in all interpreters."""
    library = delegate._library
    count = library.tfprune_delegate_claimed
    count.argtypes = [library.tflite_plugin_create_delegate.restype]
    return int(count(delegate._get_native_delegate_pointer()))


def _unavailable(reason: str) -> RuntimeError:
    from tfprune.ops.library import NativeUnavailableError

    return NativeUnavailableError(
        f"tfprune's LiteRT delegate cannot be used: {reason}. Without it (delegate=False) the file "
        "gives the same, slower."
    )
