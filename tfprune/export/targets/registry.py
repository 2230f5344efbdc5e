"""The targets by name; nothing heavy is imported before a target is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfprune.export.targets.target import Target

NAMES = ("dense", "smallest", "mobile-sparse", "mobile-sparse-block", "auto")


def find_target(name: object) -> Target:
    """Return the target of that name, from the file in this folder that is named after it.

    Raises:
        ValueError: if there is none.
    """
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(f"`target` must be one of {NAMES}. Received: {name!r}.")
    module = importlib.import_module(f"tfprune.export.targets.{name.replace('-', '_')}")
    target: Target = module.TARGET
    return target
