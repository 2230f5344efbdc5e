"""The ops inside graphs, loops, strategies, threads and files, and their gradients."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
from native.convs import close, draw_weights, slow

import tfprune
from tfprune.maths import sparse_weights
from tfprune.ops import ConvSpec, conv, library, reference_conv2d

pytestmark = pytest.mark.skipif(not library.available(), reason="built without native kernels")
SPEC = ConvSpec(6, 5, padding=(1, 1, 1, 1), basis="dct", activation="relu")
WEIGHTS = draw_weights(SPEC, 0.3, True, 0)
ARRAYS = (WEIGHTS.values, WEIGHTS.columns, WEIGHTS.row_splits, WEIGHTS.bias)
BYTES = tf.constant(np.frombuffer(WEIGHTS.to_bytes(), np.uint8))
X = np.random.default_rng(0).normal(size=(2, 7, 9, 6)).astype("float32")
EXPECTED = slow(X, WEIGHTS)


def packed(x):
    return conv.packed_conv2d(x, BYTES, SPEC)


def test_unknown_sizes_and_static_shapes():
    @tf.function(input_signature=[tf.TensorSpec((None, None, 9, 6))])
    def call(x):
        y = packed(x)
        assert y.shape.as_list() == [None, None, 9, 5]
        return y

    close(call(X), EXPECTED)
    close(call(X[:1, :3]), slow(X[:1, :3], WEIGHTS))


def test_weights_that_change_after_tracing():
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.uint8)])
    def call(data):
        return conv.packed_conv2d(X, data, SPEC)

    close(call(BYTES), EXPECTED)
    other = draw_weights(SPEC, 0.6, True, 1)
    close(call(np.frombuffer(other.to_bytes(), np.uint8)), slow(X, other))
    close(call(BYTES), EXPECTED)

    values = tf.Variable(WEIGHTS.values)
    step = tf.function(lambda: conv.sparse_conv2d(X, values, *ARRAYS[1:], SPEC))
    close(step(), EXPECTED)
    values.assign(2 * WEIGHTS.values)
    doubled = sparse_weights.SparseWeights(SPEC, 2 * WEIGHTS.values, *ARRAYS[1:])
    close(step(), slow(X, doubled))


def test_loops():
    many = tf.constant(np.stack([X, 2 * X, -X]))
    expected = [slow(np.asarray(x), WEIGHTS) for x in many]
    close(tf.map_fn(packed, many), expected)
    close(tf.function(lambda: tf.map_fn(packed, many))(), expected)
    close(tf.vectorized_map(packed, many), expected)
    total = tf.while_loop(
        lambda i, y: i < 3,
        lambda i, y: (i + 1, y + packed(many[i])),
        (0, tf.zeros(EXPECTED.shape)),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None] * 4)),
    )[1]
    close(total, np.sum(expected, 0))


def test_many_threads_at_once():
    results, failures = [None] * 64, []

    def work(index):
        try:
            for _ in range(3):
                results[index] = conv.packed_conv2d(X * (index + 1), BYTES, SPEC, threads=2).numpy()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for index in (0, 31, 63):
        close(results[index], slow(X * (index + 1), WEIGHTS))


@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_gradients_are_those_of_the_dense_convolution(strides):
    spec = ConvSpec(6, 5, (3, 2), strides, padding=(1, 0, 0, 1), basis="dct", activation="relu6")
    weights = draw_weights(spec, 0.4, True, 3)
    sources = [tf.constant(a) for a in (X, weights.values, weights.bias)]

    def gradients(function):
        with tf.GradientTape() as tape:
            for source in sources:
                tape.watch(source)
            loss = tf.reduce_sum(tf.sin(function(*sources)))
        return tape.gradient(loss, sources)

    def native(x, values, bias):
        return conv.sparse_conv2d(x, values, weights.columns, weights.row_splits, bias, spec)

    def dense(x, values, bias):
        from tfprune.ops.dense import dense_conv2d

        return dense_conv2d(x, [values, weights.columns, weights.row_splits, bias], spec)

    for found, expected in zip(gradients(native), gradients(dense), strict=True):
        close(found, expected)
    found = tf.function(lambda: gradients(native))()
    close(found[0], gradients(dense)[0])
    with tf.GradientTape() as tape:
        tape.watch(sources[0])
        y = conv.packed_conv2d(
            sources[0], tf.constant(np.frombuffer(weights.to_bytes(), np.uint8)), spec
        )
        loss = tf.reduce_sum(tf.sin(y))
    close(tape.gradient(loss, sources[0]), gradients(dense)[0])


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "float16"])
def test_gradients_through_packed_weights_that_change(storage):
    first, second = draw_weights(SPEC, 0.4, True, 3), draw_weights(SPEC, 0.4, False, 4)
    packed = tf.Variable(np.frombuffer(first.to_bytes(storage), np.uint8), shape=[None])

    @tf.function
    def slope(x):
        y = conv.packed_conv2d(x, packed.value(), SPEC)
        return tf.gradients(tf.reduce_sum(tf.sin(y)), x)[0]

    for weights in (first, second):
        data = weights.to_bytes(storage)
        packed.assign(np.frombuffer(data, np.uint8))
        kept = sparse_weights.SparseWeights.from_bytes(data)
        x = tf.constant(X)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(reference_conv2d(x, kept)))
        close(slope(X), tape.gradient(loss, x))


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "float16"])
def test_gradients_through_constants_of_any_length(storage):
    for entries in (5, 6, 7):
        kernel = np.zeros((3, 3, 6, 5), "float32")
        kernel.flat[: 40 * entries : 40] = 1.5
        weights = sparse_weights.SparseWeights.from_dense(kernel, SPEC)
        data = np.frombuffer(weights.to_bytes(storage), np.uint8)

        @tf.function
        def slope(x, data=data):
            return tf.gradients(tf.reduce_sum(conv.packed_conv2d(x, data, SPEC)), x)[0]

        x = tf.constant(X)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(reference_conv2d(x, weights))
        close(slope(X), tape.gradient(loss, x))


def test_gradient_against_finite_differences():
    spec = ConvSpec(2, 2, basis="dct")
    weights = draw_weights(spec, 0.5, True, 0)
    x = np.random.default_rng(1).normal(size=(1, 4, 4, 2)).astype("float32")

    def loss(values):
        y = conv.sparse_conv2d(
            x, tf.cast(values, tf.float32), weights.columns, weights.row_splits, None, spec
        )
        return tf.reduce_sum(y * y)

    theoretical, numerical = tf.test.compute_gradient(loss, [weights.values], delta=1e-2)
    close(theoretical[0], numerical[0], 1e-2)


@pytest.mark.parametrize("strides", [1, 2, (1, 3)])
@pytest.mark.parametrize("padding", ["same", "valid", (1, 0, 2, 1)])
def test_pack_and_convolve(strides, padding):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 4, 6, 5)).astype("float32")
    mask = rng.random(kernel.shape) < 0.3

    def convolved(packed, form):
        return conv.sparse_frequency_conv2d(
            X, packed, strides, padding, activation="relu", form=form
        )

    packed = conv.pack(kernel, mask, basis="spatial", bias=np.arange(5.0))
    y = convolved(packed, "sparse")
    pads = padding if isinstance(padding, tuple) else (0, 0, 0, 0)
    x = np.pad(X, ((0, 0), pads[:2], pads[2:], (0, 0)))
    word = padding.upper() if isinstance(padding, str) else "VALID"
    expected = tf.nn.relu(tf.nn.conv2d(x, kernel * mask, strides, word) + np.arange(5.0, dtype="f"))
    close(y, expected)
    close(convolved(packed, "dense"), expected)
    np.testing.assert_array_equal(y, convolved(packed, "auto"))
    with pytest.warns(UserWarning, match="a dense convolution is as fast"):
        full = conv.pack(kernel, basis="spatial")
    np.testing.assert_array_equal(convolved(full, "auto"), convolved(full, "dense"))


def test_pack_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="`mask` must be"):
        conv.pack(np.ones((3, 3, 2, 2)), np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"must be \[kh, kw, cin, cout\]"):
        conv.pack(np.ones((3, 3)))
    packed = conv.pack(np.eye(9).reshape((3, 3, 9, 1)))
    for wrong in ({"padding": "full"}, {"form": "fast"}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
            conv.sparse_frequency_conv2d(X, packed, **wrong)


def test_mirrored_strategy():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    replicas = strategy.run(lambda: packed(tf.constant(X)))
    close(strategy.experimental_local_results(replicas)[0], EXPECTED)


def run_python(program, **environment):
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(tfprune.__file__))}
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**env, **environment},
        timeout=300,
    )


def test_saved_model(tmp_path):
    module = tf.Module()
    module.call = tf.function(packed, input_signature=[tf.TensorSpec((None, None, None, 6))])
    tf.saved_model.save(module, str(tmp_path / "saved"))
    np.savez(tmp_path / "x.npz", x=X, y=EXPECTED)
    load = f"""
