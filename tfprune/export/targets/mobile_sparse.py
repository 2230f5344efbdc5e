"""The mobile-sparse target: XNNPACK's sparse mode."""

from __future__ import annotations

from tfprune.export.flatbuffer import pack
from tfprune.export.result import ExportError
from tfprune.export.storage import STORAGES, VALUES, Storage
from tfprune.export.targets.dense import dense
from tfprune.export.targets.target import Built, Target, listed
from tfprune.export.verify.runtime import Row
from tfprune.export.view import View
from tfprune.export.xnnpack import rewrite, sparse_mode


def mobile_sparse(view: View, storage: Storage, calibration: list[Row]) -> Built:
    """Convert, put the graph in the form of XNNPACK's sparse mode, store compressed rows.

    Raises:
        ExportError: with a sentence for everything that stands in the way of the mode.
    """
    plain = dense(view, STORAGES["float32"], []).data
    found = rewrite.rewrite(plain, storage.name)
    complaints = list(found.complaints)
    if not complaints:
        data = pack.store(found.file, storage.values, found.norms)
        checked = sparse_mode.check(data)
        complaints += checked.complaints
        if not complaints and not checked.runs:
            complaints.append(
                f"only {checked.zeros:.0%} of the weights of its 1x1 convolutions are zeros, and "
                f"the mode is taken from {sparse_mode.LEAST_ZEROS:.0%} on: prune more"
            )
    if complaints:
        raise ExportError(
            "This model does not run in XNNPACK's sparse mode from its entry to its global average "
            f"pooling. {listed(complaints)}. Change that, or use "
            "target='smallest' or 'dense'."
        )
    return Built(data, found.layers)


TARGET = Target("mobile-sparse", mobile_sparse, VALUES)
