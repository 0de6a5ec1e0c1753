"""Make a network of a checked ONNX model, and compare it with that model."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ...audio.clip import Clip
from ...errors import ArchiveError, ParameterError, shown
from ..network import Network
from .building import Builder, Draft
from .ends import Heard, Wishes, ancestors, last_layer
from .folding import fold
from .frontends import recognise, sample_rate
from .graph import Graph
from .inputs import Declared, declared_inputs, fixed_shape
from .names import layer_names, module_aliases, module_of
from .operators import OPERATORS
from .passes import rewrite
from .start import input_view
from .varying import take_frames, varying_shape
from .verifying import (
    Original,
    Witness,
    difference,
    value_of,
    values_of,
    verify,
    with_exact_stft,
)
from .views import View
from .witness import as_wide_as_shown, whole_output, witnessed

__all__ = ["import_model"]

#: Tolerance of the comparison from samples on: logarithms enlarge the rounding errors of an STFT.
_HEARD_TOLERANCE = 5e-3


def import_model(model: Any, label: str, wishes: Wishes) -> Network:
    """Make a network of a model; see `from_onnx`.

    Parameters
    ----------
    model : ModelProto
        As `read_model` returns it.
    label : str
        The name of the file or module in messages.
    wishes : Wishes
    """
    sr = sample_rate(wishes.frontend)
    if sr is not None:
        return _with_its_front_end(model, label, wishes, sr)
    graph, declared = _folded(model, label, wishes)
    graph.drop_dead()
    rewrite(graph)
    start = input_view(graph)
    if start is None:
        raise ParameterError(
            f"the input {shown(graph.input)} has the shape {graph.shapes[graph.input]}, wanted a "
            "batch of 1 and at most three axes that are longer than 1"
        )
    builder = Builder(graph)
    builder.run(start, OPERATORS)
    names = layer_names(builder.drafts, graph, wishes.modules)
    aliases = module_aliases(graph, builder.views, names, builder.drafts, wishes.modules)
    built = _Built(builder, start, names, aliases, last_layer(builder, names, aliases, wishes))
    network = _network_of(built, declared, wishes)
    original = Original(model, graph.input, graph.shapes, start)
    network = _compared(network, built, original, declared, wishes)
    take_frames(network)
    logging.getLogger("fastdeconv").info("%s: %s", label, network.receipt)
    return network


class _Built(NamedTuple):
    """The layers made from a graph, and which of them is the last of the network."""

    builder: Builder
    start: View
    """How the model's input is read from the network's."""
    names: list[str]
    aliases: dict[str, tuple[int, View]]
    last: int


def _network_of(built: _Built, declared: Declared | None, wishes: Wishes) -> Network:
    """The network that ends with the last layer."""
    builder, start, names, aliases, last = built
    kept = ancestors(builder.drafts, last)
    layers, arrays = _records(builder.drafts, names, kept)
    frontend, open_sizes = wishes.frontend, declared
    if wishes.heard is not None:
        frontend = wishes.heard.found.in_layout(start)
        # The time axis of a front end may have any length.
        open_sizes = tuple(
            "time" if letter == "T" else n
            for letter, n in zip(wishes.heard.found.letters, start.shape)
        )
    fixed = builder.graph.sized or any(builder.drafts[place].sized for place in kept)
    held = [builder.held, *(builder.drafts[place].held for place in kept)]
    return Network(
        layers, arrays,
        varying_shape(layers, arrays, start, open_sizes, fixed=fixed, held=held),
        frontend=frontend, classes=wishes.classes, name=wishes.name,
        aliases=_plain_aliases(aliases, names, kept),
    )


def _compared(
    network: Network, built: _Built, original: Original, declared: Declared | None, wishes: Wishes
) -> Network:
    """The network with a receipt of its comparison; sizes and aliases that differ are dropped."""
    builder, start, names, aliases, last = built
    kept = ancestors(builder.drafts, last)
    drafts, names_kept = [builder.drafts[i] for i in kept], [names[i] for i in kept]
    receipt, x, found = verify(network, drafts, names_kept, original)
    if wishes.heard is not None:
        receipt += f"; {_heard_alike(network, builder.drafts[last], names[last], wishes.heard)}"
    if wishes.witness is not None:
        network, count = witnessed(
            network, wishes.witness(x), found, builder, names, aliases, last
        )
        receipt += f"; {count} output{'' if count == 1 else 's'} of modules too"
        network = as_wide_as_shown(
            network, _of_layers(wishes.witness, builder, last), start, names[last]
        )
    else:
        end, sizes = builder.drafts[last].value, declared[1:] if declared else ()
        if end:
            # A file whose sizes are fixed may refuse others.
            network = as_wide_as_shown(
                network, lambda x: {"": [value_of(original, end, x)]}, start, names[last],
                may_fail=all(isinstance(n, int) for n in sizes),
            )
    network.receipt = receipt
    return network


def _of_layers(witness: Witness, builder: Builder, last: int) -> Witness:
    """The witness; without the output of the whole module, unless that is the layer `last`."""
    whole = whole_output(builder, last) is not None
    return lambda x: {name: found for name, found in witness(x).items() if name or whole}


def _with_its_front_end(model: Any, label: str, wishes: Wishes, sr: float) -> Network:
    """The network of a model that takes samples; its spectrogram becomes the front end."""
    graph, _ = _folded(model, label, wishes)
    original = Original(with_exact_stft(model), graph.input, graph.shapes)
    found = recognise(graph, sr, lambda x, names: values_of(original, names, x))
    return import_model(model, label, replace(
        wishes, inputs=found.value, input_shape=graph.shapes[found.value],
        frontend=None, witness=None,
        heard=Heard(found, lambda name: value_of(original, name, found.samples)),
    ))


def _heard_alike(network: Network, last: Draft, name: str, heard: Heard) -> str:
    """Compare from samples to the last layer, and say in words how well they agree."""
    assert last.view is not None
    assert network.frontend is not None
    clip = Clip(heard.found.samples.ravel(), network.frontend.sr, network.frontend)
    wanted = last.view.of_layer(heard.value(last.value))
    off = difference(network.forward(clip.x)[name], wanted)
    if off > _HEARD_TOLERANCE:
        raise ArchiveError(
            f"from sound to {shown(name)} through the front end that was recognised, the network "
            f"differs from the model by {off:.1e} of its largest value; it is not imported"
        )
    told = f"from sound to {name} through the front end: equal to {off:.0e}"
    if network.frontend.preemphasis:
        told += " (the first sample may be emphasised in another way)"
    return told


def _folded(model: Any, label: str, wishes: Wishes) -> tuple[Graph, Declared | None]:
    """The graph after the chosen input, and the shape of that input in the file."""
    inputs = declared_inputs(model)
    if not inputs:
        raise ArchiveError("the model has no input")
    if wishes.inputs is None or wishes.inputs in inputs:
        start = wishes.inputs
        if start is None and len(inputs) > 1:
            raise ParameterError(
                f"the model has the inputs {', '.join(map(shown, inputs))}, and a network has "
                f"one; say which with {wishes.call.with_argument('inputs', next(iter(inputs)))}"
            )
        start = start or next(iter(inputs))
        shape = fixed_shape(start, inputs[start], wishes.input_shape)
        return fold(model, {start: shape}, start, label), inputs[start]
    start = _inner_value(model, wishes, inputs, label)
    if wishes.input_shape is not None:
        shape = fixed_shape(start, None, wishes.input_shape)
        return fold(model, {start: shape}, start, label), None
    before = _whole(model, inputs, label)
    if start not in before.shapes:
        raise ParameterError(
            f"the shape of {shown(start)} cannot be computed; give it as input_shape"
        )
    return fold(model, {start: before.shapes[start]}, start, label), None


def _whole(model: Any, inputs: Mapping[str, Declared | None], label: str) -> Graph:
    given = {name: fixed_shape(name, shape, None) for name, shape in inputs.items()}
    return fold(model, given, next(iter(given)), label)


def _inner_value(
    model: Any, wishes: Wishes, inputs: Mapping[str, Declared | None], label: str
) -> str:
    """The value called `wishes.inputs`, or the output of the node or module of that name."""
    name = wishes.inputs
    assert name is not None
    for node in model.graph.node:
        if name in node.output:
            return name
    for node in model.graph.node:
        if node.name == name and node.output:
            return str(node.output[0])
    if name in wishes.modules:
        ends = _put_out(_whole(model, inputs, label), name, wishes.modules)
        if len(ends) == 1:
            return ends[0]
        raise ParameterError(
            f"inputs: the module {shown(name)} has {len(ends)} outputs"
            f"{': ' if ends else ''}{', '.join(ends)}; wanted one"
        )
    some = [node.output[0] for node in model.graph.node[:20] if node.output]
    raise ParameterError(
        f"inputs: the model has no input, node or value {shown(name)}; the first values are "
        f"{', '.join(some)}"
    )


def _put_out(graph: Graph, module: str, modules: Collection[str]) -> list[str]:
    """The values of a module that are used outside it."""
    def inside(node: Any) -> bool:
        return f"{module_of(node, graph, modules)}.".startswith(f"{module}.")

    taken = {name for node in graph.nodes if not inside(node) for name in node.inputs}
    return [
        name for node in graph.nodes if inside(node) for name in node.outputs
        if name in taken or name in graph.outputs
    ]


def _records(
    drafts: Sequence[Draft], names: Sequence[str], kept: Sequence[int]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    layers, arrays = [], {}
    for place in kept:
        draft = drafts[place]
        inputs = ["input" if k < 0 else names[k] for k in draft.inputs]
        layers.append(
            {"type": draft.kind, "name": names[place], "inputs": inputs, **draft.parameters}
        )
        arrays.update({f"{names[place]}.{key}": array for key, array in draft.arrays.items()})
    return layers, arrays


def _plain_aliases(
    aliases: Mapping[str, tuple[int, View]], names: Sequence[str], kept: Collection[int]
) -> dict[str, str]:
    return {alias: names[place] for alias, (place, _) in aliases.items() if place in set(kept)}
