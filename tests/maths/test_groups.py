"""Groups of entries against a loop over all pairs, and the choice of groups against sorting."""

from __future__ import annotations

import keras
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.maths import masks
from tfprune.maths.groups import GRANULARITIES, Groups, check_granularity
from tfprune.maths.spec import WeightSpec

to_numpy = keras.ops.convert_to_numpy
AXES = ("kh", "kw", "cin", "cout")


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("shape", [(3, 3, 2, 5), (2, 3, 1, 8), (1, 1, 6, 6), (2, 2, 8, 3)])
def test_groups_of_a_kernel(granularity: str, shape: tuple[int, ...]) -> None:
    kernel = np.random.default_rng(0).normal(size=shape).astype("float32")
    groups = Groups(WeightSpec("kernel", shape, AXES), granularity)
    magnitude = groups.magnitude(keras.ops.convert_to_tensor(kernel))
    assert tuple(magnitude.shape) == groups.shape and groups.sizes.sum() == kernel.size
    single = granularity in ("band", "frequency") and shape[:2] == (1, 1)
    name = "coefficient" if single else granularity
    expected = oracles.group_rms(kernel, 2, name)
    cut = float(np.median(expected))
    mask = to_numpy(groups.to_mask(magnitude > cut))
    assert mask.shape == shape
    near = np.abs(expected - cut) < 1e-5
    np.testing.assert_array_equal(mask[~near], (expected > cut)[~near])
    np.testing.assert_array_equal(
        groups.of_mask(keras.ops.convert_to_tensor(mask)), magnitude > cut
    )


def test_blocks_of_a_depthwise_kernel_run_over_its_channels() -> None:
    spec = WeightSpec("kernel", (3, 3, 8, 1), ("kh", "kw", "cin", "multiplier"))
    assert Groups(spec, "block4").shape == (9, 1, 2) and Groups(spec, "row").shape == (9, 1, 1)


def test_a_bias_is_single_entries() -> None:
    spec = WeightSpec("bias", (6,), is_bias=True)
    assert all(Groups(spec, name).shape == (1, 1, 6) for name in GRANULARITIES)


def test_an_unknown_granularity_is_refused() -> None:
    with pytest.raises(ValueError, match="coefficient, block4, block8, input4, row"):
        check_granularity("filter")


def test_scores_whose_differences_are_subnormal() -> None:
    scores = np.array([0, 8.964248655025746e-33, 0.5], "float32")
    (found,) = masks.keep_groups([scores], [np.array([0, 3, 112])], 113.0)
    np.testing.assert_array_equal(found, oracles.keep_groups(scores, np.array([0, 3, 112]), 113.0))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_keep_groups_is_sorting(data: st.DataObject) -> None:
    hold_to_sorting(data)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_keep_groups_is_sorting_in_many_examples(data: st.DataObject) -> None:
    hold_to_sorting(data)


def hold_to_sorting(data: st.DataObject) -> None:
    """The groups that are kept of drawn scores, against those that sorting keeps."""
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    value = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1e6, width=32))
    scores = [
        np.array(data.draw(st.lists(value, min_size=n, max_size=n)), "float32") for n in sizes
    ]
    weight = st.integers(0, 9)
    weights = [np.array(data.draw(st.lists(weight, min_size=n, max_size=n))) for n in sizes]
    kept = data.draw(st.integers(0, 1 + sum(int(w.sum()) for w in weights)))
    subnormal = [np.where(s < 1e-37, 0, s) for s in scores]
    found = masks.keep_groups(subnormal, weights, float(kept))
    flat = np.concatenate([to_numpy(f).ravel() for f in found])
    load = np.concatenate(weights)
    expected = oracles.keep_groups(np.concatenate(subnormal), load, kept)
    np.testing.assert_array_equal(flat[load > 0], expected[load > 0])
    assert [f.shape for f in found] == [s.shape for s in scores]
