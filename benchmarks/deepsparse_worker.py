"""DeepSparse for speed benchmarks, in an environment of its own: it needs other packages' past.

Run by `engines.py` for `--deepsparse PYTHON`; talks in lines of JSON over its standard streams:
{"load": path, "threads": n} compiles an ONNX file and answers {"number": k}; {"run": k} answers
{"cpu": seconds, "wall": seconds}; {"check": k, "x": path, "y": path} writes what input x gives.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    """Serve until the input ends."""
    os.environ["NM_DISABLE_ANALYTICS"] = "1"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the engine greets on standard output
    import numpy as np
    from deepsparse import compile_model

    engines, inputs = [], []
    for line in sys.stdin:
        asked = json.loads(line)
        if "load" in asked:
            engine = compile_model(asked["load"], batch_size=1, num_cores=asked["threads"])
            engines.append(engine)
            shape = engine.input_shapes[0]
            inputs.append([np.random.default_rng(0).normal(size=shape).astype("float32")])
            answer = {"number": len(engines) - 1}
        elif "check" in asked:
            (y,) = engines[asked["check"]].run([np.load(asked["x"])])
            np.save(asked["y"], y)
            answer = {}
        else:
            number = asked["run"]
            wall, cpu = time.perf_counter(), time.process_time()
            engines[number].run(inputs[number])
            answer = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
