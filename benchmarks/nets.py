"""The networks of the papers, built by hand in Keras."""

from __future__ import annotations

import os
from typing import Any

import keras
import tensorflow as tf
from keras import layers

import tfprune

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)  # of the training images in [0, 1], by colour
CIFAR10_VARIANCE = (0.0610, 0.0593, 0.0684)


@keras.saving.register_keras_serializable(package="tfprune_benchmarks")
class BatchNormalization(layers.BatchNormalization):
    """Keras' layer by TensorFlow's fused kernel: a ResNet-20 step takes a fifth less."""

    computes_as = layers.BatchNormalization  # so that scales fold and channels are removed

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise [n, h, w, c]; in training by the batch, and keep running statistics."""
        if not training:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        for kept, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            kept.assign(kept * self.momentum + tf.stop_gradient(new) * (1 - self.momentum))
        return outputs


def load(path: str | os.PathLike[str]) -> keras.Model:
    """A saved net without masks, in float32."""
    model = load_pruned(path)
    return in_float32(tfprune.strip(model) if tfprune.is_pruned(model) else model)


def load_pruned(path: str | os.PathLike[str]) -> keras.Model:
    """A saved net as it is; also one whose file names our layer by its class alone."""
    known = {"BatchNormalization": BatchNormalization}
    return tfprune.load_model(path, custom_objects=known, compile=False)


def in_float32(model: keras.Model) -> keras.Model:
    """The same net, where it was trained in half precision."""

    def clone(layer: keras.Layer) -> keras.Layer:
        return layer.__class__.from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def lenet5(decay: float) -> keras.Model:
    """Caffe's LeNet-5, 431,080 parameters; its convolutions have no activation."""
    options = _options(decay)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(20, 5, name="conv1", **options),
            layers.MaxPooling2D(),
            layers.Conv2D(50, 5, name="conv2", **options),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(500, activation="relu", name="fc1", **options),
            layers.Dense(10, name="fc2", **options),
        ],
        name="lenet5",
    )


def lenet300(decay: float) -> keras.Model:
    """LeNet-300-100, 266,610 parameters."""
    options = _options(decay)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(300, activation="relu", name="fc1", **options),
            layers.Dense(100, activation="relu", name="fc2", **options),
            layers.Dense(10, name="fc3", **options),
        ],
        name="lenet300",
    )


def chargru(decay: float) -> keras.Model:
    """A GRU of 512 units that predicts the next of 65 characters."""
    options = _options(decay)
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(65, 32, name="letters"),
            layers.GRU(512, return_sequences=True, name="gru"),
            layers.Dense(65, name="next", **options),
        ],
        name="chargru",
    )


def resnet20(decay: float = 0.0, api: Any = keras) -> keras.Model:
    """He et al.'s ResNet-20 for CIFAR-10: 3 stages of 3 blocks, padded shortcuts (option A).

    `api`: `keras`, or `tf_keras` for a net that tfmot takes.
    """
    layers = api.layers
    inputs = api.Input((32, 32, 3))
    x = layers.Normalization(mean=CIFAR10_MEAN, variance=CIFAR10_VARIANCE)(inputs)
    x = _conv_bn(x, 16, 1, decay, relu=True, name="stem", api=api)
    for stage in range(3):
        for block in range(3):
            channels, stride = 16 * 2**stage, 2 if stage and not block else 1
            name = f"stage{stage + 1}_block{block + 1}_conv"
            y = _conv_bn(x, channels, stride, decay, relu=True, name=f"{name}1", api=api)
            y = _conv_bn(y, channels, 1, decay, relu=False, name=f"{name}2", api=api)
            if stride == 2:
                x = layers.AveragePooling2D(1, 2)(x)
                zeros = layers.Rescaling(0.0)(x)
                x = layers.Concatenate()([x, zeros])
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D(dtype="float32")(x)
    classes = layers.Dense(
        10, kernel_regularizer=api.regularizers.L2(decay / 2), dtype="float32", name="head"
    )
    return api.Model(inputs, classes(x), name="resnet20")


def vgg(decay: float = 0.0, width: int = 32) -> keras.Model:
    """VGG-16 for CIFAR-10: 13 convolutions with batch normalization; its own width is 64."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Normalization(mean=CIFAR10_MEAN, variance=CIFAR10_VARIANCE)(inputs)
    for stage, (layers_of, times) in enumerate([(2, 1), (2, 2), (3, 4), (3, 8), (3, 8)], 1):
        for number in range(1, layers_of + 1):
            x = _conv_bn(x, times * width, 1, decay, relu=True, name=f"conv{stage}_{number}")
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten(dtype="float32")(x)
    classes = layers.Dense(
        10, kernel_regularizer=keras.regularizers.L2(decay / 2), dtype="float32", name="head"
    )
    return keras.Model(inputs, classes(x), name="vgg")


def vgg_quarter(decay: float = 0.0) -> keras.Model:
    """The same of 16 channels, a quarter of VGG's own."""
    return vgg(decay, width=16)


def _conv_bn(
    x: Any, channels: int, stride: int, decay: float, relu: bool, name: str, api: Any = keras
) -> Any:
    x = api.layers.Conv2D(
        channels,
        3,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
        kernel_regularizer=api.regularizers.L2(decay / 2),
    )(x)
    x = (BatchNormalization if api is keras else api.layers.BatchNormalization)()(x)
    return api.layers.ReLU()(x) if relu else x


def _options(decay: float) -> dict[str, Any]:
    """Keras' L2 term is l2 * w^2, whose gradient is 2 * l2 * w: half of Caffe's decay."""
    return {
        "kernel_regularizer": keras.regularizers.L2(decay / 2),
        "bias_regularizer": keras.regularizers.L2(decay / 2),
    }
