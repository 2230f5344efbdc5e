"""One build of the native library under several TensorFlow versions, in fresh environments."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from native.convs import draw_weights, slow

from tfprune import ops
from tfprune.ops import ConvSpec, library

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not library.available(), reason="built without native kernels"),
]
VERSIONS = {"2.17.1": "numpy<2", "2.18.1": "numpy<2.1", "2.19.1": "numpy<2.2", "2.20.0": "numpy"}
LIBRARY = Path(ops.library.__file__).with_name("libtfprune.so")
PROGRAM = """
import sys
import numpy as np, tensorflow as tf
library, folder = sys.argv[1:]
module = tf.load_op_library(library)
data = np.load(folder + "/case.npz")
conv = data["conv"].tolist()
run = tf.function(lambda x, weights: module.tfprune_packed_conv2d(x, weights, conv=conv))
y = run(data["x"], data["weights"])
assert np.abs(y - data["y"]).max() < 1e-4, np.abs(y - data["y"]).max()
try:
    run(data["x"], data["weights"][:50])
    raise SystemExit("damaged weights were taken")
except tf.errors.InvalidArgumentError as error:
    print(tf.__version__, str(error)[-60:])
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_library_runs_under(version, tmp_path):
    weights = draw_weights(ConvSpec(6, 5, padding=(1, 1, 1, 1), basis="dct"), 0.3, True, 0)
    x = np.random.default_rng(0).normal(size=(2, 7, 9, 6)).astype("float32")
    packed = np.frombuffer(weights.to_bytes(), np.uint8)
    arrays = {"x": x, "y": slow(x, weights), "weights": packed, "conv": weights.spec.fields()}
    np.savez(tmp_path / "case.npz", **arrays)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    wanted = [f"tensorflow-cpu=={version}", VERSIONS[version]]
    installed = subprocess.run(
        [python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True
    )
    if installed.returncode:
        pytest.skip(f"TensorFlow {version} has no build for Python {sys.version_info[:2]} here")
    done = subprocess.run(
        [python, "-c", PROGRAM, LIBRARY, tmp_path], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith(version)
