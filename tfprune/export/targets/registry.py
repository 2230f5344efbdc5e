"""The targets there are, by name."""

from tfprune.export.targets import auto, dense, mobile_block, mobile_sparse, smallest
from tfprune.export.targets.target import Target

TARGETS: dict[str, Target] = {
    module.TARGET.name: module.TARGET
    for module in (dense, smallest, mobile_sparse, mobile_block, auto)
}


def find_target(name: object) -> Target:
    """Return the target of that name."""
    target = TARGETS.get(name) if isinstance(name, str) else None
    if target is None:
        raise ValueError(f"`target` must be one of {tuple(TARGETS)}. Received: {name!r}.")
    return target
