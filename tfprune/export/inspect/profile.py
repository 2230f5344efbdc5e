"""`tfprune bench model.tflite`: latency of a file and of its ops, by number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfprune.export.inspect.describe import describe, head
from tfprune.export.verify.child import RUN_MEMORY, ask

SECONDS = 120.0
_LATENCY, _PROFILER = (
    Path(__file__).with_name(f"{job}.py") for job in ("latency", "litert_profiler")
)
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
        threads: threads within an op, >= 1; a run for each count.
        rounds: calls that are timed; fewer where they take more than a third of `seconds`.
        seconds: time after which a process that runs the file is ended.

    Returns:
        What `describe` gives, and {"batch", "runs": [{"threads", "ms", "cpu_ms", "rounds",
        "sparse_mode", "profile": [{"op", "count", "ms", "share"}], "nodes", "note"}]}. Medians, CPU
        time of all threads; profile by op, nodes in the order of the run; both None and sparse_mode
        None where the profiler gives nothing, which `note` explains.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, does not run, or has another batch.
    """
    if not threads:
        raise ValueError(
            f"`threads` must hold at least one number of threads. Received: {threads!r}."
        )
    description, runs = describe(path), []
    for count in threads:
        budget = (rounds, seconds / 3)
        limits: dict[str, Any] = {"seconds": seconds, "memory": RUN_MEMORY}
        run = ask(_LATENCY, path, count, batch or 0, *budget, **limits)
        size = run.pop("batch")
        try:
            said = ask(_PROFILER, path, count, size, *budget, **limits)
        except ValueError as error:
            said = {"missing": str(error)}
        runs.append({"threads": count, **run, **_by_op(said)})
    return {**description, "batch": size, "runs": runs}


def _by_op(said: dict[str, Any]) -> dict[str, Any]:
    if "missing" in said:
        from importlib import metadata

        version = metadata.version("ai-edge-litert")
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


def table(measured: dict[str, Any]) -> str:
    """The result as text."""
    lines = [head(measured)]
    for run in measured["runs"]:
        plural = "s" if run["threads"] > 1 else ""
        lines += [
            "",
            f"{run['threads']} thread{plural}, batch {measured['batch']}: "
            f"{run['ms']:.3f} ms, {run['cpu_ms']:.3f} ms of CPU time (medians of {run['rounds']})",
        ]
        lines += [run["note"]] if run["profile"] is None else [_SPARSE[run["sparse_mode"]]]
        listed = [{"op": op, "count": count} for op, count in measured["ops"].items()]
        ops = run["profile"] or listed
        wide = max(2, *(len(op["op"]) for op in ops))
        titles = "" if run["profile"] is None else "        ms   share"
        lines.append(f"{'op':{wide}}  count{titles}")
        for op in ops:
            share = "" if op.get("share") is None else f"{op['share']:.4f}"
            times = f"  {op['ms']:8.3f}  {share:>6}" if "ms" in op else ""
            lines.append(f"{op['op']:{wide}}  {op['count']:5g}{times}".rstrip())
    if any(op["ms"] < 0.001 for run in measured["runs"] for op in run["profile"] or ()):
        lines += ["", "XNNPACK counts whole microseconds: an op that takes less shows as 0."]
    return "\n".join(lines)


_SPARSE = {
    True: "XNNPACK's sparse mode ran.",
    False: "XNNPACK's sparse mode did not run: no kernel of it is among these.",
}
