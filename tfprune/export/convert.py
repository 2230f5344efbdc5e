"""Targets: each turns a view of a Keras model into the bytes of a `.tflite` file."""

import contextlib
import dataclasses
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfprune.export import blocks, forms, mobile, sparse_file, sparse_mode
from tfprune.export.flat import FlatFile
from tfprune.export.layer_form import LayerForm, speed_up
from tfprune.export.precision import float32_compute
from tfprune.export.result import ExportError
from tfprune.export.runtime import Row
from tfprune.export.storage import FLOAT32, STORAGES, VALUES, Storage
from tfprune.export.view import View


@dataclasses.dataclass(frozen=True)
class Built:
    """The bytes of a file, and what there is to say of its layers and of itself."""

    data: bytes
    layers: tuple[LayerForm, ...] = ()
    notes: tuple[str, ...] = ()


Build = Callable[[View, Storage, list[Row]], Built]

_SIGNATURE = "serving_default"
WORTH = 1.2  # times faster on phones, from which a form is taken for its speed


def dense(view: View, storage: Storage, calibration: list[Row]) -> Built:
    """Convert with ordinary dense tensors; runs on every TFLite runtime. No sparsity option.

    Once for a view and a storage, where that needs no calibration.
    """
    if storage in view.built and not calibration:
        return view.built[storage]
    with tempfile.TemporaryDirectory() as folder, _explained(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s).*tf\.lite\.Interpreter is deprecated")
        with float32_compute(view.model):
            _save(view, folder)
        view.built[storage] = Built(_convert(folder, storage, calibration))
    return view.built[storage]


def _smallest_graph(view: View, storage: str) -> tuple[forms.Prepared, bytes]:
    """The model in its smallest form and its dense file, made once for a view."""
    if ("smallest", storage) not in view.built:
        prepared = forms.smallest(view.model, storage)
        other = dataclasses.replace(view, model=prepared.model)
        plain = dense(other, STORAGES["float32"], []).data
        view.built["smallest", storage] = prepared, plain
    return view.built["smallest", storage]


def smallest(view: View, storage: Storage, calibration: list[Row]) -> Built:
    """Convert, then store the weights as compressed rows.

    Raises:
        ExportError: where a phone's runtime would compute the sparse graph wrongly.
    """
    prepared, plain = _smallest_graph(view, storage.name)
    data = sparse_file.store(FlatFile(plain), storage.values)
    opened, ops = sparse_mode.check(plain).entries, op_counts(data)
    ends = any(kind in ops for kind in sparse_mode.SINKS)
    if opened and ends and "DENSIFY" in ops and sparse_mode.check(data).complaints:
        raise ExportError(
            f"With sparse weights, phones would compute this model wrongly: {opened[0]} opens "
            "XNNPACK's sparse mode, which the layers behind it do not fit. Use target='dense', or "
            'give that convolution another stride, padding="same", or a fourth input channel.'
        )
    return Built(data, prepared.layers, prepared.notes)


def mobile_sparse(view: View, storage: Storage, calibration: list[Row]) -> Built:
    """Convert, put the graph in the form of XNNPACK's sparse mode, store compressed rows.

    Raises:
        ExportError: with a sentence for everything that stands in the way of the mode.
    """
    return _mobile_sparse(dense(view, STORAGES["float32"], []).data, storage)


def _mobile_sparse(plain: bytes, storage: Storage) -> Built:
    """The form of a dense float32 file."""
    found = mobile.rewrite(plain, storage.name)
    complaints = list(found.complaints)
    if not complaints:
        data = sparse_file.store(found.file, storage.values, found.norms)
        checked = sparse_mode.check(data)
        complaints += checked.complaints
        if not complaints and not checked.runs:
            complaints.append(
                f"only {checked.zeros:.0%} of the weights of its 1x1 convolutions are zeros, and "
                f"the mode is taken from {sparse_mode.LEAST_ZEROS:.0%} on: prune more"
            )
    if complaints:
        raise ExportError(
            "This model does not run in XNNPACK's sparse mode from its entry to its global average "
            f"pooling. {_listed(complaints)}. Change that, or use "
            "target='smallest' or 'dense'."
        )
    return Built(data, found.layers)


def mobile_blocks(view: View, storage: Storage, calibration: list[Row]) -> Built:
    """Convert, and compute the layers that have 1x4 blocks of zeros by TFLite's block kernel.

    Raises:
        ExportError: where there is no such layer.
    """
    return _mobile_blocks(dense(view, storage, []).data, storage)


def _mobile_blocks(plain: bytes, storage: Storage) -> Built:
    """The form of a dense float32 file."""
    data, layers = blocks.rewrite(plain)
    if not any(layer.form == "blocks" for layer in layers):
        reasons = [f"'{layer.name}': {layer.note}" for layer in layers]
        raise ExportError(
            "No layer of this model gets faster as 1x4 blocks of weights along its inputs. "
            f"{_listed(reasons)}. Prune with "
            "FrequencyDomain(granularity='input4'), or use another target."
        )
    return Built(data, layers)


