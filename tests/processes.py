"""Programs in processes of their own, forked from one that has TensorFlow and Keras imported.

A fresh interpreter spends seconds on that import. No op has run in the process that forks, and
tfprune is not imported there: a program finds things as `python -c` would behind the import.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tfprune

TESTS = Path(__file__).resolve().parent
PACKAGE = Path(tfprune.__file__).resolve().parents[1]
SECONDS = 300

SERVER = """
import json, os, signal, sys, traceback
import keras, tensorflow

def serve(request):
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    signal.alarm(request["seconds"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.path[:0] = request["path"]
    sys.argv = ["-c", *request["arguments"]]
    names = {"__name__": "__main__"}
    sys.modules["__main__"].__dict__.update(names)
    code = 0
    try:
        exec(compile(request["program"], "<program>", "exec"), sys.modules["__main__"].__dict__)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in iter(sys.stdin.readline, ""):
    child = os.fork()
    if not child:
        serve(json.loads(line))
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
"""


def run(
    program: str, *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program as `python -c` does, with this package and these tests on its path.

    Args:
        program: Python code.
        arguments: for `sys.argv`.
        cwd: the folder to run in; by default this one.
        env: all of its environment; by default this one.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = {name: os.path.join(folder, name) for name in ("stdout", "stderr")}
        request: dict[str, Any] = {
            "program": program,
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "path": [str(PACKAGE), str(TESTS)],
            "seconds": SECONDS,
            **outputs,
        }
        server = _server()
        assert server.stdin is not None and server.stdout is not None
        print(json.dumps(request), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        texts = {name: Path(path).read_text("utf-8", "replace") for name, path in outputs.items()}
    return subprocess.CompletedProcess(["-c", *request["arguments"]], code, **texts)


@functools.cache
def _server() -> subprocess.Popen[str]:
    """The process that forks; it ends with this one, whose end closes its input."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", SERVER], **pipes)
