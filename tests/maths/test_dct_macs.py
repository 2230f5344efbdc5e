"""Multiply-adds of the DCT of inputs, by hand, as reports count them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfprune


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_channels_of_all_groups_are_transformed(groups: int) -> None:
    inputs = keras.Input((7, 9, 8))
    layer = keras.layers.Conv2D(32, 3, groups=groups, name="a")
    model = keras.Model(inputs, layer(inputs))
    method = tfprune.FrequencyDomain(target_sparsity=0.9)
    pruned = tfprune.prune(model, method, tfprune.ConstantSparsity(0.9, 0, 0))
    tfprune.Pruner(pruned, total_steps=1).update()
    mask = np.asarray(pruned.get_layer("a").prune_state.masks["kernel"])
    live = int(mask.any(axis=(0, 1, 3)).sum())  # of the 8 / groups inputs of a group
    assert live == 8 // groups
    (row,) = tfprune.report(pruned).to_dict()["layers"]
    # a column of 3 x 3 costs 3 * 3 * 3 by its width, and 3 * 3 by its height, shared by neighbours
    assert row["transform_macs"] == 5 * 7 * live * groups * (9 + 27)
    assert row["macs_kept"] == 5 * 7 * mask.sum() + row["transform_macs"] < row["macs"]
