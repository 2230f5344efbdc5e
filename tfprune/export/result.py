"""The result of an export, and the error raised instead of handing out a wrong file."""

import dataclasses
from typing import Any

from tfprune.export.flatbuffer.layer_form import LayerForm


class ExportError(RuntimeError):
    """The model can't be converted, or the converted file disagrees with it. No file is left."""


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """A written and verified `.tflite` file.

    Errors are relative, d being file minus Keras, over all compared samples; of several outputs
    the largest.

    Attributes:
        path: the file.
        target, storage: as asked for.
        bytes, gzip_bytes: its size, as it is and gzipped.
        max_relative_error: max|d| / max|ref|.
        rms_relative_error: norm(d) / norm(ref).
        tolerance: limit of `max_relative_error`.
        agreement: fraction of samples with the same argmax, the least over outputs of shape [n,
            classes]; None without such an output.
        samples_checked, reference_samples_checked, arm_samples_checked: samples compared by the
            default delegate, by the reference kernels, on AArch64.
        data_source: "samples", "representative_data" or "random".
        inputs: name -> shape, None where a size is open.
        outputs: names.
        ops: builtin op -> count.
        notes: sentences for people.
        layers: forms of layers, where the target chooses them.
    """

    path: str
    target: str
    storage: str
    bytes: int
    gzip_bytes: int
    max_relative_error: float
    rms_relative_error: float
    tolerance: float
    agreement: float | None
    samples_checked: int
    reference_samples_checked: int
    data_source: str
    inputs: dict[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    ops: dict[str, int]
    notes: tuple[str, ...] = ()
    layers: tuple[LayerForm, ...] = ()
    arm_samples_checked: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `json.dumps` takes."""
        plain = dataclasses.asdict(self)
        plain["inputs"] = {name: list(shape) for name, shape in self.inputs.items()}
        plain["outputs"], plain["notes"] = list(self.outputs), list(self.notes)
        return plain

    def __str__(self) -> str:
        ops = ", ".join(f"{name} x{count}" for name, count in self.ops.items())
        arm = f", {self.arm_samples_checked} on ARM" if self.arm_samples_checked else ""
        agree = "" if self.agreement is None else f", same argmax {self.agreement:.4f}"
        lines = [
            f"{self.path}: {self.target}, {self.storage}",
            f"  size     {self.bytes:,} bytes, {self.gzip_bytes:,} gzipped",
            f"  error    {self.max_relative_error:.2e} largest, {self.rms_relative_error:.2e} rms "
            f"(limit {self.tolerance:.0e}){agree}",
            f"  checked  {self.samples_checked} samples ({self.data_source}), "
            f"{self.reference_samples_checked} of them on the reference kernels too{arm}",
            f"  ops      {ops}",
        ]
        lines += [
            f"  layer    {x.name}: {x.form}, density {x.density:.4f}, {x.dense_bytes:,} -> "
            f"{x.stored_bytes:,} bytes" + (f"; {x.note}" if x.note else "")
            for x in self.layers
        ]
        return "\n".join(lines + [f"  note     {note}" for note in self.notes])