def _listed(reasons: list[str]) -> str:
    """The first eight, and how many more there are."""
    left = len(reasons) - 8
    return "; ".join(reasons[:8]) + (f"; and {left} more" if left > 0 else "")


def auto(view: View, storage: Storage, calibration: list[Row]) -> Built:
    """The form that is fastest on phones, where one is by a fifth at least; else the smallest.

    Dense where phones would compute that one wrongly.
    """
    built, reasons = {}, []
    converted = dense(view, STORAGES["float32"], []).data
    for name, form in (("mobile-sparse", _mobile_sparse), ("mobile-sparse-block", _mobile_blocks)):
        if storage.name not in TARGETS[name].storages:
            reasons.append(f"not {name!r}: it keeps float32 weights only")
            continue
        try:
            built[name] = form(converted, storage)
        except ExportError as error:
            reasons.append(f"not {name!r}: {error}")
    speeds = {name: speed_up(one.layers) for name, one in built.items()}
    best = max(speeds, key=speeds.__getitem__, default=None)
    if best is not None and speeds[best] >= WORTH:
        gain = f"{best!r}: on phones its layers are about {speeds[best]:.1f} times faster"
        return dataclasses.replace(built[best], notes=(gain, *reasons))
    reasons += [f"not {n!r}: only {speed:.2f} times faster, about" for n, speed in speeds.items()]
    try:
        found = smallest(view, storage, calibration)
    except ExportError as error:
        name = "float32" if storage.values == "float32" else "float16"
        notes = [f"'dense', in {name}: phones compute it right", *reasons]
        found = dense(view, STORAGES[name], [])
        return dataclasses.replace(found, notes=(*notes, f"not 'smallest': {error}"))
    plain = len(dense(view, STORAGES["int8_dynamic"], []).data)
    notes = [f"'smallest', which is no faster than dense; dense int8 takes {plain:,} bytes"]
    return dataclasses.replace(found, notes=(*notes, *reasons, *found.notes))


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of file: what builds it, and the storages that it knows."""

    name: str
    build: Build
    storages: Mapping[str, Storage] = dataclasses.field(default_factory=lambda: STORAGES)


TARGETS = {
    target.name: target
    for target in (
        Target("dense", dense),
        Target("smallest", smallest, VALUES),
        Target("mobile-sparse", mobile_sparse, VALUES),
        Target("mobile-sparse-block", mobile_blocks, FLOAT32),
        Target("auto", auto, VALUES),
    )
}


def find_target(name: object) -> Target:
    """Return the target of that name."""
    target = TARGETS.get(name) if isinstance(name, str) else None
    if target is None:
        raise ValueError(f"`target` must be one of {tuple(TARGETS)}. Received: {name!r}.")
    return target


def op_counts(data: bytes) -> dict[str, int]:
    """Return how often each builtin op occurs in the file, all subgraphs together."""
    counts: Counter[str] = Counter()
    for name in _op_names(data):
        counts[name] += 1
    return dict(sorted(counts.items()))


def check_calibration(data: bytes) -> None:
    """Refuse a graph with loops or branches: calibrating one ends the whole process."""
    loops = {"WHILE", "IF", "CALL_ONCE"} & set(op_counts(data))
    if loops:
        raise ExportError(
            f"storage='int8' can't calibrate a graph with {sorted(loops)} (recurrent layers). "
            "Build them with unroll=True, or use storage='int8_dynamic' or 'float16'."
        )


def _op_names(data: bytes) -> Iterator[str]:
    from ai_edge_litert import schema_py_generated as schema

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = schema.Model.GetRootAs(data, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    numbers = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for position in range(graph.OperatorsLength()):
            yield names[numbers[graph.Operators(position).OpcodeIndex()]]


def _save(view: View, folder: str) -> None:
    """Write a SavedModel with one signature; it alone keeps variables and names together."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def serve(**inputs: Any) -> dict[str, Any]:
        return {name: tf.identity(value) for name, value in view(inputs).items()}

    specs = {x.name: tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in view.inputs}
    traced = serve.get_concrete_function(**specs)
    module = tf.Module()
    module.captured = list(traced.variables)
    tf.saved_model.save(module, folder, signatures={_SIGNATURE: traced})


def _convert(folder: str, storage: Storage, calibration: list[Row]) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[_SIGNATURE])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if storage.values != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if storage.values == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if storage.calibrated:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: iter(calibration)
    return bytes(converter.convert())


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ExportError(
            f"The model can't be converted with builtin TFLite ops: {type(error).__name__}: "
            f"{' '.join(lines[:6])[:800]}. Replace the op named there, fix open input sizes "
            "(recurrent layers need them), or export the part of the model without it."
        ) from error
