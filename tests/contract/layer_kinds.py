"""Every Keras layer kind with weights, as a small model around it: name -> (model, inputs)."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

IMAGE, SERIES, VOLUME, FLAT, FILM = (6, 6, 4), (7, 4), (5, 5, 5, 2), (5,), (3, 6, 6, 2)

KINDS: dict[str, tuple[Callable[[], keras.Layer], tuple[int, ...]]] = {
    "Dense": (lambda: layers.Dense(6, activation="tanh"), FLAT),
    "DenseNoBias": (lambda: layers.Dense(6, use_bias=False), FLAT),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cd->abd", (7, 6), bias_axes="d"), SERIES),
    "Embedding": (lambda: layers.Embedding(11, 6), (7,)),
    "Conv1D": (lambda: layers.Conv1D(6, 3), SERIES),
    "Conv2D": (lambda: layers.Conv2D(6, 3, padding="same"), IMAGE),
    "Conv2DGroups": (lambda: layers.Conv2D(6, 3, groups=2, strides=2), IMAGE),
    "Conv3D": (lambda: layers.Conv3D(3, 2), VOLUME),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(6, 3), SERIES),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(6, 3, strides=2), IMAGE),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(3, 2), VOLUME),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(3), SERIES),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3), IMAGE),
    "SeparableConv1D": (lambda: layers.SeparableConv1D(6, 3), SERIES),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(6, 3), IMAGE),
    "SimpleRNN": (lambda: layers.SimpleRNN(6), SERIES),
    "LSTM": (lambda: layers.LSTM(6), SERIES),
    "GRU": (lambda: layers.GRU(6, return_sequences=True), SERIES),
    "ConvLSTM1D": (lambda: layers.ConvLSTM1D(3, 3), (3, 7, 4)),
    "ConvLSTM2D": (lambda: layers.ConvLSTM2D(3, 3), FILM),
    "Bidirectional": (lambda: layers.Bidirectional(layers.LSTM(4)), SERIES),
    "StackedCells": (lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(4)]), SERIES),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dense(4)), SERIES),
    "MultiHeadAttention": (lambda: SelfAttention(), SERIES),
    "GroupedQueryAttention": (lambda: SelfAttention(grouped=True), SERIES),
}


@keras.saving.register_keras_serializable(package="tests")
class SelfAttention(layers.Layer):
    """Attention of a sequence to itself, so that it has one input."""

    def __init__(self, grouped: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.grouped = grouped
        kind = layers.GroupQueryAttention if grouped else layers.MultiHeadAttention
        heads = {"num_query_heads": 2, "num_key_value_heads": 2} if grouped else {"num_heads": 2}
        self.attention = kind(head_dim=3, **heads) if grouped else kind(key_dim=3, **heads)

    def build(self, shape: tuple[int, ...]) -> None:
        self.attention.build(shape, shape)

    def call(self, x: object) -> object:
        return self.attention(x, x)

    def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def get_config(self) -> dict:
        return {**super().get_config(), "grouped": self.grouped}


def make(kind: str) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A model around one layer of a kind, with batch normalization and an L2 term, and data."""
    keras.utils.set_random_seed(7)
    layer, shape = KINDS[kind]
    dtype = "int32" if kind == "Embedding" else None
    inputs = keras.Input(shape, dtype=dtype)
    x = layer()(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Flatten()(x)
    outputs = layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.01), dtype="float32")(x)
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(3)
    data = rng.integers(0, 11, (16, *shape)) if dtype else rng.normal(size=(16, *shape))
    return model, data.astype(dtype or "float32"), rng.normal(size=(16, 3)).astype("float32")
