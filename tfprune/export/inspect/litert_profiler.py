"""Times per op from the profiler in LiteRT's C library; a job of `tfprune.export.verify.child`.

The Python package has no way in, so this calls the library that comes with it. It fits
ai-edge-litert 2.3; where another version has another interface, the process ends or says so.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import time
from ctypes import byref, c_bool, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

ALIGNMENT = 64  # of LiteRT's host memory
CPU = 1
WARM_UP, MIN_ROUNDS = 3, 3
NEWEST = ("LiteRtCompiledModelGetProfiler", "LiteRtGetProfileSummary")
# [node type] [start] [first] [avg ms] [%] [cdf%] [mem KB] [times called] [Name]
_NODE = re.compile(
    r"^\s*(?P<op>\S.*?)\s+-?[\d.]+\s+[\d.]+\s+(?P<ms>[\d.]+)\s+\S+%\s+\S+%\s+\S+\s+(?P<called>\d+)"
    r"\s+\[\S*\]\S*\s*$"
)


class _Layout(ctypes.Structure):
    _fields_ = (("rank", c_uint32), ("sizes", c_int32 * 8), ("strides", c_uint32 * 8))


class _TensorType(ctypes.Structure):
    _fields_ = (("element", c_int), ("layout", _Layout))


class _MissingError(LookupError):
    """The library lacks a function."""


def main(path: str, threads: str, batch: str, rounds: str, seconds: str) -> dict[str, Any]:
    """Time the ops of a file on inputs of zeros.

    Args:
        path: the file.
        threads: threads within an op.
        batch: examples per call, where the file leaves it open.
        rounds: calls that are timed.
        seconds: time after which no further round begins.

    Returns:
        {"nodes": [{"op", "count", "ms"}]} in the order of the run, per call of the model; without a
        profiler {"missing": why}.

    Raises:
        ValueError: if LiteRT refuses the file.
    """
    package = importlib.util.find_spec("ai_edge_litert")
    folders = package.submodule_search_locations if package else None
    library_path = Path(folders[0] if folders else "", "libLiteRt.so")
    if not library_path.exists():
        return {"missing": f"there is no {library_path.name} in ai_edge_litert."}
    try:
        library = _Library(library_path)
        session = _Session(library, Path(path).read_bytes(), int(threads), int(batch))
        nodes = parse(*session.profile(int(rounds), float(seconds)))
    except _MissingError as error:
        return {"missing": f"{library_path.name} has no {error.args[0]}."}
    return {"nodes": nodes} if nodes else {"missing": "its summary has another form."}


def parse(summary: str, rounds: int) -> list[dict[str, Any]]:
    """Read the nodes from a profiler's summary.

    Args:
        summary: text of several tables, of which the first is read.
        rounds: calls that it sums up.

    Returns:
        [{"op", "count", "ms"}], per call.
    """
    nodes = []
    for line in summary.split("Top by Computation Time")[0].splitlines():
        match = _NODE.match(line)
        if match:
            count = int(match["called"]) / rounds
            op = match["op"].removeprefix("Delegate/")
            nodes.append({"op": op, "count": count, "ms": count * float(match["ms"])})
    return nodes


class _Library:
    """LiteRT's C functions, whose status becomes an error."""

    def __init__(self, path: Path) -> None:
        self._functions = ctypes.CDLL(str(path))
        for name in NEWEST:  # before anything is called with the arguments of another version
            self._function(name)

    def _function(self, name: str) -> Any:
        function = getattr(self._functions, name, None)
        if function is None:
            raise _MissingError(name)
        return function

    def call(self, name: str, *arguments: Any) -> None:
        status = self._function(name)(*arguments)
        if status:
            raise ValueError(f"{name} of LiteRT must succeed. Received: status {status}.")

    def make(self, name: str, *arguments: Any) -> c_void_p:
        """Handle that a function gives back through its last argument."""
        handle = c_void_p()
        self.call(name, *arguments, byref(handle))
        return handle

    def count(self, name: str, *arguments: Any) -> c_size_t:
        """Count that a function gives back through its last argument."""
        result = c_size_t()
        self.call(name, *arguments, byref(result))
        return result


