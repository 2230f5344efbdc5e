"""Layers and models of a user's own, without tfprune, registered with Keras."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


def registered(cls: type) -> type:
    """Register a class of the user's own."""
    return keras.saving.register_keras_serializable(package="structures")(cls)


@registered
class Blocks(layers.Layer):
    """Owns one convolution and a list of two."""

    def __init__(self, filters: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.first = layers.Conv2D(filters, 3, padding="same", name="first")
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
