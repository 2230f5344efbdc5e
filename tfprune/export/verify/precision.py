"""Half precision models that compute in float32 for a while."""

import contextlib
from collections.abc import Iterator

import keras

from tfprune.graph import _keras


class _Float32Compute(keras.DTypePolicy):
    """Compute in float32 whatever dtype the variables are stored in."""

    def __init__(self, stored: str) -> None:
        super().__init__("float32")
        self._stored = stored

    @property
    def variable_dtype(self) -> str:
        return self._stored


@contextlib.contextmanager
def float32_compute(model: keras.Model) -> Iterator[list[str]]:
    """Let every layer of `model` compute in float32 for a while; yield the dtypes replaced.

    Mobile kernels compute in float32; the weights keep their values, half precision ones are
    cast up. The policies are put back at the end, also after an error.
    """
    changed: list[tuple[keras.Layer, keras.DTypePolicy]] = []
    replaced: list[str] = []
    try:
        for layer in _keras.all_layers(model):
            if layer.compute_dtype not in ("float16", "bfloat16", "float64"):
                continue
            policy = layer.dtype_policy
            if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
                raise ValueError(
                    "A model whose DTypePolicyMap computes in half precision can't be exported; "
                    f"give its layers plain policies. Received: {policy!r}."
                )
            replaced.append(layer.compute_dtype)
            layer.dtype_policy = _Float32Compute(layer.variable_dtype)
            changed.append((layer, policy))
        yield sorted(set(replaced))
    finally:
        for layer, policy in changed:
            layer.dtype_policy = policy
