"""`tfprune report model.tflite`: what is in a file, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfprune.export.flatbuffer import contents
from tfprune.export.verify.child import READ_MEMORY, ask
from tfprune.files import gzip_size

SECONDS = 60.0


def describe(path: Path, seconds: float = SECONDS) -> dict[str, Any]:
    """What is in a `.tflite` file.

    Returns:
        {"model", "bytes", "gzip_bytes"} and what `tfprune.export.flatbuffer.contents.main` finds.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or no `.tflite` file.
    """
    found = ask(contents.__file__, path, seconds=seconds, memory=READ_MEMORY)
    data = path.read_bytes()
    return {"model": str(path), "bytes": len(data), "gzip_bytes": gzip_size(data), **found}


def head(found: dict[str, Any]) -> str:
    """Size, inputs, outputs, ops and storage as text."""
    lines = [f"{found['model']}: {found['bytes']:,} bytes, {found['gzip_bytes']:,} gzipped"]
    for side in ("inputs", "outputs"):
        ends = [f"{name} {end['shape']} {end['type']}" for name, end in found[side].items()]
        lines.append(f"  {side:8} {', '.join(ends)}")
    ops = [f"{name} x{count}" for name, count in found["ops"].items()]
    kinds = [
        f"{kind} {total['bytes']:,} bytes in {total['tensors']}"
        for kind, total in found["storage"].items()
    ]
    return "\n".join([*lines, f"  ops      {', '.join(ops)}", f"  storage  {', '.join(kinds)}"])


def table(found: dict[str, Any]) -> str:
    """The whole description as text."""
    rows = found["tensors"]
    if not rows:
        return head(found)
    names = [_short(row["name"]) for row in rows]
    shapes = ["x".join(map(str, row["shape"])) for row in rows]
    wide, high = max(6, *map(len, names)), max(5, *map(len, shapes))
    lines = [f"{'tensor':{wide}}  {'shape':{high}}  type     form   density      bytes"]
    for name, shape, row in zip(names, shapes, rows, strict=True):
        density = "" if row["density"] is None else f"{row['density']:.4f}"
        lines.append(
            f"{name:{wide}}  {shape:{high}}  {row['type']:7}  {row['form']:5}  {density:>7}  "
            f"{row['bytes']:>9,}"
        )
    return "\n".join([head(found), "", *lines])


def _short(name: str, most: int = 44) -> str:
    """The end of a long name, which tells more than its start."""
    return name if len(name) <= most else f"...{name[3 - most :]}"
