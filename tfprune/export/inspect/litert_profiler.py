"""Times per op from the profiler in LiteRT's C library; a job of `tfprune.export.verify.child`.

The Python package has no way in, so this calls the library that comes with it. Known to fit
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
WARM_UP, LEAST = 3, 3
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
    """Return {"nodes": [{"op", "count", "ms"}]} in the order of the run, per call of the model.

    Without a profiler: {"missing": what is}. `seconds` end the rounds. Raises ValueError if LiteRT
    refuses the file.
    """
    found = importlib.util.find_spec("ai_edge_litert")
    folders = found.submodule_search_locations if found else None
    place = Path(folders[0] if folders else "", "libLiteRt.so")
    if not place.exists():
        return {"missing": f"there is no {place.name} in ai_edge_litert."}
    try:
        library = _Library(place)
        session = _Session(library, Path(path).read_bytes(), int(threads), int(batch))
        nodes = parse(*session.profile(int(rounds), float(seconds)))
    except _MissingError as error:
        return {"missing": f"{place.name} has no {error.args[0]}."}
    return {"nodes": nodes} if nodes else {"missing": "its summary has another form."}


def parse(summary: str, rounds: int) -> list[dict[str, Any]]:
    """The nodes in the summary's first table, per round."""
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

    def __init__(self, place: Path) -> None:
        self._functions = ctypes.CDLL(str(place))
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
            raise ValueError(f"{name} of LiteRT answered with status {status}.")

    def make(self, name: str, *arguments: Any) -> c_void_p:
        """The handle that a function gives back through its last argument."""
        handle = c_void_p()
        self.call(name, *arguments, byref(handle))
        return handle

    def count(self, name: str, *arguments: Any) -> c_size_t:
        """The same for a number."""
        number = c_size_t()
        self.call(name, *arguments, byref(number))
        return number


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
        """LiteRT's summary, and of how many rounds it is."""
        profiler = self._lib.make("LiteRtCompiledModelGetProfiler", self._model)
        for _ in range(WARM_UP):
            self._run()
        self._lib.call("LiteRtStartProfiler", profiler)
        end, done = time.monotonic() + seconds, 0
        while done < rounds and (done < LEAST or time.monotonic() < end):
            self._run()
            done += 1
        self._lib.call("LiteRtStopProfiler", profiler)
        summary = self._lib.make("LiteRtGetProfileSummary", profiler, self._model)
        return ctypes.string_at(summary.value or 0).decode(errors="replace"), done

    def _run(self) -> None:
        self._lib.call("LiteRtRunCompiledModel", self._model, c_size_t(0), *self._ends)

    def _tensors(self, side: str) -> tuple[c_size_t, Any]:
        """How many inputs or outputs there are, and memory for each."""
        count = self._lib.count(f"LiteRtGetNumSignature{side}s", self._signature)
        if side == "Output":  # their sizes follow those of the inputs only when asked for
            layouts = (_Layout * count.value)()
            ask = "LiteRtGetCompiledModelOutputTensorLayouts"
            self._lib.call(ask, self._model, c_size_t(0), count, layouts, c_bool(True))
        buffers = (c_void_p * count.value)()
        for number in range(count.value):
            buffers[number] = self._buffer(side, c_size_t(number)).value
        return count, buffers

    def _buffer(self, side: str, number: c_size_t) -> c_void_p:
        get = f"LiteRtGetSignature{side}TensorByIndex"
        tensor = self._lib.make(get, self._signature, number)
        kind = _TensorType()
        self._lib.call("LiteRtGetRankedTensorType", tensor, byref(kind))
        sizes, rank = kind.layout.sizes, kind.layout.rank & 0x7F  # the rest of it are flags
        examples = 1
        if rank and sizes[0] < 0:
            sizes[0] = examples = self._batch
            if side == "Input":
                resize = "LiteRtCompiledModelResizeInputTensor"
                self._lib.call(resize, self._model, c_size_t(0), number, sizes, c_size_t(rank))
        needs = f"LiteRtGetCompiledModel{side}BufferRequirements"
        wanted = self._lib.make(needs, self._model, c_size_t(0), number)
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
    for name, setting in settings.items():  # LiteRT frees each text with the function given
        text = c_void_p(libc.strdup(setting.encode()))
        one = library.make("LiteRtCreateOpaqueOptions", name, text, libc.free)
        library.call("LiteRtAddOpaqueOptions", options, one)
    return options
