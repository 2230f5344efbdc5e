"""Small models of every structure, without tfprune, so that a process that lacks it can load them.

`CASES` maps a name to a `Case`; `data(case)` makes inputs that fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from pruned.user_classes import (
    Bilinear,
    Blocks,
    BuiltInInit,
    CenteredConv2D,
    OwnStep,
    ScaledDense,
    Subclassed,
    TiedAutoencoder,
    TiedEmbedding,
    WithoutConfig,
)

BATCH = 8


@dataclasses.dataclass(frozen=True)
class Case:
    """A model to build and what is special about it.

    Attributes:
        build: makes the built model. shapes: of its inputs, without the batch.
        vocabulary: inputs are integers below this; 0: they are floats.
        rebuilds: Keras can make the model again from its configuration.
    """

    build: Callable[[], keras.Model]
    shapes: tuple[tuple[int, ...], ...]
    vocabulary: int = 0
    rebuilds: bool = True


CASES: dict[str, Case] = {}


def case(*shapes: tuple[int, ...], **kwargs: Any) -> Callable[[Any], Any]:
    """Register the decorated function as a builder."""

    def add(build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
        CASES[build.__name__] = Case(build, shapes, **kwargs)
        return build

    return add


def data(name: str, seed: int = 0, batch: int = BATCH) -> Any:
    """Inputs of a case: one array, or a list of them."""
    chosen = CASES[name]
    generator = np.random.default_rng(seed)
    arrays = [
        generator.integers(0, chosen.vocabulary, (batch, *shape)).astype("int32")
        if chosen.vocabulary
        else generator.normal(size=(batch, *shape)).astype("float32")
        for shape in chosen.shapes
    ]
    return arrays[0] if len(arrays) == 1 else arrays


def targets(outputs: Any, seed: int = 1) -> Any:
    """Random targets of the shapes of `outputs`."""
    generator = np.random.default_rng(seed)
    return keras.tree.map_structure(
        lambda out: generator.normal(size=tuple(out.shape)).astype("float32"), outputs
    )


def build(name: str, seed: int = 0) -> keras.Model:
    """The model of a case, from a seed."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    return CASES[name].build()


def dense(units: int = 6, **kwargs: Any) -> layers.Layer:
    return layers.Dense(units, **kwargs)


@case((4,))
def sequential() -> keras.Model:
    return keras.Sequential([layers.Input((4,)), dense(8, activation="relu"), dense(2)])


@case((8, 8, 2))
def convolutions() -> keras.Model:
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(5).normal(2.0, 3.0, (16, 8, 8, 2)))
    return keras.Sequential(
        [
            layers.Input((8, 8, 2)),
            normalization,
            layers.Rescaling(0.5),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.SeparableConv2D(5, 3),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Dropout(0.2, seed=1),
            layers.Conv2DTranspose(3, 2, strides=2),
            layers.GlobalAveragePooling2D(),
            layers.LayerNormalization(),
            dense(2),
        ]
    )


@case((4,), (3,))
def inputs_and_outputs() -> keras.Model:
    left, right = layers.Input((4,), name="left"), layers.Input((3,), name="right")
    joined = layers.Concatenate()([dense(name="of_left")(left), dense(name="of_right")(right)])
    hidden = layers.Add()([joined, dense(12, activation="relu", name="residual")(joined)])
    outputs = [dense(2, name="one")(hidden), dense(3, name="two")(hidden)]
    return keras.Model([left, right], outputs)


@case((4,))
def sequential_in_functional() -> keras.Model:
    parts = [layers.Input((4,)), layers.Reshape((4, 1)), layers.Conv1D(2, 2), layers.Flatten()]
    inner = keras.Sequential([*parts, dense(4)], name="inner")
    inputs = layers.Input((4,))
    return keras.Model(inputs, dense(2)(layers.Add()([inputs, inner(inputs)])))


@case((4,))
def functional_in_sequential() -> keras.Model:
    inputs = layers.Input((4,))
    inner = keras.Model(inputs, layers.Add()([dense(4, activation="relu")(inputs), inputs]))
    deeper = keras.Sequential([layers.Input((4,)), inner, dense(4)])
    return keras.Sequential([layers.Input((4,)), deeper, dense(2)])


@case((4,))
def shared_layer() -> keras.Model:
    layer, inputs = dense(4, activation="tanh"), layers.Input((4,))
    return keras.Model(inputs, dense(2)(layers.Add()([layer(inputs), layer(layer(inputs))])))


@case((4,), (4,))
def shared_model() -> keras.Model:
    tower = keras.Sequential([layers.Input((4,)), dense(6, activation="relu"), dense(3)])
    one, two = layers.Input((4,)), layers.Input((4,))
    return keras.Model([one, two], layers.Dot(1)([tower(one), tower(two)]))


@case((4,))
def tied_autoencoder() -> keras.Model:
    model = TiedAutoencoder()
    model.build((None, 4))
    return model


@case((5,), vocabulary=12)
def tied_embedding() -> keras.Model:
    inputs = layers.Input((5,), dtype="int32")
    return keras.Model(inputs, TiedEmbedding()(inputs))


@case((4,))
def subclassed() -> keras.Model:
    model = Subclassed()
    model.build((None, 4))
    return model


@case((4,), rebuilds=False)
def without_config() -> keras.Model:
    model = WithoutConfig(dense(6, activation="relu"), dense(2))
    model(np.zeros((1, 4), "float32"))
    return model


@case((4,))
def own_train_step() -> keras.Model:
    inputs = layers.Input((4,))
    return OwnStep(inputs, dense(2)(dense(6, activation="relu")(inputs)))


@case((4,))
def built_in_init() -> keras.Model:
    return BuiltInInit()


@case((6, 6, 2))
def user_layers() -> keras.Model:
    inputs = layers.Input((6, 6, 2))
    x = CenteredConv2D(3, 3, padding="same")(Blocks()(inputs))
    x = Bilinear()(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, ScaledDense(2)(x))


@case((4,))
def with_lambda() -> keras.Model:
    inputs = layers.Input((4,))
    doubled = layers.Lambda(lambda x: 2 * x, output_shape=(6,))(dense(6)(inputs))
    return keras.Model(inputs, dense(2)(doubled))


@case((5, 4))
def attention() -> keras.Model:
    inputs = layers.Input((5, 4))
    x = layers.LayerNormalization()(inputs)
    x = layers.Add()([inputs, layers.MultiHeadAttention(2, 3)(x, x)])
    return keras.Model(inputs, layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d")(x))


@case((5, 4))
def recurrent() -> keras.Model:
    cells = [layers.GRUCell(4), layers.LSTMCell(3)]
    return keras.Sequential(
        [
            layers.Input((5, 4)),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
            layers.TimeDistributed(dense(5)),
            layers.RNN(cells),
            dense(2),
        ]
    )


@case((6,), vocabulary=12)
def tokens() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((6,), dtype="int32"),
            layers.Embedding(12, 5, mask_zero=True),
            layers.SimpleRNN(4),
            dense(2),
        ]
    )


@case((4,))
def regularized() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((4,)),
            dense(8, kernel_regularizer="l2", activity_regularizer="l1", bias_regularizer="l2"),
            dense(6, kernel_constraint=keras.constraints.MaxNorm(0.5), activation="relu"),
            layers.ActivityRegularization(l2=0.01),
            dense(2, kernel_constraint="non_neg"),
        ]
    )
