"""`from_keras`: a Keras model as a network, from its file or from memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ArchiveError, ParameterError, shown
from ..layers import INPUT, Shape, shape_text
from ..network import Network
from .advising import Call
from .keras_building import Builder, UnsupportedError, Value, standard_axes
from .keras_functions import FUNCTION_LAYERS
from .keras_graph import Graph, Node, choose_output, flat_graph
from .keras_layers import WEIGHTED_LAYERS
from .keras_layouts import input_sizes, wanted_axes
from .keras_norms import NORMALISING_LAYERS
from .keras_reading import ArgumentError, Description, is_live, opened_model
from .keras_shaping import JOINING_LAYERS, SHAPING_LAYERS
from .keras_steps import at_every_step
from .keras_verifying import compare
from .keras_weights import GroupsByNumber
from .varying import take_frames

if TYPE_CHECKING:
    from ...audio.frontend import Frontend

__all__ = ["from_keras"]

# Messages keep their last 300 characters.
_LONGEST_PATH = 200
_RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D",
              "CuDNNGRU", "CuDNNLSTM")
_LAYERS = {**WEIGHTED_LAYERS, **NORMALISING_LAYERS, **FUNCTION_LAYERS, **SHAPING_LAYERS}


def from_keras(
    model: Any,
    input_shape: Sequence[int | None] | None = None,
    *,
    outputs: str | None = None,
    frontend: Frontend | Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    true_convolution: bool | None = None,
) -> Network:
    """Import a Keras model.

    Neither Keras nor TensorFlow is needed to read a file: its config is JSON and its weights
    are HDF5 arrays, which h5py reads (``pip install 'fastdeconv[keras]'``). Nothing in a file
    is ever executed, so files from unknown sources can be read. For the same reason Lambda layers
    and custom layers cannot be imported.

    Layers keep their names. The activation of a layer becomes a separate layer after it, called
    ``<name>.activation``. Layers of a nested model are called ``outer.inner``; the second use of
    a layer is called ``name:1``. Slashes become dots. The original names with slashes and the
    names of nested models are `aliases` of the network.

    Parameters
    ----------
    model : path, (path, path) or keras.Model
        A ``.keras`` or ``.h5`` file of Keras 1, 2 or 3, which is recognised by its content.
        If config and weights are in two files, give both: ``("config.json", "model.weights.h5")``.
        A model in memory is read by its `get_config` and its weights. Sequential and functional
        models can be imported, nested in any way.
    input_shape : (C, H, W), optional
        Channels, rows and columns, whatever the order in the model; a 1-D network
        has one row. It fills in sizes that the model leaves open. Sizes that remain open
        may vary from clip to clip.
    outputs : str, optional
        The last layer of the network. Layers after it need not be importable.
    frontend : Frontend or dict, optional
        How a clip becomes an input.
    classes : sequence of str, optional
        Names of the outputs.
    name : str, optional
        By default the name of the model.
    true_convolution : bool, optional
        Whether the filters are those of a true convolution, because Keras used Theano. They are
        then flipped along height and width. By default the file decides, by its attribute
        ``backend``, which exists since Keras 2, or by ":0" in the names of Keras 1's arrays,
        which TensorFlow added. If it has neither, the argument must be given.

    Returns
    -------
    Network

    Raises
    ------
    ArchiveError
        If the file is damaged, unsafe or over a limit, or has a layer that cannot be imported.
        The message names the layer, and the call that imports the layers below it.
    ParameterError
        If an argument is wrong, h5py is missing, or a model in memory cannot be imported or
        computes other values than the network.
    FileNotFoundError
        If there is no such file.

    Notes
    -----
    A model in memory is compared with the network, layer by layer, on random input. Each layer
    must agree to 1e-4 of its maximum; the network's `receipt` says how well they agree. A file is
    not compared, because that would mean running it.

    Average pools with ``padding="same"`` leave the padding out of the average, as Keras does
    with TensorFlow and JAX. Keras with PyTorch repeats the last row if the padding is uneven;
    such a model in memory is refused.

    Examples
    --------
    >>> net = fd.from_keras("tagger.h5", classes=["rock", "jazz"])  # doctest: +SKIP
    >>> net = fd.from_keras("crnn.keras", outputs="conv5")          # doctest: +SKIP
    """
    if true_convolution is not None and not isinstance(true_convolution, (bool, np.bool_)):
        raise ParameterError(
            f"true_convolution must be True, False or None, found {shown(true_convolution)}"
        )
    live = is_live(model)
    with opened_model(model) as description:
        graph = flat_graph(description.model)
        try:
            last = choose_output(graph, outputs, _call(model))
        except ParameterError as exc:
            raise ArgumentError(str(exc)) from None
        places = graph.needed(last)
        start = _only_input(graph, places, _call(model))
        flipped = _flips(description, graph, places, true_convolution)
        build = Builder(
            description.weights, description.major, wanted_axes(graph.nodes, places), flipped
        )
        values = {start: _input(graph.nodes[start], build, input_shape)}
        _convert(graph, places, build, values, _call(model))
        own = description.model.get("config")
        title = own.get("name") if isinstance(own, Mapping) else None
        if not isinstance(title, str) or not title.isprintable():
            title = None
        try:
            net = Network(
                build.layers, build.built_arrays, values[start].shape, frontend=frontend,
                classes=classes, name=title if name is None else name,
                aliases=_aliases(graph, build, {**values, start: None}),
            )
        except ParameterError as exc:
            raise ArgumentError(str(exc)) from exc.__cause__
        take_frames(net)
        if live:
            net.receipt = compare(model, description.weights, graph, values, net)
        return net


def _aliases(
    graph: Graph, build: Builder, values: Mapping[int, Value | None]
) -> dict[str, str]:
    """Original names with slashes, and names of nested models, for layers with other names."""
    names = {layer.name for layer in build.layers}
    aliases = {}
    for name, place in graph.ends.items():
        value = values.get(place)
        if value is None or name in names or name == INPUT or value.name not in names:
            continue
        legal = name.replace("/", ".")
        aliases[name] = legal if legal in names else value.name
    return aliases


def _call(model: Any) -> Call:
    """The call that imports this model, for messages."""
    if is_live(model):
        return Call("from_keras(model, ", has_command=False)
    if isinstance(model, (tuple, list)):
        pair = ", ".join(map(_quoted, model))
        return Call(f"from_keras(({pair}), ", has_command=False)
    return Call(f"from_keras({_quoted(model)}, ", has_command=True)


def _quoted(path: Any) -> str:
    """A path in a form that can be copied from a message, unless it is too long."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    whole = isinstance(text, str) and text.isprintable() and len(text) < _LONGEST_PATH
    return repr(text) if whole else shown(text)


