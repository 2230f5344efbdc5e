"""The C interface of the core, with what the ops never hand it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from native.convs import close, draw_weights, slow

from tfprune import ops
from tfprune.maths.sparse_weights import MOST_KERNEL
from tfprune.ops import ConvSpec, SparseWeights

pytestmark = pytest.mark.skipif(not ops.available(), reason="built without native kernels")
OK, INVALID, NO_MEMORY, UNAVAILABLE = range(4)
i32, i64, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
SPEC = ConvSpec(4, 3, padding=(1, 1, 1, 1), basis="dct")


class Conv(ctypes.Structure):
    """tfp_conv."""

    _fields_ = (("sizes", i64 * 13), ("kinds", i32 * 2))

    def __init__(self, spec):
        numbers = spec.fields()
        super().__init__((i64 * 13)(*numbers[:13]), (i32 * 2)(*numbers[13:]))


def library():
    native = ctypes.CDLL(str(Path(ops.library.__file__).with_name("libtfprune.so")))
    native.tfp_last_error.restype = native.tfp_kernel_name.restype = ctypes.c_char_p
    native.tfp_device_kernel_name.restype = ctypes.c_char_p
    native.tfp_pack_blob.argtypes = [pointer, i64, i64, pointer]
    native.tfp_run.argtypes = [pointer, i64, i64, i64, pointer, pointer, i32]
    native.tfp_output_size.argtypes = [pointer, i64, i64, pointer, pointer]
    native.tfp_free.argtypes = [pointer]
    return native


@pytest.fixture
def native():
    return library()


def message(native):
    return native.tfp_last_error().decode()


class Packed:
    """Weights that are packed, and freed at the end of a block."""

    def __init__(self, native, weights):
        self.native, self.handle, self.spec = native, pointer(), weights.spec
        data = weights.to_bytes()
        assert native.tfp_pack_blob(data, len(data), 0, ctypes.byref(self.handle)) == OK

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.native.tfp_free(self.handle)

    def run(self, x, y, threads=1, shape=None):
        """The status; without arrays null is handed over."""
        addresses = (None if array is None else array.ctypes.data for array in (x, y))
        return self.native.tfp_run(self.handle, *(shape or x.shape[:3]), *addresses, threads)


def test_arguments_of_a_run(native):
    weights = draw_weights(SPEC, 0.5, True, 0)
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype("float32")
    y = np.full((2, 5, 6, 3), np.nan, "float32")
    with Packed(native, weights) as packed:
        for threads in (0, -1, -(2**31)):
            assert packed.run(x, y, threads) == INVALID
            assert message(native) == f"threads must be at least 1. Received: {threads}."
        for arrays in ((None, y), (x, None)):
            assert packed.run(*arrays, shape=x.shape[:3]) == INVALID
            assert message(native) == "x and y must be given. Received: null."
        assert packed.run(None, None, shape=(0, 5, 6)) == OK
        assert np.isnan(y).all()
        assert packed.run(x, y, 2**31 - 1) == OK
    close(y, slow(x, weights))
    assert native.tfp_run(None, 1, 1, 1, None, None, 1) == INVALID
    assert "Packed weights must be given" in message(native)


MOST = 2**31 - 1
BOUNDS = {
    **dict.fromkeys(["in_channels", "out_channels", "groups"], (1, MOST)),
    **dict.fromkeys(["kernel_h", "kernel_w"], (1, MOST_KERNEL)),
    **dict.fromkeys(["stride_h", "stride_w", "dilation_h", "dilation_w"], (1, MOST)),
    **dict.fromkeys(["pad_top", "pad_bottom", "pad_left", "pad_right"], (0, MOST)),
    **{"basis": (0, 1), "activation": (0, 2)},
}


@pytest.mark.parametrize("name", BOUNDS)
def test_every_field_of_a_convolution_has_bounds(native, name):
    index, (low, high) = list(BOUNDS).index(name), BOUNDS[name]
    out = i64(), i64()
    for value in (low - 1, low, high, high + 1):
        conv = Conv(ConvSpec(1, 1))
        fields, position = (conv.sizes, index) if index < 13 else (conv.kinds, index - 13)
        fields[position] = value
        status = native.tfp_output_size(ctypes.byref(conv), 9, 9, *map(ctypes.byref, out))
        if not low <= value <= high:
            expected = f"{name} must be in [{low}, {high}]. Received: {value}."
            assert status == INVALID and message(native) == expected
        elif name != "groups" or value == 1:
            assert status == OK or "per output channel" in message(native)


@pytest.mark.parametrize("channels", [(4, 3), (3, 4), (3, 3)])
def test_channels_are_multiples_of_groups(native, channels):
    conv, out = Conv(ConvSpec(1, 1)), i64()
    conv.sizes[:3] = [*channels, 2]
    status = native.tfp_output_size(ctypes.byref(conv), 9, 9, ctypes.byref(out), ctypes.byref(out))
    assert status == INVALID and "must be multiples of groups" in message(native)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_images_without_pixels_have_no_output_whatever_the_padding(native, size):
    spec = ConvSpec(1, 1, (1, 1), padding=(2, 2, 2, 2))
    out = i64(-1), i64(-1)
    addresses = map(ctypes.byref, out)
    assert native.tfp_output_size(ctypes.byref(Conv(spec)), *size, *addresses) == OK
    assert [n.value for n in out] == [0 if n == 0 else n + 4 for n in size]


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (ConvSpec(1, 1, (1, 1), padding=(2**29,) * 4), (1, 1, 1)),  # a large output alone
        (ConvSpec(2**20, 1, (1, 1), strides=(2**20, 2**20)), (2**10, 2**10, 2**10)),  # an input
        (ConvSpec(1, 1, (1, 1)), (2**31 - 1, 2**31 - 1, 2**31 - 1)),
    ],
)
def test_tensors_that_are_too_large(native, spec, shape):
    weights = SparseWeights.from_dense(np.zeros((1, 1, spec.in_channels, 1)), spec)
    with Packed(native, weights) as packed:
        assert packed.run(None, None, shape=shape) == INVALID
    assert "must be smaller than 2^46 bytes" in message(native)


def test_what_does_not_fit_into_memory(native):
    """Planes of 2^48 bytes; neither tensor is read before there is memory to work in."""
    channels, width = 2**27, 2**17
    spec = ConvSpec(channels, 1, padding=(1, 1, 1, 1))
    value, column, bias = np.ones(1, "float32"), np.zeros(1, "int32"), np.zeros(0, "float32")
    weights = SparseWeights(spec, value, column, np.array([0, 1]), bias)
    unread = np.zeros(1, "float32")
    with Packed(native, weights) as packed:
        for threads in (1, 2):
            assert packed.run(unread, unread, threads, (1, 1, width)) == NO_MEMORY
            assert message(native) == "There is not enough memory to work in."


def test_kernels_for_other_cpus_cannot_be_selected(native):
    names, index = [], 0
    while (name := native.tfp_kernel_name(index)) is not None:
        names.append(name.decode())
        if not native.tfp_kernel_runs(index):
            assert native.tfp_select_kernel(name) == UNAVAILABLE
            assert message(native) == f"This CPU cannot run the kernel '{name.decode()}'."
        index += 1
    assert set(ops.kernels()) <= set(names)
    assert native.tfp_kernel_name(-1) is None and native.tfp_kernel_runs(-1) == 0


def test_there_are_no_devices(native):
    assert native.tfp_device_kernel_name(0) is None
    out = pointer(1)
    with Packed(native, draw_weights(SPEC, 0.5, True, 0)) as packed:
        status = native.tfp_upload(b"cuda", packed.handle, ctypes.byref(out))
    assert status == INVALID and out.value is None
    assert message(native) == "This build has kernels for CPUs alone. Received: the device 'cuda'."


FORKED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from native.convs import draw_weights
from native.test_c_interface import Packed, library
from tfprune.ops import ConvSpec

def threads():
    return len(os.listdir("/proc/self/task"))

x = np.ones((1, 64, 64, 32), "float32")
y = np.zeros((1, 64, 64, 32), "float32")
spec = ConvSpec(32, 32, padding=(1, 1, 1, 1), basis="dct")
packed = Packed(library(), draw_weights(spec, 0.5, True, 0))
assert packed.run(x, y, 2) == 0
child = os.fork()
if child == 0:
    before, expected = threads(), y.copy()
    y[:] = 0
    fine = packed.run(x, y, 2) == 0 and np.array_equal(y, expected)
    os._exit(0 if fine and threads() == before + 1 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/task").exists() or (os.cpu_count() or 1) < 2, reason="needs two CPUs"
)
def test_a_forked_child_has_workers_of_its_own():
    tests = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", FORKED, tests], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
