"""The native sparse convolution for TensorFlow, and its dense reference.

Importing this registers the ops, so that SavedModels that hold them load.
"""

from tfprune.maths.sparse_weights import ConvSpec, SparseWeights
from tfprune.ops.conv import pack, packed_conv2d, sparse_conv2d, sparse_frequency_conv2d
from tfprune.ops.dense import reference_conv2d
from tfprune.ops.library import NativeUnavailableError, available, kernels, native, select_kernel

__all__ = [
    "ConvSpec",
    "NativeUnavailableError",
    "SparseWeights",
    "available",
    "kernels",
    "pack",
    "packed_conv2d",
    "reference_conv2d",
    "select_kernel",
    "sparse_conv2d",
    "sparse_frequency_conv2d",
]

native()
