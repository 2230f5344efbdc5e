"""`load_model`: a pruned `.keras` file with its masks, for models of every kind."""

from __future__ import annotations

import json
import os
import zipfile
from typing import Any

import keras

from tfprune.graph.models import restart_optimizer, trained_variables
from tfprune.pruned import saving
from tfprune.pruned.layers import is_pruned


def load_model(
    path: str | os.PathLike[str],
    custom_objects: dict[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> keras.Model:
    """Load a `.keras` file; a pruned one comes back with masks, latent weights and schedules.

    `keras.models.load_model` after `import tfprune` does the same, but for subclassed models whose
    `build_from_config` is the user's own, or that are built in `__init__`; here these work too.

    Args:
        path: of a `.keras` file. custom_objects, compile, safe_mode: as in Keras.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or not a `.keras` file.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path!r}.")
    saved = _saved_settings(path)
    try:
        model = keras.models.load_model(
            path, custom_objects=custom_objects, compile=compile, safe_mode=safe_mode
        )
        if saved is not None and not is_pruned(model):
            trained = trained_variables(model)
            saving.attach_settings(model, saved)
            if restart_optimizer(model, trained):
                model.optimizer.build(model.trainable_variables)
            model.load_weights(path)
    except (OSError, KeyError, zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{path!r} must be a whole `.keras` file; it cannot be loaded and seems damaged. "
            f"Received: {error!r}."
        ) from error
    return model


def _saved_settings(path: str) -> dict[str, Any] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"{path!r} must be a whole `.keras` file, as `model.save` writes it. "
            f"Received: {error!r}."
        ) from error
    if not isinstance(config, dict):
        raise ValueError(f"{path!r} must hold a model. Received: {type(config).__name__}.")
    return (config.get("build_config") or {}).get(saving.KEY)
