"""A Keras model seen as a function of named inputs and named outputs, computing in float32."""

import dataclasses
import inspect
import re
from typing import Any

import keras
import numpy as np

_AUTOMATIC = re.compile(r"(input_layer|keras_tensor)(_\d+)?$")


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """An input: its name in the file, its shape with batch 1 (None where open), its dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class View:
    """`view({"image": [n, h, w, cin]}) -> {"output_0": [n, classes]}` for any Keras model.

    Attributes:
        model: the model, which must not change while the view is in use.
        inputs: its inputs, in the order of its input structure.
        structure: its input structure, with zeros for leaves.
        output_names: names of its outputs, () for automatic names.
        typed: whether the model recorded the dtypes of its inputs, not only their shapes.
        built: what was converted from this view.
    """

    model: keras.Model
    inputs: tuple[InputSpec, ...]
    structure: Any
    output_names: tuple[str, ...]
    typed: bool = True
    built: dict[Any, Any] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run the model in inference mode on a batch of every input."""
        packed = keras.tree.pack_sequence_as(self.structure, [batch[i.name] for i in self.inputs])
        leaves = keras.tree.flatten_with_path(self.model(packed, training=False))
        names = self._names_of_outputs([path for path, _ in leaves])
        return {name: tensor for name, (_, tensor) in zip(names, leaves, strict=True)}

    def _names_of_outputs(self, paths: list[tuple[Any, ...]]) -> list[str]:
        if len(paths) == len(self.output_names) and not any(map(_keyed, paths)):
            return list(self.output_names)
        return _names_of_paths(paths, "output")


def view_of(model: keras.Model) -> View:
    """Describe a built model.

    Raises:
        ValueError: if it is not built, its weights are not finite, or its inputs are no numbers.
    """
    if not model.built:
        raise ValueError(
            f"The model must be built before export; call it once on a batch. Received: {model!r}."
        )
    _check_weights(model)
    tensors = _functional_inputs(model)
    if tensors is None:
        structure = _subclass_inputs(model)
    else:
        structure = tensors[0] if isinstance(model, keras.Sequential) else model.input
    leaves = keras.tree.flatten_with_path(structure)
    names = _input_names(leaves)
    specs = [_spec(name, leaf) for name, (_, leaf) in zip(names, leaves, strict=True)]
    template = keras.tree.map_structure(lambda _: 0, structure)
    return View(model, tuple(specs), template, _output_names(model), tensors is not None)


def _spec(name: str, tensor: keras.KerasTensor) -> InputSpec:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype == "string":
        raise ValueError(f"Input '{name}' must hold numbers. Received: dtype string.")
    computed = "float32" if dtype in ("float16", "bfloat16", "float64") else dtype
    return InputSpec(name, (1, *tensor.shape[1:]), computed)


def _functional_inputs(model: keras.Model) -> list[keras.KerasTensor] | None:
    inputs = list(getattr(model, "inputs", None) or ())
    return inputs if inputs and all(isinstance(x, keras.KerasTensor) for x in inputs) else None


def _subclass_inputs(model: keras.Model) -> Any:
    _check_single_argument(model)
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None:
        raise ValueError(
            "The input shapes of this subclassed model are not recorded; call it once on a batch "
            f"of real inputs. Received: {model!r}."
        )
    return _tensors_of_shapes(shapes)


def _check_single_argument(model: keras.Model) -> None:
    parameters = list(inspect.signature(model.call).parameters.values())
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p.name for p in parameters if p.kind in kinds and p.default is p.empty]
    if len(needed) > 1:
        raise ValueError(
            "A subclassed model must take its inputs as a single argument of `call`, an array, "
            f"list or dict; wrap it so before export. Received: `call` with {needed}."
        )


def _tensors_of_shapes(shapes: Any) -> Any:
    if isinstance(shapes, dict):
        return {key: _tensors_of_shapes(shape) for key, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return keras.KerasTensor(tuple(shapes), dtype="float32")
    return [_tensors_of_shapes(shape) for shape in shapes]


def _input_names(leaves: list[tuple[tuple[Any, ...], keras.KerasTensor]]) -> list[str]:
    paths = []
    for path, leaf in leaves:
        automatic = _AUTOMATIC.match(leaf.name) is not None
        paths.append(path if _keyed(path) or automatic else (leaf.name,))
    return _names_of_paths(paths, "input")


def _output_names(model: keras.Model) -> tuple[str, ...]:
    names = tuple(_clean(name) for name in getattr(model, "output_names", None) or ())
    return names if len(set(names)) == len(names) > 1 else ()


def _names_of_paths(paths: list[tuple[Any, ...]], prefix: str) -> list[str]:
    names = []
    for position, path in enumerate(paths):
        name = _clean("_".join(map(str, path))) if _keyed(path) else f"{prefix}_{position}"
        names.append(name)
    if len(set(names)) < len(names):
        return [f"{prefix}_{position}" for position in range(len(names))]
    return names


def _keyed(path: tuple[Any, ...]) -> bool:
    return any(isinstance(key, str) for key in path)


def _clean(name: str) -> str:
    """Change a name to an argument name of a TensorFlow function."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    return name if name[:1].isalpha() and name != "self" else f"x{name}"


def _check_weights(model: keras.Model) -> None:
    for weight in model.weights:
        value = keras.ops.convert_to_tensor(weight).numpy()
        if value.dtype.kind not in "iub" and not np.isfinite(value.astype("float32")).all():
            raise ValueError(
                "Weights must be finite to be exported; go back to an earlier checkpoint. "
                f"Received: NaN or infinity in '{weight.path}'."
            )
