"""Sensitivities from a tape: which outputs to pull back, the backward passes, absolute values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfprune.graph import _keras
from tfprune.needs import OutputSensitivity
from tfprune.pruned.state import PruneState
from tfprune.training.sensitivity.dense_inputs import Captured
from tfprune.training.signals import Signals, mean_over_replicas

Tensor = Any
_MOST_CLASSES = 64


def sensitivities(
    signal: OutputSensitivity,
    states: Sequence[PruneState],
    tape: Any,
    scores: list[Tensor],
    targets: Any,
    step: Any,
    captured: dict[tuple[int, str], Captured],
) -> Signals:
    """S of every weight of some layers, by (id of their state, name); 1 where it is not due."""
    import tensorflow as tf

    keys = [(id(state), name) for state in states for name in state.specs]
    variables = [state.masked_variable(name).value for state in states for name in state.specs]
    dense = [captured.get(key) for key in keys]

    def now() -> list[list[Tensor]]:
        return [
            _pulled_back(signal, _Pullback(tape, scores, direction), variables, dense)
            for direction in _directions(signal, scores, targets, step)
        ]

    if signal.every == 1:
        gradients, due = now(), tf.constant(True)
    else:
        due = tf.equal(tf.cast(step, "int64") % signal.every, 0)
        passes = _passes(signal, scores)
        idle = [[tf.zeros(v.shape, "float32") for v in variables] for _ in range(passes)]
        gradients = tf.cond(due, now, lambda: idle)
    magnitudes = [[tf.abs(mean_over_replicas(g)) for g in column] for column in gradients]
    means = [sum(column) / float(len(magnitudes)) for column in zip(*magnitudes, strict=True)]
    # S = 1 shrinks nothing, where nothing was measured
    values = [tf.where(due, mean, tf.ones_like(mean)) for mean in means]
    return dict(zip(keys, values, strict=True))


def _passes(signal: OutputSensitivity, scores: list[Tensor]) -> int:
    """How many backward passes a measurement takes."""
    count = sum(_classes(score) for score in scores)
    if signal.kind == "specific":
        return 1
    return count if signal.classes is None else min(signal.classes, count)


def scores_of(outputs: Any) -> list[Tensor]:
    """Each output as the net made it; logits where it comes out of a softmax."""
    return [_keras.logits_of(output) for output in keras.tree.flatten(outputs)]


def _classes(score: Tensor) -> int:
    return int(score.shape[-1]) if len(score.shape) > 1 else 1


def _directions(
    signal: OutputSensitivity, scores: list[Tensor], targets: Any, step: Any
) -> list[list[Tensor]]:
    """For each backward pass, what it weighs the outputs with: tensors of the scores' shapes.

    The sum of scores * direction is, per example, one output (or that of the target class),
    averaged over its positions.
    """
    import tensorflow as tf

    if signal.kind == "specific":
        if len(scores) > 1:
            raise ValueError(
                f'kind="specific" needs a model with one output. Received: {len(scores)} outputs.'
            )
        return [[_per_position(_one_hot(targets, scores[0]), scores[0])]]
    widths = [_classes(score) for score in scores]
    count = sum(widths)
    if signal.classes is not None and signal.classes < count:
        seed = tf.stack([tf.constant(2018, "int32"), tf.cast(step, "int32")])
        drawn = tf.argsort(tf.random.stateless_uniform((count,), seed, alg="philox"))[
            : signal.classes
        ]
        rows = tf.unstack(tf.one_hot(drawn, count), num=signal.classes)
    elif count > _MOST_CLASSES:
        raise ValueError(
            "`classes=None` takes a backward pass for each output; give `classes` a number up to "
            f"{_MOST_CLASSES}. Received: a model with {count} outputs."
        )
    else:
        rows = tf.unstack(tf.eye(count), num=count)
    return [
        [
            _per_position(tf.broadcast_to(part, tf.shape(score)), score)
            for part, score in zip(_split(row, scores, widths), scores, strict=True)
        ]
        for row in rows
    ]


def _split(row: Tensor, scores: list[Tensor], widths: list[int]) -> list[Tensor]:
    """The classes of each output; a scalar for outputs of shape [n]."""
    import tensorflow as tf

    parts = tf.split(row, widths)
    pairs = zip(parts, scores, strict=True)
    return [part if len(score.shape) > 1 else part[0] for part, score in pairs]


def _per_position(weights: Tensor, score: Tensor) -> Tensor:
    """Divided by the positions of an example, in the score's dtype."""
    import tensorflow as tf

    positions = tf.cast(tf.size(score) / tf.shape(score)[0], "float32") / _classes(score)
    return tf.cast(tf.cast(weights, "float32") / positions, score.dtype)


def _one_hot(targets: Any, score: Tensor) -> Tensor:
    """The target classes as rows of the score's shape; 1 where there is one output for all."""
    count = _classes(score)
    if count == 1:
        return ops.ones(ops.shape(score), "float32")
    targets = ops.convert_to_tensor(keras.tree.flatten(targets)[0])
    if len(targets.shape) == len(score.shape) and targets.shape[-1] == count:
        return targets
    rows = ops.one_hot(ops.reshape(ops.cast(targets, "int32"), (-1,)), count, dtype="float32")
    return ops.reshape(rows, ops.shape(score))


class _Pullback:
    """d (sum of scores * direction) / d source, for any source on the tape."""

    def __init__(self, tape: Any, scores: list[Tensor], direction: list[Tensor]) -> None:
        self.tape, self.scores, self.direction = tape, scores, direction

    def __call__(self, sources: Any, rows: Tensor | None = None) -> Any:
        """The gradient; with `rows` [n], of the examples weighted by these."""
        weights = self.direction
        if rows is not None:
            shapes = [(-1, *[1] * (len(score.shape) - 1)) for score in self.scores]
            pairs = zip(weights, shapes, strict=True)
            weights = [w * ops.cast(ops.reshape(rows, shape), w.dtype) for w, shape in pairs]
        return self.tape.gradient(
            self.scores, sources, output_gradients=weights, unconnected_gradients="zero"
        )

    @property
    def examples(self) -> Tensor:
        """How many examples the batch has."""
        return ops.shape(self.scores[0])[0]


def _pulled_back(
    signal: OutputSensitivity,
    pulled: _Pullback,
    variables: list[Any],
    captured: list[Captured | None],
) -> list[Tensor]:
    """d mean(y) / d w, or the mean of |d y_n / d w| over this replica's examples; float32."""
    import tensorflow as tf

    if not signal.per_sample:
        count = tf.cast(pulled.examples, "float32")
        return [tf.cast(gradient, "float32") / count for gradient in pulled(variables)]
    return [
        _by_example(pulled, variable) if dense is None else _of_dense(pulled, variable, dense)
        for variable, dense in zip(variables, captured, strict=True)
    ]


def _of_dense(pulled: _Pullback, variable: Any, dense: Captured) -> Tensor:
    """The short way, unless a reshape in front made several rows of an example."""
    import tensorflow as tf

    return tf.cond(
        tf.equal(tf.shape(dense.inputs)[0], pulled.examples),
        lambda: dense.mean_absolute(pulled),
        lambda: _by_example(pulled, variable),
    )


def _by_example(pulled: _Pullback, variable: Any) -> Tensor:
    """A backward pass for each example."""
    import tensorflow as tf

    every = tf.eye(pulled.examples)
    gradients = tf.map_fn(lambda row: tf.abs(tf.cast(pulled(variable, row), "float32")), every)
    return tf.reduce_mean(gradients, axis=0)