import numpy as np, tensorflow as tf
data = np.load(r"{tmp_path / "x.npz"}")
found = tf.saved_model.load(r"{tmp_path / "saved"}").call(data["x"])
assert np.abs(found - data["y"]).max() < 1e-4
"""
    done = run_python("import tfprune.ops\n" + load)
    assert done.returncode == 0, done.stderr[-2000:]
    done = run_python(load)
    assert done.returncode and "TfprunePackedConv2D" in done.stderr


def test_switches():
    program = """
import warnings
warnings.simplefilter("error", UserWarning)
import numpy as np, tfprune.ops as ops
spec = ops.ConvSpec(3, 4, basis="dct")
weights = ops.SparseWeights.from_dense(np.ones((3, 3, 3, 4)), spec)
data = np.frombuffer(weights.to_bytes(), np.uint8)
y = ops.packed_conv2d(np.ones((1, 4, 4, 3), "float32"), data, spec)
print(ops.available(), ops.kernels(), float(y[0, 0, 0, 0]))
"""
    off = run_python(program, TFPRUNE_DISABLE_NATIVE="1")
    assert off.returncode == 0 and off.stdout.startswith("False []"), off.stderr[-2000:]
    on = run_python(program, TFPRUNE_KERNEL="portable")
    assert on.returncode == 0, on.stderr[-2000:]
    assert float(on.stdout.split()[-1]) == pytest.approx(float(off.stdout.split()[-1]))
    both = run_python(program, TFPRUNE_DISABLE_NATIVE="1", TFPRUNE_REQUIRE_NATIVE="1")
    assert both.returncode and "TFPRUNE_REQUIRE_NATIVE=1, but" in both.stderr
    wrong = run_python(program, TFPRUNE_KERNEL="sse9")
    assert wrong.returncode and "sse9" in wrong.stderr


def test_lists_and_numbers_of_numpy_are_taken():
    packed = draw_weights(ConvSpec(4, 4, (3, 3), basis="dct"), 0.5, True, 0)
    x = np.random.default_rng(0).random((1, 8, 8, 4), "float32")
    wanted = conv.sparse_frequency_conv2d(x, packed, strides=(2, 2), padding=(1, 1, 1, 1))
    got = conv.sparse_frequency_conv2d(x, packed, strides=np.int64(2), padding=[1, 1, 1, 1])
    np.testing.assert_array_equal(got, wanted)
    with pytest.raises(ValueError, match=r"four numbers. Received: \[1, 1\]"):
        conv.sparse_frequency_conv2d(x, packed, padding=[1, 1])
