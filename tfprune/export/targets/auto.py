"""The auto target: what is fastest on phones, else the smallest."""

from __future__ import annotations

import dataclasses

from tfprune.export.flatbuffer.layer_form import speedup
from tfprune.export.result import ExportError
from tfprune.export.storage import STORAGES, VALUES, Storage
from tfprune.export.targets import mobile_sparse, mobile_sparse_block
from tfprune.export.targets.dense import dense
from tfprune.export.targets.smallest import smallest
from tfprune.export.targets.target import Built, Target
from tfprune.export.verify.runtime import Sample
from tfprune.export.view import View

MIN_SPEEDUP = 1.2  # dense time over time on phones from which a form is taken for its speed


def auto(view: View, storage: Storage, calibration: list[Sample]) -> Built:
    """Build the form that is fastest on phones, if by a fifth at least; else the smallest.

    Dense where phones would compute the smallest form wrongly.
    """
    built, reasons = {}, []
    for target in (mobile_sparse.TARGET, mobile_sparse_block.TARGET):
        if storage.name not in target.storages:
            reasons.append(f"not {target.name!r}: it keeps float32 weights only")
            continue
        try:
            built[target.name] = target.build(view, storage, calibration)
        except ExportError as error:
            reasons.append(f"not {target.name!r}: {error}")
    speeds = {name: speedup(candidate.layers) for name, candidate in built.items()}
    best = max(speeds, key=speeds.__getitem__, default=None)
    if best is not None and speeds[best] >= MIN_SPEEDUP:
        gain = f"{best!r}: on phones its layers are about {speeds[best]:.1f} times faster"
        return dataclasses.replace(built[best], notes=(gain, *reasons))
    reasons += [f"not {n!r}: only {speed:.2f} times faster, about" for n, speed in speeds.items()]
    try:
        small = smallest(view, storage, calibration)
    except ExportError as error:
        name = "float32" if storage.values == "float32" else "float16"
        notes = [f"'dense', in {name}: phones compute it right", *reasons]
        plain = dense(view, STORAGES[name], [])
        return dataclasses.replace(plain, notes=(*notes, f"not 'smallest': {error}"))
    size = len(dense(view, STORAGES["int8_dynamic"], []).data)
    notes = [f"'smallest', which is no faster than dense; dense int8 takes {size:,} bytes"]
    return dataclasses.replace(small, notes=(*notes, *reasons, *small.notes))


TARGET = Target("auto", auto, VALUES)
