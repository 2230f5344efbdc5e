"""Zeros in nets, and what exported files must hold of them."""

from __future__ import annotations

import keras
import numpy as np

from tfprune.export.flat import FlatFile
from tfprune.export.sparse_file import WEIGHTS_OF
from tfprune.transforms import dct_matrix

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
        if dct and len(shape) == 4:
            vertical, horizontal = (np.asarray(dct_matrix(n)) for n in shape[:2])
            kernel = np.einsum("up,vq,uvio->pqio", vertical, horizontal, kernel)
        layer.kernel.assign(kernel)
        if layer.use_bias:
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    return model


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
