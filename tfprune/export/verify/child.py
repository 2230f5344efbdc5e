"""Questions about a file, answered by a process of its own with limits on time and memory.

A damaged file can end the runtime that reads it, keep it busy for ever, or let it ask for all the
memory there is. A job is a script with `main(path, *arguments)` that returns what JSON can hold.
This module and the jobs import nothing of tfprune, so that a bare process starts in a moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

READ_MEMORY, RUN_MEMORY = 4 << 30, 8 << 30  # bytes of address space, more than is used
LOG_BYTES = 64 << 20
_START = "import runpy, sys; runpy.run_path(sys.argv[1])['answer'](*sys.argv[2:])"


def ask(job: Path, path: Path, *arguments: object, seconds: float, memory: int) -> Any:
    """Have a job answer a question about a file.

    Args:
        job: the script.
        path: the file in question.
        arguments: arguments of the job, handed on as text.
        seconds: after which the process is ended.
        memory: limit of address space, in bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the job refuses the file, or the file ends the process.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'.")
    with tempfile.TemporaryDirectory() as name:
        result, log = Path(name, "result.json"), Path(name, "log")
        fixed = [__file__, str(job), os.path.abspath(path), str(result), str(memory)]
        command = [sys.executable, "-c", _START, *fixed, *map(str, arguments)]
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        environment = {**os.environ, "PYTHONPATH": paths}
        try:
            with log.open("wb") as out:
                done = subprocess.run(
                    command, cwd=name, env=environment, stdout=out, stderr=out, timeout=seconds
                )
        except subprocess.TimeoutExpired:
            raise ValueError(f"'{path}' kept LiteRT busy for more than {seconds:g} s.") from None
        if done.returncode != 0 or not result.exists():
            raise ValueError(f"'{path}' {_end(done.returncode, log)}")
        outcome = json.loads(result.read_text())
    if "refused" in outcome:
        raise ValueError(f"'{path}': {outcome['refused']}")
    return outcome["answer"]


def answer(job: str, path: str, result: str, memory: str, *arguments: str) -> None:
    """Do the job, in the child, and leave the answer or the refusal in the file `result`."""
    limits = {resource.RLIMIT_AS: int(memory), resource.RLIMIT_FSIZE: LOG_BYTES}
    for limit, most in (limits | {resource.RLIMIT_CORE: 0}).items():
        with contextlib.suppress(ValueError, OSError):  # a lower limit stands, or none is possible
            resource.setrlimit(limit, (most, resource.getrlimit(limit)[1]))
    try:
        outcome = {"answer": runpy.run_path(job)["main"](path, *arguments)}
    except MemoryError:
        outcome = {"refused": f"It asks for more than {int(memory) >> 30} GiB of memory."}
    except (ValueError, OSError) as error:
        outcome = {"refused": str(error)}
    except (LookupError, AttributeError, TypeError, ArithmeticError) as error:
        kind = type(error).__name__
        outcome = {"refused": f"Its parts do not fit together, it is damaged ({kind}: {error})."}
    Path(result).write_text(json.dumps(outcome))


def _end(code: int, log: Path) -> str:
    if code < 0:
        how = f"ended the process that read it by {signal.Signals(-code).name}"
        return f"{how}; it is damaged, or this LiteRT cannot take it."
    lines = log.read_bytes()[-4000:].decode(errors="replace").split("\n")
    said = " ".join(line for line in lines[-3:] if line)
    return f"ended the process that read it, with status {code}: {said}"