class _Session:
    """A compiled model with inputs of zeros; the process's end frees everything."""

    def __init__(self, library: _Library, data: bytes, threads: int, batch: int) -> None:
        self._lib, self._data, self._batch = library, data, batch
        self._memory: list[Any] = []  # LiteRT reads and writes here
        environment = library.make("LiteRtCreateEnvironment", c_int(0), None)
        size = c_size_t(len(data))
        model = library.make("LiteRtCreateModelFromBuffer", environment, data, size)
        options = _options(library, threads)
        create = "LiteRtCreateCompiledModel"
        self._model = library.make(create, environment, model, options)
        self._signature = library.make("LiteRtGetModelSignature", model, c_size_t(0))
        self._ends = (*self._tensors("Input"), *self._tensors("Output"))

    def profile(self, rounds: int, seconds: float) -> tuple[str, int]:
        """LiteRT's summary, and the count of its rounds."""
        profiler = self._lib.make("LiteRtCompiledModelGetProfiler", self._model)
        for _ in range(WARM_UP):
            self._run()
        self._lib.call("LiteRtStartProfiler", profiler)
        end, done = time.monotonic() + seconds, 0
        while done < rounds and (done < MIN_ROUNDS or time.monotonic() < end):
            self._run()
            done += 1
        self._lib.call("LiteRtStopProfiler", profiler)
        summary = self._lib.make("LiteRtGetProfileSummary", profiler, self._model)
        return ctypes.string_at(summary.value or 0).decode(errors="replace"), done

    def _run(self) -> None:
        self._lib.call("LiteRtRunCompiledModel", self._model, c_size_t(0), *self._ends)

    def _tensors(self, side: str) -> tuple[c_size_t, Any]:
        """Count of the inputs or outputs, and memory for them."""
        count = self._lib.count(f"LiteRtGetNumSignature{side}s", self._signature)
        if side == "Output":  # their sizes follow those of the inputs only when asked for
            layouts = (_Layout * count.value)()
            ask = "LiteRtGetCompiledModelOutputTensorLayouts"
            self._lib.call(ask, self._model, c_size_t(0), count, layouts, c_bool(True))
        buffers = (c_void_p * count.value)()
        for index in range(count.value):
            buffers[index] = self._buffer(side, c_size_t(index)).value
        return count, buffers

    def _buffer(self, side: str, index: c_size_t) -> c_void_p:
        get = f"LiteRtGetSignature{side}TensorByIndex"
        tensor = self._lib.make(get, self._signature, index)
        kind = _TensorType()
        self._lib.call("LiteRtGetRankedTensorType", tensor, byref(kind))
        sizes, rank = kind.layout.sizes, kind.layout.rank & 0x7F  # the rest of it are flags
        examples = 1
        if rank and sizes[0] < 0:
            sizes[0] = examples = self._batch
            if side == "Input":
                resize = "LiteRtCompiledModelResizeInputTensor"
                self._lib.call(resize, self._model, c_size_t(0), index, sizes, c_size_t(rank))
        needs = f"LiteRtGetCompiledModel{side}BufferRequirements"
        wanted = self._lib.make(needs, self._model, c_size_t(0), index)
        size = self._lib.count("LiteRtGetTensorBufferRequirementsBufferSize", wanted)
        if side == "Output":  # which is that of one example, where a run decides on the shape
            size.value *= examples
        memory = ctypes.create_string_buffer(size.value + 2 * ALIGNMENT)
        self._memory.append(memory)
        start = c_void_p(-(-ctypes.addressof(memory) // ALIGNMENT) * ALIGNMENT)
        create = "LiteRtCreateTensorBufferFromHostMemory"
        return self._lib.make(create, byref(kind), start, size, None)


def _options(library: _Library, threads: int) -> c_void_p:
    """Compilation for the CPU with the profiler on."""
    libc = ctypes.CDLL(None)
    libc.strdup.restype, libc.strdup.argtypes = c_void_p, [c_char_p]
    options = library.make("LiteRtCreateOptions")
    library.call("LiteRtSetOptionsHardwareAccelerators", options, c_int(CPU))
    settings = {
        b"xnnpack": f"num_threads = {threads}\n",
        b"runtime_options_string": "enable_profiling = true\n",
    }
    for name, setting in settings.items():  # LiteRT frees the text with the function given
        text = c_void_p(libc.strdup(setting.encode()))
        opaque = library.make("LiteRtCreateOpaqueOptions", name, text, libc.free)
        library.call("LiteRtAddOpaqueOptions", options, opaque)
    return options
