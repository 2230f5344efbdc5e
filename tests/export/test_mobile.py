"""The target "mobile-sparse": XNNPACK's sparse mode, or a reason for each op in its way."""

from __future__ import annotations

import functools
from unittest import mock

import keras
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sparse_nets import (
    MOBILE,
    blocks_of_zeros,
    headed,
    image,
    inputs_of,
    padded,
    strided,
    weights_are_what_kernels_take,
    zeros,
)

from tfprune.export import ExportError, Verification, export_tflite, predict_tflite, tflite
from tfprune.export.flatbuffer.file import FlatFile
from tfprune.export.storage import STORAGES
from tfprune.export.targets import dense
from tfprune.export.targets.registry import NAMES, find_target
from tfprune.export.view import view_of
from tfprune.export.xnnpack.sparse_mode import check
from tfprune.export.xnnpack.taps import centred, parts

L = keras.layers
LIMITS = {"float32": 1e-5, "float16": 5e-3, "int8": 0.1}
DRAWN_LIMITS = {"float32": 1e-4, "int8": 0.2}


CASES = [(name, "int8") for name in MOBILE] + [("strided", "float32"), ("joined", "float16")]


@pytest.mark.parametrize("name, storage", CASES)
def test_files_are_right_and_run_in_the_mode(name, storage, tmp_path):
    model = zeros(MOBILE[name]())
    x = inputs_of(model)
    found = export_tflite(
        model,
        tmp_path / "m.tflite",
        target="mobile-sparse",
        storage=storage,
        verification=Verification(samples=x),
    )
    wanted, got = model.predict(x, verbose=0), predict_tflite(found.path, x)
    assert np.abs(got - wanted).max() <= LIMITS[storage] * np.abs(wanted).max()
    fast = predict_tflite(found.path, x, delegate=True)
    np.testing.assert_allclose(fast, got, atol=1e-5 * np.abs(got).max())
    data = (tmp_path / "m.tflite").read_bytes()
    finding = check(data)
    assert finding.runs and len(finding.entries) == 1
    weights_are_what_kernels_take(data)


def test_layers_tell_what_they_gain(tmp_path):
    found = export_tflite(zeros(strided()), tmp_path / "m.tflite", target="mobile-sparse")
    forms = {one.form for one in found.layers}
    assert forms == {"filters"} and len(found.layers) == 6
    assert "of the dense time on phones" in str(found)
    by_size = max(found.layers, key=lambda one: one.dense_bytes)
    assert by_size.density == pytest.approx(0.1, abs=0.02)
    assert by_size.dense_bytes > 3 * by_size.stored_bytes


def test_frequencies_without_entries_are_left_out(tmp_path):
    model = zeros(strided())
    wide = next(x for x in model.layers if isinstance(x, L.Conv2D) and x.kernel_size == (5, 5))
    kernel = np.zeros(wide.kernel.shape, "float32")
    kernel[:] = np.random.default_rng(0).normal(size=kernel.shape[2:])  # the mean alone
    wide.kernel.assign(kernel)
    found = export_tflite(model, tmp_path / "m.tflite", target="mobile-sparse")
    (form,) = [one for one in found.layers if one.dense_bytes == kernel.size * 4]
    assert form.note.startswith("1 DCT filters and 1 sparse 1x1")


def test_one_large_weight_does_not_cost_the_others(tmp_path):
    inputs = image(10)
    model = headed(inputs, L.Conv2D(64, 3, padding="same", use_bias=False)(inputs), 4)
    zeros(model, density=0.3)
    kernel = keras.ops.convert_to_numpy(model.layers[1].kernel).copy()
    kernel[..., 5] *= 1e4
    model.layers[1].kernel.assign(kernel)
    probe = keras.Model(inputs, model.layers[2].output)
    x = inputs_of(probe)
    export_tflite(
        probe,
        tmp_path / "m.tflite",
        target="mobile-sparse",
        storage="int8",
        verification=Verification(samples=x),
    )
    wanted, got = probe.predict(x, verbose=0), predict_tflite(tmp_path / "m.tflite", x)
    lost = np.sqrt(np.square(got - wanted).sum(0) / np.square(wanted).sum(0))
    assert lost.max() < 0.2 and np.median(lost) < 0.03


