"""Sparse weights from dense ones: what must fit."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune.ops import ConvSpec, SparseWeights

SPEC = ConvSpec(4, 3)
DENSE = np.ones((3, 3, 4, 3), "float32")


def test_there_is_one_bias_for_each_output():
    for bias in (np.zeros(2), np.zeros(4), np.zeros((3, 1)), 1.0):
        with pytest.raises(ValueError, match=r"`bias` must be \(3,\)\. Received: "):
            SparseWeights.from_dense(DENSE, SPEC, bias)
    assert SparseWeights.from_dense(DENSE, SPEC, [1, 2, 3]).bias.tolist() == [1, 2, 3]
    assert SparseWeights.from_dense(DENSE, SPEC).bias.shape == (0,)


def test_weights_have_the_shape_of_the_convolution():
    for shape in ((3, 3, 3, 4), (3, 3, 4), (1, 3, 4, 3)):
        with pytest.raises(ValueError, match=r"`weights` must be \(3, 3, 4, 3\)\. Received: "):
            SparseWeights.from_dense(np.ones(shape), SPEC)
