"""Which layers a model is made of, and which of their variables can be pruned."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from tfprune.graph import _keras

_CONV = {1: ("kw",), 2: ("kh", "kw"), 3: ("kd", "kh", "kw")}
Axes = dict[str, tuple[str, ...]]
_RECURRENT: Axes = {"kernel": ("cin", "cout"), "recurrent_kernel": ("cin", "cout")}


def _layer_class(name: str) -> type:
    return getattr(keras.layers, name, type(None))


def _conv_axes() -> Iterator[tuple[type, Axes]]:
    for rank, space in _CONV.items():
        separable = {
            "depthwise_kernel": (*space, "cin", "multiplier"),
            "pointwise_kernel": (*space, "cin", "cout"),
        }
        yield _layer_class(f"SeparableConv{rank}D"), separable
        yield _layer_class(f"DepthwiseConv{rank}D"), {"kernel": (*space, "cin", "multiplier")}
        yield _layer_class(f"Conv{rank}DTranspose"), {"kernel": (*space, "cout", "cin")}
        yield _layer_class(f"Conv{rank}D"), {"kernel": (*space, "cin", "cout")}


# The first class that a layer is an instance of decides, so subclasses stand before their bases.
AXES: tuple[tuple[type, Axes], ...] = (
    *_conv_axes(),
    (keras.layers.Dense, {"kernel": ("cin", "cout")}),
    (keras.layers.EinsumDense, {"kernel": ()}),
    (keras.layers.Embedding, {"embeddings": ("vocabulary", "cout")}),
    (keras.layers.SimpleRNNCell, _RECURRENT),
    (keras.layers.LSTMCell, _RECURRENT),
    (keras.layers.GRUCell, _RECURRENT),
)


def is_auxiliary(layer: keras.Layer) -> bool:
    """Whether a layer is kept beside a model's own layers and is no part of what it computes."""
    return getattr(layer, "is_auxiliary", False)


def is_transparent(layer: keras.Layer) -> bool:
    """Whether a layer only stands for the one in its attribute `layer`."""
    return getattr(layer, "is_transparent", False)


def own_variables(layer: keras.Layer, trainable: bool = True) -> dict[str, keras.Variable]:
    """The layer's own variables by attribute name (`kernel`, `bias`, ...), sub-layers' excluded."""
    own = _keras.own_variables(layer, trainable)
    names: dict[str, keras.Variable] = {}
    for variable in own:
        name = variable.name
        while name in names:
            name += "_"
        names[name] = variable
    return names


def prunable_names(layer: keras.Layer) -> tuple[str, ...]:
    """The names of the layer's prunable kernels, without its biases; empty where there are none.

    A layer class of the user's own is prunable where it subclasses a Keras layer with a kernel, or
    where it lists its variables in an attribute `prunable_weights = ("my_kernel", ...)`.

    Raises:
        ValueError: if `prunable_weights` names what a built layer does not have.
    """
    declared = getattr(type(layer), "prunable_weights", None)
    names = tuple(declared) if declared is not None else tuple(axes_of(layer))
    present = tuple(name for name in names if find_variable(layer, name) is not None)
    if declared is not None and layer.built and present != names:
        raise ValueError(
            f"`prunable_weights` of {type(layer).__name__} must name its variables. "
            f"Received: {names}; the layer has {tuple(own_variables(layer))}."
        )
    return present


def has_kernel(layer: keras.Layer) -> bool:
    """Whether a layer, built or not, is of a kind that has a prunable kernel."""
    return bool(axes_of(layer)) or hasattr(type(layer), "prunable_weights")


def axes_of(layer: keras.Layer) -> Axes:
    """Attribute name -> names of the axes, for the kernels of a layer of a known kind."""
    if isinstance(layer, _keras.ConvLSTMCell):
        axes = (*_CONV[layer.rank], "cin", "cout")
        return {"kernel": axes, "recurrent_kernel": axes}
    return next((axes for cls, axes in AXES if isinstance(layer, cls)), {})


def find_variable(layer: keras.Layer, name: str) -> keras.Variable | None:
    """The variable behind the attribute `name` of a layer, plain or pruned; None if it has none."""
    for key in (f"_{name}", name):
        value = vars(layer).get(key)
        if isinstance(value, keras.Variable):
            return value
    return None


def variable_of(layer: keras.Layer, name: str) -> keras.Variable:
    """`find_variable` for a name that is known to be there."""
    variable = find_variable(layer, name)
    if variable is None:
        raise ValueError(
            f"Layer '{layer.name}' must have a variable `{name}`; build it first. "
            f"Received a layer with {list(own_variables(layer))}."
        )
    return variable


def weighted_layers(model: keras.Layer) -> list[tuple[str, keras.Layer]]:
    """Every innermost layer that owns variables, as (path, layer), in model order, each once.

    Looks into nested models, wrappers, recurrent cells and users' layers. The path joins
    the layers' names with "/", without the model's own; a second layer of that path gets `_1`, ...
    """
    layers: list[tuple[str, keras.Layer]] = []
    seen: set[int] = set()
    paths: dict[str, int] = {}

    def visit(layer: keras.Layer, path: str) -> None:
        if id(layer) in seen or is_auxiliary(layer):
            return
        seen.add(id(layer))
        if own_variables(layer) or own_variables(layer, trainable=False):
            count = paths[path] = paths.get(path, -1) + 1
            layers.append((f"{path}_{count}" if count else path, layer))
        for child in _keras.children(layer):
            visit(child, f"{path}/{child.name}" if path else child.name)

    if not _keras.children(model):
        visit(model, model.name)
    else:
        visit(model, "")
    return layers