def _only_input(graph: Graph, places: Sequence[int], call: Call) -> int:
    """The one input that the layers in `places` depend on."""
    inputs = [place for place in places if graph.nodes[place].kind == "InputLayer"]
    for place in places:
        node = graph.nodes[place]
        if not node.inputs and place not in inputs:
            why = node.custom or "it has no input"
            raise ArchiveError(_refusal(graph, place, why, call))
    if places[-1] in inputs:
        raise ArgumentError("outputs: the network would end at its input")
    if len(inputs) != 1:
        names = ", ".join(graph.nodes[place].name for place in inputs) or "none"
        text = f"found {len(inputs)} inputs ({names}), wanted one"
        alone = [
            graph.nodes[place].name for place in places
            if place not in inputs and len(set(graph.needed(place)).intersection(inputs)) == 1
        ]
        if alone:
            text += (
                "; choose a last layer before the one that joins them: "
                f"{call.with_argument('outputs', alone[-1])}"
            )
        raise ArgumentError(text)
    return inputs[0]


def _flips(
    description: Description, graph: Graph, places: Sequence[int], asked: bool | None
) -> bool:
    """Whether the filters are those of a true convolution."""
    if asked is not None:
        return bool(asked)
    if description.backend is not None:
        return description.backend == "theano"
    if description.major == 3 or isinstance(description.weights, GroupsByNumber):
        return False
    sliding = [graph.nodes[i] for i in places if _slides(graph.nodes[i])]
    if not sliding:
        return False
    names = [name for node in sliding for name in description.weights.names(node.path)]
    if any(name.endswith(":0") for name in names):
        return False
    raise ArgumentError(
        "the file does not say whether Keras used Theano, whose filters are flipped, or "
        "TensorFlow; give true_convolution=True for Theano, False for TensorFlow"
    )