def middle_of(make, size=16):
    """A net with an entry, 1x1 convolutions, what `make` puts in the middle, and a mean."""

    def net():
        inputs = image(size)
        x = L.Conv2D(16, 3, 2, activation="relu")(L.ZeroPadding2D(1)(inputs))
        x = make(L.Conv2D(16, 1, activation="relu")(x))
        return headed(inputs, L.Conv2D(64, 1, activation="relu")(x))

    return net


def two_outputs():
    model = middle_of(lambda x: x)()
    return keras.Model(model.inputs, [model.output, model.layers[3].output])


def side_branch():
    first, second = image(), keras.Input((12, 12, 16))
    x = L.Conv2D(16, 3, padding="same")(first)
    return headed([first, second], L.Conv2D(64, 1)(L.Add()([x, second])))


REFUSED = {
    "max pool": (middle_of(lambda x: L.MaxPooling2D(2)(x)), "MAX_POOL_2D .*no such op"),
    "prelu": (middle_of(lambda x: L.PReLU(shared_axes=[1, 2])(x)), "p_re_lu"),
    "valid": (middle_of(lambda x: L.Conv2D(16, 3)(x)), 'use padding="same"'),
    "far": (middle_of(lambda x: L.Conv2D(16, 7, padding="same")(x)), "reach 3 pixels"),
    "dilated": (middle_of(lambda x: L.Conv2D(16, 3, padding="same", dilation_rate=2)(x)), "dilat"),
    "groups": (middle_of(lambda x: L.Conv2D(16, 3, padding="same", groups=4)(x)), "groups"),
    "multiplier": (middle_of(lambda x: L.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)),
                   "several outputs of a channel"),
    "stride of 3": (middle_of(lambda x: L.Conv2D(16, 3, 3, padding="same")(x)), "must be 1 or 2"),
    "edges": (middle_of(lambda x: L.AveragePooling2D(3, 1, padding="same")(x)), "at the edges"),
    "edges behind": (middle_of(lambda x: L.AveragePooling2D(3, 2, padding="same")(x)),
                     "at the edges"),
    "difference": (middle_of(lambda x: L.Subtract()([x, L.Conv2D(16, 1)(x)])), "SUB"),
    "no mean": (lambda: keras.Sequential([image(), L.Conv2D(64, 3), L.Flatten()]), "has none"),
    "no image": (lambda: headed(inputs := image(12, 8), L.Conv2D(64, 3, padding="same")(inputs)),
                 "at most 3 channels"),
    "two outputs": (two_outputs, "output of the model in front"),
    "side branch": (side_branch, "does not come from the image"),
    "open sizes": (lambda: headed(i := keras.Input((None, None, 3)), L.Conv2D(64, 3)(i)), "known"),
    "loops": (lambda: keras.Sequential([keras.Input((5, 4)), L.LSTM(8)]), "loops|has none"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_every_op_in_the_way_is_named(name, tmp_path):
    make, reason = REFUSED[name]
    with pytest.raises(ExportError, match=f"(?s){reason}"):
        export_tflite(zeros(make()), tmp_path / "m.tflite", target="mobile-sparse")
    assert not list(tmp_path.iterdir())


def test_too_few_zeros_are_refused(tmp_path):
    with pytest.raises(ExportError, match=r"only \d+% of the weights.*taken from 67% on"):
        export_tflite(zeros(strided(), density=0.5), tmp_path / "m.tflite", target="mobile-sparse")


def plainly_packed(model):
    """A dense file with its weights as rows, without any of the rewriting, run by nobody."""
    from tfprune.export.flatbuffer.pack import store

    data = dense.dense(view_of(model), STORAGES["float32"], []).data
    return store(FlatFile(data), "float32")


@pytest.mark.parametrize(
    "name",
    [x for x in REFUSED if x not in ("no mean", "no image", "loops", "side branch", "open sizes")],
)
def test_graphs_that_phones_get_wrong_are_known(name):
    """XNNPACK's own check, ported: packed without rewriting, each of these is complained of."""
    finding = check(plainly_packed(zeros(REFUSED[name][0]())))
    assert finding.entries and finding.violations and not finding.runs


BUGS = {
    "conv 3x3": lambda x: L.Conv2D(16, 3, padding="same")(x),
    "1x1 of stride 2": lambda x: L.Conv2D(16, 1, 2)(x),
    "average pool": lambda x: L.AveragePooling2D(2)(x),
    "unfused normalization": lambda x: L.BatchNormalization()(L.Add()([x, L.ReLU()(x)])),
    "stride-2 depthwise, same": lambda x: L.DepthwiseConv2D(3, 2, padding="same")(x),
    "one minus": lambda x: L.BatchNormalization()(1.0 - x),
    "shared padding": lambda x: L.Add()(
        [L.DepthwiseConv2D(3, 2)(pad) for pad in [L.ZeroPadding2D(1)(x)] for _ in range(2)]
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_graphs_that_phones_get_wrong_are_rewritten(name, tmp_path):
    model = zeros(middle_of(BUGS[name])())
    finding = check(plainly_packed(model))
    assert finding.entries and finding.violations
    x = inputs_of(model)
    export_tflite(
        model, tmp_path / "m.tflite", target="mobile-sparse", verification=Verification(samples=x)
    )
    assert check((tmp_path / "m.tflite").read_bytes()).runs
    np.testing.assert_allclose(
        predict_tflite(tmp_path / "m.tflite", x), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5
    )


def test_an_activation_behind_a_pool_of_all_pixels_stays(tmp_path):
    inputs = image(16)
    x = L.Conv2D(64, 1)(L.Conv2D(16, 3, 2, activation="relu")(L.ZeroPadding2D(1)(inputs)))
    means = L.Flatten()(L.ReLU()(L.AveragePooling2D(8)(x)))
    model = zeros(keras.Model(inputs, L.Dense(7)(means)))
    x = inputs_of(model)
    found = export_tflite(
        model, tmp_path / "m.tflite", target="mobile-sparse", verification=Verification(samples=x)
    )
    assert found.ops["MEAN"] == 1 and found.ops["RELU"] == 1
    np.testing.assert_allclose(
        predict_tflite(found.path, x), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5
    )


def test_a_pad_of_other_values_at_the_entry_is_named(tmp_path):
    inputs = image(16)
    ones = keras.ops.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=0.5)
    x = L.Conv2D(64, 1)(L.Conv2D(16, 3, 2, activation="relu")(ones))
    model = zeros(headed(inputs, x))
    with pytest.raises(ExportError, match="PADV2"):
        export_tflite(model, tmp_path / "m.tflite", target="mobile-sparse")
    assert "PADV2" in " ".join(export_tflite(model, tmp_path / "m.tflite", target="auto").notes)


def test_a_join_of_zeros_alone_is_named(tmp_path):
    def nothing(x):
        return L.Concatenate()([L.Rescaling(0.0)(x), L.Rescaling(0.0)(x)])

    with pytest.raises(ExportError, match="all that it joins are zeros"):
        export_tflite(zeros(middle_of(nothing)()), tmp_path / "m.tflite", target="mobile-sparse")


def test_padding_belongs_to_one_filter_each(tmp_path):
    export_tflite(zeros(padded()), tmp_path / "m.tflite", target="mobile-sparse")
    file = FlatFile((tmp_path / "m.tflite").read_bytes())
    (graph,) = file.graphs
    pads = [int(op.outputs[0]) for op in graph.operators if file.kind(op) == "PAD"]
    for number in pads:
        assert sum(number in [int(n) for n in op.inputs] for op in graph.operators) == 1
    assert len(pads) > 9


def broad(stride=1):
    inputs = image(12)
    x = L.Conv2D(128, 3, stride, padding="same", activation="relu")(inputs)
    return headed(inputs, L.Conv2D(128, 3, padding="same")(x))


def test_auto_takes_what_is_fast_on_phones(tmp_path):
    found = export_tflite(zeros(broad()), tmp_path / "m.tflite", target="auto", storage="int8")
    assert check((tmp_path / "m.tflite").read_bytes()).runs
    assert found.notes[0].startswith("'mobile-sparse': on phones") and found.target == "auto"
    assert "not 'mobile-sparse-block': it keeps float32" in found.notes[1]
    wide = found.layers[1]
    assert wide.macs == 9 * 128 * 128 * 144 and wide.time == pytest.approx(0.26, abs=0.02)


def test_auto_takes_blocks_where_only_they_fit(tmp_path):
    inputs = image(12)
    x = L.MaxPooling2D(2)(L.Conv2D(128, 3, padding="same", activation="relu")(inputs))
    model = blocks_of_zeros(headed(inputs, L.Conv2D(128, 3, padding="same")(x)))
    found = export_tflite(model, tmp_path / "m.tflite", target="auto")
    assert [one.form for one in found.layers] == ["dense", "blocks", "blocks"]
    assert "not 'mobile-sparse': This model does not run" in " ".join(found.notes)


def test_auto_falls_back_to_the_smallest(tmp_path):
    narrow = export_tflite(zeros(strided()), tmp_path / "m.tflite", target="auto")
    assert "'smallest', which is no faster" in narrow.notes[0] and "DENSIFY" in narrow.ops
    assert "'mobile-sparse': only" in " ".join(narrow.notes)
    full = export_tflite(zeros(broad(), density=1.0), tmp_path / "m.tflite", target="auto")
    assert "DENSIFY" not in full.ops and {one.form for one in full.layers} == {"dense"}


@pytest.mark.parametrize("storage, words", [("float32", "float32"), ("int8", "float16")])
def test_auto_stays_dense_where_sparse_files_would_be_wrong(storage, words, tmp_path):
    model = zeros(middle_of(lambda x: L.MaxPooling2D(2)(x))(), dct=False)
    x = inputs_of(model)
    found = export_tflite(
        model,
        tmp_path / "m.tflite",
        target="auto",
        storage=storage,
        verification=Verification(samples=x),
    )
    assert "DENSIFY" not in found.ops and found.notes[0].startswith(f"'dense', in {words}")
    assert "not 'smallest': With sparse weights" in found.notes[-1]
    wanted = model.predict(x, verbose=0)
    limit = LIMITS[words] * np.abs(wanted).max()
    assert np.abs(predict_tflite(found.path, x) - wanted).max() <= limit


def test_each_graph_is_converted_once(tmp_path, monkeypatch):
    converted, original = [], dense._convert

    def spy(folder, storage, calibration):
        converted.append(storage.values)
        return original(folder, storage, calibration)

    monkeypatch.setattr(dense, "_convert", spy)
    export_tflite(zeros(strided()), tmp_path / "m.tflite", target="auto", storage="int8")
    assert sorted(converted) == ["float32", "float32", "int8_dynamic"]  # two forms, and a note


@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 4),
    st.integers(0, 4),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_parts_make_up_the_kernel(kh, kw, top, left, stride, dct, seed):
    """Sum of filter times weights, laid around the pixel, against the kernel itself."""
    rng = np.random.default_rng(seed)
    kernel = (rng.normal(size=(3, kh, kw, 2)) * (rng.random((3, kh, kw, 2)) < 0.5)).astype("f4")
    if dct:
        kernel[:] = kernel.mean((1, 2), keepdims=True)
    far = max(top, left, kh - 1 - top, kw - 1 - left)
    try:
        found, _ = parts(kernel, top, left, stride)
    except ValueError as error:
        assert far > 2 and "reach" in str(error)
        return
    total = np.zeros((3, 11, 11, 2))
    for part in found:
        filt = np.ones((1, 1)) if part.filter is None else part.filter
        r = filt.shape[0] // 2
        total[:, 5 - r : 6 + r, 5 - r : 6 + r] += np.einsum("ab,oi->oabi", filt, part.weights)
    wanted = np.zeros((3, 11, 11, 2))
    wanted[:, 5 - top : 5 - top + kh, 5 - left : 5 - left + kw] = kernel
    np.testing.assert_allclose(total, wanted, atol=1e-6)


def test_taps_that_reach_too_far():
    with pytest.raises(ValueError, match="reach 3 pixels"):
        centred(np.ones((4, 4)), 3, 0)
    assert centred(np.zeros((4, 4)), 3, 0).shape == (1, 1)


@st.composite
def images(draw):
    """Small nets most of which have a form: convolutions, sums, joins, pools, normalization."""
    keras.utils.set_random_seed(draw(st.integers(0, 99)))
    inputs = x = image(draw(st.integers(5, 12)), draw(st.sampled_from([1, 2, 3])))
    for _ in range(draw(st.integers(1, 4))):
        stride, size = draw(st.sampled_from([1, 1, 2])), draw(st.sampled_from([1, 2, 3, 5]))
        width = draw(st.sampled_from([4, 12, 24]))
        word = "same" if draw(st.integers(0, 9)) else "valid"
        if size == 3 and draw(st.booleans()):
            y = L.Conv2D(width, 3, stride)(L.ZeroPadding2D(1)(x))
        elif min(x.shape[1:3]) >= size:
            y = L.Conv2D(width, size, stride, padding=word, use_bias=draw(st.booleans()))(x)
        else:
            y = L.Conv2D(width, 1)(x)
        if draw(st.booleans()):
            y = L.BatchNormalization()(y)
        y = L.Activation(draw(st.sampled_from(["linear", "relu", "relu6", "sigmoid", "elu"])))(y)
        joins = [L.Concatenate()] if y.shape[1:3] == x.shape[1:3] else []
        joins += [L.Add(), L.Multiply()] if y.shape == x.shape else []
        if joins and draw(st.booleans()):
            y = draw(st.sampled_from(joins))([x, y])
        if not draw(st.integers(0, 3)) and min(y.shape[1:3]) > 3:
            pool = L.AveragePooling2D if draw(st.integers(0, 3)) else L.MaxPooling2D
            y = pool(2)(y)
        x = y
    x = L.GlobalAveragePooling2D(keepdims=draw(st.booleans()))(x)
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))
    density = draw(st.sampled_from([0.03, 0.1, 0.3]))
    return zeros(model, density, dct=draw(st.booleans()), seed=draw(st.integers(0, 99)))


