"""The mobile-sparse target: XNNPACK's sparse mode."""

from __future__ import annotations

from tfprune.export.flatbuffer import pack
from tfprune.export.result import ExportError
from tfprune.export.storage import STORAGES, VALUES, Storage
from tfprune.export.targets.dense import dense
from tfprune.export.targets.target import Built, Target, listed
from tfprune.export.verify.runtime import Sample
from tfprune.export.view import View
from tfprune.export.xnnpack import rewrite, sparse_mode


def mobile_sparse(view: View, storage: Storage, calibration: list[Sample]) -> Built:
    """Convert, put the graph in the form of XNNPACK's sparse mode, store compressed rows.

    Raises:
        ExportError: if something stands in the way of the mode, with a sentence on it.
    """
    plain = dense(view, STORAGES["float32"], []).data
    rewritten = rewrite.rewrite(plain, storage.name)
    violations = list(rewritten.violations)
    if not violations:
        data = pack.store(rewritten.file, storage.values, rewritten.norms)
        checked = sparse_mode.check(data)
        violations += checked.violations
        if not violations and not checked.runs:
            violations.append(
                f"only {checked.zeros:.0%} of the weights of its 1x1 convolutions are zeros, and "
                f"the mode is taken from {sparse_mode.MIN_ZEROS:.0%} on: prune more"
            )
    if violations:
        raise ExportError(
            "This model does not run in XNNPACK's sparse mode from its entry to its global average "
            f"pooling. Received: {listed(violations)}. Change that, or use "
            "target='smallest' or 'dense'."
        )
    return Built(data, rewritten.layers)


TARGET = Target("mobile-sparse", mobile_sparse, VALUES)
