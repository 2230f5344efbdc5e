"""Zeros in nets, and what exported files must hold of them."""

from __future__ import annotations

import keras
import numpy as np

from tfprune.export.flatbuffer.file import FlatFile
from tfprune.export.flatbuffer.pack import WEIGHTS_OF
from tfprune.maths.dct import dct_matrix

L = keras.layers


def zeros(model, density=0.1, dct=True, seed=0):
    """Random kernels, of convolutions with zeros among their coefficients."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization):
            layer.moving_mean.assign(0.2 * rng.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
        if not isinstance(layer, (L.Conv2D, L.Dense)):
            continue
        shape = layer.kernel.shape
        kernel = rng.normal(size=shape) * (rng.random(shape) < density)
        kernel *= (2 / (np.prod(shape[:-1]) * density)) ** 0.5
        give(layer, kernel, dct, rng)
    return model


def give(layer, kernel, dct, rng):
    """A kernel, of an image layer by its DCT coefficients if `dct`, and a random bias."""
    if dct and kernel.ndim == 4:
        vertical, horizontal = (np.asarray(dct_matrix(n)) for n in kernel.shape[:2])
        kernel = np.einsum("up,vq,uvio->pqio", vertical, horizontal, kernel)
    layer.kernel.assign(kernel)
    if layer.use_bias:
        layer.bias.assign(rng.normal(size=layer.bias.shape))


def inputs_of(model, count=12):
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, *model.input_shape[1:])).astype("float32")


def weights_are_what_kernels_take(data):
    """Every weight that an op reads is float32, and sparse ones are read by DENSIFY alone."""
    file = FlatFile(data)
    types = file.schema.TensorType
    for graph in file.graphs:
        for op in graph.operators:
            kind = file.kind(op)
            read = [graph.tensors[int(n)] for n in op.inputs if n >= 0]
            if kind != "DENSIFY":
                assert all(tensor.sparsity is None for tensor in read)
            if kind in WEIGHTS_OF:
                assert read[WEIGHTS_OF[kind]].type == types.FLOAT32


def image(size=12, channels=3):
    return keras.Input((size, size, channels))


def headed(inputs, x, classes=7):
    return keras.Model(inputs, L.Dense(classes)(L.GlobalAveragePooling2D()(x)))


def strided(size=12):
    """Strides of 2 with "same" padding, 3x3, 5x5, 1x1 shortcuts, and more channels in than out."""
    inputs = image(size)
    x = L.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    y = L.Conv2D(24, 3, 2, padding="same", use_bias=False)(x)
    y = L.ReLU(6.0)(L.BatchNormalization()(y))
    x = L.Add()([y, L.Conv2D(24, 1, 2)(x)])
    x = L.Conv2D(32, 5, padding="same", activation="relu")(x)
    x = L.Conv2D(8, 3, padding="same")(x)
    return headed(inputs, L.Conv2D(40, 2, padding="same", activation="sigmoid")(x))


def padded():
    """Explicit padding that two convolutions share, and an entry of the model's own."""
    inputs = image(16)
    x = L.Conv2D(16, 3, 2, activation="relu")(L.ZeroPadding2D(1)(inputs))
    pad = L.ZeroPadding2D(1)(x)
    left, right = L.Conv2D(24, 3, 2)(pad), L.Conv2D(24, 3, 2, activation="relu")(pad)
    x = L.Add()([left, right])
    x = L.Conv2D(32, 3, activation="relu")(L.ZeroPadding2D(1)(x))
    return headed(inputs, L.Multiply()([x, L.Activation("sigmoid")(x)]))


def joined():
    """Concatenations, zero channels, average pools, slices, unfused normalization; grey images."""
    inputs = image(16, 1)
    x = L.Conv2D(12, 3, padding="same", activation="relu")(L.Rescaling(2.0, 0.5)(inputs))
    y = L.Conv2D(8, 3, padding="same")(L.ReLU()(L.BatchNormalization()(x)))
    x = L.Concatenate()([x, y])
    x = L.AveragePooling2D(1, 2)(x)
    x = L.Concatenate()([x, L.Rescaling(0.0)(x)])
    x = L.AveragePooling2D(2)(L.Conv2D(24, 1, activation="relu")(x))
    x = keras.ops.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (3, 5)))
    x = L.Conv2D(48, 3, padding="same", activation="tanh")(x)
    pooled = L.GlobalAveragePooling2D(keepdims=True)(x)
    return keras.Model(inputs, L.Flatten()(L.Conv2D(9, 1)(pooled)))


def separable():
    """Depthwise convolutions of both strides, as in MobileNet."""
    inputs = image(14)
    x = L.Conv2D(8, 3, 2, padding="same", activation="relu")(inputs)
    for stride, size in ((1, 3), (2, 3), (1, 5)):
        x = L.DepthwiseConv2D(size, stride, padding="same", use_bias=False)(x)
        x = L.ReLU(6.0)(L.BatchNormalization()(x))
        x = L.Conv2D(40, 1, activation="relu")(x)
    pooled = L.AveragePooling2D(x.shape[1])(x)
    return keras.Model(inputs, L.Dense(7)(L.Flatten()(pooled)))


MOBILE = {
    "strided": strided,
    "odd": lambda: strided(13),
    "padded": padded,
    "joined": joined,
    "separable": separable,
}


def blocks_of_zeros(model, density=0.08, dct=True):
    """Random kernels whose entries come in fours of neighbouring inputs."""
    rng = np.random.default_rng(3)
    for layer in model._flatten_layers():
        if not isinstance(layer, (L.Conv2D, L.Dense)):
            continue
        *_, cin, cout = layer.kernel.shape
        shape = layer.kernel.shape
        kept = np.repeat(rng.random((*shape[:-2], -(-cin // 4), cout)) < density, 4, axis=-2)
        kernel = rng.normal(size=shape) * kept[..., :cin, :] / np.sqrt(density * cin)
        give(layer, kernel, dct, rng)
    return model


def wild():
    """What no sparse mode takes: valid padding, dilation, pools, several outputs."""
    inputs = keras.Input((14, 14, 3))
    x = L.Conv2D(32, 3, activation="relu", name="first")(inputs)
    x = L.Conv2D(48, 3, 2, padding="same", activation="relu", name="strided")(x)
    y = L.Conv2D(48, 3, padding="same", dilation_rate=2, name="dilated")(x)
    x = L.MaxPooling2D(2)(L.Activation("tanh")(L.Add()([x, y])))
    x = L.Conv2D(64, 1, activation="relu", name="pointwise")(x)
    z = L.Conv2D(32, 1, 2, name="every_second")(x)
    x = L.Conv2D(40, (1, 3), activation="relu6", name="flat")(x)
    hidden = L.Dense(64, activation="relu", name="hidden")(L.Flatten()(x))
    return keras.Model(inputs, [L.Dense(10, name="head")(hidden), z])
