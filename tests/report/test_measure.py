"""Counts against numbers worked out by hand, for every structure that a model can have."""

import json

import keras
import numpy as np
import pytest
from keras import layers as L

from tfprune.report.measure import measure, stored_bytes


def lenet5() -> keras.Model:
    """Caffe's LeNet-5: valid convolutions, no activation behind them."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            L.Conv2D(20, 5),
            L.MaxPooling2D(),
            L.Conv2D(50, 5),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dense(500, activation="relu"),
            L.Dense(10),
        ]
    )


def resnet20() -> keras.Model:
    """ResNet-20 for 32x32 colour images, with 1x1 projections on the two downsampling shortcuts."""
    x = inputs = keras.Input((32, 32, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same", use_bias=False)(x)))
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(3):
            stride = 2 if stage and not block else 1
            short = L.Conv2D(filters, 1, stride, use_bias=False)(x) if stride > 1 else x
            y = L.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
            y = L.ReLU()(L.BatchNormalization()(y))
            y = L.BatchNormalization()(L.Conv2D(filters, 3, padding="same", use_bias=False)(y))
            x = L.ReLU()(y + short)
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def macs_of(layer: keras.Layer, *shape: int, **call) -> dict[str, int | None]:
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs, **call))
    return {row.name: row.macs for row in measure(model).layers}


def test_lenet5_counts() -> None:
    found = measure(lenet5())
    assert found.parameters == found.nonzero + 580 == 431_080  # biases start at zero
    assert [row.macs for row in found.layers] == [288_000, 1_600_000, 400_000, 5_000]
    assert [row.parameters for row in found.layers] == [520, 25_050, 400_500, 5_010]
    assert found.compression_weights == 1
    assert found.theoretical_speedup == 1
    assert found.layers[0].shape == [5, 5, 1, 20]


def test_lenet300_counts() -> None:
    model = keras.Sequential([keras.Input((784,)), L.Dense(300), L.Dense(100), L.Dense(10)])
    found = measure(model)
    assert (found.parameters, found.macs) == (266_610, 266_200)


def test_resnet20_counts() -> None:
    found = measure(resnet20())
    assert found.macs == 40_813_184
    model = resnet20()
    assert found.parameters == sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_zeros_are_counted_by_the_positions_they_save() -> None:
    model = lenet5()
    conv, dense = model.layers[0], model.layers[-1]
    kernel = np.ones((5, 5, 1, 20), np.float32)
    kernel.reshape(-1)[:400] = 0
    conv.set_weights([kernel, np.ones(20)])
    dense.set_weights([np.zeros((500, 10)), np.zeros(10)])
    first, *_, last = measure(model).layers
    assert (first.nonzero, first.density) == (120, 120 / 520)
    assert (first.macs, first.macs_kept) == (288_000, 576 * 100)
    assert (last.nonzero, last.macs_kept, last.kernel_nonzero) == (0, 0, 0)


def test_the_three_ratios_differ_where_they_must() -> None:
    model = keras.Sequential([keras.Input((8,)), L.Dense(10), L.BatchNormalization()])
    kernel = np.zeros((8, 10), np.float32)
    kernel[0, :8] = 1
    model.layers[0].set_weights([kernel, np.ones(10)])
    found = measure(model)
    assert found.parameters == 80 + 10 + 20  # moving mean and variance are not among them
    assert found.nonzero == 8 + 10 + 10  # BatchNorm's offset starts at zero
    assert found.compression == 110 / 28
    assert found.compression_weights == 80 / 8
    # kernel CSR 8 * 5 + 9 * 2; bias and scale dense; the offset CSR: no values, two row pointers
    assert found.compression_with_indices == 440 / (58 + 40 + 40 + 4)


def test_nothing_left_is_none_and_valid_json() -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, use_bias=False)])
    model.layers[0].set_weights([np.zeros((4, 3))])
    data = measure(model).to_dict()
    assert data["compression"] is data["compression_weights"] is None
    assert data["theoretical_speedup"] is None
    assert data["layers"][0]["density"] == 0
    assert json.loads(json.dumps(data, allow_nan=False)) == data


@pytest.mark.parametrize(
    ("shape", "nonzero", "expected"),
    [
        ((), 1, 4),
        ((0, 3), 0, 0),
        ((10,), 10, 40),  # dense is cheaper
        ((100, 256), 50, 50 * 5 + 101 * 2),
        ((100, 257), 50, 50 * 6 + 101 * 2),
        ((2, 70_000), 50, 50 * 8 + 3 * 2),
        ((1000, 1000), 65_535, 65_535 * 6 + 1001 * 2),
        ((1000, 1000), 65_536, 65_536 * 6 + 1001 * 4),
        ((3, 3, 8, 16), 5, 5 * 5 + 73 * 2),
    ],
)
def test_stored_bytes(shape: tuple[int, ...], nonzero: int, expected: int) -> None:
    assert stored_bytes(shape, nonzero) == expected


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (L.Conv2D(8, 3, groups=2), (6, 6, 4), 16 * 9 * 2 * 8),
        (L.Conv2D(8, 3, strides=2, padding="same"), (7, 7, 4), 16 * 9 * 4 * 8),
        (L.Conv1D(8, 3, padding="causal", dilation_rate=2), (10, 4), 10 * 3 * 4 * 8),
        (L.Conv3D(2, 2), (3, 3, 3, 1), 8 * 8 * 2),
        (L.Conv2DTranspose(8, 3, strides=2), (5, 5, 4), 25 * 9 * 4 * 8),
        (L.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 4), 16 * 9 * 4 * 2),
        (L.SeparableConv2D(8, 3), (6, 6, 4), 16 * (9 * 4 + 4 * 8)),
        (L.Dense(5), (7, 3), 7 * 15),
        (L.EinsumDense("...x,xy->...y", 5), (7, 3), 7 * 15),
        (L.EinsumDense("abc,cde->abde", (None, 2, 3)), (7, 4), 7 * 24),
        (L.EinsumDense("abc,bcd->abd", (7, 3)), (7, 4), 7 * 4 * 3),
        (L.Embedding(100, 8), (12,), 0),
        (L.BatchNormalization(), (6, 6, 4), 0),
        (L.LayerNormalization(axis=(1, 2)), (6, 4), 0),
        (L.PReLU(), (6, 4), 0),
        (L.LSTM(5), (7, 3), 7 * 4 * (15 + 25)),
        (L.LSTM(5, unroll=True), (7, 3), 7 * 4 * (15 + 25)),
        (L.GRU(5, return_sequences=True), (7, 3), 7 * 3 * (15 + 25)),
        (L.SimpleRNN(5), (7, 3), 7 * (15 + 25)),
        (L.ConvLSTM2D(2, 3, padding="same"), (5, 4, 4, 1), 5 * 16 * 9 * (1 + 2) * 8),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, keras.Layer) else None,
)
def test_multiply_adds_of_one_layer(layer: keras.Layer, shape: tuple, expected: int) -> None:
    assert sum(macs_of(layer, *shape).values()) == expected


def test_loops_inside_loops() -> None:
    cells = L.RNN([L.GRUCell(4), L.SimpleRNNCell(2)])
    assert sorted(macs_of(cells, 7, 3).values()) == [7 * (8 + 4), 7 * 3 * (12 + 16)]
    assert list(macs_of(L.Bidirectional(L.LSTM(5)), 7, 3).values()) == [7 * 160, 7 * 160]
    body = keras.Sequential([L.Conv2D(2, 3), L.Flatten(), L.Dense(3)])
    assert list(macs_of(L.TimeDistributed(body), 6, 5, 5, 1).values()) == [6 * 162, 6 * 18 * 3]
    assert list(macs_of(L.TimeDistributed(L.LSTM(5)), 6, 7, 3).values()) == [6 * 7 * 160]


def test_attention_projections() -> None:
    inputs = keras.Input((7, 6))
    model = keras.Model(inputs, L.MultiHeadAttention(2, 3)(inputs, inputs))
    assert [row.macs for row in measure(model).layers] == [7 * 36] * 4


def test_channels_first() -> None:
    conv = L.Conv2D(8, 3, data_format="channels_first", padding="same", strides=2)
    if keras.config.image_data_format() == "channels_last" and not _runs(conv):
        pytest.skip("this device has no channels-first convolution")
    assert list(macs_of(conv, 4, 6, 8).values()) == [3 * 4 * 9 * 4 * 8]


def _runs(conv: keras.Layer) -> bool:
    try:
        conv(np.zeros((1, 4, 6, 8), np.float32))
    except Exception:
        return False
    return True


def test_a_shared_layer_has_its_parameters_once_and_its_work_per_call() -> None:
    a, b = keras.Input((5, 4)), keras.Input((9, 4))
    dense = L.Dense(3)
    (row,) = measure(keras.Model({"a": a, "b": b}, [dense(a), dense(b)])).layers
    assert (row.parameters, row.macs) == (15, (5 + 9) * 12)


def test_nested_model_that_is_called_twice() -> None:
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4)], name="inner")
    inputs = keras.Input((4,))
    (row,) = measure(keras.Model(inputs, inner(inner(inputs)))).layers
    assert (row.name, row.parameters, row.macs) == ("inner/" + inner.layers[0].name, 20, 32)


class Two(keras.Model):
    """A subclassed model; the second layer sees each position of a reshaped input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = L.Dense(6), L.Dense(2)

    def call(self, x):
        return self.second(keras.ops.reshape(self.first(x), (-1, 3, 2)))