def _slides(node: Node) -> bool:
    """Whether flipping the filters would change the layer."""
    size = node.config.get("kernel_size")
    return "Conv" in node.kind and size not in (1, [1], [1, 1])


def _input(node: Node, build: Builder, given: Sequence[int | None] | None) -> Value:
    """The network's input: from the model, and from the argument `input_shape`."""
    if given is not None and (
        not isinstance(given, (tuple, list)) or len(given) != 3
        or not all(n is None or (isinstance(n, (int, np.integer)) and n > 0) for n in given)
    ):
        raise ArgumentError(
            f"input_shape must be (C, H, W), each a positive int or None, found {shown(given)}"
        )
    sizes, wish = input_sizes(node.config), build.wanted.get(node.name)
    if sizes is None and given is None:
        whole = node.config.get("batch_shape", node.config.get("batch_input_shape"))
        if isinstance(whole, (list, tuple)) and len(whole) > 4:
            raise ArgumentError(
                f"its input has {len(whole) - 1} axes after the batch, {shown(list(whole[1:]))}, "
                "and a network has at most three: channels, rows and columns. If it is a sequence "
                "of pictures, import the model of a single picture"
            )
        raise ArgumentError(
            "the model does not say how large its input is; give input_shape=(C, H, W)"
        )
    rank = len(wish or "HWC") if sizes is None else len(sizes)
    axes = wish if wish is not None and len(wish) == rank else standard_axes(rank)
    known = dict(zip(axes, sizes or [None] * rank))
    c, h, w = (known.get(axis, 1) for axis in "CHW")
    if given is not None:
        shape: Shape = (given[0], given[1], given[2])
        pairs = list(zip((c, h, w), shape))
        if any(None not in (own, n) and own != n for own, n in pairs):
            raise ArgumentError(
                f"input_shape: found {shape_text(shape)}, but the model takes "
                f"{shape_text((c, h, w))} (channels x rows x columns)"
            )
        c, h, w = (n if own is None else own for own, n in pairs)
    return Value(INPUT, axes, (c, h, w))


def _convert(
    graph: Graph, places: Sequence[int], build: Builder, values: dict[int, Value], call: Call
) -> None:
    """Make the layers of all `places`, in order, and add their outputs to `values`."""
    for place in places:
        if place in values:
            continue
        node = graph.nodes[place]
        try:
            if node.custom is not None:
                raise UnsupportedError(node.custom)
            node = at_every_step(node, [values[i] for i in node.inputs])
            taken = [values[i] for i in node.inputs]
            if node.kind in JOINING_LAYERS and len(taken) > 1:
                values[place] = JOINING_LAYERS[node.kind](node, build, taken)
            elif node.kind in _LAYERS and len(taken) == 1:
                values[place] = _LAYERS[node.kind](node, build, taken[0])
            else:
                raise UnsupportedError(_why_not(node))
        except UnsupportedError as exc:
            raise ArchiveError(_refusal(graph, place, str(exc), call)) from None


def _why_not(node: Node) -> str:
    if node.kind in _LAYERS or node.kind in JOINING_LAYERS:
        return f"it has {len(node.inputs)} inputs"
    if node.kind in _RECURRENT:
        return "there is no layer for recurrent networks"
    if node.kind in ("Lambda", "TFOpLambda", "SlicingOpLambda"):
        function = node.config.get("function")
        what = f" ({shown(function)})" if isinstance(function, str) else ""
        return f"it runs a Python function{what}, which is never executed"
    return "there is no layer for it"


def _refusal(graph: Graph, place: int, why: str, call: Call) -> str:
    """The message about a layer that cannot be imported."""
    node = graph.nodes[place]
    below = [i for i in graph.needed(place)[:-1] if graph.nodes[i].kind != "InputLayer"]
    text = f"layer {shown(node.name)} ({node.kind}) cannot be imported: {why}"
    if not below:
        return text
    names = ", ".join(graph.nodes[i].name for i in below)
    # The call comes last, because messages that are too long lose their middle.
    return (
        f"{text}. The layers before it are {names}; they can be imported: "
        f"{call.with_argument('outputs', graph.nodes[below[-1]].name)}"
    )
