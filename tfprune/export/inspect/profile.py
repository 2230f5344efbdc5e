"""`tfprune bench model.tflite`: latency of a file and of its ops, by number of threads."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfprune.export.inspect import latency, litert_profiler
from tfprune.export.inspect.describe import describe, head
from tfprune.export.verify.child import RUN_MEMORY, ask

SECONDS = 120.0
SPARSE_KERNEL = "SPMM"  # in the names of the kernels of XNNPACK's sparse mode


def bench_tflite(
    path: Path,
    batch: int | None = None,
    threads: Sequence[int] = (1, 2),
    rounds: int = 30,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Measure a `.tflite` file with LiteRT's default delegate.

    Args:
        path: the file.
        batch: examples per call; None for the file's own, or 1 where it is open.
        threads: numbers of threads, one run each.
        rounds: calls that are timed; fewer where they take more than a third of `seconds`.
        seconds: after which a process that runs the file is ended.

    Returns:
        What `describe` finds, and {"batch", "runs": [{"threads", "ms", "cpu_ms", "rounds",
        "sparse_mode", "profile": [{"op", "count", "ms", "share"}], "nodes", "note"}]}. Medians, CPU
        time of all threads; profile by op, nodes in the order of the run; both None and sparse_mode
        None where the profiler gives nothing, which `note` explains.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, does not run, or has another batch.
    """
    if not threads:
        raise ValueError("`threads` must hold at least one number of threads. Received: none.")
    found, runs = describe(path), []
    for count in threads:
        budget = (rounds, seconds / 3)
        limits: dict[str, Any] = {"seconds": seconds, "memory": RUN_MEMORY}
        run = ask(latency.__file__, path, count, batch or 0, *budget, **limits)
        size = run.pop("batch")
        try:
            said = ask(litert_profiler.__file__, path, count, size, *budget, **limits)
        except ValueError as error:
            said = {"missing": str(error)}
        runs.append({"threads": count, **run, **_by_op(said)})
    return {**found, "batch": size, "runs": runs}


def _by_op(said: dict[str, Any]) -> dict[str, Any]:
    if "missing" in said:
        version = importlib.metadata.version("ai-edge-litert")
        note = f"The profiler of ai-edge-litert {version} gives no times per op: {said['missing']}"
        return {"sparse_mode": None, "profile": None, "nodes": None, "note": note}
    nodes = said["nodes"]
    ops: dict[str, dict[str, Any]] = {}
    for node in nodes:
        op = ops.setdefault(node["op"], {"op": node["op"], "count": 0.0, "ms": 0.0})
        op["count"] += node["count"]
        op["ms"] += node["ms"]
    total = sum(op["ms"] for op in ops.values())
    profile = sorted(ops.values(), key=lambda op: (-op["ms"], op["op"]))
    for op in profile:
        op["share"] = op["ms"] / total if total else None
    sparse = any(SPARSE_KERNEL in op for op in ops)
    return {"sparse_mode": sparse, "profile": profile, "nodes": nodes, "note": None}


def table(found: dict[str, Any]) -> str:
    """The result as text."""
    lines = [head(found)]
    for run in found["runs"]:
        lines += [
            "",
            f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}, batch {found['batch']}: "
            f"{run['ms']:.3f} ms, {run['cpu_ms']:.3f} ms of CPU time (medians of {run['rounds']})",
        ]
        lines += [run["note"]] if run["profile"] is None else [_SPARSE[run["sparse_mode"]]]
        listed = [{"op": op, "count": count} for op, count in found["ops"].items()]
        rows = run["profile"] or listed
        wide = max(2, *(len(row["op"]) for row in rows))
        titles = "" if run["profile"] is None else "        ms   share"
        lines.append(f"{'op':{wide}}  count{titles}")
        for row in rows:
            share = "" if row.get("share") is None else f"{row['share']:.4f}"
            times = f"  {row['ms']:8.3f}  {share:>6}" if "ms" in row else ""
            lines.append(f"{row['op']:{wide}}  {row['count']:5g}{times}".rstrip())
    if any(row["ms"] < 0.001 for run in found["runs"] for row in run["profile"] or ()):
        lines += ["", "XNNPACK counts whole microseconds: an op that takes less shows as 0."]
    return "\n".join(lines)


_SPARSE = {
    True: "XNNPACK's sparse mode ran.",
    False: "XNNPACK's sparse mode did not run: no kernel of it is among these.",
}
