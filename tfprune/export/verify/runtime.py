"""Runs of `.tflite` files with LiteRT: inputs and outputs by signature name.

Imports nothing of tfprune at load, so that a bare process can run it in a tenth of a second.
"""

import contextlib
import io
import os
import pickle
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Sample = dict[str, np.ndarray]
ANSWER = b"tfprune answers:\n"
KERNELS = {
    "default": "AUTO",
    "reference": "BUILTIN_REF",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
}


class Unsupported(ValueError):
    """A file that the runtime may run, but that has no form for this module."""


class Runner:
    """A loaded file.

    Args:
        data: the bytes of the file.
        kernels: a name of `KERNELS`.
        threads: threads within an op, >= 1.
        delegate: whether tfprune's kernels run sparse convolutions.

    Raises:
        ValueError: if it isn't a `.tflite` file that this runtime can prepare.
        NativeUnavailableError: (of tfprune.ops) if the delegate was not built.
    """

    def __init__(
        self, data: bytes, kernels: str = "default", threads: int = 1, delegate: bool = False
    ) -> None:
        from ai_edge_litert import interpreter as litert

        kind = litert.OpResolverType[KERNELS[kernels]]
        self._size = len(data)
        self.delegates = [_delegate(threads)] if delegate else []
        with self._explained():
            self._interpreter = litert.Interpreter(
                model_content=bytes(data),
                experimental_delegates=self.delegates,
                experimental_op_resolver_type=kind,
                num_threads=threads,
            )
            self.inputs, self.outputs = self._signature()
            shapes = [detail["shape_signature"] for detail in self.inputs.values()]
            self._prepared = all(size > 0 for shape in shapes for size in shape)
            if self._prepared:  # Open sizes stand at 1 here, too small for some kernels.
                self._interpreter.allocate_tensors()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Unsupported:
            raise
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"This is not a .tflite file that LiteRT can run ({self._size} bytes), or its "
                f"inputs have sizes that it can't take. Received: {error}"
            ) from error

    def _signature(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Details of inputs and outputs by signature name, else by tensor name."""
        signatures = list(self._interpreter.get_signature_list())
        if len(signatures) > 1:
            raise Unsupported(f"A file must have one signature. Received: {signatures}.")
        if signatures:
            runner = self._interpreter.get_signature_runner()
            return runner.get_input_details(), runner.get_output_details()
        details = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        inputs, outputs = ({detail["name"]: detail for detail in group} for group in details)
        return inputs, outputs

    def __call__(self, batch: Sample) -> Sample:
        """Run a batch, name -> array; the interpreter is resized where the shape differs."""
        with self._explained():
            self._prepare(batch)
            for name, detail in self.inputs.items():
                self._interpreter.set_tensor(detail["index"], batch[name])
            self._interpreter.invoke()
            get = self._interpreter.get_tensor
            return {name: get(detail["index"]) for name, detail in self.outputs.items()}

    def again(self) -> None:
        """Compute the last batch once more; nothing is copied in or out."""
        self._interpreter.invoke()

    def _prepare(self, batch: Sample) -> None:
        for name, detail in self.inputs.items():
            if tuple(detail["shape"]) != batch[name].shape:
                self._interpreter.resize_tensor_input(detail["index"], batch[name].shape)
                detail["shape"] = np.array(batch[name].shape, np.int32)
                self._prepared = False
        if not self._prepared:
            self._interpreter.allocate_tensors()
            self._prepared = True


def _delegate(threads: int) -> Any:
    from tfprune.export.verify.delegate import load_delegate

    return load_delegate(threads)


def predict_tflite(
    path: str | os.PathLike[str],
    x: Any,
    batch_size: int = 32,
    progress: bool = False,
    threads: int = 1,
    delegate: bool = False,
) -> Any:
    """Compute the outputs of a `.tflite` file for every sample of `x`, in order.

    Args:
        path: the file.
        x: array [n, ...], or for several inputs a dict of name -> array (a file does not keep the
            order of the model's inputs; `ExportResult.inputs` has the names).
        batch_size: samples per call, >= 1, of files whose batch is open; others run at theirs.
        progress: whether to show a progress bar.
        threads: threads within an op, >= 1.
        delegate: whether tfprune's kernels run sparse convolutions.

    Returns:
        An array [n, ...], or for several outputs a dict of name -> array.

    Raises:
        ValueError: for a broken file, and for inputs that don't match it.
        NativeUnavailableError: (of tfprune.ops) if the delegate was not built.
    """
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"`batch_size` must be a whole number >= 1. Received: {batch_size!r}.")
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"`threads` must be a whole number >= 1. Received: {threads!r}.")
    runner = Runner(Path(path).read_bytes(), threads=threads, delegate=delegate)
    size = _file_batch(runner.inputs) or batch_size
    inputs = _match(x, runner.inputs)
    count = len(next(iter(inputs.values())))
    starts: Iterable[int] = range(0, count, size)
    if progress:
        from tqdm import tqdm

        starts = tqdm(starts, desc=Path(path).name, unit="batch", leave=False)
    parts = [_run_part(runner, inputs, start, size) for start in starts]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in runner.outputs}
    return next(iter(joined.values())) if len(joined) == 1 else joined


def _run_part(runner: Runner, inputs: Sample, start: int, size: int) -> Sample:
    """Run `size` samples from `start`; the last batch is filled up by repeating its last sample."""
    part = {name: value[start : start + size] for name, value in inputs.items()}
    kept = len(next(iter(part.values())))
    if kept < size:
        part = {
            name: np.concatenate([value, np.repeat(value[-1:], size - kept, axis=0)])
            for name, value in part.items()
        }
    outputs = {}
    for name, value in runner(part).items():
        if value.ndim == 0 or len(value) != size:
            raise ValueError(
                f"Output '{name}' must have a value per sample. Received: shape {value.shape} "
                f"for a batch of {size}."
            )
        outputs[name] = value[:kept]
    return outputs


def _file_batch(details: dict[str, Any]) -> int | None:
    """Batch that is built into the file, None if it is open."""
    scalars = [name for name, detail in details.items() if not len(detail["shape_signature"])]
    if scalars:
        raise ValueError(
            f"All inputs must have samples along their first axis. Received: {scalars}."
        )
    sizes = {int(detail["shape_signature"][0]) for detail in details.values()}
    if len(sizes) != 1:
        raise ValueError(f"All inputs must share a batch size. Received: {sorted(sizes)}.")
    size = sizes.pop()
    return size if size > 0 else None


def _match(x: Any, details: dict[str, Any]) -> Sample:
    if not isinstance(x, dict):
        if len(details) > 1:
            raise ValueError(
                f"The inputs must be a dict with arrays for {tuple(details)}, as a file does not "
                f"keep the order of a model's inputs. Received: {type(x).__name__}."
            )
        x = {name: x for name in details}
    if set(x) != set(details):
        raise ValueError(f"The inputs must be {tuple(details)}. Received: {tuple(x)}.")
    arrays = {name: _cast(x[name], name, detail) for name, detail in details.items()}
    sizes = {len(array) for array in arrays.values()}
    if len(sizes) != 1 or sizes == {0}:
        raise ValueError(f"All inputs must hold as many samples, at least one. Received: {sizes}.")
    return arrays


def _cast(value: Any, name: str, detail: dict[str, Any]) -> np.ndarray:
    array, dtype = np.asarray(value), np.dtype(detail["dtype"])
    signature = [int(size) for size in detail["shape_signature"]]
    sizes = zip(array.shape[1:], signature[1:], strict=False)
    if array.ndim != len(signature) or any(b >= 0 and a != b for a, b in sizes):
        raise ValueError(
            f"Input '{name}' must have shape {signature} (batch first, -1 open). "
            f"Received: {array.shape}."
        )
    if array.dtype.kind not in "fiub" or (array.dtype.kind == "f" and dtype.kind != "f"):
        raise ValueError(f"Input '{name}' takes {dtype}. Received: dtype {array.dtype}.")
    if wraps(array, dtype):
        raise ValueError(
            f"Input '{name}' takes {dtype}. Received: numbers from {array.min()} to {array.max()}."
        )
    return np.ascontiguousarray(array, dtype=dtype)


def wraps(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether whole numbers do not fit into a type that holds no floats."""
    return array.dtype.kind in "iu" and dtype.kind != "f" and (array.astype(dtype) != array).any()


def main(folder: str, kernels: str, count: str, seconds: str) -> None:
    """Run samples of `folder`/samples.pickle, and leave the outputs in `folder`.

    Args:
        folder: holds model.tflite too.
        kernels: a name of `KERNELS`.
        count: most samples to run.
        seconds: time after which no further sample is run, but not before two; 0 for no limit.
    """
    root = Path(folder)
    samples: list[Sample] = pickle.loads((root / "samples.pickle").read_bytes())
    runner = Runner((root / "model.tflite").read_bytes(), kernels)
    outputs = _run_samples(runner, samples[: int(count)], float(seconds))
    (root / f"{kernels}.pickle").write_bytes(pickle.dumps(outputs))


def _run_samples(runner: Runner, samples: list[Sample], limit: float) -> list[Sample]:
    started, outputs = time.monotonic(), []
    for sample in samples:
        outputs.append(runner(sample))
        if len(outputs) >= 2 and 0 < limit < time.monotonic() - started:
            break
    return outputs


def serve(seconds: float) -> None:
    """Run the file and samples of standard input, leave the outputs on standard output.

    Args:
        seconds: time after which no further sample is run, but not before two; 0 for no limit.
    """
    data, samples = from_bytes(sys.stdin.buffer.read())
    try:
        outputs = _run_samples(Runner(data), samples, seconds)
    except ValueError as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(ANSWER + to_bytes(b"", outputs))


def to_bytes(data: bytes, samples: list[Sample]) -> bytes:
    """Write a file and samples as `.npz`, which, unlike pickles, any version of NumPy reads."""
    arrays: dict[str, Any] = {"data": np.frombuffer(data, np.uint8)}
    for index, sample in enumerate(samples):
        arrays |= {f"{index} {name}": value for name, value in sample.items()}
    archive = io.BytesIO()
    np.savez(archive, **arrays)
    return archive.getvalue()


def from_bytes(archive: bytes) -> tuple[bytes, list[Sample]]:
    """Read what `to_bytes` wrote."""
    samples: dict[str, Sample] = {}
    with np.load(io.BytesIO(archive)) as arrays:
        for key in arrays.files:
            index, space, name = key.partition(" ")
            if space:
                samples.setdefault(index, {})[name] = arrays[key]
        return arrays["data"].tobytes(), list(samples.values())
