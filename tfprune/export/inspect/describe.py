"""`tfprune report model.tflite`: the contents of a file, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfprune.export.verify.child import READ_MEMORY, ask
from tfprune.files import gzip_size

SECONDS = 60.0
_CONTENTS = Path(__file__).parents[1] / "flatbuffer" / "contents.py"  # the job


def describe(path: Path, seconds: float = SECONDS) -> dict[str, Any]:
    """Describe a `.tflite` file.

    Args:
        path: the file.
        seconds: time after which the process that reads it is ended.

    Returns:
        {"model", "bytes", "gzip_bytes"} and what `tfprune.export.flatbuffer.contents.main` gives.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or no `.tflite` file.
    """
    description = ask(_CONTENTS, path, seconds=seconds, memory=READ_MEMORY)
    data = path.read_bytes()
    return {"model": str(path), "bytes": len(data), "gzip_bytes": gzip_size(data), **description}


def head(description: dict[str, Any]) -> str:
    """Size, inputs, outputs, ops and storage as text."""
    size, gzipped = description["bytes"], description["gzip_bytes"]
    lines = [f"{description['model']}: {size:,} bytes, {gzipped:,} gzipped"]
    for side in ("inputs", "outputs"):
        ends = [f"{name} {end['shape']} {end['type']}" for name, end in description[side].items()]
        lines.append(f"  {side:8} {', '.join(ends)}")
    ops = [f"{name} x{count}" for name, count in description["ops"].items()]
    kinds = [
        f"{kind} {total['bytes']:,} bytes in {total['tensors']}"
        for kind, total in description["storage"].items()
    ]
    return "\n".join([*lines, f"  ops      {', '.join(ops)}", f"  storage  {', '.join(kinds)}"])


def table(description: dict[str, Any]) -> str:
    """The whole description as text."""
    tensors = description["tensors"]
    if not tensors:
        return head(description)
    names = [_short(tensor["name"]) for tensor in tensors]
    shapes = ["x".join(map(str, tensor["shape"])) for tensor in tensors]
    wide, high = max(6, *map(len, names)), max(5, *map(len, shapes))
    lines = [f"{'tensor':{wide}}  {'shape':{high}}  type     form   density      bytes"]
    for name, shape, tensor in zip(names, shapes, tensors, strict=True):
        density = "" if tensor["density"] is None else f"{tensor['density']:.4f}"
        lines.append(
            f"{name:{wide}}  {shape:{high}}  {tensor['type']:7}  {tensor['form']:5}  {density:>7}  "
            f"{tensor['bytes']:>9,}"
        )
    return "\n".join([head(description), "", *lines])


def _short(name: str, most: int = 44) -> str:
    """The end of a long name, which tells more than its start."""
    return name if len(name) <= most else f"...{name[3 - most :]}"