def hold(model, folder):
    """Write a model for every target; yield whether each file was written, and hold it to Keras."""
    one_view = functools.cache(tflite.view_of)  # what is converted is converted once for all
    x = inputs_of(model, 6)
    wanted = keras.ops.convert_to_numpy(model(x))
    for target in NAMES:
        for storage in ("float32", "int8") if target != "dense" else ("float32",):
            if storage not in find_target(target).storages:
                continue
            try:
                with mock.patch.object(tflite, "view_of", one_view):
                    found = export_tflite(
                        model,
                        folder / "m.tflite",
                        target=target,
                        storage=storage,
                        verification=Verification(samples=x),
                    )
            except ExportError as error:
                named = {"mobile-sparse-block": "No layer of this model"}
                assert target not in ("dense", "auto")
                assert named.get(target, "sparse mode") in str(error)
                yield target, False
                continue
            error = np.abs(predict_tflite(found.path, x) - wanted).max()
            assert error <= DRAWN_LIMITS[storage] * np.abs(wanted).max(), (target, storage)
            finding = check((folder / "m.tflite").read_bytes())
            assert target != "mobile-sparse" or finding.runs
            sparse = "DENSIFY" in found.ops
            assert not (sparse and finding.entries and finding.violations)
            yield target, True


def exported_shares(examples, folder):
    """Target -> the share of files that are written of drawn graphs."""
    outcomes = []

    @settings(max_examples=examples, phases=[Phase.generate], deadline=None)
    @given(model=images())
    def run(model):
        outcomes.extend(hold(model, folder))

    run()
    names = {target for target, _ in outcomes}
    return {name: np.mean([ok for target, ok in outcomes if target == name]) for name in names}


def test_drawn_graphs(tmp_path):
    shares = exported_shares(3, tmp_path)
    assert shares["dense"] == shares["auto"] == 1
    assert shares["smallest"] >= 0.5 and shares["mobile-sparse"] >= 0.25


@pytest.mark.slow
def test_two_hundred_drawn_graphs(tmp_path):
    shares = exported_shares(200, tmp_path)
    assert shares["dense"] == shares["auto"] == 1
    assert shares["smallest"] >= 0.5 and shares["mobile-sparse"] >= 0.25
    assert shares["mobile-sparse-block"] > 0
