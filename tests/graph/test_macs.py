"""Multiply-adds of maps with channels in front, which TensorFlow convolves on no CPU."""

from __future__ import annotations

import keras
import pytest
from keras import layers as L

import tfprune


def shapes_alone(kind: type[keras.Layer]) -> type[keras.Layer]:
    """A subclass that gives zeros of the right shape, and computes no convolution."""

    def call(self: keras.Layer, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.ops.zeros(self.compute_output_shape(tuple(x.shape)))

    return type(kind.__name__, (kind,), {"call": call})


@pytest.mark.parametrize(
    ("kind", "settings", "shape", "expected"),
    [
        (L.Conv1D, {"filters": 8, "kernel_size": 3}, (4, 9), 7 * 3 * 4 * 8),
        (L.Conv2D, {"filters": 8, "kernel_size": 3, "strides": 2}, (4, 7, 9), 3 * 4 * 9 * 4 * 8),
        (L.Conv2D, {"filters": 8, "kernel_size": 3, "groups": 2}, (4, 6, 7), 4 * 5 * 9 * 2 * 8),
        (L.Conv3D, {"filters": 2, "kernel_size": 2}, (5, 3, 4, 6), 2 * 3 * 5 * 8 * 5 * 2),
        (L.Conv2DTranspose, {"filters": 8, "kernel_size": 3, "strides": 2}, (4, 5, 6), 30 * 9 * 32),
        (L.DepthwiseConv2D, {"kernel_size": 3, "depth_multiplier": 2}, (4, 6, 7), 20 * 9 * 4 * 2),
    ],
)
def test_channels_in_front_are_no_positions(
    kind: type[keras.Layer], settings: dict, shape: tuple[int, ...], expected: int
) -> None:
    inputs = keras.Input(shape, batch_size=1)
    layer = shapes_alone(kind)(data_format="channels_first", **settings)
    model = keras.Model(inputs, layer(inputs))
    (row,) = tfprune.report(model).to_dict()["layers"]
    assert row["macs"] == expected
