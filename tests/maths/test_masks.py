"""The mask rules against their sorting twins, on generated inputs."""

from __future__ import annotations

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import oracles
import pytest
import tensorflow as tf

from tfprune.maths import masks

few = hypothesis.settings(max_examples=60, deadline=None)
shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=6)
sparsities = st.one_of(st.just(0.0), st.floats(0, 0.999))
# Normal float32 numbers: a score below 1.2e-38 counts as zero.
numbers = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)
ties = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 1.0000001])


def arrays(elements):
    return shapes.flatmap(lambda shape: hnp.arrays("float32", shape, elements=elements))


def same(score, sparsity):
    got = np.asarray(masks.keep_largest(score, sparsity))
    np.testing.assert_array_equal(got, oracles.keep_largest(score, sparsity))
    assert got.dtype == bool and got.shape == score.shape


@few
@hypothesis.given(arrays(numbers), sparsities)
def test_keep_largest_is_the_sorted_head(score, sparsity):
    same(score, sparsity)


@few
@hypothesis.given(arrays(numbers.map(abs)), sparsities)
def test_keep_largest_of_magnitudes_is_the_sorted_head(score, sparsity):
    same(score, sparsity)


@few
@hypothesis.given(arrays(ties), sparsities)
def test_of_equal_scores_the_first_stay(score, sparsity):
    same(score, sparsity)


@few
@hypothesis.given(arrays(ties.map(abs)), sparsities)
def test_of_equal_magnitudes_the_first_stay(score, sparsity):
    same(score, sparsity)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-30, 3e38])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.99])
def test_all_equal(value, sparsity):
    same(np.full((4, 5), value, "float32"), sparsity)


@pytest.mark.parametrize("value", [0.0, 2.0, -2.0])
@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.6, 0.9])
def test_a_single_entry(value, sparsity):
    same(np.array([value], "float32"), sparsity)


@pytest.mark.parametrize("low", [-1.0, 1.0])
def test_so_sparse_that_nothing_is_left(low):
    score = np.array([low, 2.0, 3.0], "float32")
    assert not np.asarray(masks.keep_largest(score, 0.99)).any()


def test_neighbouring_floats_are_told_apart():
    score = np.nextafter(np.float32(1), np.float32(2)) * np.ones(9, "float32")
    score[::2] = 1.0
    same(score, 5 / 9)
    same(score, 6 / 9)


def test_count_is_exact_in_a_large_tensor():
    score = np.abs(np.random.default_rng(0).normal(size=400_500)).astype("float32")
    got = np.asarray(masks.keep_largest(score, 0.9907))
    assert got.sum() == 400_500 - oracles.count_pruned(0.9907, 400_500)
    assert score[got].min() >= score[~got].max()


def test_compiled_with_a_sparsity_that_changes():
    score = np.random.default_rng(0).normal(size=(7, 5)).astype("float32")
    compiled = tf.function(masks.keep_largest)
    for sparsity in (0.0, 0.25, 0.5, 0.9):
        got = compiled(tf.constant(score), tf.constant(sparsity))
        np.testing.assert_array_equal(got, oracles.keep_largest(score, sparsity))


def test_half_precision_scores():
    score = np.random.default_rng(0).normal(size=40).astype("float16")
    same(score, 0.5)


@few
@hypothesis.given(st.lists(arrays(st.one_of(ties, numbers)), min_size=1, max_size=4), sparsities)
def test_keep_largest_of_all_ranks_them_together(scores, sparsity):
    got = masks.keep_largest_of_all(scores, sparsity)
    for mine, theirs in zip(got, oracles.keep_largest_of_all(scores, sparsity), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_keep_largest_of_all_compiles():
    scores = [np.arange(6, dtype="float32").reshape(2, 3), np.array([9.0, -1.0], "float32")]
    got = tf.function(masks.keep_largest_of_all)([tf.constant(s) for s in scores], tf.constant(0.5))
    for mine, theirs in zip(got, oracles.keep_largest_of_all(scores, 0.5), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@st.composite
def hysteresis_inputs(draw):
    magnitude = draw(arrays(st.floats(0, 4, width=32)))
    mask = draw(hnp.arrays(bool, magnitude.shape))
    low = draw(st.floats(0, 3, width=32))
    return magnitude, mask, low, draw(st.floats(low, 4, width=32))


@few
@hypothesis.given(hysteresis_inputs())
def test_hysteresis(inputs):
    magnitude, mask, low, high = inputs
    got = np.asarray(masks.hysteresis(magnitude, mask, np.float32(low), np.float32(high)))
    np.testing.assert_array_equal(got, oracles.hysteresis(magnitude, mask, low, high))
    again = np.asarray(masks.hysteresis(magnitude, got, np.float32(low), np.float32(high)))
    np.testing.assert_array_equal(again, got)


def test_hysteresis_at_the_thresholds():
    magnitude = np.array([0.9, 0.9, 1.0, 1.0, 1.1, 1.1, 1.2], "float32")
    mask = np.array([1, 0, 1, 0, 1, 0, 0], bool)
    got = masks.hysteresis(magnitude, mask, np.float32(0.9), np.float32(1.1))
    np.testing.assert_array_equal(got, [0, 0, 1, 0, 1, 0, 1])
