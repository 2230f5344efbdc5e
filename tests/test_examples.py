"""The examples run, each from another directory, and stay short; so does the README's code."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import processes
import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example: Path, tmp_path: Path) -> None:
    assert len(example.read_text().splitlines()) <= 60
    program = f"import runpy; runpy.run_path({str(example)!r}, run_name='__main__')"
    run = processes.run(program, "--steps", "60", cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "compression" in run.stdout, run.stdout[-2000:]


def first_code(markdown: str) -> tuple[int, str]:
    """The line on which the first Python block of a page ends, and the block."""
    block = re.search(r"```python\n(.*?)```", markdown, re.DOTALL)
    assert block is not None
    return markdown[: block.end()].count("\n") + 1, block.group(1)


def test_readme_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last_line, code = first_code((ROOT / "README.md").read_text())
    statements = [line for line in code.splitlines() if line and not line.startswith("import")]
    assert last_line <= 16 and len(statements) == 6
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((12,)), keras.layers.Dense(24, "relu"), keras.layers.Dense(4, "softmax")]
    )
    model.save("my_model.keras")
    x = np.random.default_rng(0).normal(size=(320, 12)).astype("float32")
    names = {"x": x, "y": x[:, :4].argmax(-1)}
    exec(code, names)
    assert Path("model.tflite").exists()
    plain = names["tfprune"].strip(names["pruned"])
    zeros = sum(int((w == 0).sum()) for w in plain.get_weights())
    assert zeros >= 0.85 * model.count_params()