def test_subclassed_model_and_folded_batch() -> None:
    model = Two()
    model(np.zeros((2, 5), np.float32))
    assert [row.macs for row in measure(model).layers] == [30, 3 * 4]


def test_fixed_batch_is_divided_out() -> None:
    inputs = keras.Input(batch_shape=(4, 7, 3))
    model = keras.Model(inputs, L.LSTM(5, stateful=True)(inputs))
    assert measure(model).macs == 7 * 160


class Scale(L.Layer):
    """A layer of a kind that nobody knows."""

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], shape[-1]), name="table")

    def call(self, x):
        return x @ self.table


def test_unknown_kind_is_said_not_guessed() -> None:
    model = keras.Sequential([keras.Input((4,)), Scale(name="mystery"), L.Dense(2)])
    found = measure(model)
    assert [row.macs for row in found.layers] == [None, 8]
    assert found.macs == 8
    assert "mystery" in found.notes[0]


def test_unknown_dimensions_need_an_input_shape() -> None:
    model = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(2, 3)])
    found = measure(model)
    assert found.macs is found.theoretical_speedup is None
    assert "input_shape" in found.notes[0]
    assert found.compression == 56 / 54
    assert measure(model, input_shape=(5, 6, 3)).macs == 12 * 54
    with pytest.raises(ValueError, match=r"`input_shape` = \(5, 6, 4\) does not fit"):
        measure(model, input_shape=(5, 6, 4))


