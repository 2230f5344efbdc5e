"""All that saved files may name is registered with Keras; see `tfprune._import_hook` for when."""

from __future__ import annotations

from tfprune import methods, schedules
from tfprune.inference import sparse_layers
from tfprune.maths import bands
from tfprune.method import LISTENERS
from tfprune.method import methods as registered_methods
from tfprune.pruned import saving, wrappers

MODULES = (bands, schedules, sparse_layers)  # their import registers their classes


def register() -> None:
    """Make `keras.models.load_model` know pruned and compact models, and layers in wrappers.

    A method that is registered later gets its wrapper then. A second call changes nothing.
    """
    saving.install()
    for name in methods.__all__:
        getattr(methods, name)  # the import of its module registers it
    for method in registered_methods():
        wrappers.wrapper_of(method)
    if wrappers.wrapper_of not in LISTENERS:
        LISTENERS.append(wrappers.wrapper_of)
