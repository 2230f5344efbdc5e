"""Small models of every structure, without tfprune, so that a process that lacks it can load them.

`CASES` maps a name to a `Case`; `data(case)` makes inputs that fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

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


def registered(cls: type) -> type:
    """Register a class of the user's own."""
    return keras.saving.register_keras_serializable(package="structures")(cls)


@registered
class Blocks(layers.Layer):
    """Owns one convolution and a list of two."""

    def __init__(self, filters: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.first = layers.Conv2D(filters, 3, padding="same")
        self.others = [layers.Conv2D(filters, 1, name=f"point{i}") for i in range(2)]

    def build(self, shape: Any) -> None:
        self.first.build(shape)
        for conv in self.others:
            conv.build((*shape[:-1], self.filters))
        self.built = True

    def call(self, x: Any) -> Any:
        x = self.first(x)
        for conv in self.others:
            x = x + conv(ops.relu(x))
        return x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters}


@registered
class ScaledDense(layers.Dense):
    """A user's subclass of Dense, with a variable more."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.built = True

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["scale"] = self.scale

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(store)
        self.scale.assign(store["scale"])

    def call(self, x: Any) -> Any:
        return super().call(x) * self.scale


@registered
class CenteredConv2D(layers.Conv2D):
    """A user's subclass of Conv2D that uses `self.kernel` in its own `call`."""

    def call(self, x: Any) -> Any:
        kernel = self.kernel - ops.mean(self.kernel)
        return ops.conv(x, kernel, padding=self.padding) + self.bias


@registered
class Bilinear(layers.Layer):
    """A user's own layer with two weights of its own, declared prunable."""

    prunable_weights = ("left", "right")

    def build(self, shape: Any) -> None:
        self.left = self.add_weight(shape=(shape[-1], 5), name="left")
        self.right = self.add_weight(shape=(shape[-1], 5), name="right")
        self.shift = self.add_weight(shape=(5,), initializer="zeros", name="shift")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.left) * ops.matmul(x, self.right) + self.shift


@registered
class TiedAutoencoder(keras.Model):
    """Decodes with the transposed kernel of its encoder."""

    def __init__(self, units: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.encoder = layers.Dense(units, activation="relu")

    def build(self, shape: Any) -> None:
        self.encoder.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        return ops.matmul(self.encoder(x), ops.transpose(self.encoder.kernel))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@registered
class TiedEmbedding(layers.Layer):
    """Embeds tokens, and projects back onto the vocabulary with the same matrix."""

    def __init__(self, vocabulary: int = 12, units: int = 6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocabulary, self.units = vocabulary, units
        self.embedding = layers.Embedding(vocabulary, units)

    def build(self, shape: Any) -> None:
        self.embedding.build(shape)

    def call(self, x: Any) -> Any:
        hidden = ops.tanh(self.embedding(x))
        return ops.matmul(hidden, ops.transpose(self.embedding.embeddings))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "vocabulary": self.vocabulary, "units": self.units}


@registered
class Subclassed(keras.Model):
    """A subclassed model with `get_config`, dropout and a nested Sequential."""

    def __init__(self, units: int = 6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.hidden = layers.Dense(units, activation="relu")
        self.drop = layers.Dropout(0.2, seed=3)
        self.tail = keras.Sequential([layers.Dense(units), layers.Dense(2)], name="tail")

    def build(self, shape: Any) -> None:
        self.hidden.build(shape)
        self.tail.build((*shape[:-1], self.units))
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        return self.tail(self.drop(self.hidden(x), training=training))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


class WithoutConfig(keras.Model):
    """A subclassed model that Keras cannot make again: it takes layers, and has no `get_config`."""

    def __init__(self, first: layers.Layer, second: layers.Layer) -> None:
        super().__init__()
        self.blocks = [first, second]

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return x


@registered
class OwnStep(keras.Model):
    """A Functional model with a training step of its own."""

    def train_step(self, batch: Any) -> Any:
        return {**super().train_step(batch), "own": ops.ones(())}


@registered
class BuiltInInit(keras.Model):
    """A Functional model that defines itself in `__init__`."""

    def __init__(self, units: int = 5, **kwargs: Any) -> None:
        inputs = layers.Input((4,))
        outputs = layers.Dense(2)(layers.Dense(units, activation="relu")(inputs))
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.units = units

    def get_config(self) -> dict[str, Any]:
        return {"units": self.units, "name": self.name}


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