def test_several_inputs_take_shapes_in_the_models_structure() -> None:
    inputs = {"a": keras.Input((None, 4), name="a"), "b": keras.Input((None, 4), name="b")}
    dense = L.Dense(3)
    model = keras.Model(inputs, [dense(inputs["a"]), dense(inputs["b"])])
    assert measure(model, input_shape={"a": (2, 4), "b": (3, 4)}).macs == 5 * 12


def test_measuring_leaves_no_trace() -> None:
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            L.BatchNormalization(),
            L.Dropout(0.5),
            L.LSTM(5, dropout=0.2),
            L.Dense(2, activity_regularizer="l2"),
        ]
    )
    model.compile("adam", "mse")
    model.fit(np.ones((8, 4, 3)), np.ones((8, 2)), verbose=0)
    before = [v.numpy().copy() for v in (*model.variables, *model.optimizer.variables)]
    layers = list(model._flatten_layers())
    keys = [set(vars(layer)) for layer in layers]
    measure(model)
    after = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert keys == [set(vars(layer)) for layer in layers]


def test_a_failing_net_is_restored_and_said() -> None:
    class Broken(L.Layer):
        def call(self, x, training=None):
            if training is False and not keras.ops.any(x):
                raise RuntimeError("no zeros, please")
            return x

    model = keras.Sequential([keras.Input((4,)), L.Dense(3), Broken()])
    found = measure(model)
    assert found.macs is None
    assert "no zeros, please" in found.notes[0]
    assert all("call" not in vars(layer) for layer in model._flatten_layers())


def test_bad_models() -> None:
    with pytest.raises(TypeError, match=r"builtins\.dict"):
        measure({})
    with pytest.raises(ValueError, match="not built"):
        measure(keras.Sequential([L.Dense(3)]))
    with pytest.raises(ValueError, match="without weights"):
        measure(keras.Sequential([keras.Input((3,)), L.ReLU()]))
